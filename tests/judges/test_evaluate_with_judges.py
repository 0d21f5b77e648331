"""Any judge in the evaluation: its verdicts count, its name is in the protocol, its agreement beside the numbers."""

import pytest

from lightning_edit.errors import EditError
from lightning_edit.evaluation import Evaluator, ask, evaluate, is_right, measure_baseline
from lightning_edit.evaluation.questions import make_questions
from lightning_edit.judges import Contains, ExactMatch, LikelihoodComparison, LLMJudge
from lightning_edit.requests import EditRequest, Probe
from tests.judges.scribe import Scribe
from tests.scripted import ScriptedLM

REQUESTS = [
    EditRequest(
        "a",
        "Ann lives in",
        "Rome",
        paraphrases=("Ann's home is",),
        locality={"near": [Probe("Bob lives in", ("Lyon",))]},
        target_aliases=("the Eternal City",),
    ),
    EditRequest("b", "Ann works for", "Yahoo! Inc", target_aliases=("Yahoo",), portability={"x": [Probe("p", ("q",))]}),
]
SCRIPT = {
    "Ann lives in": " the Eternal City. She likes it",
    "Ann's home is": " the old city of Rome. It",
    "Bob lives in": " sunny Lyon.",
    "Ann works for": " Yahoo. It is well",
    "p": " z",
}


@pytest.fixture
def lm(tokenizer):
    return ScriptedLM(tokenizer, SCRIPT)


def test_the_exact_judge_is_the_default(lm):
    plain, judged = evaluate(lm, REQUESTS), evaluate(lm, REQUESTS, judge=ExactMatch())
    assert plain == {"reliability": 1.0, "generalization": 0.0, "locality_gold": 0.0, "portability": 0.0}
    assert judged == {**plain, "judge_agreement": 1.0}
    assert plain.protocol == judged.protocol
    assert plain.protocol.judge == "exact_match"


def test_the_exact_judge_says_what_is_right_says(lm):
    texts = [" Yahoo. It is well", " Yahoo! Inc. It", " Yahoo! It is", " the Eternal City", "", " Rome\nRome"]
    for text in texts:
        lm.model.learn({**SCRIPT, "Ann works for": text, "Ann lives in": text})
        questions = make_questions(REQUESTS)
        verdicts = [outcome.right for outcome in ask(lm, REQUESTS)]
        written = {**SCRIPT, "Ann works for": text, "Ann lives in": text}
        assert verdicts == [is_right(one.prompt, written[one.prompt], one.accepted) for one in questions]


def test_another_judge_counts_and_is_named(lm):
    scores = evaluate(lm, REQUESTS, judge=Contains())
    assert scores == {
        **{"reliability": 1.0, "generalization": 1.0, "locality_gold": 1.0, "portability": 0.0},
        "judge_agreement": 0.6,
    }
    assert scores.protocol.judge == "contains"
    assert [outcome.exact for outcome in ask(lm, REQUESTS, judge=Contains())] == [True, False, False, True, False]
    assert {outcome.exact for outcome in ask(lm, REQUESTS)} == {None}


def test_an_llm_judge_is_asked_about_the_answers_as_they_are_read(lm):
    scribe = Scribe(lambda prompt: "B" if "<answer>z</answer>" in prompt else "A")
    judge = LLMJudge(scribe)
    scores = evaluate(lm, REQUESTS, judge=judge)
    assert (scores["generalization"], scores["portability"], scores["judge_agreement"]) == (1.0, 0.0, 0.6)
    assert scores.protocol.judge == "llm:scribe"
    assert (judge.agreement.count, judge.agreement.both_wrong) == (3, 1)  # two of the five are accepted word for word
    assert any("<answer>the old city of Rome</answer>" in prompt for prompt in scribe.asked)


def test_locality_is_judged_against_the_unedited_model(lm):
    baseline = measure_baseline(lm, REQUESTS)
    lm.model.learn({**SCRIPT, "Bob lives in": " Lyon, sunny Lyon."})
    assert evaluate(lm, REQUESTS, baseline)["locality"] == 0.0
    scribe = Scribe(lambda prompt: "A" if "- sunny Lyon\n" in prompt else "B")
    assert evaluate(lm, REQUESTS, baseline, judge=LLMJudge(scribe))["locality"] == 1.0


def test_of_locality_only_what_has_changed_is_asked(lm):
    baseline = measure_baseline(lm, REQUESTS)
    scribe = Scribe(lambda prompt: "B")
    assert evaluate(lm, REQUESTS, baseline, judge=LLMJudge(scribe))["locality"] == 1.0
    assert not any("sunny Lyon" in prompt for prompt in scribe.asked)
    lm.model.learn({**SCRIPT, "Bob lives in": " Sunny Lyon."})
    assert evaluate(lm, REQUESTS, baseline, judge=LLMJudge(scribe))["locality"] == 0.0
    assert sum("<answer>Sunny Lyon</answer>" in prompt for prompt in scribe.asked) == 1


def test_a_judge_that_compares_likelihoods_is_refused(lm):
    with pytest.raises(EditError, match=r"found log-probabilities \{\}.*take another judge"):
        evaluate(lm, REQUESTS, judge=LikelihoodComparison())


def test_an_evaluator_takes_any_judge(lm):
    assert Evaluator(judge=Contains()).evaluate(lm, REQUESTS) == evaluate(lm, REQUESTS, judge=Contains())


def test_a_judge_needs_answers(lm):
    with pytest.raises(EditError, match="found the judge 'contains' with decode='teacher_forced'"):
        evaluate(lm, REQUESTS, decode="teacher_forced", judge=Contains())
    with pytest.raises(EditError, match="found the judge 'contains'"):
        Evaluator(decode="teacher_forced", judge=Contains())
