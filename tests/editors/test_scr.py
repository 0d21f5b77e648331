"""SCR: answers depend on what the memory holds and the model selects, and on nothing else."""

from collections.abc import Sequence
from types import SimpleNamespace

import pytest
import torch

from lightning_edit.chat import Chat
from lightning_edit.decoding import decode
from lightning_edit.editors import get_editor
from lightning_edit.editors.retrieval.retriever import Retriever
from lightning_edit.editors.retrieval.scr import SCR
from lightning_edit.editors.retrieval.sentences import sentence_of
from lightning_edit.errors import EditError, RequestError
from lightning_edit.evaluation.likelihood import score_continuations
from lightning_edit.model.generation import generate
from lightning_edit.requests import EditRequest
from tests.editors.korr import MAYOR, RIVER, WHO, WORDS, A, B, ask, informed, memory, scripted
from tests.scripted import ScriptedLM


@pytest.fixture
def lm(tokenizer):
    return informed(tokenizer)


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


def test_what_the_model_does_not_select_is_not_told(tokenizer):
    refusing = scripted(tokenizer, {ask([A], WHO): " none of these", f"{A} {WHO}": "Ada Brandt"})
    rambling = scripted(tokenizer, {ask([A], WHO): " Tom Ferrol", f"{A} {WHO}": "Ada Brandt"})
    for lm in (refusing, rambling):
        scr = memory()
        scr.edit(lm, [MAYOR])
        assert decode(lm, [WHO]) == ["Old Mayor"]
        assert scr.select(lm, [WHO]) == {}


def test_only_top_k_facts_are_listed(tokenizer):
    lm = scripted(tokenizer, {ask([A], WHO): " Ada Brandt", f"{A} {WHO}": "Ada Brandt"})
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


def test_facts_that_have_no_room_are_left_out(tokenizer):
    long = EditRequest("long", "The town that governs Korr is the city of", "Lissa", "Korr")
    text = sentence_of(long)
    room = len(tokenizer(ask([A], WHO))["input_ids"]) + 12
    lm = scripted(tokenizer, {ask([A], WHO): " Ada Brandt", f"{A} {WHO}": "Ada Brandt"}, context=room)
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
