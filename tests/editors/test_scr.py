"""SCR: answers depend on what the memory holds and the model selects, and on nothing else."""

from collections.abc import Sequence
from types import SimpleNamespace

import pytest
import torch

from lightning_edit.chat import Chat
from lightning_edit.data.event import Event, EventQuestion, Triple, event_requests
from lightning_edit.decoding import decode
from lightning_edit.editors import EditRefused, get_editor
from lightning_edit.editors.retrieval.retriever import Retriever
from lightning_edit.editors.retrieval.scr import SCR
from lightning_edit.editors.retrieval.sentences import sentence_of
from lightning_edit.errors import EditError, LedgerError, RequestError, StateError
from lightning_edit.evaluation.likelihood import score_continuations
from lightning_edit.model.generation import generate
from lightning_edit.requests import EditRequest
from tests.scripted import ScriptedLM

WORDS = {
    "style": "base",
    "select": "{facts} ? {question} :",
    "answer": "{fact} {prompt}",
    "fact": "{fact}",
    "joint": " ",
}
MAYOR = EditRequest("mayor", "The mayor of Korr is", "Ada Brandt", "Korr", relation="mayor")
RIVER = EditRequest("river", "Korr lies on the river", "Ahn", "Korr", sentence="Korr stands on the Ahn")
WHO = "Who governs Korr?"
A, B = "The mayor of Korr is Ada Brandt.", "Korr stands on the Ahn."


def memory(**options) -> SCR:
    return get_editor("scr", **{"templates": WORDS, "top_k": 2, "max_new_tokens": 20, **options})


def ask(facts: Sequence[str], question: str) -> str:
    return f"{' '.join(facts)} ? {question} :"


@pytest.fixture
def make(tokenizer):
    """A scripted model: it selects, and it answers otherwise behind a fact than without."""

    def build(script: dict[str, str], **options) -> ScriptedLM:
        bare = {WHO: "Old Mayor", "The mayor of Korr is": "Old Mayor", "two plus two makes": "four"}
        return ScriptedLM(tokenizer, {**bare, **script}, **options)

    return build


@pytest.fixture
def lm(make):
    return make(
        {
            ask([A, B], WHO): " Ada Brandt",
            ask([B, A], WHO): " Ada Brandt",
            ask([A], WHO): " Ada Brandt",
            f"{A} {WHO}": "Ada Brandt",
            f"{B} {WHO}": "the river?",
            ask([A, B], "The mayor of Korr is"): f" {A}",
            f"{A} The mayor of Korr is": "Ada Brandt",
            ask([A, B], "Which country is Korr in?"): " none",
            "Which country is Korr in?": "Sust",
        }
    )


# -- answers -------------------------------------------------------------------------------------------------------


def test_the_selected_fact_stands_before_the_prompt_and_without_one_the_prompt_is_as_it_was(lm):
    scr = memory()
    assert decode(lm, [WHO]) == ["Old Mayor"]
    report = scr.edit(lm, [MAYOR, RIVER])
    assert (report.count, report.ids, report.active, report.delta_norm) == (2, ["mayor", "river"], 2, 0.0)
    assert report.seconds_per_edit > 0
    assert scr.sentences == [A, B]
    prompts = [WHO, "Which country is Korr in?", "two plus two makes", "The mayor of Korr is", WHO]
    lm.model.fed.clear()
    assert decode(lm, prompts) == ["Ada Brandt", "Sust", "four", "Ada Brandt", "Ada Brandt"]
    assert lm.model.fed.count("Which country is Korr in?") == lm.model.fed.count("two plus two makes") == 1
    assert not [text for text in lm.model.fed if "two plus" in text and text != "two plus two makes"]  # nothing found
    assert [decode(lm, [prompt])[0] for prompt in prompts] == decode(lm, prompts)
    scr.detach(lm)
    assert decode(lm, [WHO]) == ["Old Mayor"]
    assert scr.attach(lm) == scr.layers == scr.weights(lm) == []
    assert decode(lm, [WHO]) == ["Ada Brandt"]


def test_what_the_model_does_not_select_is_not_told(make):
    refusing = make({ask([A], WHO): " none of these", f"{A} {WHO}": "Ada Brandt"})
    rambling = make({ask([A], WHO): " Tom Ferrol", f"{A} {WHO}": "Ada Brandt"})
    for lm in (refusing, rambling):
        scr = memory()
        scr.edit(lm, [MAYOR])
        assert decode(lm, [WHO]) == ["Old Mayor"]
        assert scr.select(lm, [WHO]) == {}


def test_only_top_k_facts_are_listed(make):
    lm = make({ask([A], WHO): " Ada Brandt", f"{A} {WHO}": "Ada Brandt"})
    more = [EditRequest(f"r{i}", f"Town {i} is not", f"Korr {i} or {i}", f"Town {i}") for i in range(3)]
    memory(top_k=1).edit(lm, [*more, MAYOR])
    assert decode(lm, [WHO]) == ["Ada Brandt"]  # the shortest text with the rarest word


def test_where_nothing_is_selected_every_number_is_that_of_the_bare_model(tiny_lm):
    scr = memory(templates="auto")
    prompts, ends = ["She works for the city", "What is the language of"], ["large", "known"]

    def everything():
        scores = score_continuations(tiny_lm, prompts, ends)
        return decode(tiny_lm, prompts, 8), generate(tiny_lm, prompts, 8), scores.logs

    texts, written, logs = everything()
    request = EditRequest("a", "the mother of the city is", "country")
    report = scr.edit(tiny_lm, [request])
    assert tiny_lm.memory is scr
    assert scr.select(tiny_lm, prompts) == {}  # a random model's reply names no fact
    assert report.count == 1
    again = everything()
    assert again[:2] == (texts, written)
    assert all(torch.equal(one, other) for one, other in zip(again[2], logs, strict=True))


def test_scores_stand_behind_the_selected_fact(lm):
    memory().edit(lm, [MAYOR, RIVER])
    assert score_continuations(lm, [WHO, WHO], ["Ada", "Old Mayor"]).exact.tolist() == [False, False]
    told = score_continuations(lm, [WHO], ["Ada Brandt"])
    with lm.without_memory():
        assert torch.equal(told.sum, score_continuations(lm, [f"{A} {WHO}"], ["Ada Brandt"]).sum)


def test_a_chat_model_is_asked_by_its_template_and_may_think(tokenizer):
    tokenizer.chat_template = (
        "{% for m in messages %}<{{ m.role }}> {{ m.content }} {% endfor %}<model>{% if enable_thinking %}<think>"
        "{% endif %} "
    )
    ways = {"templates": {**WORDS, "answer": "{fact} + {prompt}"}}
    selection = ask([A], WHO)
    script = {
        f"<user> {selection} <model> ": f"{A}",
        f"<user> {selection} <model><think> ": "none? no.\nit fits</think> Ada Brandt",
        f"<user> {A} + {WHO} <model> ": "Ada Brandt",
        f"<user> {A} + {WHO} <model><think> ": "hm</think> Ada Brandt",
        f"{A} + {WHO}": "plain Ada",
        f"{selection}": " none",
        WHO: "plain",
    }
    lm = ScriptedLM(tokenizer, script, 256, special=False)
    memory(**ways).edit(lm, [MAYOR])
    assert decode(lm, [WHO], chat=Chat()) == ["Ada Brandt"]
    assert decode(lm, [WHO], chat=Chat(thinking=True)) == ["hm</think> Ada Brandt"]
    assert decode(lm, [WHO]) == ["plain Ada"]  # selection goes through the template, the prompt as it was given
    lm.memory = None
    memory(**ways, chat=False).edit(lm, [MAYOR])
    assert decode(lm, [WHO]) == ["plain"]


def test_templates_are_those_of_the_kind_of_model(tiny_lm, tokenizer):
    scr = SCR()
    assert scr.templates_for(tiny_lm, None).select.startswith("Each question comes")
    assert scr.templates_for(tiny_lm, Chat()).select.startswith("These facts are true")


def test_facts_that_have_no_room_are_left_out(make, tokenizer):
    long = EditRequest("long", "The town that governs Korr is the city of", "Lissa", "Korr")
    text = sentence_of(long)
    room = len(tokenizer(ask([A], WHO))["input_ids"]) + 12
    lm = make({ask([A], WHO): " Ada Brandt", f"{A} {WHO}": "Ada Brandt"}, context=room)
    assert len(tokenizer(text)["input_ids"]) + 12 <= room
    scr = memory(max_new_tokens=12, retriever=Fixed([A, text]))
    scr.edit(lm, [MAYOR, long])
    assert decode(lm, [WHO]) == ["Ada Brandt"]  # asked with one of the two
    scr.retriever.order = [text, A]
    assert decode(lm, [WHO]) == ["Old Mayor"]  # the better one has no room beside the question, nor is it told
    with pytest.raises(RequestError, match="request 'huge' leaves no 12 tokens"):
        scr.edit(lm, [EditRequest("huge", "Korr " * 60, "x")])


class Fixed(Retriever):
    """Finds texts in a fixed order."""

    def __init__(self, order: list[str]) -> None:
        self.order = order

    def scores(self, texts: Sequence[str], questions: Sequence[str]) -> list[list[float]]:
        return [[-float(self.order.index(text)) for text in texts] for _ in questions]


# -- what is held --------------------------------------------------------------------------------------------------


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


def test_a_saved_memory_answers_in_a_fresh_editor(lm, make, tmp_path):
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


def test_options_are_checked():
    assert memory().acts_on_every_rank
    assert memory().aligned
    for wrong in ({"top_k": 0}, {"max_new_tokens": 0}, {"batch_size": 0}, {"retriever": {"kind": "x"}}):
        with pytest.raises(EditError):
            memory(**wrong)
    with pytest.raises(EditError, match="no option 'topk'"):
        get_editor("scr", topk=3)


def test_any_module_with_a_language_model_will_do(lm):
    memory().edit(SimpleNamespace(language_model=lm), [MAYOR])
    assert decode(lm, [WHO]) == ["Ada Brandt"]
