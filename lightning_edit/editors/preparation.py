"""Where an editor's key statistics come from: a file, moments in memory, or a corpus.

They are never collected behind the user's back in the middle of an edit: that is a pass over a corpus, and belongs
where its cost is seen. This file finds moments for the layers that are asked for; it makes no priors.
"""

from collections.abc import Iterable, Mapping, Sequence
from os import PathLike
from pathlib import Path

from lightning_edit.algebra import KeyCovariance, load_statistics
from lightning_edit.errors import StatisticsError
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.model.statistics import collect_statistics, expected_identity

StatisticsSource = str | PathLike[str] | Mapping[int, KeyCovariance]


def find_statistics(
    lm: LanguageModel,
    layers: Sequence[int],
    statistics: StatisticsSource | None = None,
    corpus: Iterable[str] | None = None,
    max_tokens: int | None = None,
) -> dict[int, KeyCovariance]:
    """Key moments of some layers.

    Args:
        lm: The language model.
        layers: The layers.
        statistics: A file, or moments by layer.
        corpus: Texts to collect them from, in one pass.
        max_tokens: Read this much of the corpus at most.
    """
    if (statistics is None) == (corpus is None):
        raise StatisticsError(
            f"got {'neither' if statistics is None else 'both'} key statistics and a corpus; expected one of them. "
            + how_to_get(layers)
        )
    if corpus is not None:
        return dict(collect_statistics(lm, corpus, layers, max_tokens))
    if isinstance(statistics, Mapping):
        return _checked(lm, layers, statistics)
    return load_statistics(Path(statistics or ""), expected_identity(lm, layers), layers)


def _checked(lm: LanguageModel, layers: Sequence[int], given: Mapping[int, KeyCovariance]) -> dict[int, KeyCovariance]:
    """Moments in memory, if they are there and of the right size."""
    missing = [layer for layer in layers if layer not in given]
    if missing:
        raise StatisticsError(
            f"there are key statistics of layers {sorted(given)}, not of {missing}. Collect those too."
        )
    for layer in layers:
        if given[layer].size != lm.site(layer).inner:
            raise StatisticsError(
                f"the key statistics of layer {layer} are of keys of length {given[layer].size}; expected "
                f"{lm.site(layer).inner}. Are they of another model?"
            )
    return {layer: given[layer] for layer in layers}


def how_to_get(layers: Sequence[int]) -> str:
    """What a user can do who has no statistics.

    Args:
        layers: The layers that are needed.
    """
    return (
        f"An editor needs the second moment of the keys of layers {list(layers)}: call "
        "editor.prepare(module, corpus=texts), or save what collect_statistics gives with save_statistics and call "
        "editor.prepare(module, statistics=path). In training, KeyCovarianceTracker collects them from the batches."
    )
