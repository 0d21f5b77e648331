"""Hybrids: weights and memory hold the same requests, whatever goes wrong."""

import pytest
import torch

from lightning_edit.decoding import decode
from lightning_edit.editors import EditRefused, get_editor
from lightning_edit.editors.hybrid import Hybrid
from lightning_edit.editors.retrieval.scr import SCR
from lightning_edit.editors.retrieval.text_memory import TextMemory
from lightning_edit.errors import EditError, LedgerError, RequestError, StateError
from tests.callbacks.training import same
from tests.editors.conftest import fact, facts, says, weights

PROMPT = "the mother of Ann Smith"
BY_COMMITS = {
    "ft_m": ("ft_m", {"layers": [1], "steps": 2}),
    "lora": ("lora", {"layers": [1], "steps": 2, "rank": 1}),
    "wise": (
        "wise",
        {"layer": 1, "steps": 2, "contexts": ["Well. "], "texts": ["It is large."]},
    ),
}


class Telling(TextMemory):
    """Puts everything before every prompt, so that it cannot be overlooked."""

    def __init__(self) -> None:
        super().__init__(1, "bm25", "base", 4)

    def tell(self, lm, prompts, chat):
        return [" ".join([*self.sentences, prompt]) for prompt in prompts]


@pytest.fixture
def lm(make_lm):
    return make_lm()


def test_weights_are_written_as_if_there_were_no_memory(lm, make_lm, make_editor):
    alone, other = make_editor(lm), make_lm()
    alone.edit(lm, facts(2))
    alone.edit(lm, facts(2, 2))
    both = Hybrid(make_editor(other), memory=Telling())
    both.attach(other)
    both.edit(other, facts(2))
    report = both.edit(other, facts(2, 2))
    assert all(torch.equal(a, b) for a, b in zip(weights(lm, alone), weights(other, both.editor), strict=True))
    assert (report.count, report.active) == (2, 4)
    assert report.seconds["memory"] <= report.seconds["total"]
    assert both.requests == both.editor.requests == both.memory.requests
    assert both.memory.sentences == [f"The mother of {r.subject} {r.target}." for r in facts(4)]
    assert other.memory is both.memory
    assert both.layers == both.editor.layers
    assert len(both.weights(other)) == 2
    assert (both.aligned, both.prepared, both.drift, both.acts_on_every_rank) == (True, True, "adopt", True)


def test_the_guard_sees_both_and_its_refusal_undoes_both(lm, make_editor):
    both = Hybrid(make_editor(lm), memory=Telling())
    both.edit(lm, facts(1))
    with lm.without_memory():
        told = decode(lm, [f"{both.memory.sentences[0]} The mother of Bob Ray"], 1)
    before, state = weights(lm, both.editor), both.state_dict()
    seen = []

    def look(report):
        seen.append((len(both.memory.sentences), lm.recall(["x"])[0].count("mother"), says(lm, fact(1))))
        return False

    with pytest.raises(EditRefused):
        both.edit(lm, [fact(1)], look)
    assert seen == [(2, 2, True)]
    assert all(torch.equal(a, b) for a, b in zip(weights(lm, both.editor), before, strict=True))
    assert same(both.state_dict(), state)
    assert decode(lm, ["The mother of Bob Ray"], 1) == told
    with pytest.raises(EditRefused):
        both.undo(lm, "r0", lambda _: False)
    assert same(both.state_dict(), state)
    assert lm.memory is both.memory


def test_what_one_of_them_cannot_take_neither_has(lm, make_editor, monkeypatch):
    both = Hybrid(make_editor(lm), memory=Telling())
    both.edit(lm, facts(1))
    before, state = weights(lm, both.editor), both.state_dict()
    with pytest.raises(RequestError, match="has no subject"):
        both.edit(lm, [fact(1, subject=None)])
    with pytest.raises(RequestError, match="leaves no 4 tokens"):
        both.edit(lm, [fact(1, sentence="Bob Ray " * 100)])
    monkeypatch.setattr(both.memory.retriever, "learn", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        both.edit(lm, [fact(1)])
    assert same(both.state_dict(), state)
    assert all(torch.equal(a, b) for a, b in zip(weights(lm, both.editor), before, strict=True))


def test_undo_and_rollback_go_back_in_both(lm, make_editor):
    both = Hybrid(make_editor(lm), memory=Telling())
    both.attach(lm)
    clean = [lm.projection(layer).weight.detach().clone() for layer in both.layers]
    both.edit(lm, facts(3))
    report = both.undo(lm, "r1")
    assert (report.ids, report.active) == (["r1"], 2)
    assert [r.id for r in both.memory.requests] == [r.id for r in both.editor.requests] == ["r0", "r2"]
    replaced = both.edit(lm, [fact(0, "known", id="new")])
    assert replaced.replaced == ["r0"]
    both.rollback(lm, 3)
    assert both.requests == both.editor.requests == []
    assert all(torch.allclose(a, b, atol=1e-9) for a, b in zip(weights(lm, both.editor), clean, strict=True))
    assert both.rollback(lm, 0).count == both.undo(lm, []).count == both.edit(lm, []).count == 0
    assert both.repair(lm).kind == "repair"
    both.detach(lm)
    assert lm.memory is None


def test_where_weights_cannot_go_back_the_memory_does_not_either(lm, make_editor):
    both = Hybrid(make_editor(lm, aligned=False), memory=Telling())
    both.edit(lm, facts(2))
    with pytest.raises(LedgerError, match="no longer in the ledger"):
        both.undo(lm, "r0")
    assert len(both.memory.requests) == len(both.requests) == 2
    assert not both.aligned


@pytest.mark.parametrize(("editor", "options"), BY_COMMITS.values(), ids=BY_COMMITS)
def test_what_is_taken_back_with_its_commit_leaves_the_memory_too(lm, editor, options):
    both = Hybrid(editor, options, memory=Telling())
    old, mate, new = fact(0), fact(1), fact(0, "known", id="new")
    both.edit(lm, [old, mate])
    assert both.edit(lm, [new]).replaced == ["r0"]
    state = both.memory.state_dict()
    with pytest.raises(EditRefused):
        both.undo(lm, ["r1", "new"], lambda _: False)
    assert same(both.memory.state_dict(), state)
    report = both.undo(lm, ["r1", "new"])  # the first commit held what the second one had replaced
    assert (report.active, report.restored) == (0, [])
    assert both.editor.requests == both.memory.requests == both.requests == []
    assert both.memory.sentences == []
    assert both.memory.state_dict()["book"]["shelf"] == []
    both.edit(lm, [old])  # nobody knows it any more
    both.edit(lm, [new])
    report = both.rollback(lm, 1)
    assert report.restored == ["r0"]
    assert both.editor.requests == both.memory.requests == [old]
    both.edit(lm, [new])
    both.rollback(lm, 2)
    assert both.editor.requests == both.memory.requests == []


def test_a_commit_below_others_takes_along_what_they_had_replaced(lm):
    both = Hybrid("lora", {"layers": [1], "steps": 2, "rank": 1, "policy": "per_commit"}, memory=Telling())
    both.edit(lm, [fact(0), fact(1)])
    both.edit(lm, [fact(0, "known", id="new")])
    both.undo(lm, "r1")  # with the replaced request, while the one that replaced it stays
    assert [r.id for r in both.requests] == [r.id for r in both.editor.requests] == ["new"]
    both.edit(lm, [fact(2, id="r0")])
    both.undo(lm, "new")
    assert both.requests == both.editor.requests == [fact(2, id="r0")]


def test_an_editor_that_appends_keeps_contradictions_in_both(lm, make_editor):
    both = Hybrid(make_editor(lm, conflicts="append"), memory=Telling())
    both.edit(lm, [fact(0)])
    both.edit(lm, [fact(0, "known", id="new"), fact(1)])
    assert [r.id for r in both.memory.requests] == [r.id for r in both.editor.requests] == ["r0", "new", "r1"]
    both.undo(lm, "r0")
    assert [r.id for r in both.memory.requests] == [r.id for r in both.editor.requests] == ["new", "r1"]


def test_a_replaced_request_comes_back_in_both_after_another_undo(lm, make_editor):
    both = Hybrid(make_editor(lm), memory=Telling())
    both.edit(lm, facts(3))
    both.edit(lm, [fact(0, "known", id="new")])
    both.edit(lm, [fact(0, "of", id="newest")])
    both.undo(lm, "r1")
    for last in (["r2", "new"], ["r0", "r2"]):
        both.rollback(lm, 1)
        assert [r.id for r in both.memory.requests] == [r.id for r in both.editor.requests] == last


def test_a_saved_hybrid_goes_on_bit_for_bit(lm, make_lm, make_editor, tmp_path):
    first = Hybrid(make_editor(lm), memory=Telling())
    first.edit(lm, facts(2))
    first.save(tmp_path / "both.pt")
    other = make_lm()
    with torch.no_grad():
        for layer in first.layers:
            other.projection(layer).weight.copy_(lm.projection(layer).weight)
    second = Hybrid(make_editor(other), memory=Telling())
    second.attach(other)
    second.load(tmp_path / "both.pt")
    for editor, model in ((first, lm), (second, other)):
        editor.edit(model, facts(1, 2))
        editor.undo(model, "r0")
    first_state, second_state = first.state_dict(), second.state_dict()
    assert same(first_state["memory"], second_state["memory"])
    assert all(torch.equal(a, b) for a, b in zip(weights(lm, first.editor), weights(other, second.editor), strict=True))
    state = first.state_dict()
    with pytest.raises(StateError, match="expected a hybrid"):
        second.load_state_dict({"version": 9})
    with pytest.raises(StateError, match="version None"):
        second.load_state_dict({**state, "editor": {}, "memory": Telling().state_dict()})
    assert len(second.requests) == 2  # the memory is as it was, too


def test_statistics_go_to_the_weight_editor(lm, moments):
    both = get_editor("hybrid", editor_options={"layers": [0], "prior_weight": 5.0})
    assert not both.prepared
    both.prepare(lm, statistics=moments(lm))
    assert both.prepared
    assert both.layers == [0]
    assert lm.memory is both.memory


def test_names_options_and_mistakes():
    both = get_editor(
        "hybrid", editor="alphaedit", editor_options={"layers": [1]}, memory={"editor": "ice", "top_k": 2}
    )
    assert (type(both.editor).__name__, type(both.memory).__name__, both.memory.top_k) == ("AlphaEdit", "ICE", 2)
    assert isinstance(get_editor("hybrid").memory, SCR)
    assert both.needs_statistics
    assert not both.prepared
    with pytest.raises(EditError, match="an editor of weights with a"):
        get_editor("hybrid", editor="scr")
    with pytest.raises(EditError, match="an editor of weights with a"):
        get_editor("hybrid", memory={"editor": "memit"})
    with pytest.raises(EditError, match="ready MEMIT together with options"):
        get_editor("hybrid", editor=get_editor("memit"), editor_options={"layers": [1]})


def test_two_that_have_edited_before_are_not_in_step(lm, make_editor):
    editor = make_editor(lm)
    editor.edit(lm, facts(1))
    with pytest.raises(EditError, match="expected both fresh"):
        Hybrid(editor)
