"""Every metric on two gloo processes: records cut in two, uneven shares, one process with nothing."""

from typing import Any

import pytest
import torch

from lightning_edit.metrics import (
    Consistency,
    EfficacyMagnitude,
    EfficacySuccess,
    EventAccuracy,
    Fluency,
    Generalization,
    Idf,
    Locality,
    LocalityGold,
    NeighborhoodMagnitude,
    NeighborhoodSuccess,
    ParaphraseMagnitude,
    ParaphraseSuccess,
    Portability,
    Reliability,
    Score,
    TeacherForcedTokenAccuracy,
    TokenLocality,
)
from tests.ranks import in_two_processes

NEW, OLD = torch.tensor([-1.0, -3.0, -3.0, -1.0, -0.5]), torch.tensor([-2.0, -2.0, -2.0, -2.0, -2.5])
RECORDS = ["a", "b", "b", "b", "c"]
KINDS = ["efficacy", "paraphrase", "neighborhood", "neighborhood", "paraphrase"]
RIGHT = [True, True, False, True, True]
NEAR = ["near", "far", "far", "far", "far"]
COMPARISONS: list[Any] = [
    EfficacySuccess,
    EfficacyMagnitude,
    ParaphraseSuccess,
    ParaphraseMagnitude,
    NeighborhoodSuccess,
    NeighborhoodMagnitude,
]
SHARES: list[Any] = [Reliability, Generalization, Locality, LocalityGold]
TOKENS = [[True], [True, False], [False], [True, True, True], [True]]
BEFORE, AFTER = [[1, 2], [3], [4, 5], [6], [7]], [[1, 2], [3], [4, 9], [8], [7]]
TEXTS = ["a b a b a", "one two three", "no", "c c d c", "x y z x y z"]
IDF = Idf.fit(["one two", "two three", "one xx"])


def everything(part: slice) -> dict[str, Any]:
    """Every metric, fed with a part of the data."""
    metrics: dict[str, Any] = {
        **{kind.__name__: kind() for kind in COMPARISONS},
        **{kind.__name__: kind() for kind in SHARES},
        "portability": Portability(kinds=["near", "far"]),
        "score": Score(),
        "events": EventAccuracy(),
        "tokens": TeacherForcedTokenAccuracy(),
        "locality": TokenLocality(),
        "fluency": Fluency(),
        "consistency": Consistency(IDF),
    }
    new, old, records, right = NEW[part], OLD[part], RECORDS[part], RIGHT[part]
    if not records:
        return metrics  # not even an update
    for comparison in COMPARISONS:
        metrics[comparison.__name__].update(new, old, records)
    for share in SHARES:
        metrics[share.__name__].update(right)
    metrics["portability"].update(right, NEAR[part])
    metrics["score"].update(new, old, KINDS[part], records)
    metrics["events"].update(right, records)
    metrics["tokens"].update(TOKENS[part], records)
    metrics["locality"].update(BEFORE[part], AFTER[part])
    metrics["fluency"].update(TEXTS[part], records)
    metrics["consistency"].update([[text] for text in TEXTS[part]], [["one two"]] * len(records))
    return metrics


def computed(metrics: dict[str, Any]) -> dict[str, Any]:
    return {name: metric.compute() for name, metric in metrics.items()}


def _work(rank: int) -> dict[str, Any]:
    parts = {"uneven": [slice(0, 2), slice(2, 5)], "one has nothing": [slice(0, 5), slice(0, 0)]}
    found = {}
    for name, shares in parts.items():
        metrics = everything(shares[rank])
        found[name] = computed(metrics)
        held = torch.cat(metrics["events"].value).numel()
        assert held == len(RECORDS[shares[rank]])  # local again after the reduction
    return found


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_two_processes_count_as_one(tmp_path: Any) -> None:
    ranks = in_two_processes(_work, tmp_path)
    expected = computed(everything(slice(0, 5)))
    assert expected["score"] > 0
    assert expected["events"].item() == pytest.approx(2 / 3)
    for rank, parts in enumerate(ranks):
        for name, found in parts.items():
            for metric, value in found.items():
                torch.testing.assert_close(value, expected[metric], msg=f"{metric} on rank {rank}, {name}")
