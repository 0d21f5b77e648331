"""Answers that begin with the target and go on: the judge that takes them, and the remark where they count as wrong."""

import pytest

from lightning_edit.evaluation import ask, evaluate
from lightning_edit.evaluation.going_on import going_on, remark_on_going_on
from lightning_edit.judges import Begins, Case, Contains
from lightning_edit.requests import EditRequest
from tests.scripted import ScriptedLM

REQUESTS = [EditRequest("a", "Ann lives in", "Rome", paraphrases=("Ann's home is",)), EditRequest("b", "Bob is", "ill")]


@pytest.mark.parametrize(
    ("answer", "accepted", "right"),
    [
        ("Rome", ["Rome"], True),
        ("Rome, and she likes it", ["Rome"], True),
        ("the Rome of the north", ["Oslo", "Rome"], True),
        ("Romeo", ["Rome"], False),
        ("not Rome", ["Rome"], False),
        ("in Rome", ["Rome"], False),
        ("C++, or C", ["C++"], True),
        ("\u6771\u4eac\u306b\u4f4f\u3080", ["\u6771\u4eac"], True),
        ("", ["Rome"], False),
        ("", [""], True),
        ("Rome", [""], False),
        ("Rome", [], False),
    ],
)
def test_begins(answer, accepted, right):
    assert Begins().judge([Case("Where?", answer, tuple(accepted))]) == [right]


def test_begins_reads_each_accepted_answer_in_its_own_sentences():
    answer = Case("Ann works for", "Yahoo! Inc", ("Yahoo! Inc", "Yahoo"), readings=("Yahoo! Inc of Ohio", "Yahoo"))
    assert Begins().judge([answer]) == [True]


def test_answers_that_go_on_are_found_and_said(tokenizer):
    lm = ScriptedLM(tokenizer, {"Ann lives in": " Rome, and she", "Ann's home is": " Rome too", "Bob is": " well."})
    outcomes = ask(lm, REQUESTS)
    assert [one.question.request for one in going_on(outcomes)] == ["a"]  # of edited prompts alone
    remark = remark_on_going_on(outcomes)
    assert remark is not None
    assert remark.startswith("1 of 2 answers to edited prompts begin with the target")
    assert '"Rome, and she" for "Rome"' in remark
    assert evaluate(lm, REQUESTS, judge=Begins())["reliability"] == 0.5


def test_nothing_is_said_of_right_and_of_wrong_answers_or_of_other_judges(tokenizer):
    lm = ScriptedLM(tokenizer, {"Ann lives in": " Rome. She", "Ann's home is": " Rome too", "Bob is": " in Rome."})
    assert remark_on_going_on(ask(lm, REQUESTS)) is None
    lm.model.learn({"Ann lives in": " Rome, and she", "Ann's home is": " Rome", "Bob is": " ill."})
    assert remark_on_going_on(ask(lm, REQUESTS, judge=Contains())) is None
    assert remark_on_going_on(ask(lm, REQUESTS, decode="teacher_forced")) is None
    assert remark_on_going_on([]) is None


def test_one_of_many_is_not_worth_a_remark(tokenizer):
    many = [EditRequest(str(number), f"Number {number} is", "odd") for number in range(30)]
    script = {request.prompt: " odd." for request in many} | {"Number 1 is": " odd, or so"}
    assert remark_on_going_on(ask(ScriptedLM(tokenizer, script), many)) is None
