"""The shares of right answers: values, kinds, states that survive half precision, and sums over processes."""

from typing import Any

import pytest
import torch
from torchmetrics import MetricCollection

from lightning_edit.errors import EditError
from lightning_edit.metrics import (
    Generalization,
    Locality,
    LocalityGold,
    Portability,
    Reliability,
    share_right,
    share_right_by_kind,
)
from tests.ranks import in_two_processes

ALL = [Reliability, Generalization, Locality, LocalityGold, Portability]
KINDS = ("near", "same", "far")


@pytest.mark.parametrize("cls", ALL)
def test_share_over_batches_is_the_share_of_all(cls: Any) -> None:
    batches = [[True, False], [True], [False, False, True, True, True]]
    metric = cls()
    for batch in batches:
        metric.update(batch)
    assert metric.compute().item() == pytest.approx(5 / 8)
    assert metric(torch.tensor([False, False])).item() == 0  # forward gives the batch's own value
    assert metric.compute().item() == pytest.approx(5 / 10)
    metric.reset()
    metric.update(torch.tensor([[True], [False]]))
    assert metric.compute().item() == 0.5


def test_nothing_seen_is_nan_not_zero() -> None:
    metric = Reliability()
    metric.update([])
    assert metric.compute().isnan()
    assert share_right([]).isnan()


@pytest.mark.parametrize("cls", [Locality, Portability])
def test_kinds_are_counted_apart_and_together(cls: Any) -> None:
    metric = cls(kinds=KINDS)
    metric.update([True, False, True], ["near", "near", "same"])
    metric.update([False], ["near"])
    name = cls.__name__.lower()
    result = {key: value.item() for key, value in metric.compute().items()}
    expected = {name: 0.5, f"{name}/near": pytest.approx(1 / 3), f"{name}/same": 1.0}  # `far` was never seen
    assert result == expected
    functional = share_right_by_kind([True, False, True, False], ["near", "near", "same", "near"])
    assert {k: v.item() for k, v in functional.items()} == {"near": pytest.approx(1 / 3), "same": 1.0}


def test_wrong_use_is_named() -> None:
    with pytest.raises(EditError, match="judge the answers first"):
        Reliability().update(torch.tensor([0.9, 0.1]))
    with pytest.raises(EditError, match="judge the answers first"):
        Reliability().update([1, 0])  # type: ignore[list-item]
    with pytest.raises(EditError, match="give both or none"):
        Locality(kinds=KINDS).update([True])
    with pytest.raises(EditError, match="give both or none"):
        Locality().update([True], ["near"])
    with pytest.raises(EditError, match="'other'"):
        Locality(kinds=KINDS).update([True], ["other"])
    with pytest.raises(EditError, match="2 verdicts and 1 kinds"):
        Locality(kinds=KINDS).update([True, False], ["near"])


def test_half_precision_leaves_the_sums_alone() -> None:
    metric = Reliability()
    metric.update(torch.ones(1000, dtype=torch.bool))
    metric.to(torch.bfloat16)
    metric.update([False])
    assert (metric.right.item(), metric.total.item()) == (1000, 1001)


def test_collection_keeps_the_keys_apart() -> None:
    collection = MetricCollection({"locality": Locality(kinds=["a"]), "portability": Portability(kinds=["a"])})
    collection["locality"].update([True], ["a"])
    collection["portability"].update([False], ["a"])
    values = {key: value.item() for key, value in collection.compute().items()}
    assert values == {"locality": 1, "locality/a": 1, "portability": 0, "portability/a": 0}


def _work(rank: int) -> dict[str, torch.Tensor]:
    plain, kinds = Reliability(), Locality(kinds=KINDS)
    plain.update([True] if rank == 0 else [True, False, False])
    kinds.update([True, False] if rank == 0 else [False], ["near", "near"] if rank == 0 else ["same"])
    found = {"plain": plain.compute(), **kinds.compute()}
    assert plain.total.item() == (1 if rank == 0 else 3)  # local again after the reduction
    return found


@pytest.mark.slow
def test_two_processes_add_up(tmp_path: Any) -> None:
    for found in in_two_processes(_work, tmp_path):
        result = {key: value.item() for key, value in found.items()}
        third = pytest.approx(1 / 3)
        assert result == {"plain": 0.5, "locality": third, "locality/near": 0.5, "locality/same": 0.0}
