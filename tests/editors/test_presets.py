"""Presets: every number has a source and fits its model, and whoever gets a preset knows what was assumed."""

import logging
import re
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from lightning_edit.algebra import KeyCovariance
from lightning_edit.data.world import world_model_folder
from lightning_edit.editors import MEMIT, AlphaEdit, get_editor
from lightning_edit.editors.preset_scaling import nearest_sheet
from lightning_edit.editors.preset_sheet import ASSUMED, PresetSheet, read_sheet, shipped_presets
from lightning_edit.editors.preset_table import preset_tables
from lightning_edit.editors.presets import Preset, PresetWarning, choose_preset
from lightning_edit.errors import EditError
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.model.sites import find_sites
from tests.editors.conftest import STRONG, facts

Make = Callable[..., LanguageModel]
Moments = Callable[[LanguageModel], dict[int, KeyCovariance]]

EDITORS = (None, "MEMIT", "AlphaEdit", "MemorizeLatest", "ROME", "EMMET", "PMET", "RECT", "PRUNE")
PARAMETERS = {  # millions, as the models' cards say
    "gpt2-xl": 1558,
    "gpt-j-6b": 6051,
    "llama-2-7b": 6738,
    "llama-2-13b": 13016,
    "llama-3-8b": 8030,
    "llama-3.1-8b": 8030,
    "llama-3.2-3b": 3213,
    "deepseek-r1-distill-llama-8b": 8030,
    "mistral-7b": 7242,
    "qwen2.5-7b": 7616,
    "qwen3.5-9b": 8954,
    "qwen3-14b": 14768,
}


def sheet_of(name: str) -> PresetSheet:
    return shipped_presets()[name]


def empty_lm(name: str, tokenizer: PreTrainedTokenizerFast, **changes: object) -> LanguageModel:
    """A model of a preset's configuration, without memory for its weights."""
    config = sheet_of(name).model_config()
    for key, value in changes.items():
        setattr(config, key, value)
    with torch.device("meta"):
        return LanguageModel(AutoModelForCausalLM.from_config(config), tokenizer)


@pytest.mark.parametrize("name", PARAMETERS)
def test_the_bundled_configuration_is_the_models_and_every_site_is_found(name: str) -> None:
    sheet = sheet_of(name)
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(sheet.model_config())
    assert round(sum(parameter.numel() for parameter in model.parameters()) / 1e6) == PARAMETERS[name]
    sites = {site.layer: site for site in find_sites(model)}
    assert sheet.shape == (sites[0].width, sites[0].inner, len(sites))
    assert not sites[0].norm_after
    for editor in EDITORS:
        for family in sheet.families:
            for layer in sheet.settings(editor, family).layers or pytest.fail("no layers"):
                assert sites[layer].name == sheet.projection.format(layer)


def test_the_embedded_preset_fits_the_embedded_model() -> None:
    sheet = sheet_of("embedded")
    config = AutoConfig.from_pretrained(world_model_folder())
    assert sheet.shape == (config.hidden_size, config.intermediate_size, config.num_hidden_layers)
    with pytest.raises(EditError, match="bundles no configuration"):
        sheet.model_config()


def test_every_model_that_is_asked_for_has_a_preset_with_both_families() -> None:
    assert {*PARAMETERS, "embedded", "t5-3b"} == set(shipped_presets())  # the last one is an encoder-decoder's
    for name in PARAMETERS:
        assert set(sheet_of(name).families) == {"original", "easyedit"}
        original, easyedit = (sheet_of(name).settings("MEMIT", family) for family in ("original", "easyedit"))
        assert (original.clamp, original.weight_decay) == (0.75, 0.5)
        assert (easyedit.clamp, easyedit.weight_decay, easyedit.lr) == (4.0, 1e-3, 0.5)


@pytest.mark.parametrize("name", PARAMETERS)
def test_every_number_has_a_source(name: str) -> None:
    sheet = sheet_of(name)
    for section in (*sheet.families.values(), *sheet.editors.values()):
        if section.source == ASSUMED:
            assert section.note
        else:
            assert re.match(r"[\w.-]+/[\w.-]+@[0-9a-f]{7} \S+/\S+\.(json|yaml)\b", section.source), section.source
    assert sheet.families[sheet.family].source != ASSUMED
    for editor in EDITORS:
        preset = sheet.settings(editor)
        assert preset.remarks == ()
        assert ASSUMED not in preset.sources


@pytest.mark.parametrize(
    ("name", "editor", "expected"),
    [  # read off the published files by hand
        ("gpt2-xl", "MEMIT", {"layers": (13, 14, 15, 16, 17), "lr": 0.5, "steps": 20, "prior_weight": 20_000}),
        ("gpt2-xl", "ROME", {"layers": (17,), "clamp": 4, "weight_decay": 0.5, "mom2_adjustment": True}),
        ("gpt2-xl", "EMMET", {"layers": (17,), "clamp": 0.75, "prior_weight": 1000, "noise": 0.1, "ridge": 0}),
        ("gpt-j-6b", "PMET", {"layers": (3, 4, 5, 6, 7, 8), "lr": 0.2, "steps": 30, "kl": 1.0, "clamp": 0.75}),
        ("llama-2-7b", "MEMIT", {"clamp": 4, "weight_decay": 1e-3, "lr": 0.5, "kl": 0.0625, "steps": 25}),
        ("llama-2-7b", "PMET", {"clamp": 1, "weight_decay": 0.5, "lr": 0.5, "steps": 20}),
        ("llama-2-7b", "EMMET", {"layers": (5,), "clamp": 4, "weight_decay": 1e-3, "prior_weight": 1}),
        ("llama-2-13b", "MEMIT", {"clamp": 4, "lr": 0.5}),
        ("llama-2-13b", "AlphaEdit", {"clamp": 0.75, "lr": 0.1, "l2": 1, "nullspace_threshold": 0.02}),
        ("llama-3-8b", "AlphaEdit", {"layers": (4, 5, 6, 7, 8), "lr": 0.1, "clamp": 0.75, "l2": 10}),
        ("llama-3-8b", "ROME", {"layers": (5,), "lr": 0.5, "clamp": 4, "mom2_adjustment": False}),
        ("llama-3.1-8b", "PRUNE", {"lr": 0.1, "clamp": 0.75, "prior_weight": 15_000}),
        ("llama-3.2-3b", "MEMIT", {"layers": (4, 5, 6, 7, 8), "clamp": 4, "lr": 0.5, "prior_weight": 15_000}),
        ("llama-3.2-3b", "PMET", {"steps": 25, "clamp": 1, "weight_decay": 0.5}),
        ("llama-3.2-3b", "EMMET", {"layers": (5,), "prior_weight": 100_000, "noise": 0.1}),
        ("qwen2.5-7b", "AlphaEdit", {"clamp": 4, "l2": 1}),
        ("qwen3.5-9b", "AlphaEdit", {"layers": (4, 5, 6, 7, 8), "clamp": 4, "l2": 1, "nullspace_threshold": 0.02}),
        ("qwen3-14b", "MemorizeLatest", {"layers": (4, 5, 6, 7, 8), "l2": 1, "nullspace_threshold": 0.02}),
    ],
)
def test_published_numbers_arrive(name: str, editor: str, expected: dict[str, object]) -> None:
    preset = sheet_of(name).settings(editor)
    assert {key: getattr(preset, key) for key in expected} == expected


def test_a_family_changes_what_has_none_of_its_own(make_lm: Make) -> None:
    lm = make_lm()
    wide = choose_preset(lm, "Llama-3-8B@easyedit", "AlphaEdit")
    assert (wide.clamp, wide.lr, wide.l2, wide.family) == (4.0, 0.5, 10.0, "easyedit")
    assert choose_preset(lm, "llama-2-13b@easyedit", "AlphaEdit").clamp == 4.0
    rome = [choose_preset(lm, f"llama-3-8b@{family}", "ROME") for family in ("original", "easyedit")]
    assert rome[0].clamp == rome[1].clamp == 4.0
    (remark,) = choose_preset(lm, "gpt2-xl@easyedit").remarks
    assert "gpt2-xl@easyedit: nobody publishes clamp 4" in remark
    with pytest.raises(EditError, match="'gpt2-xl' has no family 'wide'; expected one of original, easyedit"):
        choose_preset(lm, "gpt2-xl@wide")
    own = Preset("mine", layers=(1,))
    assert choose_preset(lm, own) is own


@pytest.mark.parametrize(
    ("config", "path", "found"),
    [
        ("llama-3.1-8b", "deepseek-ai/DeepSeek-R1-Distill-Llama-8B", "deepseek-r1-distill-llama-8b"),
        ("llama-3.1-8b", "meta-llama/Llama-3.1-8B-Instruct", "llama-3.1-8b"),
        ("llama-3-8b", "meta-llama/Meta-Llama-3-8B-Instruct", "llama-3-8b"),
        ("llama-2-7b", "meta-llama/Llama-2-7b-chat-hf", "llama-2-7b"),
        ("mistral-7b", "mistralai/Mistral-7B-Instruct-v0.1", "mistral-7b"),
        ("llama-3-8b", "runs/mine", "llama-3-8b"),
        ("llama-3.1-8b", "runs/mine", "llama-3.1-8b"),
        ("mistral-7b", "runs/mine", "mistral-7b"),
        ("gpt2-xl", "", "gpt2-xl"),
    ],
)
def test_a_model_is_known_by_name_or_by_likeness(
    config: str, path: str, found: str, tokenizer: PreTrainedTokenizerFast
) -> None:
    preset = choose_preset(empty_lm(config, tokenizer, _name_or_path=path))
    assert (preset.name, preset.remarks) == (found, ())


def test_settings_of_the_nearest_model_are_scaled_by_shape(tokenizer: PreTrainedTokenizerFast) -> None:
    changes = {"num_hidden_layers": 14, "intermediate_size": 9472, "layer_types": ["full_attention"] * 14}
    half = empty_lm("qwen2.5-7b", tokenizer, **changes)
    preset = choose_preset(half, editor="MEMIT")
    assert preset.name == "default"
    assert preset.layers == (2, 3)  # five layers from the fourth of 28, halved
    assert preset.prior_weight == 7500
    assert (preset.lr, preset.clamp, preset.l2) == (0.5, 4.0, 1.0)
    assert "settings of the nearest one, qwen2.5-7b@easyedit" in preset.remarks[0]
    assert "prior weight 7500 (scaled by inner width)" in preset.remarks[0]
    assert "layers [2, 3] are assumed" in preset.remarks[1]
    assert choose_preset(half, "@original", "MEMIT").clamp == 0.75
    assert choose_preset(half, editor="ROME").layers == (2,)


def test_the_nearest_model_is_of_the_same_architecture_if_there_is_one() -> None:
    assert nearest_sheet((2048, 8192, 16), "llama").name == "llama-3.2-3b"
    assert nearest_sheet((4096, 14336, 36), "qwen3").name == "qwen3-14b"
    assert nearest_sheet((1280, 5120, 36), "gpt_neox").name == "gpt2-xl"


def test_one_layer_where_a_norm_follows_the_ffn(make_lm: Make) -> None:
    lm = make_lm("olmo2", num_hidden_layers=14)
    assert len(choose_preset(lm).layers or ()) == 1


def test_what_was_assumed_is_said_once(make_lm: Make, moments: Moments, caplog: pytest.LogCaptureFixture) -> None:
    lm = make_lm()
    editor = get_editor("memit", **STRONG)
    with caplog.at_level(logging.WARNING, logger="lightning_edit"):
        editor.attach(lm)
        editor.prepare(lm, statistics=moments(lm))
        report = editor.edit(lm, facts(1))
    assert [record.message[:30] for record in caplog.records] == [
        "no preset is known for this ll",
        "layers [0] are assumed, at the",
    ]
    assert report.notes == []
    caplog.clear()
    get_editor("memit", preset=Preset("mine", layers=(1,), remarks=("said before",))).attach(lm)
    assert caplog.records == []


@pytest.mark.parametrize(("name", "table"), [("llama-2-7b", 41), ("llama-2-13b", 31), ("mistral-7b", 41)])
def test_what_is_reported_to_fail_warns_and_stands_in_the_first_report(
    name: str, table: int, make_lm: Make, moments: Moments
) -> None:
    lm = make_lm()
    editor = get_editor("alphaedit", preset=name, layers=[0], nullspace_energy=0.05, **STRONG)
    words = f"AlphaEdit is reported to fail on {name}: .*arXiv 2606.00570, table {table}"
    with pytest.warns(PresetWarning, match=words):
        editor.prepare(lm, statistics=moments(lm))
    (note,) = editor.edit(lm, facts(1)).notes
    assert note.startswith(f"AlphaEdit is reported to fail on {name}")
    assert editor.edit(lm, facts(1, first=1)).notes == []
    assert sheet_of(name).settings("MEMIT").failing is None
    assert sheet_of("llama-3-8b").settings("AlphaEdit").failing is None


def test_a_presets_divergence_reaches_the_targets(make_lm: Make) -> None:
    lm = make_lm()
    for given, expected in (({}, 0.7), ({"kl": 0.2}, 0.2)):
        editor = get_editor("memit", preset=Preset("mine", layers=(0,), kl=0.7, lr=0.3), **given)
        editor.attach(lm)
        assert editor._options().kl == expected
        assert editor._options().lr == 0.3


def test_an_extended_editor_gets_the_numbers_of_the_one_it_extends(make_lm: Make) -> None:
    class Mine(AlphaEdit):
        pass

    class LikeRome(MEMIT):
        settings_of = "ROME"

    lm, seen = make_lm(), []
    for editor in (Mine(preset="llama-2-13b", layers=[0]), LikeRome(preset="gpt2-xl", layers=[0])):
        with pytest.warns(PresetWarning) if isinstance(editor, Mine) else nullcontext():
            editor.attach(lm)
        seen.append(editor.preset)
    assert (seen[0].clamp, seen[0].family) == (0.75, "original")  # MEMIT's own is clamp 4
    assert (seen[1].clamp, seen[1].layers) == (4.0, (17,))


GOOD = """
name: toy
models: [toy]
projection: model.layers.{}.mlp.down_proj
shape: [8, 16, 2]
family: only
families:
  only: {source: here, layers: [0, 1], lr: 0.5}
editors: {}
"""


@pytest.mark.parametrize(
    ("old", "new", "words"),
    [
        ("lr: 0.5", "lr: 5e-1", r"toy.yaml, families.only: found lr: '5e-1'.*YAML reads 2e-2 as a text"),
        ("lr: 0.5", "learning_rate: 0.5", "found learning_rate: 0.5"),
        ("lr: 0.5", "fact_token: last", "found fact_token: 'last'"),
        ("lr: 0.5", "mom2_adjustment: 1", "found mom2_adjustment: 1"),
        ("[0, 1]", "[1, 0]", r"found layers: \[1, 0\]"),
        ("source: here, ", "", "found no source"),
        ("source: here", "source: assumed", "found no source"),
        ("family: only", "family: other", "found family 'other'; expected one of only"),
        ("editors: {}", "editors: {}\nclamp: 1", r"found \['clamp'\]"),
    ],
)
def test_a_sheet_with_a_fault_is_refused(old: str, new: str, words: str) -> None:
    assert read_sheet(GOOD, "toy.yaml").settings().layers == (0, 1)
    with pytest.raises(EditError, match=words):
        read_sheet(GOOD.replace(old, new), "toy.yaml")


def test_the_page_of_presets_says_what_the_files_say() -> None:
    page = Path(__file__).parents[2] / "docs" / "presets.md"
    assert preset_tables() in page.read_text("utf-8"), (
        "run: python -m lightning_edit.editors.preset_table docs/presets.md"
    )
