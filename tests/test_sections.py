"""Rows of unlike lengths in a few rectangles: what comes out is what one rectangle gives, row by row."""

from itertools import combinations

import pytest
import torch

from lightning_edit.model.language_model import LanguageModel
from lightning_edit.targets import sections
from lightning_edit.targets.columns import Column, TargetPrompt
from lightning_edit.targets.rows import Row, make_rows
from lightning_edit.targets.sections import Sections, cut
from lightning_edit.targets.tail import Tail

LENGTHS = [
    [3] * 20 + [4] * 18 + [2] * 9 + [12, 11, 10],
    [7],
    [1, 1, 1, 2],
    list(range(1, 30)),
    [5, 1, 5, 1, 40, 5],
]


@pytest.mark.parametrize("reading", [0, 2, 7, 40])
@pytest.mark.parametrize("lengths", LENGTHS)
def test_no_other_cut_is_cheaper(lengths: list[int], reading: int) -> None:
    groups = cut(lengths, reading)
    assert sorted(i for group in groups for i in group) == list(range(len(lengths)))
    assert all(group == sorted(group) for group in groups)
    cost = sum(len(group) * max(lengths[i] for i in group) + reading for group in groups)
    steps = sorted({*lengths})
    for count in range(min(len(steps), 4)):
        for bounds in combinations(steps[:-1], count):
            ends = [*bounds, steps[-1]]
            padded = sum(min(end for end in ends if end >= length) for length in lengths)
            assert cost <= padded + reading * len(ends)


def rows_of_unlike_lengths(lm: LanguageModel) -> list[Row]:
    columns = []
    for name, target in (("Anna", "Rome"), ("Boris", "a very long way from here to there and back")):
        texts = [f"{name} lives in", f"It is well known that {name} lives in"]
        prompts = [TargetPrompt(text, (text.index(name), text.index(name) + len(name)), target) for text in texts]
        kept = [(f"{name} {words}", (0, len(name))) for words in ("sees", "was last seen near the old harbour of")]
        columns.append(Column(name, prompts, (f"{name} is a", (0, len(name))), kept))
    return make_rows(lm, columns)


@pytest.mark.parametrize("prefix_cache", [True, False])
def test_sections_give_what_one_rectangle_gives(
    tiny_lm: LanguageModel, prefix_cache: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sections, "CPU_READING", 2)  # few rows are worth cutting only where reading is cheap
    lm, layer = tiny_lm, 0
    rows = rows_of_unlike_lengths(lm)
    with lm.borrow():
        one = Tail(lm, layer, rows, prefix_cache=prefix_cache)
        several = Sections(lm, layer, rows, prefix_cache=prefix_cache)
        assert len(several.tails) > 1
        for kept in (range(len(rows)), [1, 2, 4, 7, 9], [4]):
            if len(kept) < len(rows):
                one.keep(torch.tensor(kept))
                several.keep(torch.tensor(kept))
            assert torch.allclose(several.start, one.start, atol=1e-6)
            offset = torch.randn(one.start.shape, generator=torch.Generator().manual_seed(0)).to(one.start)
            assert torch.allclose(several.logits(offset), one.logits(offset), atol=1e-4)
