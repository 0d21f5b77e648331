"""Options of comparing jobs: each reaches the row, the tables or the files it is meant for."""

import json
from pathlib import Path
from typing import Any

import pytest

from lightning_edit.editors.rome import ROME
from lightning_edit.errors import EditError
from lightning_edit.evaluation import AnswerOptions
from lightning_edit.jobs.asking import Asking
from lightning_edit.jobs.asking_groups import play_in_groups
from lightning_edit.jobs.compare import compare
from lightning_edit.jobs.failure_tables import SHOWN_CASES, case_table
from lightning_edit.jobs.stage import Stage
from lightning_edit.judges.failure_modes import FailureCase
from lightning_edit.llm import Reply
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.probes import Probe
from lightning_edit.requests import EditRequest
from lightning_edit.runner.job import job_parser
from lightning_edit.runner.recipe import load_recipe
from lightning_edit.runner.results import RunResult
from lightning_edit.runner.spread import summarise
from tests.editors.test_grouped_protocols import Scripted
from tests.scripted import ScriptedLM

THINKING = AnswerOptions(max_new_tokens=40, reasoning=True)
EDITS = [EditRequest(f"r{i}", f"{name} is in", "Rome", name, old="Oslo") for i, name in enumerate(["Ann", "Bo", "Cy"])]
BEFORE = {"Ann is in": " Oslo", "Bo is in": " Oslo and so", "Cy is in": " of"}
AFTER = {"Ann is in": " So.</think> Rome", "Bo is in": " No, it was Oslo.</think> Oslo", "Cy is in": " Hm. Hm. Hm."}


class Reader:
    """A language model that says A of Bo, and nothing that can be used of Cy."""

    name = identity = "reader"

    def ask(self, prompts: Any) -> Any:
        yield from ((n, Reply("A" if "Bo is in" in prompt else "Who knows")) for n, prompt in enumerate(prompts))


def finished(lm: Any, options: Asking, folder: Path) -> RunResult:
    evaluator, result = options.evaluator(None, "greedy"), RunResult("memit")
    baseline = evaluator.measure_baseline(lm, EDITS)
    known = options.untouched(lm, EDITS)
    lm.model.learn(AFTER)
    outcomes = evaluator.ask(lm, EDITS, baseline)
    asked = len(lm.model.fed)
    options.finish(result, lm, ROME(), EDITS, evaluator, outcomes, known, folder)
    assert len(lm.model.fed) == asked  # the answers that are there are split and read, and nothing is asked again
    return result


def test_failed_edits_are_read_and_kept(tokenizer: Any, tmp_path: Path) -> None:
    options = Asking(THINKING, by_confidence=True, failures={"class_path": "tests.runner.test_asking.Reader"})
    result = finished(ScriptedLM(tokenizer, BEFORE), options, tmp_path)
    assert result.row["failures"] == 1.0  # Cy's has no verdict
    assert result.row["failure/conflicting_knowledge"] == 1.0
    assert (result.row["reliability_high_logp"], result.row["reliability_low_logp"]) == (1.0, 0.0)
    lines = [json.loads(line) for line in result.files["failed edits"].read_text().splitlines()]
    assert [(line["request"], line["mode"]) for line in lines] == [("r1", "conflicting_knowledge"), ("r2", None)]
    (table,) = result.tables
    assert table.rows[0] == [
        "Reasoning with conflicting knowledge",
        "Bo is in",
        "Rome",
        "No, it was Oslo.</think> Oslo",
    ]
    assert str(table.rows[1][0]).startswith("no verdict: malformed reply")
    assert summarise("memit", [result]).tables == result.tables


def test_teacher_forced_shares_stand_beside(tokenizer: Any, tmp_path: Path) -> None:
    options = Asking(teacher_forced=True)
    lm = ScriptedLM(tokenizer, BEFORE)
    evaluator = options.evaluator(None, "greedy")
    baseline, known, result = evaluator.measure_baseline(lm, EDITS), options.untouched(lm, EDITS), RunResult("a")
    lm.model.learn({"Ann is in": " Rome", "Bo is in": " Rome and so on", "Cy is in": " Oslo"})
    options.finish(result, lm, ROME(), EDITS, evaluator, [], known, tmp_path)
    assert result.row == {"reliability_teacher_forced": pytest.approx(2 / 3)}
    assert evaluator.evaluate(lm, EDITS, baseline)["reliability"] == pytest.approx(1 / 3)


def test_costs_are_held_against_the_clean_model(
    tiny_lm: LanguageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    options, result = Asking(latency=1), RunResult("a")
    evaluator = options.evaluator(None, "greedy")
    known = options.untouched(tiny_lm, EDITS)
    assert known.prompts == ["Ann is in", "Bo is in"]
    options.finish(result, tiny_lm, ROME(), EDITS, evaluator, [], known, tmp_path)
    assert known.latency is not None
    assert result.row["latency_ratio"] == pytest.approx(float(result.row["latency_seconds"]) / known.latency.median)
    assert result.row["state_bytes"] > 0
    assert result.row["peak_rss_bytes"] > 1e7


STRONG: dict[str, Any] = {"layers": [1], "clamp": 6.0, "steps": 40, "weight_decay": 0.0, "prior_weight": 1.0}


def test_groups_are_asked_all_that_a_sequence_is(tokenizer: Any, tmp_path: Path) -> None:
    """An editor that forgets all but the last edit of a group; the clean model is sure that Ann and Bo are in Oslo."""
    people = {"Ann is in": " Oslo", "Bo is in": " Oslo", "Cy is in": " of", "Di is in": " of"}
    requests = [EditRequest(f"r{i}", prompt, "Rome", prompt[:2], old="Oslo") for i, prompt in enumerate(people)]
    reader = {"class_path": "tests.runner.test_asking.Reader"}
    options = Asking(groups=[4, 1], by_confidence=True, failures=reader, teacher_forced=True)
    lm, editor, evaluator = ScriptedLM(tokenizer, people), Scripted(people, True), options.evaluator(None, "greedy")
    known = evaluator.measure_baseline(lm, requests), options.untouched(lm, requests)
    result = play_in_groups(editor, lm, requests, options, evaluator, *known, tmp_path / "seed-0")
    assert result.row["reliability"] == result.row["reliability_teacher_forced"] == 0.25
    assert (result.row["reliability_high_logp"], result.row["reliability_low_logp"]) == (0.0, 0.5)
    assert (result.row["failures"], result.row["failure/conflicting_knowledge"]) == (
        1.0,
        1.0,
    )  # of Ann and Cy: no verdict
    for name, alone in (("reliability_low_logp", 1.0), ("reliability_teacher_forced", 1.0), ("failures", 0.0)):
        assert result.curves[f"edit/{name}"].values == [alone, result.row[name]]
    assert result.row["protocol"] == "greedy-24, to sentence, exact_match, by probes, locality unedited"
    files = {name: path.read_text().count("\n") for name, path in result.files.items()}
    assert files == {"failed edits, groups of 1": 0, "failed edits, groups of 4": 3}
    assert [table.title for table in result.tables] == [f"Failed edits of {tmp_path.name}/seed-0-groups-4"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"steps": 2}, "found steps=2 beside"),
        ({"measurements": 1}, "found measurements=1 beside"),
        ({"tables": ["zsre"], "abilities": 3}, r"found tables=\['zsre'\], abilities=3 beside"),
        ({"reference": "memit"}, "found reference='memit' beside"),
        ({"editors": {"memit": {"in_steps": 4}}}, r"found in_steps=\['memit: 4'\] beside"),
        ({"count": 1}, "out of 1 requests; expected sizes from 1 to 1"),
        ({"asking": Asking(groups=[0, 1])}, "expected sizes from 1 to 4"),
    ],
)
def test_what_groups_have_no_answer_to_is_refused(tmp_path: Path, options: dict[str, Any], message: str) -> None:
    given = {"editors": {"memit": {}}, "count": 4, "asking": Asking(groups=[2, 1]), **options}
    with pytest.raises(EditError, match=message):
        compare(tmp_path, model="no such model", requests="no such file", **given)


def test_how_many_probes_are_asked_and_whether_by_kind(model_folder: Path, request_file: Path, tmp_path: Path) -> None:
    probes = [Probe(f"P{number}", ("x",)) for number in range(7)]
    full = EditRequest(
        "r",
        "Ann is in",
        "Rome",
        paraphrases=("a", "b", "c"),
        locality={"near": probes},
        portability={"two_hop": probes},
    )
    counts = []
    for options in (Asking(), Asking(paraphrases=None, locality=None, portability=None), Asking(locality=0)):
        [drawn] = options.evaluator(None, "greedy").draw([full])
        counts.append([len(drawn.paraphrases), len(drawn.locality.get("near", ())), len(drawn.portability["two_hop"])])
    assert counts == [[2, 4, 2], [3, 7, 7], [2, 0, 2]]
    with pytest.raises(EditError, match="found locality=-1; expected a number from 0 on"):
        Asking(locality=-1)
    names, given = (str(model_folder), str(request_file)), {"count": 4, "seeds": [0], "device": "cpu"}
    for more in ({"steps": 1, "asking": Asking(by_kind=True)}, {"asking": Asking(by_kind=True, groups=[4])}):
        [result] = compare(tmp_path, {"memit": STRONG}, None, *names, **given, **more)
        assert result.row["locality/neighbour"] == result.row["locality"]
        assert result.curves["edit/locality/neighbour"].values[-1] == result.row["locality"]


def test_one_judge_for_all_numbers_of_a_row(tokenizer: Any) -> None:
    lm, evaluator = ScriptedLM(tokenizer, BEFORE), Asking(judge="contains").evaluator(None, "greedy")
    baseline = evaluator.measure_baseline(lm, EDITS)
    lm.model.learn({request.prompt: " Oslo and Rome" for request in EDITS})
    row = Stage(lm, evaluator).measure(EDITS, EDITS[-1:], baseline, [])
    assert (row["reliability"], row["judge_agreement"]) == (1.0, 0.0)
    assert row["latest_reliability"] == 1.0


def test_compare_plays_in_groups_and_asks_what_it_is_told(
    model_folder: Path, request_file: Path, tmp_path: Path
) -> None:
    names, given = (str(model_folder), str(request_file)), {"count": 4, "seeds": [0]}
    (grouped,) = compare(tmp_path, {"memit": STRONG}, None, *names, **given, asking=Asking(groups=[2, 1]))
    assert grouped.curves["edit/count"].values == [1.0, 2.0]
    assert grouped.row["groups"] == grouped.row["undone"] == 2
    assert grouped.row["editor"] == "memit"
    assert not {"steps", "failed_steps", "pending_norm"} & grouped.row.keys()
    asked = Asking(groups=[2, 1], by_confidence=True, latency=1, judge="contains")
    (grouped,) = compare(tmp_path, {"memit": STRONG}, None, *names, **given, asking=asked)
    assert {"reliability_high_logp", "locality_low_logp", "latency_ratio", "state_bytes"} <= grouped.row.keys()
    assert grouped.curves["edit/latency_ratio"].steps == [1, 2]
    assert grouped.row["protocol"] == "greedy-24, to sentence, contains, by probes, locality unedited"
    options = Asking(teacher_forced=True, by_confidence=True, latency=1)
    (whole,) = compare(tmp_path, {"memit": STRONG}, None, *names, **given, steps=2, asking=options)
    assert float(whole.row["reliability_teacher_forced"]) >= float(whole.row["reliability"])
    assert {"reliability_high_logp", "locality_low_logp", "latency_ratio", "state_bytes"} <= whole.row.keys()
    assert (whole.row["steps"], whole.row["protocol"]) == (
        2,
        str(grouped.row["protocol"]).replace("contains", "exact_match"),
    )


def test_few_cases_are_shown_of_many_and_each_mode_among_them() -> None:
    cases = [
        FailureCase(f"r{i}", "?", "Rome", "long " * 500, mode="lost_focus" if i else "hallucination") for i in range(40)
    ]
    table = case_table("memit", cases)
    assert len(table.rows) == SHOWN_CASES
    assert {row[0] for row in table.rows} == {"Hallucination", "Losing focus during reasoning"}
    assert max(len(str(row[3])) for row in table.rows) < 500
    assert "12 of 40" in table.text


@pytest.mark.parametrize("name", ["teacher_forcing", "revisiting_retention"])
def test_recipes_say_it_in_yaml(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)  # a judge's cache would be made here
    recipe = load_recipe(name)
    parsed = job_parser(recipe, compare).parse_args(["--asking.answers.chat", "true", "--asking.latency", "2"])
    asking = job_parser(recipe, compare).instantiate_classes(parsed).asking
    assert (asking.answers.chat, asking.latency) == (True, 2)
    assert asking.teacher_forced is (name == "teacher_forcing")
    assert asking.groups == ([1, 10, 100] if name == "revisiting_retention" else None)
    if recipe.paper:
        paper = job_parser(recipe.as_published(), compare)
        asking = paper.instantiate_classes(paper.parse_args([])).asking
        assert asking.evaluator(None, "greedy").judge.name == "llm:Qwen/Qwen2.5-72B-Instruct"
        assert asking.answers.max_new_tokens == 50


def test_what_does_not_go_together(tokenizer: Any) -> None:
    with pytest.raises(EditError, match="expected decode='greedy'"):
        Asking(teacher_forced=True).evaluator(None, "teacher_forced")
    with pytest.raises(EditError, match="no request with an `old` answer"):
        Asking(by_confidence=True).untouched(ScriptedLM(tokenizer, {}), [EditRequest("r", "Ann is in", "Rome")])
    assert Asking(judge="contains").evaluator(5, "greedy").judge.name == "contains"  # type: ignore[union-attr]
