"""GRACE: the codebook's rule, answers out of it, and every promise of an editor."""

import random
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_edit.chat import Chat, render
from lightning_edit.editors import EditRefused, get_editor
from lightning_edit.editors.grace import GRACE, learning
from lightning_edit.editors.grace.book import CodeBook
from lightning_edit.editors.grace.codebook import SLACK, Lesson, fold, out_of_reach
from lightning_edit.editors.grace.lookup import Table
from lightning_edit.errors import EditError, LedgerError, RequestError, StateError
from lightning_edit.evaluation.likelihood import score_continuations
from lightning_edit.model.generation import generate
from lightning_edit.model.language_model import LanguageModel
from tests.callbacks.training import same
from tests.editors.forward import FAMILIES, OTHERS, Make, fact, facts, logits, one_by_one, prompts_of, says, written
from tests.editors.gradient import changed, nothing_else_changes, snapshot
from tests.reference_grace_wise import codebook, lookup

QUICK: dict[str, Any] = {"layer": 1, "radius": 0.05, "lr": 0.5, "steps": 60, "stop_loss": 0.02}


def grace(lm: LanguageModel, **options: Any) -> GRACE:
    made = get_editor("grace", **{**QUICK, **options})
    made.attach(lm)
    assert isinstance(made, GRACE)
    return made


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


@pytest.mark.parametrize("family", FAMILIES)
def test_teaches_every_architecture_and_leaves_all_else_alone(family: str, make_lm: Make) -> None:
    lm = make_lm(family, torch.float32)
    before, parameters = logits(lm, OTHERS), snapshot(lm)
    known = generate(lm, OTHERS, 6)
    made = grace(lm)
    assert torch.equal(logits(lm, OTHERS), before)
    batch = facts(5)
    assert not any(says(lm, batch))
    report = made.edit(lm, batch)
    assert all(says(lm, batch))
    assert report.ids == [request.id for request in made.requests] == [request.id for request in batch]
    assert report.losses.keys() == set(report.ids)
    assert max(report.losses.values()) < 0.1
    assert (report.count, report.active, report.delta_norm) == (5, 5, 0.0)
    assert set(report.seconds) == {"keys", "values", "total"}
    assert changed(lm, parameters) == []
    assert torch.equal(logits(lm, OTHERS), before)  # bit for bit, where nothing fires
    assert generate(lm, OTHERS, 6) == known
    mixed = logits(lm, [*OTHERS[:1], batch[0].prompt])
    made.detach(lm)
    plain = logits(lm, [*OTHERS[:1], batch[0].prompt])
    assert torch.equal(mixed[0], plain[0])
    assert not torch.equal(mixed[1], plain[1])
    assert not lm.projection(1)._forward_hooks


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("replacement", ["last", "all", "prompt"])
def test_prompts_in_a_batch_are_answered_as_one_by_one(family: str, replacement: str, make_lm: Make) -> None:
    lm = make_lm(family)
    plain = one_by_one(lm, prompts_of(facts(5)) + OTHERS)[0]
    made = grace(lm, replacement=replacement)
    made.edit(lm, facts(5))
    prompts = [*prompts_of(facts(5)), *OTHERS]
    random.Random(0).shuffle(prompts)
    ours, theirs = one_by_one(lm, prompts)
    assert written(lm, prompts) == ours
    assert generate(lm, prompts, 6) == theirs == generate(lm, prompts, 6, use_cache=False)
    if replacement != "prompt":  # which can move a random model only so far
        assert all(says(lm, facts(5)))
    assert ours != plain


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_beams_in_a_batch_write_what_each_writes_alone(family: str, make_lm: Make) -> None:
    lm = make_lm(family)
    prompts = [*prompts_of(facts(3)), *OTHERS]
    random.Random(1).shuffle(prompts)
    plain = generate(lm, prompts, 5, num_beams=3)
    grace(lm, replacement="all").edit(lm, facts(3))
    together = generate(lm, prompts, 5, num_beams=3)
    assert together == [generate(lm, [prompt], 5, num_beams=3)[0] for prompt in prompts]
    moved = [prompt for prompt, text, before in zip(prompts, together, plain, strict=True) if text != before]
    assert moved
    assert not set(moved) & set(OTHERS)


@pytest.mark.parametrize("replacement", ["last", "all"])
def test_values_are_found_together_as_one_by_one(replacement: str, make_lm: Make) -> None:
    lm, other = make_lm(), make_lm()
    together, single = grace(lm, replacement=replacement, stop_loss=0.3), grace(other, replacement=replacement)
    single = grace(other, replacement=replacement, stop_loss=0.3, batch_size=1)
    together.edit(lm, facts(4))
    for request in facts(4):
        single.edit(other, [request])
    one, two = together.state_dict()["book"], single.state_dict()["book"]
    assert one["entries"] == two["entries"]
    for name, lesson in one["lessons"].items():
        assert torch.allclose(lesson["value"], two["lessons"][name]["value"], rtol=1e-8, atol=1e-10)


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


def test_a_contradiction_replaces_and_comes_back(make_lm: Make) -> None:
    lm = make_lm()
    made = grace(lm)
    made.edit(lm, [fact(1), fact(2)])
    before = written(lm, [fact(1).prompt])
    report = made.edit(lm, [fact(1, "language", id="new")])
    assert report.replaced == ["r1"]
    assert [request.id for request in made.requests] == ["r2", "new"]
    assert says(lm, [fact(1, "language")]) == [True]
    report = made.undo(lm, ["new"])
    assert report.restored == ["r1"]
    assert written(lm, [fact(1).prompt]) == before
    with pytest.raises(RequestError, match="under another subject"):
        made.edit(lm, [fact(1, "language", id="odd", subject="Bob 1", relation="home")])
    with pytest.raises(RequestError, match="applied already"):
        made.edit(lm, [fact(2)])
    made.edit(
        lm, [fact(2, id="again", subject="Cleo 2", relation="home")]
    )  # the same fact under another name joins the entry
    assert ("r2", "again") in [entry.members for entry in made.entries]


@pytest.mark.parametrize("fault", ["guard", "error", "infinite"])
def test_what_fails_leaves_everything_as_it_was(fault: str, make_lm: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = make_lm(dtype=torch.float32)
    made = grace(lm)
    made.edit(lm, facts(2))
    state, answers = made.state_dict(), logits(lm, prompts_of(facts(4)))
    heard: list[list[bool]] = []

    def guard(report: object) -> bool:
        heard.append(says(lm, facts(4)))
        return False

    with nothing_else_changes(lm):
        if fault == "guard":
            with pytest.raises(EditRefused):
                made.edit(lm, facts(2, 2), guard)
            with pytest.raises(EditRefused):
                made.undo(lm, "r0", guard)
        elif fault == "error":
            monkeypatch.setattr(learning, "find_values", lambda *_: 1 / 0)
            with pytest.raises(ZeroDivisionError):
                made.edit(lm, facts(2, 2))
        else:
            monkeypatch.setitem(made._given, "lr", float("inf"))
            made._settings = None
            with pytest.raises(EditError, match="not finite"):
                made.edit(lm, facts(2, 2))
    if fault == "guard":
        assert heard[0] == [True] * 4  # it looks at the edited model
    assert same(made.state_dict(), state)
    assert torch.equal(logits(lm, prompts_of(facts(4))), answers)


def test_a_state_goes_on_bit_for_bit(make_lm: Make, tmp_path: Path) -> None:
    lm, other = make_lm(), make_lm()
    made = grace(lm, radius=100.0, steps=10)
    made.edit(lm, facts(4))
    made.save(tmp_path / "grace.pt")
    loaded = get_editor("grace", **{**QUICK, "radius": 100.0, "steps": 10})
    loaded.load(tmp_path / "grace.pt")
    assert loaded.attach(other) == [1]
    assert written(other, prompts_of(facts(4))) == written(lm, prompts_of(facts(4)))
    for one, model in ((made, lm), (loaded, other)):
        one.edit(model, [*facts(2, 4), fact(1, "language", id="new")])
        one.undo(model, "r2")
    assert same(made.state_dict(), loaded.state_dict())
    assert torch.equal(logits(lm, prompts_of(facts(6))), logits(other, prompts_of(facts(6))))


def test_a_state_of_something_else_is_refused(make_lm: Make) -> None:
    made = grace(make_lm())
    made.edit(made._lm, facts(1))
    state = made.state_dict()
    with pytest.raises(StateError, match=r"radius.*0\.05"):
        grace(make_lm(), radius=1.0).load_state_dict(state)
    with pytest.raises(StateError, match="made on the model"):
        grace(make_lm("gpt2")).load_state_dict(state)
    with pytest.raises(StateError, match="version"):
        grace(make_lm()).load_state_dict({**state, "version": 7})
    other = get_editor("grace", **{**QUICK, "layer": 2})
    other.load_state_dict(state)
    with pytest.raises(StateError, match="layer"):
        other.attach(make_lm())


def test_keys_are_read_again_when_training_has_moved_them(make_lm: Make) -> None:
    lm = make_lm(dtype=torch.float32)
    made = grace(lm, replacement="all")
    made.edit(lm, facts(3))
    with torch.no_grad():
        lm.projection(0).weight.mul_(1.3)
    moved = logits(lm, prompts_of(facts(3)))
    made.repair(lm)
    assert torch.equal(logits(lm, prompts_of(facts(3))), moved)  # nothing fires, and nothing is done about it
    made.detach(lm)
    assert torch.equal(logits(lm, prompts_of(facts(3))), moved)
    made.attach(lm)
    made.repair(lm, refresh=True)
    assert not torch.equal(logits(lm, prompts_of(facts(3))), moved)


def test_in_train_mode_the_model_is_trained_as_it_is(make_lm: Make) -> None:
    lm = make_lm(dtype=torch.float32)
    prompt = fact(1).prompt
    lm.model.train()
    before = logits(lm, [prompt])
    made = grace(lm)
    made.edit(lm, facts(2))
    assert torch.equal(logits(lm, [prompt]), before)
    lm.model.eval()
    assert not torch.equal(logits(lm, [prompt]), before)


def test_bad_options_and_prompts_are_named(make_lm: Make) -> None:
    lm = make_lm()
    for options, match in (
        ({"radius": 0.0}, "radius=0.0"),
        ({"steps": 2.5}, "steps=2.5"),
        ({"replacement": "first"}, "'last', 'prompt', 'all'"),
        ({"preset": "llama-9"}, "no preset 'llama-9'"),
        ({"layer": 9}, "layer 9"),
    ):
        with pytest.raises(EditError, match=match):
            grace(lm, **options)
    with pytest.raises(RequestError, match="has one token"):
        grace(lm, replacement="prompt").edit(lm, [fact(1, prompt="a")])


def test_a_chat_is_taught_as_it_is_asked(make_lm: Make) -> None:
    lm = make_lm()
    lm.tokenizer.chat_template = "{% for m in messages %}<{{ m.role }}> {{ m.content }}\n{% endfor %}<said>"
    made = grace(lm, chat=True, system="Be brief.")
    asked = fact(1, "The")
    assert not score_continuations(lm, [asked.prompt], ["The"], chat=Chat("Be brief.")).exact.all()
    made.edit(lm, [asked])
    assert score_continuations(lm, [asked.prompt], ["The"], chat=Chat("Be brief.")).exact.all()
    rendered = render(lm.tokenizer, [asked.prompt], Chat("Be brief."))
    assert made.state_dict()["book"]["active"]["requests"][0]["signature"] == lm.encode(rendered).input_ids[0].tolist()
