"""WISE's closed rules are those of the loops: merges, the router, margins, shards."""

import random

import pytest
import torch
from torch import nn

from lightning_edit.editors.forward_settings import WiseSettings
from lightning_edit.editors.wise.merging import merge
from lightning_edit.editors.wise.routing import activation_difference, route
from lightning_edit.editors.wise.side import NEWER, OLDER, Side
from lightning_edit.editors.wise.teaching import margin_loss
from tests.callbacks.training import same
from tests.reference_grace_wise import activation_difference as difference_loops
from tests.reference_grace_wise import margins, ties


def test_ties_is_that_of_the_loops() -> None:
    for seed in range(30):
        draw = random.Random(seed)
        vectors = [[draw.gauss(0, 1) for _ in range(12)] for _ in range(draw.choice([1, 2, 3]))]
        for kept in (0.3, 0.53, 1.0):
            found = merge([torch.tensor(vector, dtype=torch.float64).view(3, 4) for vector in vectors], "ties", kept)
            assert found.flatten().tolist() == pytest.approx(ties(vectors, kept), rel=1e-12)


def test_the_other_merges() -> None:
    one, two = torch.tensor([[4.0, -1.0, 0.5, 0.0]]), torch.tensor([[-2.0, -3.0, 0.1, 0.0]])
    assert merge([one, two], "linear").tolist() == [[1.0, -2.0, pytest.approx(0.3), 0.0]]
    assert merge([one, two], "sign").tolist() == [[4.0, -2.0, pytest.approx(0.3), 0.0]]
    assert merge([one, two], "magnitude", 0.25).tolist() == [[2.0, -1.5, 0.0, 0.0]]
    many = torch.ones(1, 20_000)
    thin = merge([many], "dare_linear", 0.25, seed=3)
    assert set(thin.unique().tolist()) == {0.0, 4.0}  # the rest is scaled up
    assert float(thin.mean()) == pytest.approx(1.0, abs=0.05)
    assert torch.equal(merge([many], "dare_linear", 0.25, seed=3), thin)
    assert merge([many, -3 * many], "dare_ties", 0.5, seed=1).unique().tolist() == [-6.0, 0.0, 2.0]


def test_the_router_is_that_of_the_loops() -> None:
    generator = torch.Generator().manual_seed(0)
    y, other = (torch.randn(2, 5, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    prompt = torch.tensor([[False, True, True, True, False], [True, True, False, False, False]])
    found = activation_difference(y, other, prompt, nn.functional.silu)
    for row in range(2):
        kept = prompt[row].nonzero()[:, 0]
        expected = difference_loops(y[row, kept].tolist(), other[row, kept].tolist())
        assert float(found[row]) == pytest.approx(expected, rel=1e-12)
    differences = torch.tensor([[1.0, 5.0, 0.7, 2.0], [2.0, 4.0, 0.7, 0.1]])
    assert route(differences, [2.0, 1.0], 0.5).tolist() == [1, 0, 1, 0]
    assert route(differences, [20.0, 10.0], 0.5).tolist() == [-1, -1, -1, -1]


def test_the_margins_are_those_of_the_loops() -> None:
    draw = random.Random(1)
    for _ in range(20):
        edited, unrelated = ([draw.uniform(0, 3) for _ in range(count)] for count in (4, 2))
        bounds = tuple(draw.uniform(0, 2) for _ in range(3))
        found = margin_loss(torch.tensor(edited, dtype=torch.float64), torch.tensor(unrelated).double(), *bounds)
        assert float(found) == pytest.approx(margins(edited, unrelated, *bounds), rel=1e-6)
    assert float(margin_loss(torch.tensor([9.0]), torch.tensor([0.0]), 1.0, 2.0, 3.0)) == 0.0


@pytest.mark.parametrize("retrieve", [True, False])
def test_shards_are_put_by_and_merged(retrieve: bool) -> None:
    settings = WiseSettings(shard_edits=2, merge_shards=2, merge="linear", retrieve=retrieve)
    side = Side.blank(2, 3, torch.float64)
    assert side.memories == []
    seen = []
    for number in range(1, 10):
        side = side.after(torch.full((2, 3), float(number), dtype=torch.float64), 10.0 - number, settings, 0)
        seen.append([(float(memory.task[0, 0]), memory.threshold, memory.edits) for memory in side.memories])
    assert seen[0] == [(1.0, 9.0, 1)]
    assert seen[1] == [(2.0, 8.0, 2)]  # full, not merged; the next one starts from nothing
    assert seen[2] == [(2.0, 8.0, 2), (3.0, 7.0, 1)]
    assert seen[3] == [(3.0, 6.0, 4)]
    merged = 7.0 if retrieve else OLDER * 3 + NEWER * 7
    assert seen[7] == ([(3.0, 6.0, 4), (7.0, 2.0, 4)] if retrieve else [(pytest.approx(merged), 2.0, 8)])
    assert (side.shard, side.edits) == (4, 9)
    again = Side.of(side.tensors())
    assert same(again.tensors(), side.tensors())
