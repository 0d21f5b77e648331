"""Key statistics that the code of ROME, MEMIT, AlphaEdit or EasyEdit has collected, for a model that is at hand.

Collecting takes hours on large models, and many have the files. Wrong files do not fail, they edit the wrong
directions: so the module, the length of keys and, where the path says it, the model are compared. This file knows paths
and sites; the format stands in `algebra/moment_import.py`.
"""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path

from lightning_edit.algebra.moment_import import MomentFile, describe_moments, read_moments
from lightning_edit.algebra.statistics_file import Identity
from lightning_edit.errors import StatisticsError
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.model.statistics import KeyStatistics


def import_statistics(
    lm: LanguageModel,
    source: str | Path | Mapping[int, str | Path],
    layers: Sequence[int] | None = None,
    other_model: bool = False,
) -> KeyStatistics:
    """Key statistics out of `.npz` files of second moments.

    An editor takes what comes back as it is (`editor.prepare(lm, statistics=found)`); `save_statistics(path, found,
    found.identity)` makes a file of it that is found again when a run is resumed.

    Args:
        lm: The language model.
        source: A folder with one file a layer, such as `data/stats/gpt2-xl/wikipedia_stats`, or files by layer.
        layers: The layers; None takes all that are there.
        other_model: Take files whose path names another model, of the same shape: the base model's for its chat
            model, say.

    Raises:
        StatisticsError: A file is missing, damaged, of another model, of another module or of keys of another length.
    """
    files = _by_layer(lm, source, layers)
    found, origins = {}, set()
    for layer, path in sorted(files.items()):
        described = describe_moments(path)
        _refuse(lm, layer, described, other_model)
        found[layer] = read_moments(path, lm.site(layer).inner)
        origins.add(_origin(described))
    identity = Identity(
        model=lm.identity,
        sites={layer: lm.site(layer).name for layer in found},
        corpus=f"imported from {'; '.join(sorted(origins))}",
    )
    return KeyStatistics(found, identity)


def _by_layer(
    lm: LanguageModel, source: str | Path | Mapping[int, str | Path], layers: Sequence[int] | None
) -> dict[int, Path]:
    """The file of each layer."""
    if isinstance(source, Mapping):
        given = {layer: Path(path) for layer, path in source.items()}
    else:
        given = _in_folder(lm, Path(source), layers)
    missing = [layer for layer in (given if layers is None else layers) if layer not in given]
    if missing or not given:
        raise StatisticsError(
            f"found moment files of layers {sorted(given)}, not of {missing or 'any layer'}; expected one .npz file "
            f"for each, such as {lm.sites[0].name}_float32_mom2_100000.npz. Looked in {source}."
        )
    return given if layers is None else {layer: given[layer] for layer in layers}


def _in_folder(lm: LanguageModel, folder: Path, layers: Sequence[int] | None) -> dict[int, Path]:
    """The files in a folder, by the site in their name."""
    if not folder.is_dir():
        raise StatisticsError(f"{folder} is no folder; expected one with .npz files, or a mapping from layer to file.")
    sites = {site.name: site.layer for site in lm.sites if layers is None or site.layer in layers}
    found: dict[int, Path] = {}
    for path in sorted(folder.glob("*.npz")):
        layer = sites.get(describe_moments(path).site or "")
        if layer is None:
            continue
        if layer in found:
            raise StatisticsError(
                f"{folder} has two files for layer {layer}: {found[layer].name} and {path.name}; expected one. Name "
                "the right ones: source={layer: file}."
            )
        found[layer] = path
    return found


def _refuse(lm: LanguageModel, layer: int, file: MomentFile, other_model: bool) -> None:
    """Raise when the path says that the file is of something else."""
    if file.site not in (None, lm.site(layer).name):
        raise StatisticsError(
            f"{file.path} was read at {file.site}; layer {layer} of this model has its site at "
            f"{lm.site(layer).name}. Give the file of that module."
        )
    name = str(lm.model.config._name_or_path or "").rstrip("/").split("/")[-1]
    if other_model or not name or file.model is None:
        return
    if not _plain(file.model).endswith(_plain(name)):
        raise StatisticsError(
            f"{file.path} is of the model {file.model!r}; this one is {name!r}. Moments of another model edit the "
            "wrong directions. Pass other_model=True if the two are meant to share them."
        )


def _plain(name: str) -> str:
    """A model's name for comparison: letters and digits, without the prefix that some hub names have."""
    return re.sub(r"[^a-z0-9]", "", name.lower().replace("meta-", ""))


def _origin(file: MomentFile) -> str:
    """Corpus, number of texts and model, as far as the path says them."""
    texts = f"{file.texts} texts of " if file.texts else ""
    return f"{texts}{file.corpus or 'an unnamed corpus'} ({file.model or 'model not named'})"
