"""Key statistics on disk: one safetensors file that knows whose statistics they are.

Knows the file's layout and the identity that is written into it. Refuses to hand out statistics of another model: wrong
statistics do not fail, they edit the wrong directions. A file appears under its name only when it is complete.

Layout: for each layer two float64 tensors, `layer.<i>.sum` (n,) and `layer.<i>.second`, the upper triangle of the sum
of k kᵀ packed column by column (as LAPACK does); everything else is in the metadata.
"""

import json
import os
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file

from lightning_edit.algebra.moments import KeyCovariance
from lightning_edit.errors import StateError, StatisticsError

FORMAT = "lightning_edit.key_statistics"
VERSION = "1"


@dataclass(frozen=True, slots=True)
class Identity:
    """Whose statistics these are, and of what.

    Args:
        model: Stable hash or name of the model whose keys were read.
        sites: Path of the edited projection for every layer.
        corpus: Hash or name of the text; None in an expectation means any.
        dtype: Precision in which the model read the text; None in an expectation means any.
    """

    model: str
    sites: Mapping[int, str] = field(default_factory=dict)
    corpus: str | None = None
    dtype: str | None = None

    def differences(self, found: "Identity") -> list[str]:
        """Say how a file's identity differs from this expectation; empty when it fits.

        Args:
            found: The identity in the file.
        """
        pairs: list[tuple[str, str | None, str | None]] = [("model", found.model, self.model)]
        pairs += [(f"site of layer {i}", found.sites.get(i), s) for i, s in self.sites.items() if i in found.sites]
        pairs += [("corpus", found.corpus, self.corpus)] if self.corpus is not None else []
        pairs += [("dtype", found.dtype, self.dtype)] if self.dtype is not None else []
        return [f"{name} is {have!r}, expected {want!r}" for name, have, want in pairs if have != want]


def save_statistics(path: str | Path, statistics: Mapping[int, KeyCovariance], identity: Identity) -> None:
    """Write statistics of several layers, atomically: the old file stays until the new one is complete.

    Args:
        path: The file; its folder is made.
        statistics: Moments by layer.
        identity: Whose they are.
    """
    states = {layer: covariance.state_dict() for layer, covariance in sorted(statistics.items())}
    tensors = {
        f"layer.{layer}.{name}": state[name].cpu() for layer, state in states.items() for name in ("sum", "second")
    }
    counts = {str(layer): state["count"] for layer, state in states.items()}
    metadata = {
        "format": FORMAT,
        "version": VERSION,
        "model": identity.model,
        "sites": json.dumps({str(layer): site for layer, site in identity.sites.items()}),
        "corpus": json.dumps(identity.corpus),
        "dtype": json.dumps(identity.dtype),
        "counts": json.dumps(counts),
        "sizes": json.dumps({str(layer): state["size"] for layer, state in states.items()}),
        "tokens": str(max(counts.values(), default=0)),
    }
    _write(Path(path), tensors, metadata)


def load_statistics(
    path: str | Path, expect: Identity | None = None, layers: Iterable[int] | None = None
) -> dict[int, KeyCovariance]:
    """Read statistics back, refusing those of another model.

    Args:
        path: A file of `save_statistics`.
        expect: Whose statistics they must be; what is None or absent in it is not compared. None takes any.
        layers: Which layers to read; None reads all.

    Returns:
        Moments by layer, on the CPU.

    Raises:
        StatisticsError: The file is missing, damaged, of another kind or of another model, or has no such layer.
    """
    metadata = _metadata(Path(path))
    _refuse(Path(path), expect, identity_of(metadata))
    counts, sizes = json.loads(metadata["counts"]), json.loads(metadata["sizes"])
    wanted = [int(layer) for layer in counts] if layers is None else list(layers)
    missing = [layer for layer in wanted if str(layer) not in counts]
    if missing:
        raise StatisticsError(
            f"{path} has statistics of layers {sorted(map(int, counts))}, not of {missing}. Collect those layers."
        )
    try:
        with safe_open(path, framework="pt") as file:
            return {i: _covariance(file, i, sizes[str(i)], counts[str(i)]) for i in wanted}
    except (SafetensorError, StateError) as error:
        raise StatisticsError(f"{path} is damaged ({error}). Collect the statistics again.") from error


def read_identity(path: str | Path) -> Identity:
    """Whose statistics a file holds, without reading them.

    Args:
        path: A file of `save_statistics`.
    """
    return identity_of(_metadata(Path(path)))


def identity_of(metadata: Mapping[str, str]) -> Identity:
    """Parse the identity out of a file's metadata.

    Args:
        metadata: The file's metadata.
    """
    return Identity(
        model=metadata["model"],
        sites={int(layer): site for layer, site in json.loads(metadata["sites"]).items()},
        corpus=json.loads(metadata["corpus"]),
        dtype=json.loads(metadata["dtype"]),
    )


def _metadata(path: Path) -> dict[str, str]:
    """Metadata of a statistics file of a version this code reads."""
    if not path.is_file():
        raise StatisticsError(f"There is no statistics file {path}. Collect statistics and save them there first.")
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except SafetensorError as error:
        raise StatisticsError(f"{path} is no complete safetensors file ({error}). Collect again.") from error
    if metadata.get("format") != FORMAT:
        raise StatisticsError(f"{path} holds {metadata.get('format')!r}; expected {FORMAT!r}. Is it another file?")
    if metadata.get("version") != VERSION:
        raise StatisticsError(f"{path} has version {metadata.get('version')}; expected {VERSION}. Collect again.")
    return dict(metadata)


def _refuse(path: Path, expect: Identity | None, found: Identity) -> None:
    """Raise when the file belongs to somebody else."""
    differences = [] if expect is None else expect.differences(found)
    if differences:
        raise StatisticsError(
            f"{path} holds the statistics of something else: {'; '.join(differences)}. "
            f"The file says {found}; expected {expect}. Collect statistics for this model, or name its own file."
        )


def _covariance(file: Any, layer: int, size: int, count: int) -> KeyCovariance:
    """Moments of one layer out of an open file."""
    covariance = KeyCovariance(size)
    total, second = file.get_tensor(f"layer.{layer}.sum"), file.get_tensor(f"layer.{layer}.second")
    known = bool(total.isfinite().all()) or bool(total.isnan().all())  # all nan: imported without a mean
    if not (known and bool(second.isfinite().all())):
        raise StateError(f"layer {layer} is not finite")
    covariance.load_state_dict({"size": size, "count": count, "sum": total, "second": second})
    return covariance


def _write(path: Path, tensors: dict[str, Any], metadata: dict[str, str]) -> None:
    """Write beside the file, flush to disk, then rename: a killed process leaves the old file or the new one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        save_file(tensors, temporary, metadata)
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
