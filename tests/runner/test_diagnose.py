"""`diagnose`: trials that leave no trace, and settings that `edit_model` takes."""

from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from lightning_edit.cli import main
from lightning_edit.editors import ClosedFormEditor
from lightning_edit.errors import EditError
from lightning_edit.jobs import diagnose as room
from lightning_edit.jobs.diagnose import candidates, diagnose
from lightning_edit.jobs.geometry_settings import Reading
from lightning_edit.jobs.stage import load_model
from lightning_edit.model.language_model import LanguageModel

STRONG: dict[str, Any] = {"clamp": 6.0, "steps": 20, "weight_decay": 0.0, "contexts": ["Well. "]}


@pytest.fixture
def reading(tmp_path: Path) -> Reading:
    path = tmp_path / "texts.txt"
    path.write_text("\n\n".join(f"{name} lives in the city of {place}." for name in "ABCDEF" for place in "GHIJKL"))
    return Reading(texts=str(path), samples=100, batch_size=4)


def test_trials_are_undone_and_the_settings_are_accepted(
    model_folder: Path, request_file: Path, reading: Reading, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    models: list[LanguageModel] = []

    def load(*arguments: Any) -> LanguageModel:
        models.append(load_model(*arguments))
        return models[-1]

    monkeypatch.setattr(room, "load_model", load)
    output = tmp_path / "diagnosis"
    output.mkdir()
    names = (str(model_folder), str(request_file))
    results = diagnose(output, *names, "memit", STRONG, 4, length=1, factors=[0.01, 100.0], tokens=600, reading=reading)
    clean = load_model(str(model_folder), "float32", None).model
    assert all(torch.equal(a, b) for a, b in zip(clean.parameters(), models[0].model.parameters(), strict=True))
    assert [result.label.split()[0] for result in results] == ["layers"] * 3 + ["prior_weight"] * 2
    for result in results:
        assert 0 <= result.row["score"] <= 1
        assert result.row["R_median"] > 0
    low, high = results[3].row, results[4].row
    assert low["delta_norm"] > high["delta_norm"]
    assert low["prior_weight"] == pytest.approx(1e-4 * high["prior_weight"])
    best = max(results, key=lambda result: result.row["score"])
    settings = yaml.safe_load((output / "preset.yaml").read_text())
    assert settings["editor"] == "memit"
    assert settings["options"]["layers"] == [int(best.row["layers"])]
    assert settings["options"]["clamp"] == 6.0
    assert results[0].files["trials"].is_file()
    assert any("edit_model --config" in note for note in results[0].notes)

    edited = tmp_path / "edited"
    chosen = ["--model", names[0], "--requests", names[1], "--tokens", "600", "--output", str(edited)]
    assert main(["run", "edit_model", "--config", str(output / "preset.yaml"), *chosen]) == 0
    assert f"layers {settings['options']['layers']} were edited" in (edited / "report.md").read_text()


def test_a_failed_trial_is_a_row_and_a_trace_is_an_error(
    model_folder: Path, request_file: Path, reading: Reading, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = (str(model_folder), str(request_file))
    edit = ClosedFormEditor.edit

    def fail(self: ClosedFormEditor, module: object, requests: Any, guard: Any = None) -> Any:
        if self.layers == [0]:
            raise EditError("too steep")
        return edit(self, module, requests, guard)

    monkeypatch.setattr(ClosedFormEditor, "edit", fail)
    results = diagnose(tmp_path, *names, "memit", STRONG, 2, [[0], [1]], factors=[1.0], tokens=600, reading=reading)
    assert results[0].row["score"] == 0
    assert results[0].notes[0] == "the trial failed: too steep"
    assert results[1].row["R_median"] > 0
    assert yaml.safe_load((tmp_path / "preset.yaml").read_text())["editor"] == "memit"
    monkeypatch.setattr(ClosedFormEditor, "undo", lambda *_: None)
    with pytest.raises(EditError, match="did not give the weights back"):
        diagnose(tmp_path, *names, "memit", STRONG, 2, [[1]], tokens=600, reading=reading)


def test_candidates_are_spread_evenly(tiny_lm: LanguageModel) -> None:
    assert candidates(tiny_lm, 1, 8) == [[0], [1], [2]]
    assert candidates(tiny_lm, 2, 8) == [[0, 1], [1, 2]]
    assert candidates(tiny_lm, 1, 2) == [[0], [2]]
    assert candidates(tiny_lm, 1, 1) == [[0]]
    for length, most in ((4, 8), (0, 8), (1, 0)):
        with pytest.raises(EditError, match="for 3 layers"):
            candidates(tiny_lm, length, most)


def test_an_editor_without_layers_is_refused(model_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(EditError, match="no option `layers`"):
        diagnose(tmp_path, str(model_folder), editor="tests.callbacks.memory.Memory")
