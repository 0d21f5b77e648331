"""Judges: what counts as right for each, and what the one that asks another model does where it gets no verdict."""

import math

import pytest

from lightning_edit.errors import EditError
from lightning_edit.judge import exact_match
from lightning_edit.judges import Agreement, Case, Contains, ExactMatch, LikelihoodComparison, LLMJudge, agreement
from lightning_edit.judges.llm import judge_prompt, parse_verdict
from lightning_edit.llm import Endpoint, Malformed, Reply, ReplyCache
from tests.judges.scribe import Scribe
from tests.judges.stub import hang, serve, status


def case(answer, *accepted, **changes):
    return Case("Where does Ann live?", answer, accepted, **changes)


@pytest.mark.parametrize(
    ("answer", "accepted", "exact", "contained"),
    [
        ("Rome", ["Rome"], True, True),
        (" the ROME.", ["Oslo", "Rome"], True, True),
        ("She lives in Rome", ["Rome"], False, True),
        ("Rome, Italy", ["Rome"], False, True),
        ("Romeo", ["Rome"], False, False),
        ("not Rome", ["Rome"], False, True),
        ("St. Petersburg", ["Petersburg"], False, True),
        ("C++, or C", ["C++"], False, True),
        ("1998", ["98"], False, False),
        ("in 98", ["98"], False, True),
        ("\u5f7c\u306f\u6771\u4eac\u306b\u4f4f\u3080", ["\u6771\u4eac"], False, True),
        ("I do not know", ["unknown"], False, False),
        ("It is unknown.", ["unknown"], False, True),
        ("It is French", ["Italian", "it"], False, True),  # an alias that is a common word
        ("", ["Rome"], False, False),
        ("", [""], True, True),
        ("Rome", [""], False, False),
        ("Rome", [], False, False),
    ],
)
def test_wording(answer, accepted, exact, contained):
    assert ExactMatch().judge([case(answer, *accepted)]) == [exact]
    assert Contains().judge([case(answer, *accepted)]) == [contained]
    assert exact is exact_match(answer, accepted)


def test_each_accepted_answer_is_held_against_its_own_reading():
    two = case("Yahoo! Inc", "Yahoo", "Yahoo! Inc", readings=("Yahoo", "Yahoo! Inc"))
    assert ExactMatch().judge([two, case("Yahoo! Inc", "Yahoo")]) == [True, False]
    assert ExactMatch().judge([case("a b", "a", "c", readings=("c", "a"))]) == [False]
    with pytest.raises(EditError, match="found 1 readings of an answer beside 2 accepted ones"):
        case("a", "a", "b", readings=("a",))


def test_judges_take_any_number_of_cases():
    assert ExactMatch().judge([]) == Contains().judge([]) == LikelihoodComparison().judge([]) == []


@pytest.mark.parametrize(
    ("log_probs", "right"),
    [
        ({"Rome": -0.5, "Oslo": -2.0}, True),
        ({"Rome": -2.0, "Oslo": -0.5}, False),
        ({"Rome": -1.0, "Oslo": -1.0}, False),  # a tie is no success
        ({"Rome": -3.0, "Roma": -0.1, "Oslo": -1.0}, True),
        ({"Rome": -0.5, "Oslo": -2.0, "Lyon": -0.2}, False),
        ({"Rome": 0.0, "Oslo": -math.inf}, True),
        ({"Rome": -math.inf, "Oslo": -math.inf}, False),
    ],
)
def test_likelihood_comparison(log_probs, right):
    assert LikelihoodComparison().judge([case("", "Rome", "Roma", log_probs=log_probs)]) == [right]


@pytest.mark.parametrize(
    "log_probs", [{}, {"Rome": -1.0}, {"Oslo": -1.0}, {"Rome": math.nan, "Oslo": -1.0}, {"Rome": 0.5, "Oslo": -1.0}]
)
def test_likelihoods_that_cannot_be_compared_are_refused(log_probs):
    with pytest.raises(EditError, match="expected numbers up to 0 for an accepted answer"):
        LikelihoodComparison().judge([case("", "Rome", log_probs=log_probs)])


def test_agreement_counts_and_kappa():
    first = [True] * 45 + [False] * 15 + [True] * 25 + [False] * 15
    second = [True] * 45 + [False] * 15 + [False] * 25 + [True] * 15
    seen = agreement(first, second)
    assert seen == Agreement(both_right=45, both_wrong=15, only_first=25, only_second=15)
    assert (seen.count, seen.share) == (100, 0.6)
    assert seen.kappa == pytest.approx((0.6 - 0.54) / (1 - 0.54))  # by hand: 0.7 * 0.6 + 0.3 * 0.4 = 0.54
    assert seen.to_dict() == {
        **{"count": 100, "share": 0.6, "kappa": seen.kappa},
        **{"both_right": 45, "both_wrong": 15, "only_first": 25, "only_second": 15},
    }
    assert seen + seen == agreement(first * 2, second * 2)


def test_agreement_at_its_ends():
    assert agreement([True, False], [True, False]).kappa == 1.0
    assert agreement([True, False], [False, True]).kappa == -1.0
    assert agreement([True, True], [True, True]).share == 1.0
    assert math.isnan(agreement([True, True], [True, True]).kappa)
    assert math.isnan(Agreement().share)
    assert math.isnan(Agreement().kappa)
    with pytest.raises(EditError, match="found 1 and 2 verdicts"):
        agreement([True], [True, False])


@pytest.mark.parametrize("text", ["A", " A\n", "(A)", "A.", "A)", "[A]", "**A**", '"A"', "<think>B</think>A"])
def test_verdicts_that_are_clear(text):
    assert parse_verdict(text) is True
    assert parse_verdict(text.replace("B", "_").replace("A", "B")) is False


@pytest.mark.parametrize(
    "text",
    [
        "",
        "a",
        "C",
        "AB",
        "A B",
        "A or B",
        "A correct answer",
        "CORRECT",
        "INCORRECT",
        "Verdict: A",
        "A\nB",
        "A\nBecause",
        "<think>A",
        "<think>A</think>",
        "\u0410",  # a Cyrillic letter
    ],
)
def test_everything_else_is_no_verdict(text):
    with pytest.raises(Malformed):
        parse_verdict(text)


def test_the_prompt_holds_question_references_and_answer():
    text = judge_prompt(case("Roma {x}", "Rome", "The Eternal City"))
    for part in (
        "<asked>Where does Ann live?</asked>",
        "- Rome\n- The Eternal City\n",
        "<answer>Roma {x}</answer>",
        "\nReply with one letter, A or B, and nothing else.\n",
    ):
        assert text.count(part) == 1


CASES = [case("rome", "Rome"), case("Roma", "Rome"), case("Oslo", "Rome"), case("lyon", "Lyon")]
VERDICTS = {"rome": "A", "Roma": "A", "Oslo": "B", "lyon": "B"}


def by_answer(prompt):
    return VERDICTS[prompt.partition("<answer>")[2].partition("</answer>")[0]]


def test_an_llm_judge_and_how_far_it_agrees_with_the_exact_one():
    judge = LLMJudge(Scribe(by_answer))
    assert judge.judge(CASES) == [True, True, False, False]
    assert judge.agreement == Agreement(both_right=1, both_wrong=1, only_first=1, only_second=1)
    assert judge.disagreements == [(CASES[1], True), (CASES[3], False)]
    judge.judge(CASES[:1])
    assert judge.agreement.both_right == 2
    report = "llm:scribe agrees with exact_match on 60.0% of 5 answers (kappa 0.17; 1 right by it alone, 1 by the exact"
    assert judge.report() == report + " judge alone)"


def test_where_nothing_is_said_or_accepted_nobody_is_asked():
    scribe = Scribe(by_answer)
    judge = LLMJudge(scribe)
    assert judge.judge([case(" ", "Rome"), case("", ""), case("Rome"), case("Rome", "")]) == [False, True, False, False]
    assert (scribe.asked, judge.agreement.count) == ([], 0)


def test_equal_texts_are_right_and_nobody_is_asked():
    scribe = Scribe(lambda prompt: "B")
    judge = LLMJudge(scribe)
    equal = [case("Rome", "Oslo", "Rome"), case(" Rome", "Rome"), case("Yahoo", "Yahoo! Inc", readings=("Yahoo! Inc",))]
    assert judge.judge(equal) == [True, True, True]
    assert (scribe.asked, judge.agreement.count) == ([], 0)
    assert judge.judge([case("rome", "Rome"), *equal]) == [False, True, True, True]
    assert len(scribe.asked) == judge.agreement.only_second == 1


def silent_on_oslo(prompt):
    return Reply(None, "status 500") if "<answer>Oslo" in prompt else by_answer(prompt)


def test_a_case_without_a_verdict_stops_after_all_others_have_been_asked(tmp_path):
    judge = LLMJudge(Scribe(silent_on_oslo), cache=tmp_path / "replies.sqlite")
    with pytest.raises(
        EditError, match=r"llm:scribe gave no verdict on 1 of 4 answers, .*: status 500\. Expected A or B"
    ):
        judge.judge(CASES)
    assert (judge.agreement.count, judge.unjudged_count) == (0, 0)
    again = LLMJudge(Scribe(by_answer), cache=judge.cache)
    assert again.judge(CASES) == [True, True, False, False]
    assert len(again.assistant.asked) == 1  # only the one that was open


@pytest.mark.parametrize(("unjudged", "verdict"), [("wrong", False), ("exact_match", True)])
def test_what_a_case_without_a_verdict_counts_as(unjudged, verdict):
    scribe = Scribe(lambda prompt: "Hm." if "<answer>lyon" in prompt else by_answer(prompt))
    judge = LLMJudge(scribe, unjudged=unjudged)
    assert judge.judge(CASES) == [True, True, False, verdict]
    assert judge.agreement.count == 3  # there is nothing to agree with
    assert judge.unjudged_count == 1
    assert judge.faults[0][0] == CASES[3]
    assert judge.faults[0][1].startswith("malformed reply, 2 times over: expected one letter, A or B; found 'Hm.'")
    assert judge.report().endswith(f"; 1 without a verdict counted by '{unjudged}'")


def test_another_word_for_what_to_do_is_refused():
    with pytest.raises(EditError, match="found unjudged='right'"):
        LLMJudge(Scribe(by_answer), unjudged="right")


def test_a_second_run_asks_nobody(tmp_path):
    first, second = (LLMJudge(Scribe(by_answer), cache=tmp_path / "replies.sqlite") for _ in range(2))
    assert first.judge(CASES) == second.judge(CASES)
    assert (len(first.assistant.asked), second.assistant.asked) == (4, [])
    assert second.agreement == first.agreement


def test_over_an_endpoint_with_everything_that_can_happen(tmp_path, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    seen = []

    def script(number, prompt):
        seen.append(prompt)
        if "<answer>rome" in prompt and sum("<answer>rome" in other for other in seen) == 1:
            return hang(5.0)
        if "<answer>Roma" in prompt and "must be one letter" not in prompt:
            return "The answer is correct."
        if "<answer>Oslo" in prompt and sum("<answer>Oslo" in other for other in seen) == 1:
            return status(503)
        return by_answer(prompt)

    with serve(script) as stub:
        judge = LLMJudge(Endpoint(stub.url, "small", timeout=2.0, backoff=0.001), cache=tmp_path / "replies.sqlite")
        assert judge.judge(CASES) == [True, True, False, False]
        asked = len(stub.bodies)
        assert judge.judge(CASES) == [True, True, False, False]
        assert len(stub.bodies) == asked == 7  # four cases, and one more for each of the three that went wrong
    assert "llm:small agrees with exact_match on 50.0% of 8 answers" in judge.report()
    assert b"sk-secret" not in judge.cache.path.read_bytes()
    assert len(ReplyCache(judge.cache.path)) == 4


def test_an_endpoint_that_is_down_stops_the_judge():
    with serve(lambda number, prompt: status(500)) as stub:
        judge = LLMJudge(Endpoint(stub.url, "small", retries=1, backoff=0.001))
        with pytest.raises(EditError, match=r"no verdict on 4 of 4 answers, .* status 500, 2 times over"):
            judge.judge(CASES)
