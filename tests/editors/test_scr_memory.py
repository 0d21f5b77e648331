"""What SCR holds: replaced, undone, taken back, saved, and never mixed with another memory's."""

from collections.abc import Sequence

import pytest

from lightning_edit.data.event import Event, EventQuestion, Triple, event_requests
from lightning_edit.decoding import decode
from lightning_edit.editors import EditRefused, get_editor
from lightning_edit.editors.retrieval.retriever import Retriever
from lightning_edit.editors.retrieval.sentences import sentence_of
from lightning_edit.errors import EditError, LedgerError, RequestError, StateError
from lightning_edit.requests import EditRequest
from tests.editors.korr import MAYOR, RIVER, WHO, A, B, informed, memory


@pytest.fixture
def lm(tokenizer):
    return informed(tokenizer)


def test_sentences_are_given_or_made():
    assert sentence_of(MAYOR) == A
    assert sentence_of(RIVER) == B
    assert sentence_of(EditRequest("q", "who governs Korr?", "Ada Brandt!")) == "Who governs Korr? Ada Brandt!"


def test_a_contradiction_replaces_and_undo_brings_back(lm):
    scr = memory()
    newer = EditRequest("newer", "Korr is governed by", "Tom Ferrol", "Korr", relation="mayor")
    scr.edit(lm, [MAYOR, RIVER])
    before = scr.state_dict()
    report = scr.edit(lm, [newer])
    assert report.replaced == ["mayor"]
    assert scr.sentences == [B, "Korr is governed by Tom Ferrol."]
    assert [request.id for request in scr.requests] == ["river", "newer"]
    report = scr.undo(lm, "newer")
    assert (report.ids, report.restored, report.active) == (["newer"], ["mayor"], 2)
    after = scr.state_dict()
    assert {**after["book"], "applied": 2} == before["book"]
    scr.rollback(lm, 1)
    assert scr.sentences == [A]
    assert scr.edit(lm, []).count == scr.undo(lm, []).count == 0
    with pytest.raises(LedgerError, match="'river' is not at work"):
        scr.undo(lm, "river")
    with pytest.raises(RequestError, match="'mayor' has been applied already"):
        scr.edit(lm, [MAYOR])


def test_the_requests_of_an_event_share_its_text(lm):
    event = Event("e", "In spring Korr got a mayor and a bridge.", (EventQuestion("Who?", ("Ada",), "stated"),))
    triples = [Triple("The mayor of Korr is", "Ada", "Korr"), Triple("The bridge of Korr is", "new", "Korr")]
    scr = memory()
    scr.edit(lm, event_requests(event, triples, event.questions))
    assert scr.sentences == [event.text]
    scr.undo(lm, "e-0")
    assert scr.sentences == [event.text]
    scr.undo(lm, "e-1")
    assert scr.sentences == []


def test_a_refused_or_failed_edit_leaves_everything_as_it_was(lm, monkeypatch):
    scr = memory()
    scr.edit(lm, [RIVER])
    state = scr.state_dict()
    seen = []

    def look(report):
        seen.append(decode(lm, [WHO])[0])  # the guard sees the model as users would
        return False

    with pytest.raises(EditRefused, match="guard refused"):
        scr.edit(lm, [MAYOR], look)
    assert seen == ["Ada Brandt"]
    assert scr.state_dict() == state
    with pytest.raises(EditRefused):
        scr.undo(lm, "river", lambda _: False)
    monkeypatch.setattr(scr.retriever, "learn", lambda _: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        scr.edit(lm, [MAYOR])
    monkeypatch.undo()
    with pytest.raises(RequestError):
        scr.edit(lm, [MAYOR, EditRequest("other", MAYOR.prompt, "Tom", "Korr", relation="mayor")])
    assert scr.state_dict() == state
    assert scr.sentences == [B]
    fresh, empty = memory(), lm.memory
    lm.memory = None
    with pytest.raises(EditRefused):
        fresh.edit(lm, [MAYOR], lambda _: False)
    assert lm.memory is None
    lm.memory = empty


class Learned(Retriever):
    """Remembers what it has learned, as encoders do."""

    def __init__(self) -> None:
        self.known: list[str] = []

    def learn(self, texts: Sequence[str]) -> None:
        self.known = list(texts)
        if any("broken" in text for text in texts):
            raise ZeroDivisionError

    def scores(self, texts: Sequence[str], questions: Sequence[str]) -> list[list[float]]:
        return [[0.0] * len(texts) for _ in questions]

    def state_dict(self):
        return {"known": self.known}

    def load_state_dict(self, state):
        self.known = state["known"]


def test_what_the_retriever_has_learned_is_taken_back_with_the_edit(lm):
    scr = memory(retriever=Learned())
    scr.edit(lm, [RIVER])
    state, seen = scr.state_dict(), []

    def look(report):
        seen.append(list(scr.retriever.known))
        return False

    with pytest.raises(EditRefused):
        scr.edit(lm, [MAYOR], look)
    assert scr.state_dict() == state
    with pytest.raises(EditRefused):
        scr.undo(lm, "river", look)
    assert seen == [[B, A], []]
    assert scr.state_dict() == state
    with pytest.raises(ZeroDivisionError):
        scr.edit(lm, [EditRequest("x", "It is", "broken")])
    assert scr.state_dict() == state
    assert state["retriever"] == {"known": [B]}


def test_a_saved_memory_answers_in_a_fresh_editor(lm, tmp_path):
    scr = memory()
    scr.edit(lm, [MAYOR])
    scr.edit(lm, [EditRequest("newer", "Korr's mayor is", "Tom", "Korr", relation="mayor"), RIVER])
    scr.save(tmp_path / "memory.pt")
    fresh = memory()
    fresh.attach(lm.__class__(lm.tokenizer, {}))
    fresh.load(tmp_path / "memory.pt")
    assert fresh.state_dict() == scr.state_dict()
    assert fresh.sentences == scr.sentences
    for editor in (scr, fresh):
        lm.memory = None
        editor.undo(lm, "newer")
        assert decode(lm, [WHO]) == ["Ada Brandt"]
    state = scr.state_dict()
    with pytest.raises(StateError, match="version 7"):
        fresh.load_state_dict({**state, "version": 7})
    with pytest.raises(StateError, match="is 'SCR'; expected 'ICE'"):
        get_editor("ice").load_state_dict(state)
    early = memory()
    early.load_state_dict({name: part for name, part in state.items() if name != "editor"})
    assert early.sentences == scr.sentences


def test_two_memories_do_not_mix(lm):
    first, second = memory(), memory()
    first.attach(lm)
    second.attach(lm)  # the first is empty
    second.edit(lm, [MAYOR])
    with pytest.raises(EditError, match="another memory already"):
        first.edit(lm, [RIVER])
    assert first.sentences == []
    first.detach(lm)  # not its place
    assert lm.memory is second
    second.detach(lm)
    first.edit(lm, [RIVER])
    assert lm.memory is first
