"""A model that is right everywhere scores 1 on every metric, one with shuffled answers 0, an unedited one keeps all.

The models are scripted. A record here has its own neighbours, probes and texts, so each answer can be right or wrong by
itself.
"""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest

from lightning_edit.errors import EditError, RequestError, StateError
from lightning_edit.evaluation import (
    AnswerOptions,
    TokenBaseline,
    WritingTask,
    ask,
    evaluate,
    evaluate_counterfact,
    evaluate_passages,
    evaluate_token_accuracy,
    evaluate_token_locality,
    event_shares,
    measure_baseline,
    measure_token_baseline,
    read_writing_tasks,
    write_passages,
)
from lightning_edit.metrics import Idf, ngram_entropy
from lightning_edit.probes import Probe
from lightning_edit.requests import EditRequest
from tests.scripted import ScriptedLM

NAMES = ["Ann", "Bo", "Cy", "Dan"]
NEW = ["Lyon", "St. Petersburg", "Rome", "Accra"]
OLD = ["Oslo", "Paris", "Quito", "Hanoi"]
RIVERS = ["Rhone", "Neva", "Tiber", "Odaw"]
STORIES = [f"{i} {name} walks through {city}" for i, (name, city) in enumerate(zip(NAMES, NEW, strict=True))]


def make_request(i: int) -> EditRequest:
    name = NAMES[i]
    return EditRequest(
        id=name,
        group="first event" if i < 2 else "second event",
        prompt=f"{name} lives in",
        subject=name,
        target=NEW[i],
        old=OLD[i],
        paraphrases=(f"The home of {name} is", f"{name} dwells in"),
        locality={"neighborhood": (Probe(f"The twin of {name} lives in", (OLD[i],)),)},
        portability={"reasoning": (Probe(f"The river at the home of {name} is", (RIVERS[i],)),)},
    )


REQUESTS = [make_request(i) for i in range(4)]
TASKS = [WritingTask(NAMES[i], (str(i),), (story,)) for i, story in enumerate(STORIES)]


def script(home: list[str], twin: list[str], river: list[str], story: list[str]) -> dict[str, str]:
    """What is written behind every prompt of every record."""
    text = {}
    for i, request in enumerate(REQUESTS):
        text |= {prompt: f" {home[i]}" for prompt in (request.prompt, *request.paraphrases)}
        text[f"The twin of {NAMES[i]} lives in"] = f" {twin[i]}"
        text[f"The river at the home of {NAMES[i]} is"] = f" {river[i]}"
        text[str(i)] = story[i].removeprefix(str(i))
    return text


def turned(values: list[str]) -> list[str]:
    """Everybody gets somebody else's."""
    return values[1:] + values[:1]


UNEDITED = script(OLD, OLD, turned(RIVERS), STORIES)
ORACLE = script(NEW, OLD, RIVERS, STORIES)
SHUFFLED = script(OLD, NEW, turned(RIVERS), [" and so on"] * 4)  # old and new change places in each record


def measure(lm: ScriptedLM) -> dict[str, float]:
    """Every number that is a share, on a model that was `UNEDITED` before it learned what it knows now."""
    after = lm.model.following
    lm.model.learn(UNEDITED)
    baseline, tokens = measure_baseline(lm, REQUESTS), measure_token_baseline(lm, REQUESTS)
    lm.model.following = after
    forced = evaluate(lm, REQUESTS, baseline, "teacher_forced")
    return {
        **evaluate(lm, REQUESTS, baseline),
        **{f"{name} teacher-forced": value for name, value in forced.items()},
        "locality_gold": evaluate(lm, REQUESTS)["locality_gold"],
        **evaluate_token_locality(lm, REQUESTS, tokens),
        **evaluate_counterfact(lm, REQUESTS),
        **evaluate_token_accuracy(lm, REQUESTS),
        **event_shares(ask(lm, REQUESTS, baseline), REQUESTS),
        "consistency": evaluate_passages(lm, TASKS, Idf.fit(STORIES), top_k=1)["consistency"],
    }


def test_a_model_that_is_right_everywhere_scores_one(tokenizer: Any) -> None:
    found = measure(ScriptedLM(tokenizer, ORACLE))
    assert len(found) == 25
    assert found == {name: pytest.approx(1.0, abs=1e-4) for name in found}


def test_a_model_whose_answers_are_shuffled_scores_near_zero(tokenizer: Any) -> None:
    found = measure(ScriptedLM(tokenizer, SHUFFLED))
    for name, value in found.items():
        if name.endswith("magnitude"):
            assert value == pytest.approx(-1, abs=1e-4), name  # sure of the wrong one
        elif name.endswith(("token_accuracy", "match_ratio")):
            assert value < 0.4, name  # names share a letter here and there
        else:
            assert value == 0, name


def test_an_unedited_model_keeps_everything_and_holds_no_edit(tokenizer: Any) -> None:
    found = measure(ScriptedLM(tokenizer, UNEDITED))
    kept = [name for name in found if name.startswith(("locality", "token_locality", "neighborhood"))]
    assert len(kept) == 8
    assert [found[name] for name in kept] == pytest.approx([1.0] * 8, abs=1e-4)
    missed = ("reliability", "generalization", "portability", "efficacy_success", "score", "event_accuracy")
    assert {found[name] for name in missed} == {0}


def test_fluency_is_that_of_the_text(tokenizer: Any) -> None:
    lm = ScriptedLM(tokenizer, {"Ann": " and Bo and Bo and Bo", "Bo": " is here for once"})
    twice = WritingTask("r", ("Ann", "Bo", "Ann"))
    dull, fresh = "Ann and Bo and Bo and Bo", "Bo is here for once"
    assert write_passages(lm, [twice], top_k=1) == [[dull, fresh, dull]]
    found = evaluate_passages(lm, [twice, WritingTask("s", ("Bo",))], top_k=1)
    low, high = ngram_entropy(dull).item(), ngram_entropy(fresh).item()
    assert low < high
    assert found == {"fluency": pytest.approx(((2 * low + high) / 3 + high) / 2, abs=1e-5)}
    assert evaluate_passages(lm, []) == {}


def test_every_score_says_how_it_was_measured(tokenizer: Any) -> None:
    lm = ScriptedLM(tokenizer, ORACLE)
    baseline = measure_baseline(lm, REQUESTS)
    assert evaluate(lm, REQUESTS, baseline).protocol.to_dict() == {
        "decode": "greedy",
        "judge": "exact_match",
        "average": "probes",
        "locality": "unedited",
        "max_new_tokens": 24,
        "thought_tokens": 96,
        "until": "sentence",
    }
    assert evaluate(lm, REQUESTS).protocol.locality == "gold"
    assert evaluate(lm, REQUESTS, decode="teacher_forced").protocol.decode == "teacher_forced"
    assert "mean" in evaluate_counterfact(lm, REQUESTS).protocol.name
    assert "whole answer" in evaluate_counterfact(lm, REQUESTS, "sum").protocol.name
    assert evaluate_token_accuracy(lm, REQUESTS).protocol.name == "teacher_forced, tokens, by records, locality gold"
    names = {evaluate_passages(lm, TASKS, top_k=k).protocol.name for k in (1, 2)}
    assert len(names) == 2
    assert json.loads(json.dumps(evaluate(lm, REQUESTS).row()))["protocol"].startswith("greedy-24, to sentence")


# -- what each evaluation refuses ----------------------------------------------------------------------------------


def test_counterfact_needs_the_old_answer_and_all_three_kinds_for_a_score(tokenizer: Any) -> None:
    lm = ScriptedLM(tokenizer, ORACLE)
    bare = EditRequest(id="x", prompt="Ann lives in", target="Lyon")
    with pytest.raises(RequestError, match="request 'x' names no old answer"):
        evaluate_counterfact(lm, [bare])
    partial = EditRequest(id="x", prompt="Ann lives in", target="Lyon", old="Oslo")
    assert list(evaluate_counterfact(lm, [partial])) == ["efficacy_success", "efficacy_magnitude"]
    assert evaluate_counterfact(lm, []) == {}
    fed = lm.model.rows
    evaluate_counterfact(lm, [partial, partial])
    assert lm.model.rows == fed + 2  # every distinct pair once


def test_token_baseline_is_plain_complete_and_carries_its_length(tokenizer: Any) -> None:
    lm = ScriptedLM(tokenizer, UNEDITED)
    baseline = measure_token_baseline(lm, REQUESTS[:2], length=3)
    assert all(len(ids) <= 3 for ids in baseline.tokens.values())
    loaded = TokenBaseline()
    loaded.load_state_dict(baseline.state_dict())
    assert loaded == baseline
    with pytest.raises(StateError, match="no continuation of 'The twin of Cy lives in'"):
        evaluate_token_locality(lm, REQUESTS, loaded)
    assert measure_token_baseline(lm, REQUESTS, into=loaded) is loaded
    assert max(map(len, loaded.tokens.values())) <= 3
    assert evaluate_token_locality(lm, REQUESTS, loaded).protocol.max_new_tokens == 3
    with pytest.raises(StateError, match="version 9"):
        loaded.load_state_dict({"version": 9})


def test_probes_that_an_edit_changes_are_not_continued(tokenizer: Any) -> None:
    lm = ScriptedLM(tokenizer, UNEDITED)
    baseline = measure_token_baseline(lm, REQUESTS)
    twin = EditRequest(id="twin", prompt="The twin of Ann lives in", target="Lyon")
    lm.model.learn({**UNEDITED, twin.prompt: " Lyon"})
    assert evaluate_token_locality(lm, REQUESTS, baseline)["token_locality/exact_match"] == 0.75
    assert evaluate_token_locality(lm, REQUESTS, baseline, [*REQUESTS, twin])["token_locality/exact_match"] == 1
    assert evaluate_token_locality(lm, [twin], baseline) == {}


def test_one_wrong_answer_costs_its_event(tokenizer: Any) -> None:
    lm = ScriptedLM(tokenizer, {**ORACLE, "Dan lives in": " Rome"})
    outcomes = ask(lm, REQUESTS)
    assert event_shares(outcomes, REQUESTS) == {"event_accuracy": 0.5, "question_accuracy": 15 / 16}
    assert event_shares(outcomes, REQUESTS, ["portability"])["event_accuracy"] == 1
    assert event_shares(outcomes, REQUESTS, []) == {}
    alone = [dataclasses.replace(request, group=None) for request in REQUESTS]
    assert event_shares(outcomes, alone)["event_accuracy"] == 0.75
    with pytest.raises(RequestError, match="an answer about 'Dan'"):
        event_shares(outcomes, REQUESTS[:3])


def test_writing_tasks_come_from_counterfacts_own_files(tmp_path: Path) -> None:
    records = [
        {
            "case_id": 7,
            "requested_rewrite": {"relation_id": "P1", "target_new": {"str": "Lyon", "id": "Q1"}},
            "generation_prompts": ["Ann", "Ann", "Ann's home"],
        },
        {
            "case_id": 8,
            "requested_rewrite": {"relation_id": "P2", "target_new": {"id": "Q9"}},
            "generation_prompts": ["Bo"],
        },
        {"case_id": 9, "requested_rewrite": {}},
    ]
    snippets = [
        {"relation_id": "P1", "target_id": "Q1", "samples": [{"text": "Eve lives in Lyon.", "name": "Eve"}]},
        {"relation_id": "P1", "target_id": "Q1", "samples": [{"text": "So does Flo."}]},
        {"relation_id": "P1", "target_id": "Q2", "samples": [{"text": "Not Gus."}]},
    ]
    (tmp_path / "records.json").write_text(json.dumps(records))
    (tmp_path / "snippets.json").write_text(json.dumps(snippets))
    assert read_writing_tasks(tmp_path / "records.json", tmp_path / "snippets.json") == [
        WritingTask("counterfact-7", ("Ann", "Ann", "Ann's home"), ("Eve lives in Lyon.", "So does Flo.")),
        WritingTask("counterfact-8", ("Bo",)),
    ]
    assert [task.references for task in read_writing_tasks(tmp_path / "records.json")] == [(), ()]
    (tmp_path / "snippets.json").write_text(json.dumps([{"relation_id": "P1"}]))
    with pytest.raises(RequestError, match=r"snippets\.json:1: KeyError\('target_id'\)"):
        read_writing_tasks(tmp_path / "records.json", tmp_path / "snippets.json")
    (tmp_path / "records.json").write_text('{"generation_prompts": ["x"]}\n[1]')
    with pytest.raises(RequestError, match=r"records\.json:2: found no object"):
        read_writing_tasks(tmp_path / "records.json")


def test_a_chat_and_its_limits_are_part_of_the_protocol(tokenizer: Any) -> None:
    assert AnswerOptions.for_instruct().wording()["max_new_tokens"] == 50
    assert AnswerOptions.for_reasoning().wording()["max_new_tokens"] == 1024
    with pytest.raises(EditError, match="until='word'"):
        AnswerOptions(until="word")  # type: ignore[arg-type]
    with pytest.raises(EditError, match="chat=True"):
        AnswerOptions(system="Be brief.")
    with pytest.raises(EditError, match="expected 'greedy'"):
        evaluate(ScriptedLM(tokenizer, {}), REQUESTS, decode="teacher_forced", options=AnswerOptions(reasoning=True))
