"""What is not there is named before anything is loaded: models, requests, texts and key statistics."""

from pathlib import Path

import pytest

from lightning_edit.cli import main
from lightning_edit.errors import EditError, RequestError
from lightning_edit.jobs.inputs import check_files
from lightning_edit.llm.local import LocalModel
from lightning_edit.module import EditableModule

JOBS = ["edit_model", "fairness", "labyrinth_main", "labyrinth_conflicts", "labyrinth_interference", "locate"]
JOBS += ["diagnose", "labyrinth_latent_shift", "labyrinth_sensitivity", "sequential_vs_one_time", "leaderboard_events"]


@pytest.mark.parametrize("job", [*JOBS, "revisiting_collapse", "revisiting_stability"])
def test_a_job_names_a_missing_file_before_it_loads_a_model(
    job: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    option = "--edits.requests" if job == "revisiting_stability" else "--requests"
    model = ["--model", str(tmp_path / "no-model")]  # which would be an error, too, and comes later
    assert main(["run", job, "--output", str(tmp_path / "out"), *model, option, str(tmp_path / "edits.jsonl")]) == 1
    said = capsys.readouterr().err
    assert "found no file" in said
    assert "edits.jsonl, expected the requests there" in said


def test_every_kind_of_file_is_looked_for(tmp_path: Path) -> None:
    check_files()
    check_files("hf://datasets/owner/name/file.json")
    there = tmp_path / "text.txt"
    there.write_text("A text.")
    check_files(str(there), str(there), texts=str(there))
    check_files(str(there), statistics=str(there))
    for name in ("corpus", "statistics", "texts"):
        with pytest.raises(RequestError, match=f"expected the {name} there"):
            check_files(str(there), **{name: str(tmp_path / "none")})


def test_a_missing_model_is_named(tmp_path: Path) -> None:
    for load in (EditableModule.from_pretrained, LocalModel.from_pretrained):
        with pytest.raises(EditError, match=r"found no model that can be loaded as .*none.*expected a folder"):
            load(str(tmp_path / "none"))


def test_a_folder_without_a_tokenizer_is_named(tmp_path: Path, model_folder: Path) -> None:
    for file in ("config.json", "generation_config.json", "model.safetensors"):
        (tmp_path / file).write_bytes((model_folder / file).read_bytes())
    with pytest.raises(EditError, match=r"found no model that can be loaded as .* folder with a model and its tok"):
        EditableModule.from_pretrained(tmp_path)
