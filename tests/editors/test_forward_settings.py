"""Settings of GRACE and WISE: every number has a source, and whoever gets another model's is told."""

import logging
import re
from collections.abc import Callable

import pytest

from lightning_edit.editors.forward_settings import (
    GraceSettings,
    WiseSettings,
    find_settings,
    forward_presets,
    read_forward_presets,
)
from lightning_edit.editors.preset_sheet import shipped_presets
from lightning_edit.errors import EditError
from lightning_edit.model.language_model import LanguageModel

Make = Callable[..., LanguageModel]


@pytest.mark.parametrize("editor", ["grace", "wise"])
def test_every_model_has_settings_with_a_source_and_a_layer_it_has(editor: str) -> None:
    known = forward_presets()[editor]
    assert {*known, "t5-3b"} == set(shipped_presets())  # WISE is for decoders alone
    for name, settings in known.items():
        assert 0 <= settings.layer < shipped_presets()[name].shape[2]
        published = re.match(r"[\w.-]+/[\w.-]+@[0-9a-f]{7} \S+/\S+\.yaml\b", settings.source)
        assert published or settings.source.startswith(("assumed, ", "tuned on ")), settings.source


@pytest.mark.parametrize(
    ("name", "editor", "expected"),
    [  # read off the published files by hand
        ("gpt2-xl", "grace", {"layer": 35, "steps": 200, "lr": 1.0, "radius": 1.0, "start": "cold"}),
        ("gpt-j-6b", "grace", {"layer": 25, "steps": 200, "replacement": "last", "stop_loss": 0.0}),
        ("qwen3-14b", "grace", {"layer": 18, "steps": 50}),
        ("qwen3.5-9b", "grace", {"layer": 18, "steps": 50, "radius": 5.0}),
        ("llama-3.2-3b", "grace", {"layer": 27, "steps": 50, "radius": 1.0}),
        ("llama-3.2-3b", "wise", {"layer": 27, "lr": 1.0, "steps": 70, "ratio": 0.88, "chat": False}),
        (
            "llama-2-7b",
            "wise",
            {"layer": 27, "lr": 1.0, "steps": 70, "alpha": 5, "beta": 20, "gamma": 10, "chat": False},
        ),
        ("gpt-j-6b", "wise", {"layer": 21, "alpha": 15, "beta": 40, "gamma": 20, "ratio": 0.88}),
        ("gpt2-xl", "wise", {"layer": 8, "steps": 40, "ratio": 0.8, "density": 0.2, "norm_constraint": 1.0}),
        ("llama-3-8b", "wise", {"layer": 29, "lr": 0.9, "steps": 30, "alpha": 2, "ratio": 0.5, "chat": True}),
        ("llama-3.1-8b", "wise", {"alpha": 5, "beta": 10, "gamma": 10, "ratio": 0.88}),
        ("qwen3-14b", "wise", {"layer": 30, "lr": 0.8, "beta": 25, "merge": "ties", "kept": 0.53, "retrieve": True}),
        ("mistral-7b", "wise", {"layer": 27, "shard_edits": 500, "merge_shards": 2, "weight_decay": 1e-5}),
    ],
)
def test_numbers_are_the_published_ones(name: str, editor: str, expected: dict[str, object]) -> None:
    settings = forward_presets()[editor][name]
    assert {field: getattr(settings, field) for field in expected} == expected


def test_another_model_gets_the_nearest_ones_at_the_same_depth_and_is_told(
    make_lm: Make, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        found = find_settings(make_lm("gpt2", n_layer=12), "wise", WiseSettings, {"lr": 0.5, "steps": None})
    assert (found.name, found.layer, found.lr, found.steps) == ("default", round(8 * 11 / 47), 0.5, 40)
    assert "those of gpt2-xl at layer 2" in caplog.text
    assert found.part == "up"
    fused = find_settings(make_lm("phi3"), "wise", WiseSettings, {})
    assert "those of gpt2-xl at layer 0" in caplog.text
    assert fused.part == "down"  # it has no part of its own that leads onto the inner width
    named = find_settings(make_lm(num_hidden_layers=30), "grace", GraceSettings, {}, "Llama-2-7B")
    assert (named.name, named.layer) == ("llama-2-7b", 27)


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("grace: {llama-9: {source: x, layer: 1}}", "no preset"),
        ("grace: {gpt2-xl: {source: x}}", "expected the layer"),
        ("grace: {gpt2-xl: {layer: 1}}", "source"),
        ("grace: {gpt2-xl: {source: x, layer: 1, alpha: 2.0}}", r"found \['alpha'\]"),
        ("wise: {gpt2-xl: {source: x, layer: 1, weight_decay: 1e-5}}", "weight_decay='1e-5'"),
        ("wise: {gpt2-xl: {source: x, layer: 1, kept: 1.5}}", "expected a share"),
        ("wise: {gpt2-xl: {source: x, layer: 1, steps: 0}}", "above 0"),
    ],
)
def test_a_bad_file_is_refused(text: str, match: str) -> None:
    with pytest.raises(EditError, match=match):
        read_forward_presets(text)
