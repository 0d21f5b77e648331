"""`compare`: editors play the same streams from the same weights, and seeds are summed up."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_edit.data import load_requests
from lightning_edit.editors.memit import MEMIT
from lightning_edit.editors.registry import get_editor
from lightning_edit.editors.report import EditReport
from lightning_edit.errors import EditError
from lightning_edit.evaluation import Evaluator
from lightning_edit.jobs.asking import Asking
from lightning_edit.jobs.compare import compare
from lightning_edit.jobs.stage import Stage
from lightning_edit.module import EditableModule
from lightning_edit.runner.results import Curve, RunResult
from lightning_edit.runner.spread import summarise


class Refusing(MEMIT):
    """An editor that refuses every edit."""

    def edit(self, *_: Any, **__: Any) -> EditReport:
        raise EditError("not today")


class Second(MEMIT):
    """An editor that refuses the first edit."""

    def edit(self, module: Any, requests: Any, *more: Any, **options: Any) -> EditReport:
        batch = list(requests)
        if any(request.id == "r0" for request in batch):
            raise EditError("not the first")
        return super().edit(module, batch, *more, **options)


STRONG: dict[str, Any] = {"layers": [1], "clamp": 6.0, "steps": 40, "weight_decay": 0.0, "prior_weight": 1.0}


def test_every_editor_starts_from_the_clean_model(model_folder: Path, request_file: Path, tmp_path: Path) -> None:
    first, other, again = compare(
        tmp_path,
        {"first": {}, "other": {"aligned": False, "in_steps": 4}, "again": {}},
        STRONG,
        str(model_folder),
        str(request_file),
        count=4,
        steps=2,
        seeds=[0, 1],
        measurements=2,
        reference="first",
    )
    assert first.row["aligned"] is True
    assert other.row["aligned"] is False
    assert (first.row["steps"], other.row["steps"]) == (2, 4)
    assert first.row["seeds"] == 2
    assert first.row["edits"] == 4
    assert "reliability_std" in first.row
    assert first.curves["edit/count"].values == [2.0, 4.0]
    assert first.curves["edit/reliability"].values == again.curves["edit/reliability"].values
    same = {key: value for key, value in first.row.items() if not key.startswith("seconds")}
    assert same == {key: value for key, value in again.row.items() if not key.startswith("seconds")}
    assert first.row["reliability"] >= 0.5
    assert first.row["distance"] == again.row["distance"] == 0.0
    assert other.row["distance"] > 0.01


def test_the_clean_model_and_published_tables_have_their_place(two_seeds: dict[str, Any], tmp_path: Path) -> None:
    clean, edited = compare(
        tmp_path,
        {"memit": STRONG},
        **two_seeds,
        measurements=1,
        choice="first",
        tables=["counterfact", "zsre"],
        unedited=True,
        asking=Asking(teacher_forced=True),
    )
    assert clean.label == "unedited"
    published = {key for key in edited.row if key.endswith(("_success", "_token_accuracy", "_teacher_forced"))}
    assert len(published) >= 3
    assert published <= clean.row.keys()  # what a table flatters by shows in the model that holds no edit
    assert clean.row["reliability_teacher_forced"] == 0.0
    assert (clean.row["edits"], clean.row["reliability"], clean.row["locality"]) == (0, 0.0, 1.0)
    assert edited.row["reliability"] >= 0.5
    assert edited.row["latest_reliability"] in (0.0, 0.5, 1.0)  # of two requests
    assert edited.row["relative_change"] > 0.01
    assert edited.row["pending_norm"] <= edited.row["largest_pending_norm"] < 1e-4  # rounding alone
    assert edited.row["efficacy_success"] >= edited.row["reliability"]  # likelier than the old answer is less to ask
    assert edited.row["reliability_token_accuracy"] >= edited.row["reliability"]
    assert edited.row["reliability_std"] == 0.0  # both seeds take the same requests in the same order
    assert edited.row["failed_steps"] == 0


def test_a_refused_edit_counts_as_not_made(model_folder: Path, request_file: Path, tmp_path: Path) -> None:
    [result] = compare(
        tmp_path,
        {"refusing": {**STRONG, "editor": "tests.runner.test_compare.Refusing"}},
        model=str(model_folder),
        requests=str(request_file),
        count=4,
        steps=2,
        seeds=[0],
        measurements=1,
        device="cpu",
    )
    assert (result.row["failed_steps"], result.row["edits"]) == (2, 0)
    assert result.curves["edit/count"].values == [0.0]
    assert "seconds_per_edit" not in result.row
    assert result.row["relative_change"] == 0.0
    assert result.row["locality"] == 1.0
    assert result.notes[0] == "step 1 of 2 was refused: not today"


def test_of_a_refused_step_neither_edits_nor_seconds_are_counted(
    model_folder: Path, request_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    fresh: list[str] = []
    monkeypatch.setattr("lightning_edit.jobs.compare.reset_peak_cuda", lambda device: fresh.append(device.type))
    editors = {"second": {"editor": "tests.runner.test_compare.Second", **STRONG}, "memit": STRONG}
    names, given = (str(model_folder), str(request_file)), {"count": 4, "steps": 4, "choice": "first", "device": "cpu"}
    result, whole = compare(tmp_path, editors, None, *names, **given, seeds=[0, 1], decode="teacher_forced")
    assert fresh == ["cpu"] * 4  # each editor and seed has a peak of its own
    assert (whole.row["edits"], whole.row["failed_steps"]) == (4, 0)
    assert (result.row["edits"], result.row["failed_steps"]) == (3, 1)
    assert result.curves["edit/count"].values == [0.0, 1.0, 2.0, 3.0]
    assert result.curves["edit/reliability"].steps == [1, 2, 3, 4]  # what was tried is asked about
    assert result.row["protocol"] == "teacher_forced, target_tokens, by probes, locality unedited"


def test_matrices_beside_ffn_outputs_are_put_back_too(model_folder: Path, request_file: Path) -> None:
    lm = EditableModule.from_pretrained(str(model_folder)).language_model
    clean = {name: value.clone() for name, value in lm.model.state_dict().items()}
    stage, stream = Stage(lm, Evaluator(decode="teacher_forced")), load_requests(request_file)
    editor = get_editor("lora", policy="merge", modules=["q_proj"], rank=2, steps=3, lr=0.1)
    editor.prepare(lm)
    stage.play(editor, stream[:2], 1, stage.evaluator.measure_baseline(lm, stream))
    editor.detach(lm)
    moved = {name for name, value in lm.model.state_dict().items() if not torch.equal(value, clean[name])}
    assert moved
    assert all(name.endswith("q_proj.weight") for name in moved)
    stage.restore()
    assert all(torch.equal(value, clean[name]) for name, value in lm.model.state_dict().items())


def test_mistakes_are_named(model_folder: Path, request_file: Path, tmp_path: Path) -> None:
    names = (str(model_folder), str(request_file))
    with pytest.raises(EditError, match="holds 4 requests, expected at least count=9"):
        compare(tmp_path, {"memit": {}}, None, *names, count=9)
    with pytest.raises(EditError, match="reference='rome', expected one of memit"):
        compare(tmp_path, {"memit": {}}, None, *names, count=4, reference="rome")
    with pytest.raises(EditError, match="found measurements=0, expected at least 1"):
        compare(tmp_path, {"memit": {}}, None, *names, count=4, measurements=0)
    with pytest.raises(EditError, match="found 0 steps"):
        compare(tmp_path, {"memit": {"in_steps": 0}}, None, *names, count=4)
    with pytest.raises(EditError, match="expected one of them at most"):
        compare(tmp_path, {"memit": {}}, None, *names, count=4, corpus="a.txt", statistics="b.safetensors")
    with pytest.raises(EditError, match="expected another label"):
        compare(tmp_path, {"unedited": {}}, None, *names, count=4, unedited=True)


def test_a_seed_that_ended_early_leaves_the_steps_that_all_have() -> None:
    long, short = Curve([1, 2, 3], [0.0, 1.0, 1.0]), Curve([2, 3], [0.0, 0.5])
    found = summarise("memit", [RunResult("", curves={"r": long}), RunResult("", curves={"r": short})])
    assert found.curves["r"] == Curve([2, 3], [0.5, 0.75])


def test_seeds_are_summed_up() -> None:
    one = RunResult("", {"editor": "memit", "edits": 4, "reliability": 1.0}, {"r": Curve([1, 2], [0.0, 1.0])})
    two = RunResult("", {"editor": "memit", "edits": 4, "reliability": 0.5}, {"r": Curve([1, 2], [0.0, 0.5])})
    found = summarise("memit", [one, two])
    assert found.row == {
        "editor": "memit",
        "edits": 4,
        "reliability": 0.75,
        "reliability_std": pytest.approx(0.125**0.5),
        "seeds": 2,
    }
    assert found.curves["r"].values == [0.0, 0.75]
    assert found.curves["r:low"].values == [0.0, pytest.approx(0.75 - 0.125**0.5)]
    assert found.curves["r:high"].values == [0.0, pytest.approx(0.75 + 0.125**0.5)]
    assert json.dumps(found.row)
