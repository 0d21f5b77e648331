"""GRACE's codebook: its rule is that of the loops, and who is left out of reach is named."""

import random
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
import torch

from lightning_edit.editors.grace import learning
from lightning_edit.editors.grace.book import CodeBook
from lightning_edit.editors.grace.codebook import SLACK, Lesson, fold, out_of_reach
from lightning_edit.editors.grace.lookup import Table
from lightning_edit.errors import LedgerError
from tests.callbacks.training import same
from tests.editors.forward import (
    Make,
    fact,
    grace,
    prompts_of,
    written,
)
from tests.reference_grace_wise import codebook, lookup


def lessons(points: Sequence[Sequence[float]], targets: Sequence[str]) -> dict[str, Lesson]:
    """What a codebook knows of points in the plane."""
    return {
        str(number): Lesson(torch.tensor(point, dtype=torch.float64), (ord(target),), torch.full((2,), float(number)))
        for number, (point, target) in enumerate(zip(points, targets, strict=True))
    }


def test_the_codebook_is_that_of_the_loops() -> None:
    seen: dict[str, int] = {}
    for seed in range(40):
        draw = random.Random(seed)
        points = [[draw.uniform(0, 4), draw.uniform(0, 4)] for _ in range(15)]
        targets = [draw.choice("abc") for _ in range(15)]
        expected, events = codebook(points, targets, 0.6, SLACK)
        known = lessons(points, targets)
        found = fold((), known, known, 0.6)
        assert [[int(name) for name in entry.members] for entry in found] == [entry[2] for entry in expected]
        assert [entry.radius for entry in found] == pytest.approx([entry[1] for entry in expected], rel=1e-12)
        half = fold(fold((), list(known)[:7], known, 0.6), list(known)[7:], known, 0.6)
        assert half == found  # any batching
        table = Table.of(found, known, torch.device("cpu"))
        queries = [[draw.uniform(-1, 5), draw.uniform(-1, 5)] for _ in range(20)]
        hits = [lookup(query, [entry[0] for entry in expected], [entry[1] for entry in expected]) for query in queries]
        assert table.find(torch.tensor(queries, dtype=torch.float64)).tolist() == hits
        for event in events + ["hit" if hit >= 0 else "miss" for hit in hits]:
            seen[event] = seen.get(event, 0) + 1
    assert all(seen[event] > 30 for event in ("add", "expand", "split", "hit", "miss"))


def test_a_split_makes_no_radius_larger() -> None:
    known = lessons([[0.0], [0.8], [1.9]], "aba")
    entries = fold((), known, known, 1.0)
    assert [entry.radius for entry in entries] == pytest.approx([0.4, 0.4, 0.55], rel=1e-9)


def test_who_is_left_out_of_reach_by_a_split_is_named() -> None:
    known = lessons([[0.0], [1.5], [1.6], [1.5]], "aaba")
    first, second, third, fourth = (
        CodeBook(entries=fold((), list(known)[:n], known, 1.0), lessons=known) for n in (1, 2, 3, 4)
    )
    assert [entry.members for entry in third.entries] == [("0", "1"), ("2",)]
    assert [entry.radius for entry in third.entries] == pytest.approx([0.8, 0.8])
    assert [out_of_reach(book.entries, known) for book in (first, second, third, fourth)] == [[], [], ["1"], ["1"]]
    assert second.notes(first) == fourth.notes(third) == []
    (note,) = third.notes(second)
    assert "request '1' is out of reach: the entry of '0'" in note
    assert "has the radius 0.8 after a split" in note
    assert fourth.entries[-1].members == ("3",)  # the same point again has an entry that it finds


def test_an_edit_says_who_it_leaves_out_of_reach(make_lm: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = make_lm()
    made = grace(lm, radius=1.0, steps=1)
    places = {"r1": 0.0, "r3": 1.5, "r5": 1.6, "r7": 50.0}
    read = learning.Teacher.lessons

    def on_a_line(self: Any, batch: Any, rows: Any) -> dict[str, Lesson]:
        return {
            name: replace(lesson, query=torch.full_like(lesson.query, 0).index_fill(0, torch.tensor([0]), places[name]))
            for name, lesson in read(self, batch, rows).items()
        }

    monkeypatch.setattr(learning.Teacher, "lessons", on_a_line)
    assert made.edit(lm, [fact(1, "city"), fact(3, "city")]).notes == []
    (note,) = made.edit(lm, [fact(5, "known")]).notes
    assert "request 'r3' is out of reach" in note
    assert made.edit(lm, [fact(7, "known")]).notes == []  # it was said
    assert [request.id for request in made.requests] == ["r1", "r3", "r5", "r7"]
    made.undo(lm, "r3")
    places["again"] = 1.5
    assert made.edit(lm, [fact(3, "city", id="again")]).notes == []
    assert out_of_reach(made.entries, made._book.lessons) == []
    made.undo(lm, ["again", "r5"])
    made.edit(lm, [fact(3, "city")])
    made.edit(lm, [fact(5, "known")])
    assert made.undo(lm, "r5").notes == []  # the radius is back


def test_undo_is_the_rule_for_the_others(make_lm: Make) -> None:
    """With a radius that covers everything: same targets share an entry, others split the space."""
    lm, wide = make_lm(), {"radius": 100.0, "steps": 15}
    made = grace(lm, **wide)
    batch = [fact(1, "city"), fact(3, "city"), fact(5, "known"), fact(7, "city"), fact(9, "known")]
    made.edit(lm, batch)
    assert any(len(entry.members) > 1 for entry in made.entries)
    assert any(entry.radius < 100 for entry in made.entries)
    whole, entries, answers = made.state_dict(), made.entries, written(lm, prompts_of(batch))
    made.edit(lm, [fact(11, "of")])
    assert made.entries != entries
    report = made.undo(lm, "r11")
    assert (report.ids, report.active) == (["r11"], 5)
    assert same(made.state_dict()["book"]["entries"], whole["book"]["entries"])
    assert written(lm, prompts_of(batch)) == answers
    founder = next(entry for entry in made.entries if len(entry.members) > 1).founder
    made.undo(lm, [founder])
    fresh = grace(make_lm(), **wide)
    left = [request for request in batch if request.id != founder]
    fresh.edit(fresh._lm, left)
    assert [entry.members for entry in made.entries] == [entry.members for entry in fresh.entries]
    radii = [entry.radius for entry in fresh.entries]
    assert [entry.radius for entry in made.entries] == pytest.approx(radii, rel=1e-9)
    made.rollback(lm, 2)
    assert made.requests == left[:2]
    with pytest.raises(LedgerError, match="r9"):
        made.undo(lm, "r9")
