"""What a monitor remembers: batches, retention, confidence; on a model whose answers are known."""

import dataclasses
from typing import Any

import pytest

from lightning_edit.callbacks.examiner import Examiner
from lightning_edit.errors import EditError
from lightning_edit.evaluation import AnswerOptions, Evaluator, measure_baseline
from lightning_edit.evaluation.confidence import (
    QUESTION_AND_ANSWER,
    measure_confidence,
    shares_by_confidence,
    split_by_confidence,
)
from lightning_edit.judges.wording import Contains
from lightning_edit.probes import Probe
from lightning_edit.requests import EditRequest
from tests.scripted import ScriptedLM

NAMES = ["Ann", "Bo", "Cy", "Dan"]
CITIES = {"Ann": "Lyon", "Bo": "Rome", "Cy": "Oslo", "Dan": "Lima"}
QUIET = AnswerOptions(max_new_tokens=8)


def edit(name: str) -> EditRequest:
    return EditRequest(
        id=name,
        prompt=f"{name} lives in",
        subject=name,
        target=CITIES[name],
        old="Paris",
        paraphrases=(f"The home of {name} is",),
        locality={"near": (Probe(f"The twin of {name} is", ("Eve",)),)},
        portability={"hop": (Probe(f"The river of {name} is", ("Seine",)),)},
    )


EDITS = [edit(name) for name in NAMES]
TWINS = {f"The twin of {name} is": " Eve" for name in NAMES}


def knowing(*names: str) -> dict[str, str]:
    """What a model says that has learned of some people, and cannot think ahead."""
    return TWINS | {
        prompt: f" {CITIES[name]}" for name in names for prompt in (f"{name} lives in", f"The home of {name} is")
    }


def examiner(**options: Any) -> Examiner:
    return Examiner(Evaluator(options=QUIET), **options)


def test_forgetting_is_seen(tokenizer: Any) -> None:
    lm, asked = ScriptedLM(tokenizer, TWINS), examiner()
    asked.begin(lm, EDITS)
    assert asked.base_rates(lm, EDITS) == {"reliability": 0, "generalization": 0, "locality": 1, "portability": 0}
    lm.model.learn(knowing("Ann", "Bo"))
    found, batch = asked.examine(lm, EDITS[:2], EDITS[:2], EDITS[:2])
    assert batch == {"batch_reliability": 1, "batch_generalization": 1, "batch_portability": 0}
    assert "retention" not in found  # nobody has had time to forget
    assert found == {"reliability": 1, "generalization": 1, "locality": 1, "portability": 0}
    lm.model.learn(knowing("Bo", "Cy"))  # Ann is forgotten, Dan is not learned
    found, batch = asked.examine(lm, EDITS, EDITS, EDITS[2:])
    assert found["reliability"] == 0.5
    assert found["retention"] == 0.5
    assert batch["batch_reliability"] == 0.5
    assert asked.held == {"Ann": True, "Bo": True, "Cy": True, "Dan": False}
    lm.model.learn(knowing("Ann", "Bo", "Cy", "Dan"))
    assert asked.examine(lm, EDITS, EDITS)[0]["retention"] == 1


def test_between_measurements_only_the_batch_is_asked_and_each_prompt_once(tokenizer: Any) -> None:
    lm, asked = ScriptedLM(tokenizer, knowing("Ann")), examiner(batch_budget=1)
    asked.begin(lm, EDITS)
    lm.model.fed.clear()
    found, batch = asked.examine(lm, None, EDITS[:1], EDITS[:1])
    assert found == {}
    assert batch["batch_reliability"] == 1
    assert sorted(lm.model.fed) == ["Ann lives in", "The home of Ann is", "The river of Ann is"]
    lm.model.fed.clear()
    asked.examine(lm, EDITS, EDITS, EDITS[1:])
    assert len(lm.model.fed) == len(set(lm.model.fed)) == 16  # four questions to each request, however often they count
    one_more = [name for name in asked.held if name != "Ann"]
    assert len(one_more) == 1  # of three in the batch


def test_a_replaced_request_is_asked_no_more(tokenizer: Any) -> None:
    lm, asked = ScriptedLM(tokenizer, knowing("Ann")), examiner()
    asked.begin(lm, EDITS)
    asked.examine(lm, EDITS[:1], EDITS[:1], EDITS[:1])
    found, _ = asked.examine(lm, EDITS[:2], EDITS[1:2], EDITS[1:2])
    assert found["reliability"] == 0  # of Bo alone
    assert "retention" not in found


def test_commit_locality_compares_just_before_with_just_after(tokenizer: Any) -> None:
    lm, asked = ScriptedLM(tokenizer, TWINS), examiner()
    asked.begin(lm, EDITS)
    asked.look(lm, EDITS, EDITS[:2])
    lm.model.learn({**knowing("Ann", "Bo"), "The twin of Ann is": " Zoe"})
    assert asked.examine(lm, EDITS[:2], EDITS[:2], EDITS[:2])[0]["commit_locality"] == 0.5
    assert "commit_locality" not in asked.examine(lm, EDITS[:2], EDITS[:2])[0]


def test_commit_locality_has_the_judge_of_all_that_stands_beside_it(tokenizer: Any) -> None:
    lm = ScriptedLM(tokenizer, TWINS)
    asked = Examiner(Evaluator(options=QUIET, judge=Contains()))
    asked.begin(lm, EDITS)
    asked.look(lm, EDITS, EDITS[:2])
    lm.model.learn({**knowing("Ann", "Bo"), "The twin of Ann is": " Eve she is", "The twin of Bo is": " Zoe"})
    found, _ = asked.examine(lm, EDITS[:2], EDITS[:2], EDITS[:2])
    assert (found["locality"], found["commit_locality"]) == (0.5, 0.5)


def test_kinds_of_probes_stand_beside_their_dimension(tokenizer: Any) -> None:
    far = {name: Probe(f"The aunt of {name} is", ("Eve",)) for name in NAMES}
    edits = [
        dataclasses.replace(one, locality={**one.locality, "far": (far[name],)})
        for name, one in zip(NAMES, EDITS, strict=True)
    ]
    lm = ScriptedLM(tokenizer, TWINS)
    asked = Examiner(Evaluator(options=QUIET, by_kind=True))
    asked.begin(lm, edits)
    lm.model.learn({**knowing("Ann", "Bo"), far["Ann"].prompt: " Zoe", "The river of Bo is": " Seine"})
    found, batch = asked.examine(lm, edits[:2], edits[:2], edits[:2])
    assert (found["locality"], found["locality/near"], found["locality/far"]) == (0.75, 1, 0.5)
    assert (found["portability"], found["portability/hop"]) == (0.5, 0.5)
    assert not any("/" in name for name in batch)


def test_teacher_forced_stands_beside_what_is_written(tokenizer: Any) -> None:
    script = knowing("Ann") | {"Ann lives in": " Lyon and so on"}  # it does not stop: no answer, but every token right
    lm, asked = ScriptedLM(tokenizer, script), examiner(teacher_forced=True)
    asked.begin(lm, EDITS)
    found, _ = asked.examine(lm, EDITS[:1], EDITS[:1])
    assert (found["reliability"], found["reliability_teacher_forced"]) == (0, 1)
    assert "locality_teacher_forced" not in found


def test_confidence_is_the_unedited_models(tokenizer: Any) -> None:
    sure = {f"{name} lives in": " Paris" for name in ("Ann", "Cy")}
    lm, asked = ScriptedLM(tokenizer, TWINS | sure), examiner(by_confidence=True)
    asked.begin(lm, EDITS)
    before = dict(asked.confidence)
    assert split_by_confidence(before) == {"Ann": "high_logp", "Bo": "low_logp", "Cy": "high_logp", "Dan": "low_logp"}
    lm.model.learn(knowing("Ann", "Cy", "Dan"))
    found, _ = asked.examine(lm, EDITS, EDITS)
    assert asked.confidence == before
    assert (found["reliability_high_logp"], found["reliability_low_logp"]) == (1, 0.5)
    assert (found["locality_high_logp"], found["locality_low_logp"]) == (1, 1)
    other = examiner(by_confidence=True)
    other.load_state_dict(asked.state_dict())
    other.begin(lm, EDITS)  # edited by now: nothing is asked again
    assert other.confidence == before
    assert other.baseline == asked.baseline == measure_baseline(ScriptedLM(tokenizer, TWINS), EDITS, QUIET)


def test_what_confidence_refuses_and_leaves_out(tokenizer: Any) -> None:
    lm = ScriptedLM(tokenizer, {})
    bare = EditRequest(id="x", prompt="Ann lives in", target="Lyon")
    assert measure_confidence(lm, [bare]) == {}
    assert split_by_confidence({}) == {}
    assert shares_by_confidence([], {"x": -1.0}) == {}
    with pytest.raises(EditError, match="found template='Q:'"):
        measure_confidence(lm, EDITS, "Q:")
    asked = measure_confidence(lm, EDITS[:1], QUESTION_AND_ANSWER)
    assert asked.keys() == {"Ann"}
    with pytest.raises(EditError, match="no `old` answer in 1 requests"):
        examiner(by_confidence=True).begin(lm, [bare])


@pytest.mark.parametrize(("knows", "expected"), [("everything", 1.0), ("nothing", 0.0), ("somebody else's", 0.0)])
def test_an_oracle_an_untouched_and_a_shuffled_model(tokenizer: Any, knows: str, expected: float) -> None:
    rivers = {f"The river of {name} is": " Seine" for name in NAMES}
    towns = list(CITIES.values())
    turned = dict(zip(NAMES, towns[1:] + towns[:1], strict=True))
    wrong = {text: f" {turned[name]}" for name in NAMES for text in (f"{name} lives in", f"The home of {name} is")}
    wrong |= {f"The twin of {name} is": " Zoe" for name in NAMES} | {text: " Tiber" for text in rivers}
    scripts = {"everything": knowing(*NAMES) | rivers, "nothing": TWINS, "somebody else's": wrong}
    lm, asked = ScriptedLM(tokenizer, TWINS), examiner(teacher_forced=True, by_confidence=True)
    asked.begin(lm, EDITS)
    asked.look(lm, EDITS, EDITS[2:])
    asked.held = dict.fromkeys(("Ann", "Bo"), True)  # they were right after their own commit
    lm.model.learn(scripts[knows])
    found, batch = asked.examine(lm, EDITS, EDITS, EDITS[2:])
    assert {name.removeprefix("batch_") for name in batch} == {"reliability", "generalization", "portability"}
    assert set(batch.values()) == {expected}
    stays = {name: value for name, value in found.items() if "locality" in name}
    assert stays.keys() == {"locality", "locality_high_logp", "locality_low_logp", "commit_locality"}
    assert set(stays.values()) == {1.0 if knows == "nothing" else expected}
    rest = {name: value for name, value in found.items() if name not in stays}
    assert len(rest) == 3 * 4 + 1  # three dimensions: plain, teacher-forced, and in two halves; and retention
    assert set(rest.values()) == {expected}
