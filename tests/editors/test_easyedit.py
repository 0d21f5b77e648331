"""Hyper-parameter files of other projects: what becomes an option, and what is said about the rest."""

import logging
from pathlib import Path

import pytest

from lightning_edit.editors import get_editor
from lightning_edit.editors.easyedit import HyperparameterWarning, from_easyedit
from lightning_edit.editors.preset_sheet import shipped_presets
from lightning_edit.errors import EditError

COMMON = """
model_name: "./hugging_cache/some-model"
stats_dir: "./data/stats"
device: 0
layer_selection: "all"
fact_token: "subject_last"
v_loss_layer: 31
rewrite_module_tmp: "model.layers.{}.mlp.down_proj"
lm_head_module: "lm_head"
mom2_dataset: "wikipedia"
mom2_n_samples: 100000
mom2_dtype: "float32"
v_num_grad_steps: 25
kl_factor: 0.0625
model_parallel: false
"""
OWN = {
    "MEMIT": "layers: [4, 5]\nclamp_norm_factor: 4\nv_lr: 5e-1\nv_weight_decay: 1e-3\nmom2_update_weight: 15000\n"
    "mom2_adjustment: true",
    "AlphaEdit": "layers: [4, 5]\nclamp_norm_factor: 0.75\nv_lr: 1e-1\nv_weight_decay: 0.5\nnullspace_threshold: 2e-2\n"
    "L2: 10\nmom2_update_weight: 15000\nmom2_adjustment: true\nP_loc: './p.pt'",
    "ROME": "layers: [5]\nclamp_norm_factor: 4\nv_lr: 5e-1\nv_weight_decay: 1e-3\nmom2_adjustment: false\n"
    "context_template_length_params: [[5, 10], [10, 10]]\nfp16: true",
    "EMMET": "layers: [5]\nclamp_norm_factor: 4\nv_lr: 5e-1\nv_weight_decay: 1e-3\nmom2_update_weight: 1\n"
    "mom2_adjustment: true\nupdate_norm_lambda: 0\nemmet_lambda: 0.1",
    "PMET": "layers: [4, 5]\nclamp_norm_factor: 1\nv_lr: 5e-1\nv_weight_decay: 0.5\nmom2_update_weight: 15000\n"
    "nll_loss_factor: 1\nmom2_adjustment: true\nrewrite_module_tmps: ['model.layers.{}.mlp.down_proj']",
}
TARGETS = {"steps": 25, "kl": 0.0625}
EXPECTED = {
    "MEMIT": {"layers": [4, 5], "clamp": 4.0, "lr": 0.5, "weight_decay": 0.001, "prior_weight": 15_000.0},
    "AlphaEdit": {
        "layers": [4, 5],
        "clamp": 0.75,
        "lr": 0.1,
        "weight_decay": 0.5,
        "nullspace_threshold": 0.02,
        "l2": 10.0,
    },
    "ROME": {"layers": [5], "clamp": 4.0, "lr": 0.5, "weight_decay": 0.001, "mom2_adjustment": False},
    "EMMET": {
        "layers": [5],
        "clamp": 4.0,
        "lr": 0.5,
        "weight_decay": 0.001,
        "prior_weight": 1.0,
        "ridge": 0.0,
        "noise": 0.1,
    },
    "PMET": {"layers": [4, 5], "clamp": 1.0, "lr": 0.5, "weight_decay": 0.5, "prior_weight": 15_000.0},
}


def file(folder: Path, text: str, name: str = "some-model.yaml") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / name
    path.write_text(text, "utf-8")
    return path


@pytest.mark.parametrize("algorithm", OWN)
def test_a_file_becomes_an_editor(algorithm: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = file(tmp_path, f'alg_name: "{algorithm}"\n{COMMON}{OWN[algorithm]}')
    with caplog.at_level(logging.INFO, logger="lightning_edit"):
        name, options = from_easyedit(path)
    assert name == algorithm.lower()
    assert options == TARGETS | EXPECTED[algorithm]
    assert "v_loss_layer" in caplog.text
    get_editor(name, **options)


def test_published_files_agree_with_the_presets(tmp_path: Path) -> None:
    _, options = from_easyedit(file(tmp_path, f"alg_name: AlphaEdit\n{COMMON}{OWN['AlphaEdit']}"))
    preset = shipped_presets()["llama-3-8b"].settings("AlphaEdit")
    assert {key: getattr(preset, key) for key in options if key != "layers"} == {
        key: value for key, value in options.items() if key != "layers"
    }


def test_json_of_the_older_repositories_is_named_by_its_folder(tmp_path: Path) -> None:
    text = '{\n\t"layers": [13, 14],\n\t"v_lr": 5e-1, "clamp_norm_factor": 0.75,\n "mom2_update_weight": 20000\n}'
    assert from_easyedit(file(tmp_path / "MEMIT", text, "gpt2-xl.json")) == (
        "memit",
        {"layers": [13, 14], "lr": 0.5, "clamp": 0.75, "prior_weight": 20_000.0},
    )
    elsewhere = file(tmp_path / "own", text, "gpt2-xl.json")
    assert from_easyedit(elsewhere, "R-ROME")[0] == "rome"
    with pytest.raises(EditError, match="is for 'own'; expected one of ROME, R-ROME, MEMIT"):
        from_easyedit(elsewhere)


def test_fields_that_become_no_option_are_named(tmp_path: Path) -> None:
    path = file(tmp_path, "alg_name: MEMIT\nlayers: [4]\nneuron_threshold: 1.0\nalpha: 35\nv_lr: 0.5")
    with pytest.warns(HyperparameterWarning, match="neuron_threshold=1.0, alpha=35 became no option of 'memit'"):
        name, options = from_easyedit(path)
    assert (name, options) == ("memit", {"layers": [4], "lr": 0.5})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("alg_name: GRACE\nlayers: [1]", "is for 'GRACE'; expected one of"),
        ("alg_name: MEMIT\nlayers: [4]\nfact_token: last", "found fact_token: 'last'; expected 'subject_last'"),
        ("alg_name: MEMIT\nlayers: [4]\nlayer_selection: random", "found layer_selection: 'random'; expected 'all'"),
        ("alg_name: PMET\nlayers: [4]\nnll_loss_factor: 0.5", "found nll_loss_factor: 0.5; expected 1.0"),
        ("alg_name: MEMIT\nlayers: [4]\nv_lr: fast", "found v_lr: 'fast'; expected a number"),
        ("alg_name: MEMIT\nlayers: four", "found layers: 'four'; expected a number"),
        ("alg_name: MEMIT\nv_lr: 0.5", "has no field 'layers'"),
        ("alg_name: [", "is neither YAML nor JSON"),
        ("just a text", "has no field 'layers'"),
    ],
)
def test_what_cannot_be_reproduced_is_refused(text: str, words: str, tmp_path: Path) -> None:
    with pytest.raises(EditError, match=words):
        from_easyedit(file(tmp_path, text))


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(EditError, match="no hyper-parameter file"):
        from_easyedit(tmp_path / "absent.yaml")
