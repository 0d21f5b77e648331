"""Second moments of keys as the code of ROME, MEMIT, AlphaEdit and EasyEdit keeps them: one `.npz` file a layer.

Such a file holds `mom2.count`, the number of tokens, and `mom2.mom2` (n, n), the *sum* of k kᵀ over them in float32;
where the mean was collected too, also `mean.count` and `mean.mean`. Whose keys they are stands only in the path,
`<model>/<corpus>_stats/<site>_<precision>_<what>[_t<tokens>][_<texts>].npz`. This file reads both and knows no model;
`model/imported_statistics.py` compares them with one.
"""

import re
import zipfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lightning_edit.algebra.moments import KeyCovariance
from lightning_edit.errors import StatisticsError

ASYMMETRY = 1e-3  # of the largest entry: what sums of millions of float32 products may differ by across the diagonal
_NAME = re.compile(
    r"(?P<site>.+)_(?P<precision>float\d\d)_(?:mom2|mean|norm_mean)(?:-(?:mom2|mean|norm_mean))*"
    r"(?:_t(?:\d+|\{batch_tokens\}))?(?:_(?P<texts>\d+))?\.npz"
)


@dataclass(frozen=True, slots=True)
class MomentFile:
    """What the path of a moment file says.

    Args:
        path: The file.
        site: Path of the projection whose inputs were read; None where the name does not say.
        model: Name of the model's folder, with `_` for `/`; None where the file lies in another kind of folder.
        corpus: Name of the corpus.
        precision: Precision of the sums.
        texts: Number of texts that were read.
    """

    path: Path
    site: str | None = None
    model: str | None = None
    corpus: str | None = None
    precision: str | None = None
    texts: int | None = None


def describe_moments(path: str | Path) -> MomentFile:
    """Read what a moment file's path says about it.

    Args:
        path: The file.

    Example:
        >>> found = describe_moments("gpt2-xl/wikipedia_stats/transformer.h.17.mlp.c_proj_float32_mom2_100000.npz")
        >>> found.site, found.model, found.corpus, found.texts
        ('transformer.h.17.mlp.c_proj', 'gpt2-xl', 'wikipedia', 100000)
    """
    file = Path(path)
    folder = file.parent.name
    corpus = folder.removesuffix("_stats") if folder.endswith("_stats") else None
    model = (file.parent.parent.name or None) if corpus else None
    match = _NAME.fullmatch(file.name)
    if match is None:
        return MomentFile(file, model=model, corpus=corpus)
    texts = match["texts"]
    return MomentFile(file, match["site"], model, corpus, match["precision"], int(texts) if texts else None)


def read_moments(path: str | Path, size: int | None = None) -> KeyCovariance:
    """Read one moment file.

    Args:
        path: The file.
        size: Length n of the keys that are expected; None takes any.

    Returns:
        The moments, on the CPU. Its `mean` is known only if the file has one.

    Raises:
        StatisticsError: The file is missing, damaged, of another kind or of keys of another length.
    """
    file = Path(path)
    with _opened(file) as arrays:
        second, count = _second(arrays, file, size)
        total = _total(arrays, file, second.shape[0], count)
    covariance = KeyCovariance(second.shape[0])
    lower = torch.tril_indices(*second.shape)
    packed = second[lower[0], lower[1]]
    covariance.load_state_dict({"size": second.shape[0], "count": count, "sum": total, "second": packed})
    return covariance


@contextmanager
def _opened(file: Path) -> Iterator["np.lib.npyio.NpzFile"]:
    """The archive, without anything that could run code."""
    if not file.is_file():
        raise StatisticsError(f"There is no moment file {file}; expected an .npz file of ROME, MEMIT or EasyEdit.")
    with open(file, "rb") as handle:  # numpy leaves a file that it cannot read open
        try:
            found = np.load(handle, allow_pickle=False)
        except (zipfile.BadZipFile, ValueError, OSError, EOFError) as error:
            raise StatisticsError(f"{file} is no complete .npz file ({error}). Fetch or collect it again.") from error
        if not isinstance(found, np.lib.npyio.NpzFile):
            raise StatisticsError(f"{file} holds one array; expected an .npz archive with mom2.mom2 and mom2.count.")
        with found:
            yield found


def _second(arrays: Mapping[str, "np.ndarray"], file: Path, size: int | None) -> tuple[Tensor, int]:
    """Sum of k kᵀ (n, n) in float64, exactly symmetric, and the number of tokens."""
    missing = [key for key in ("mom2.mom2", "mom2.count") if key not in arrays]
    if missing:
        raise StatisticsError(
            f"{file} has no {' and no '.join(missing)}; it holds {', '.join(arrays) or 'nothing'}. Expected the second "
            "moment as layer_stats of ROME and MEMIT writes it (to_collect has to name mom2)."
        )
    second, count = _tensor(arrays, "mom2.mom2", file), int(arrays["mom2.count"])
    if second.ndim != 2 or second.shape[0] != second.shape[1]:
        raise StatisticsError(f"{file}: mom2.mom2 has shape {tuple(second.shape)}; expected a square matrix.")
    if size is not None and second.shape[0] != size:
        raise StatisticsError(
            f"{file} is of keys of length {second.shape[0]}; expected {size}. It belongs to another model, or to "
            "another module than the FFN's output projection."
        )
    if count < 1:
        raise StatisticsError(f"{file}: mom2.count is {count}; expected at least one token. Collect it again.")
    gap, largest = float((second - second.mT).abs().max()), float(second.abs().max())
    if bool((second.diagonal() < 0).any()) or gap > ASYMMETRY * largest:
        raise StatisticsError(
            f"{file}: mom2.mom2 is no sum of k kᵀ (it differs from its transpose by {gap:.3g}, its largest entry is "
            f"{largest:.3g}, its smallest diagonal entry {float(second.diagonal().min()):.3g}). Collect it again."
        )
    return (second + second.mT) / 2, count


def _total(arrays: Mapping[str, "np.ndarray"], file: Path, size: int, count: int) -> Tensor:
    """Sum of the keys (n,); all nan where the file does not know it."""
    if "mean.mean" not in arrays:
        return torch.full((size,), torch.nan, dtype=torch.float64)
    mean, tokens = _tensor(arrays, "mean.mean", file).reshape(-1), int(arrays["mean.count"])
    if mean.shape != (size,) or tokens != count:
        raise StatisticsError(
            f"{file}: mean.mean has {mean.numel()} entries over {tokens} tokens; expected {size} over {count}, as for "
            "mom2.mom2. Collect it again."
        )
    return mean * count


def _tensor(arrays: Mapping[str, "np.ndarray"], key: str, file: Path) -> Tensor:
    """One array in float64."""
    try:
        array = arrays[key]
    except (zipfile.BadZipFile, ValueError, OSError, EOFError) as error:
        raise StatisticsError(f"{file}: {key} cannot be read ({error}). Fetch or collect it again.") from error
    if array.dtype.kind != "f":
        raise StatisticsError(f"{file}: {key} is of type {array.dtype}; expected floating-point numbers.")
    tensor = torch.from_numpy(array.astype(np.float64))
    if not bool(tensor.isfinite().all()):
        raise StatisticsError(f"{file}: {key} is not finite; expected finite sums. Collect it again in float32.")
    return tensor
