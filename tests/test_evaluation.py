"""What is asked, and what the shares are, on a model that says what its script tells it."""

from typing import Any

import pytest
import torch

from lightning_edit.errors import EditError, StateError
from lightning_edit.evaluation import AnswerOptions, Baseline, ask, evaluate, measure_baseline
from lightning_edit.evaluation.questions import make_questions
from lightning_edit.metrics import Locality
from tests.evaluated import request
from tests.scripted import ScriptedLM

BEFORE = {
    "Ann lives in": " Paris. She",
    "The home of Ann is": " Paris.",
    "Ann dwells in": " Paris.",
    "Ann plays the": " harp. He",
    "Bo lives in": " Oslo.",
    "Cy lives in": " St. Petersburg. It",
    "Question: Which river is near Ann? Thoughts:": " Hm.",
}
AFTER = {
    **BEFORE,
    "Ann lives in": " Lyon. It is",
    "Ann dwells in": " the “Lyon”.\n",
    "Cy lives in": " St. Petersburg\nThe",
    "Bo lives in": " Rome. He",
    "Question: Which river is near Ann? Thoughts:": " Ann lives in Lyon. Lyon is on the Rhone. Answer: Rhone. Q",
}


def test_evaluate_counts_by_hand(tokenizer: Any) -> None:
    lm = ScriptedLM(tokenizer, BEFORE)
    edits = [request("Ann")]
    baseline = measure_baseline(lm, edits)
    assert baseline.answers == {"Ann plays the": "harp", "Bo lives in": "Oslo", "Cy lives in": "St. Petersburg"}
    options = AnswerOptions(max_new_tokens=24, thought_tokens=96)
    before = {"reliability": 0.0, "generalization": 0.0, "locality": 1.0, "portability": 0.0}
    assert evaluate(lm, edits, baseline) == before
    lm.model.learn(AFTER)
    result = evaluate(lm, edits, baseline, by_kind=True, options=options)
    outcomes = [one for one in ask(lm, edits, baseline) if one.question.dimension == "locality"]
    metric = Locality(kinds=["same", "near"])
    metric.update([one.right for one in outcomes], [str(one.question.kind) for one in outcomes])
    assert {key: value.item() for key, value in metric.compute().items()} == pytest.approx(
        {key: value for key, value in result.items() if key.startswith("locality")}
    )
    two_thirds = 2 / 3
    assert result == {
        "reliability": 1.0,
        "generalization": 0.5,
        "locality": two_thirds,
        "locality/same": 1.0,
        "locality/near": 0.5,
        "portability": 1.0,
        "portability/reasoning": 1.0,
    }


def test_without_baseline_locality_is_called_gold(tokenizer: Any) -> None:
    lm = ScriptedLM(tokenizer, AFTER)
    result = evaluate(lm, [request("Ann", portability={})])
    assert result == {"reliability": 1.0, "generalization": 0.5, "locality_gold": 1.0}  # Cy has no gold answer
    bare = request("Ann", paraphrases=(), locality={}, portability={})
    assert evaluate(lm, [bare]) == {"reliability": 1.0}
    assert evaluate(lm, []) == {}


def test_every_distinct_prompt_is_decoded_once(tokenizer: Any) -> None:
    edits = [request("Ann"), request("Dan"), request("Eve")]  # all three ask about Bo and Cy
    lm = ScriptedLM(tokenizer, AFTER)
    baseline = measure_baseline(lm, edits)
    assert len(lm.model.fed) == len(set(lm.model.fed)) == 5
    lm.model.fed.clear()
    outcomes = ask(lm, edits, baseline)
    assert len(lm.model.fed) == len(set(lm.model.fed)) == 3 * 5 + 2
    assert len(outcomes) == 3 * 7
    assert outcomes[0].answer == "Lyon"


def test_probes_that_edits_change_are_not_asked() -> None:
    edits = [request("Ann"), request("Bo", prompt="bo lives  in", locality={})]
    asked = [(q.request, q.prompt) for q in make_questions(edits, dict.fromkeys(("Ann plays the", "Cy lives in"), "x"))]
    assert ("Ann", "Bo lives in") not in asked
    assert ("Ann", "Cy lives in") in asked
    assert "Bo lives in" in [q.prompt for q in make_questions(edits[:1])]
    assert "Bo lives in" not in [q.prompt for q in make_questions(edits[:1], active=edits)]


def test_teacher_forced_judges_the_target_tokens(tokenizer: Any) -> None:
    lm = ScriptedLM(tokenizer, BEFORE)
    edits = [request("Ann")]
    baseline = measure_baseline(lm, edits)
    calls = lm.model.calls
    assert evaluate(lm, edits, baseline, "teacher_forced") == {"reliability": 0, "generalization": 0, "locality": 1}
    assert lm.model.calls == calls + 1
    lm.model.learn({**AFTER, "Ann lives in": " Lyon is what she left"})
    result = evaluate(lm, edits, baseline, "teacher_forced")
    assert result == {"reliability": 1, "generalization": 0, "locality": pytest.approx(2 / 3)}
    assert evaluate(lm, edits, baseline)["reliability"] == 0  # it goes on: another answer
    with pytest.raises(EditError, match="found decode='sampled'"):
        evaluate(lm, edits, decode="sampled")  # type: ignore[arg-type]


def test_baseline_is_plain_complete_and_comparable(tokenizer: Any, tmp_path: Any) -> None:
    lm = ScriptedLM(tokenizer, BEFORE)
    ann, dan = request("Ann"), request("Dan")
    baseline = measure_baseline(lm, [ann], AnswerOptions(max_new_tokens=9))
    torch.save(baseline.state_dict(), tmp_path / "baseline.pt")
    loaded = Baseline()
    loaded.load_state_dict(torch.load(tmp_path / "baseline.pt", weights_only=True))
    assert loaded == baseline
    assert loaded.missing([ann, dan]) == ["Dan plays the"]
    with pytest.raises(StateError, match="no answer to 'Dan plays the'"):
        evaluate(lm, [ann, dan], loaded)
    lm.model.learn({"Bo lives in": " Rome.", "Dan plays the": " drum."})
    assert measure_baseline(lm, [ann, dan], into=loaded) is loaded
    assert (loaded.answers["Bo lives in"], loaded.answers["Dan plays the"]) == ("Oslo", "drum")  # only what lacked
    with pytest.raises(StateError, match="'max_new_tokens': 9"):
        evaluate(lm, [ann], loaded, options=AnswerOptions(max_new_tokens=10))
    with pytest.raises(StateError, match="version 7"):
        loaded.load_state_dict({"version": 7})
