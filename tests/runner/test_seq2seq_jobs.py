"""Jobs and recipes on a tiny T5 in a folder: `edit_model` from the command line, and the geometry of both stacks."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM, AutoTokenizer

from lightning_edit import EditableModule
from lightning_edit.cli import main
from lightning_edit.editors import get_editor
from lightning_edit.editors.mend.network import MENDNetwork
from lightning_edit.editors.mend.training import size_of
from lightning_edit.editors.preset_sheet import shipped_presets
from lightning_edit.editors.storage import save_state
from lightning_edit.jobs.cast import Declared
from lightning_edit.jobs.geometry_seq2seq import seq2seq
from lightning_edit.jobs.geometry_settings import Edits, Reading
from lightning_edit.jobs.geometry_stage import GeometryStage
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.requests import EditRequest
from lightning_edit.runner.job import find_job, job_parser
from lightning_edit.runner.recipe import load_recipe
from tests.runner.test_geometry_jobs import TEXTS
from tests.seq2seq import END, PAD, ending, tiny_t5

TARGETS = {"Ann Smith": "city", "Bob Ray": "a large city"}
PROMPT = "the mother of {}"


@pytest.fixture(scope="module")
def t5_folder(trained_backend: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("t5")
    tiny_t5().save_pretrained(folder)
    ending(trained_backend).save_pretrained(folder)
    return folder


@pytest.fixture(scope="module")
def edit_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    file = tmp_path_factory.mktemp("edits") / "edits.jsonl"
    pairs = enumerate(TARGETS.items())
    made = [EditRequest(f"r{i}", PROMPT.format(name), new, name, old="known") for i, (name, new) in pairs]
    probe = {"near": [{"prompt": "The river of the north is", "answers": ["known"]}]}
    file.write_text("\n".join(json.dumps({**one.to_dict(), "locality": probe}) for one in made))
    return file


def test_a_t5_folder_is_edited_saved_and_loaded_by_plain_transformers(
    t5_folder: Path, edit_file: Path, tmp_path: Path
) -> None:
    names = ["--model", str(t5_folder), "--requests", str(edit_file), "--editor", "ft_l", "--output", str(tmp_path)]
    options = ["--options.lr=0.005", "--options.steps=80", "--options.layers=[decoder.block.0,decoder.block.1]"]
    assert main(["run", "edit_model", *names, *options]) == 0
    before, after = json.loads((tmp_path / "summary.json").read_text())["rows"]
    assert before["reliability"] == 0
    assert after["reliability"] == 1
    assert after["target_likelier_than_old"] == 1
    model = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "model")
    tokenizer = AutoTokenizer.from_pretrained(tmp_path / "model")
    for name, target in TARGETS.items():
        ids = tokenizer(PROMPT.format(name), return_tensors="pt").input_ids
        assert int(ids[0, -1]) == END
        written = model.generate(ids, max_new_tokens=12, do_sample=False, decoder_start_token_id=PAD)[0]
        assert tokenizer.decode(written, skip_special_tokens=True).strip() == target  # whole, and nothing behind it
    module = EditableModule.from_pretrained(tmp_path / "model")
    said = module.generate([PROMPT.format(name) for name in TARGETS], 12)
    assert [text.strip() for text in said] == [*TARGETS.values()]


def test_memit_is_refused_with_the_reason(
    t5_folder: Path, edit_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["--model", str(t5_folder), "--requests", str(edit_file), "--output", str(tmp_path)]
    assert main(["run", "edit_model", *names]) == 1
    assert "is an encoder-decoder" in capsys.readouterr().err


PLACES = ["encoder.block.1", "encoder.block.1_wi", "decoder.block.1", "decoder.block.1_wi"]


def reading(tmp_path: Path) -> Reading:
    file = tmp_path / "texts.txt"
    file.write_text("\n\n".join(TEXTS))
    return Reading(
        layers=["encoder.block.1", "decoder.block.1"],
        parts=["output", "up"],
        texts=str(file),
        samples=90,
        sketch=40,
        subspaces=[4],
        first_order=2,
        batch_size=4,
    )


def rows(results: list[Any], measured: str) -> dict[str, dict[str, Any]]:
    return {result.label: result.row for result in results if result.row["measured"] == measured}


def test_spectra_single_edits_and_a_sequence_in_both_stacks(t5_folder: Path, edit_file: Path, tmp_path: Path) -> None:
    fine_tuned = {"editor": "ft_m", "layers": ["encoder.block.1"], "lr": 0.01, "steps": 5}
    edits = Edits({"ft_m": fine_tuned}, requests=str(edit_file), choice="first")
    results = seq2seq(tmp_path, str(t5_folder), edits, [1, 2], reading(tmp_path))
    spectra = rows(results, "spectra")
    assert list(spectra) == PLACES
    for place, row in spectra.items():
        assert row["d"] == (64 if place.endswith("wi") else 32)
        assert 1 < row["effective_rank"] <= row["d"]
        assert row["null_R_max"] == 0
    single = rows(results, "one edit")
    assert single["ft_m encoder.block.1"]["norm_mean"] > 0
    assert single["ft_m encoder.block.1"]["first_order_error"] < 1e-3  # nothing to predict at the projection's output
    assert single["ft_m encoder.block.1_wi"]["norm_max"] == 0  # it lies before the edited matrix
    assert single["ft_m decoder.block.1"]["norm_mean"] > 0  # and the decoder behind it
    assert single["ft_m decoder.block.1_wi"]["first_order_error"] > 1e-3
    sequence = rows(results, "sequence")
    assert sequence["ft_m encoder.block.1_wi 2"]["cos_min_k4"] == pytest.approx(1)
    assert 0 <= sequence["ft_m decoder.block.1 2"]["cos_min_k4"] < 1


def test_mends_input_projections_are_measured_and_put_back(t5_folder: Path, edit_file: Path, tmp_path: Path) -> None:
    lm = EditableModule.from_pretrained(t5_folder).language_model
    paths = [f"decoder.block.1.layer.2.DenseReluDense.{name}" for name in ("wi", "wo")]
    torch.manual_seed(0)
    network = MENDNetwork({path: size_of(lm, path) for path in paths}, rank=4, rate=1e-2)
    for transform in network.transforms.values():
        transform.count.fill_(10)
        transform.squares.fill_(10)
    save_state(tmp_path / "mend.pt", {"version": 1, "identity": lm.identity, "network": network.to_plain()})
    edits = Edits({"mend": {"editor": "mend", "checkpoint": str(tmp_path / "mend.pt")}}, requests=str(edit_file))
    stage = GeometryStage(str(t5_folder), 1, edits, reading(tmp_path))
    clean = {name: value.clone() for name, value in stage.lm.model.state_dict().items()}
    assert set(stage.parameters) == {f"{path}.weight" for path in paths}
    played = stage.play("mend", [1])
    assert played.places == ["decoder.block.1"]
    assert played.values[0]["decoder.block.1_wi/edited/norm_mean"] > 0
    assert played.values[0]["decoder.block.1/edited/norm_mean"] > 0
    assert played.values[0]["encoder.block.1/edited/norm_max"] == 0
    assert all(torch.equal(value, clean[name]) for name, value in stage.lm.model.state_dict().items())


def test_the_published_configuration_names_t5_3b_and_places_it_has(trained_backend: str) -> None:
    recipe = load_recipe("revisiting_t5").as_published()
    parser = job_parser(recipe, find_job(recipe.job))
    settings = parser.instantiate_classes(parser.parse_args([]))
    sheet = shipped_presets()["t5-3b"]
    assert settings.model in sheet.models
    with torch.device("meta"):
        lm = LanguageModel(AutoModelForSeq2SeqLM.from_config(sheet.model_config()), ending(trained_backend))
    assert [lm.site(layer).layer for layer in settings.reading.layers] == [22, 23, 46, 47]
    declared = Declared.read(settings.edits.editors["mend"], {}, 1)
    assert declared.name == "mend"


def test_mend_is_trained_for_a_t5_by_the_recipe(t5_folder: Path, edit_file: Path, tmp_path: Path) -> None:
    small = ["--trainer.max_steps=2", "--trainer.val_check_interval=2", "--trainer.enable_progress_bar=false"]
    small += ["--data.count=1", "--data.validation=1", "--data.batch_size=1", "--data.rounds=4", "--model.rank=4"]
    names = [f"--model.model={t5_folder}", f"--data.requests={edit_file}", "--trainer.logger=false"]
    assert main(["run", "train_mend", "--output", str(tmp_path), *small, *names]) == 0
    module = EditableModule.from_pretrained(t5_folder)
    editor = get_editor("mend", checkpoint=str(tmp_path / "embedded" / "mend.pt"))
    assert editor.attach(module) == [0, 1, 2, 3]
