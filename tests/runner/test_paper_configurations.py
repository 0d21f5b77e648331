"""`--paper`: the published experiment behind a recipe parses, and what it names exists, with no weights at hand."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from lightning_edit.cli import main
from lightning_edit.editors.emmet import EMMET
from lightning_edit.editors.preset_sheet import shipped_presets
from lightning_edit.editors.rome import ROME
from lightning_edit.jobs.cast import Declared
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.runner.job import find_job, job_parser
from lightning_edit.runner.merge import RecipeError
from lightning_edit.runner.recipe import load_recipe
from lightning_edit.runner.results import RunResult

LABYRINTH = ["main", "ablation", "memorize_latest", "latent_shift", "conflicts", "sensitivity", "interference"]
JOBS = [*[f"labyrinth_{name}" for name in LABYRINTH], "sequential_vs_one_time"]
PAPERS = [*JOBS, "edits_survive_training"]


@pytest.mark.parametrize("name", PAPERS)
def test_it_parses_without_the_model(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        main(["run", name, "--paper", "--print_config"])
    assert exit_.value.code == 0
    assert "lama" in capsys.readouterr().out  # Llama is what it would load


@pytest.mark.parametrize("name", JOBS)
def test_its_editors_can_be_made_and_its_model_has_a_preset(name: str) -> None:
    recipe = load_recipe(name).as_published()
    settings = job_parser(recipe, find_job(recipe.job)).parse_args([])
    assert settings.model != "embedded"
    assert max(settings.get("count", 0), settings.get("facts", 0), *settings.get("counts", [0])) >= 200
    sheet = next(sheet for sheet in shipped_presets().values() if settings.model in sheet.models)
    declared = recipe.arguments.get("editors") or {"it": {}}
    lm = _on_paper(sheet.config, settings.model)
    for options in declared.values():
        shared = {**(recipe.arguments.get("shared") or {}), **(recipe.arguments.get("options") or {})}
        editor = Declared.read(options, {**shared, "contexts": []}, 20).build()  # to sample some, it would have to run
        layers, stretch = editor.attach(lm), list(sheet.families[sheet.family].values["layers"])
        alone = type(editor) in (ROME, EMMET) or options.get("on") == "rome"
        assert layers == stretch or (alone and len(layers) == 1 and layers[0] in stretch)


def test_its_output_has_a_folder_of_its_own_and_others_have_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text(
        "recipe: mine\njob: tests.runner.test_paper_configurations.echo\narguments: {size: 1}\npaper: {size: 8}\n"
    )
    monkeypatch.chdir(tmp_path)
    assert main(["run", str(file)]) == 0
    assert main(["run", str(file), "--paper"]) == 0
    assert main(["run", str(file), "--paper", "--size", "9", "--output", "elsewhere"]) == 0
    sizes = [
        json.loads((tmp_path / folder / "summary.json").read_text())["rows"][0]["size"]
        for folder in ("runs/mine", "runs/mine_paper", "elsewhere")
    ]
    assert sizes == [1, 8, 9]
    with pytest.raises(RecipeError, match="'locate' has no paper configuration"):
        load_recipe("locate").as_published()


def echo(size: int) -> list[RunResult]:
    """Say what it was given.

    Args:
        size: A number.
    """
    return [RunResult("echo", {"size": size})]


def _on_paper(config: dict[str, Any], name: str) -> LanguageModel:
    """The model without any weight, on the meta device, with a tokenizer that is never asked."""
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model(**config))
    model.config._name_or_path = name
    words = Tokenizer(WordLevel({"a": 0}, unk_token="a"))
    return LanguageModel(model, PreTrainedTokenizerFast(tokenizer_object=words, eos_token="a"))
