"""One pass over a corpus for the key statistics of all layers, against one pass for each layer.

The plain way is what published scripts do: for every layer, run the corpus through the model up to that layer. Both
ways use `collect_statistics`, with the same batches, the same float64 sums and forwards that stop behind the deepest
layer that is asked for, so only forward passes are saved. A second pair has the three layers of a typical edit.

Run it alone: `python -m benchmarks covariance`
"""

from collections.abc import Sequence
from functools import partial
from itertools import islice

import torch

from benchmarks.setting import Sizes, make_module
from benchmarks.timing import Clock, Row, compare, stopwatch
from lightning_edit.algebra.moments import KeyCovariance
from lightning_edit.data.world import World
from lightning_edit.data.world.corpus import documents
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.model.statistics import collect_statistics

Moments = dict[int, KeyCovariance]


def measure(sizes: Sizes, clock: Clock) -> list[Row]:
    """Compare one pass with one pass per layer.

    Args:
        sizes: How many documents.
        clock: By which clock.
    """
    lm = make_module(sizes).language_model
    texts = [document.text for document in islice(documents(World(), seed=1), sizes.corpus_texts)]
    rows = []
    for layers in (list(range(sizes.blocks)), list(range(1, min(4, sizes.blocks)))):
        _check(lm, texts[:16], layers)
        ways = {
            f"{len(layers)} layers, a pass for each": stopwatch(partial(each, lm, texts, layers), clock),
            f"{len(layers)} layers, one pass": stopwatch(partial(collect_statistics, lm, texts, layers), clock),
        }
        rows += compare("covariance", ways, sizes.corpus_rounds)
    return rows


def each(lm: LanguageModel, texts: Sequence[str], layers: Sequence[int]) -> Moments:
    """Moments by layer, with a pass for each layer.

    Args:
        lm: The language model.
        texts: The corpus.
        layers: The layers.
    """
    return {layer: collect_statistics(lm, texts, [layer])[layer] for layer in layers}


def _check(lm: LanguageModel, texts: Sequence[str], layers: Sequence[int]) -> None:
    """Both ways give the same moments."""
    together = collect_statistics(lm, texts, layers)
    for layer, moment in each(lm, texts, layers).items():
        torch.testing.assert_close(together[layer].moment, moment.moment)
