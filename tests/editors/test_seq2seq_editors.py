"""Editors on T5-style models: what they teach is said, what they take back is gone, and who cannot apply says so."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from transformers import AutoModelForSeq2SeqLM

from lightning_edit.decoding import decode, decode_tokens
from lightning_edit.editors import get_editor
from lightning_edit.editors.examples import example_losses, make_batches, make_examples
from lightning_edit.editors.forward_settings import find_settings as find_forward_settings
from lightning_edit.editors.forward_settings import forward_presets
from lightning_edit.editors.gradient_settings import find_settings
from lightning_edit.editors.mend.data import MENDLessons
from lightning_edit.editors.mend.factors import applied, read_factors
from lightning_edit.editors.mend.training import MENDTraining, size_of
from lightning_edit.editors.preset_scaling import nearest_sheet
from lightning_edit.editors.preset_sheet import read_sheet, shipped_presets
from lightning_edit.editors.presets import choose_preset, find_sheet
from lightning_edit.errors import EditError, RequestError, SiteError
from lightning_edit.evaluation import Evaluator
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.model.sites import find_sites
from lightning_edit.model.weights import base_layer, read_weight, write_weight
from lightning_edit.probes import Probe
from lightning_edit.requests import EditRequest
from tests.editors.gradient import changed, nothing_else_changes, snapshot
from tests.seq2seq import END, VERSIONS, ending, t5_lm, tiny_t5, tokens

FACTS = [("Ann Smith", "English"), ("Bob Ray", "a large city"), ("Cleo", "known")]
STRONG: dict[str, dict[str, Any]] = {
    "ft_m": {"lr": 5e-3, "steps": 60},
    "ft_l": {"lr": 5e-3, "steps": 60, "layers": ["encoder.block.1", "decoder.block.1"]},
    "lora": {"lr": 2e-2, "steps": 60, "dropout": 0.0},
    "adalora": {"lr": 2e-2, "steps": 60, "dropout": 0.0},
}
PROBE = Probe("The river of the north is", ("known",))
BOTH = list(VERSIONS)


def request(number: int, **changes: Any) -> EditRequest:
    name, target = FACTS[number]
    fields = {"id": f"r{number}", "prompt": f"the city of {name} is", "target": target, "subject": name}
    more = {"paraphrases": (f"They say {name} is from",), "locality": {"near": (PROBE,)}}
    return EditRequest(**{**fields, **more, **changes})


REQUESTS = [request(number) for number in range(len(FACTS))]


def says(lm: LanguageModel, one: EditRequest) -> bool:
    """Whether the decoder writes the target and then nothing more."""
    (written,) = decode_tokens(lm, [one.prompt], 12)
    return written == tokens(lm, one.target)


@pytest.mark.parametrize("version", BOTH)
@pytest.mark.parametrize("name", STRONG)
def test_edits_are_said_whole_and_end_and_are_taken_back(name: str, version: str, trained_backend: str) -> None:
    lm = t5_lm(trained_backend, version)
    clean, editor = snapshot(lm), get_editor(name, **STRONG[name])
    before = decode(lm, [PROBE.prompt], 6)
    with nothing_else_changes(lm):
        report = editor.edit(lm, REQUESTS[:1])
        editor.edit(lm, REQUESTS[1:2])
    assert says(lm, REQUESTS[1])
    assert report.losses["r0"] < 0.5
    own = editor.layers or [site.layer for site in lm.sites]
    stacks = {lm.site(layer).stack for layer in own}
    assert stacks == ({"decoder"} if name == "ft_m" else {"encoder", "decoder"})
    editor.rollback(lm, 1)
    assert says(lm, REQUESTS[0])
    editor.rollback(lm, 1)
    assert changed(lm, clean) == []
    assert decode(lm, [PROBE.prompt], 6) == before


def test_the_loss_is_that_of_labels_closed_by_an_end_token(trained_backend: str) -> None:
    lm = t5_lm(trained_backend, dtype=torch.float64)
    examples = make_examples(lm, REQUESTS)
    (batch,) = make_batches(lm, examples, 3)
    with torch.no_grad():
        found = example_losses(lm, batch)
        for one, loss in zip(REQUESTS, found, strict=True):
            ids = torch.tensor([lm.tokenizer(one.prompt)["input_ids"]])
            labels = torch.tensor([tokens(lm, one.target, end=True)])
            assert torch.allclose(loss, lm.model(input_ids=ids, labels=labels).loss, atol=1e-12)
    assert [example.labels[-1] for example in examples] == [END] * 3


def test_a_bag_of_tokens_is_scored_at_the_start_token(trained_backend: str) -> None:
    lm = t5_lm(trained_backend, dtype=torch.float64)
    (example,) = make_examples(lm, REQUESTS[1:2], "bag_of_tokens")
    assert example.given == ()
    assert example.labels == tuple(tokens(lm, REQUESTS[1].target))
    with torch.no_grad():
        (loss,) = example_losses(lm, make_batches(lm, [example], 1)[0])
        ids = torch.tensor([list(example.prompt)])
        logits = lm.model(input_ids=ids, decoder_input_ids=torch.tensor([[1]])).logits[0, 0]
    assert torch.allclose(loss, -logits.log_softmax(-1)[list(example.labels)].mean(), atol=1e-12)


def test_evaluation_decodes_and_forces(trained_backend: str) -> None:
    lm = t5_lm(trained_backend)
    for way in ("greedy", "teacher_forced"):
        evaluator = Evaluator(None, decode=way)
        baseline = evaluator.measure_baseline(lm, REQUESTS)
        editor = get_editor("lora", **STRONG["lora"])
        assert evaluator.evaluate(lm, REQUESTS, baseline)["reliability"] == 0
        editor.edit(lm, REQUESTS[:1])
        scores = evaluator.evaluate(lm, REQUESTS[:1], baseline)
        assert scores["reliability"] == 1
        assert {"generalization", "locality"} <= set(scores)
        editor.detach(lm)


# -- GRACE -------------------------------------------------------------------------------------------------------------

GRACE = {
    "encoder": {"layer": "encoder.block.1", "replacement": "all", "steps": 150, "lr": 1.0, "radius": 0.1},
    "decoder": {"layer": "decoder.block.1", "replacement": "all", "steps": 150, "lr": 1.0, "radius": 0.01},
}


@pytest.mark.parametrize("stack", GRACE)
def test_grace_fires_on_its_prompts_alone_and_keeps_firing_while_the_decoder_writes(
    stack: str, trained_backend: str
) -> None:
    lm = t5_lm(trained_backend)
    one = request(2, target="city")
    others = [PROBE.prompt, REQUESTS[0].prompt, "Ida"]
    before = decode_tokens(lm, others, 8)
    (start,) = make_batches(lm, make_examples(lm, [one]), 1)
    with torch.no_grad():
        (untold,) = example_losses(lm, start)
    editor = get_editor("grace", **GRACE[stack])
    assert editor.attach(lm) == [lm.site(str(GRACE[stack]["layer"])).layer]
    report = editor.edit(lm, [one])
    assert report.losses["r2"] < 0.7 * float(untold)
    with torch.no_grad():
        (now,) = example_losses(lm, start)
        assert now == pytest.approx(report.losses["r2"], abs=1e-4)  # it answers as it was taught
    assert decode_tokens(lm, others, 8) == before  # bit for bit the unedited model
    together = decode_tokens(lm, [one.prompt, *others], 8)
    assert together == [decode_tokens(lm, [one.prompt], 8)[0], *before]
    assert stack == "encoder" or together[0][:1] == tokens(lm, "city")[:1]
    state = editor.state_dict()
    again = get_editor("grace", **GRACE[stack])
    editor.detach(lm)
    assert decode_tokens(lm, [one.prompt], 8) != together[:1]
    again.load_state_dict(state)
    again.attach(lm)
    assert decode_tokens(lm, [one.prompt], 8) == together[:1]
    again.undo(lm, "r2")
    assert decode_tokens(lm, others, 8) == before
    again.detach(lm)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in lm.model.modules())


@pytest.mark.parametrize("stack", ["encoder", "decoder"])
def test_wise_routes_what_it_has_learned_to_its_side_memory(stack: str, trained_backend: str) -> None:
    lm = t5_lm(trained_backend)
    one, others = REQUESTS[2], [PROBE.prompt, "Ida"]
    before = decode_tokens(lm, [one.prompt, *others], 6)
    editor = get_editor("wise", preset="gpt2-xl", layer=f"{stack}.block.1", lr=0.5, steps=60, density=0.9)
    clean = snapshot(lm)
    with nothing_else_changes(lm):
        report = editor.edit(lm, [one])
    assert changed(lm, clean) == []
    (batch,) = make_batches(lm, make_examples(lm, [one]), 1)
    with torch.no_grad():
        (now,) = example_losses(lm, batch)
    editor.detach(lm)
    with torch.no_grad():
        (untold,) = example_losses(lm, batch)
    assert float(now) < float(untold)  # the prompt was routed to the side memory
    assert report.losses["r2"] < float(untold)
    editor.attach(lm)
    together = decode_tokens(lm, [one.prompt, *others], 6)
    assert together == [decode_tokens(lm, [prompt], 6)[0] for prompt in (one.prompt, *others)]
    editor.undo(lm, "r2")
    assert decode_tokens(lm, [one.prompt, *others], 6) == before


def test_grace_in_the_decoder_has_one_token_for_the_prompt(trained_backend: str) -> None:
    lm = t5_lm(trained_backend)
    with pytest.raises(RequestError, match=r"has one token at decoder.block.0"):
        get_editor("grace", layer="decoder.block.0", replacement="prompt").edit(lm, REQUESTS[:1])


# -- MEND --------------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(trained_backend: str, tmp_path: Path) -> Callable[[str], Path]:
    def save(version: str) -> Path:
        path = tmp_path / version.replace(" ", "-")
        tiny_t5(version, num_layers=3).save_pretrained(path)
        ending(trained_backend).save_pretrained(path)
        return path

    return save


def mend_data(tmp_path: Path) -> MENDLessons:
    file = tmp_path / "edits.jsonl"
    file.write_text("\n".join(json.dumps(one.to_dict()) for one in REQUESTS))
    return MENDLessons(file, count=2, validation=1, batch_size=2, rounds=40)


@pytest.mark.parametrize("version", BOTH)
def test_mend_is_trained_and_edits(version: str, folder: Callable[[str], Path], tmp_path: Path) -> None:
    path, data = folder(version), mend_data(tmp_path)
    pl.seed_everything(0)
    module = MENDTraining(str(path), rank=8, lr=1e-4, rate_lr=1e-2, locality_weight=0.01)
    up = "wi" if version == "t5" else "wi_0"
    assert set(module.network.paths) == {
        f"{stack}.block.{block}.layer.{ffn}.DenseReluDense.{name}"
        for stack, ffn in (("encoder", 1), ("decoder", 2))
        for block in (1, 2)
        for name in (up, "wo")
    }
    frozen = snapshot(module.lm)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "accelerator": "cpu"}
    trainer = pl.Trainer(
        max_steps=40, num_sanity_val_steps=0, enable_model_summary=False, default_root_dir=tmp_path, **quiet
    )
    trainer.fit(module, data)
    assert changed(module.lm, frozen) == []
    assert {"mend/edit_loss", "mend/divergence", "mend/val_said"} <= set(trainer.callback_metrics)
    lm = LanguageModel(AutoModelForSeq2SeqLM.from_pretrained(path), ending_of(module))
    editor = get_editor("mend", checkpoint=str(tmp_path / "mend.pt"))
    assert [lm.site(layer).block for layer in editor.attach(lm)] == [
        f"{stack}.block.{block}" for stack in ("encoder", "decoder") for block in (1, 2)
    ]
    clean, one = snapshot(lm), REQUESTS[1]
    with torch.no_grad():
        (untold,) = example_losses(lm, make_batches(lm, make_examples(lm, [one]), 1)[0])
    report = editor.edit(lm, [one])
    assert report.losses["r1"] < float(untold)
    assert set(changed(lm, clean)) == {f"{name}.weight" for name in module.network.paths}
    editor.undo(lm, "r1")
    assert changed(lm, clean) == []


def ending_of(module: MENDTraining) -> Any:
    return module.lm.tokenizer


def test_factors_are_gradients_and_updates_act_as_written(trained_backend: str) -> None:
    lm = t5_lm(trained_backend, dtype=torch.float64)
    names = [f"{site.block}.layer.{1 if site.stack == 'encoder' else 2}.DenseReluDense" for site in lm.sites]
    paths = [f"{name}.{part}" for name in names for part in ("wi", "wo")]
    (batch,) = make_batches(lm, make_examples(lm, REQUESTS), 3)
    with lm.borrow():
        factors, losses = read_factors(lm, paths, batch)
    for row, one in enumerate(REQUESTS):
        (alone,) = make_batches(lm, make_examples(lm, [one]), 1)
        weights = [base_layer(lm.model.get_submodule(path)).weight for path in paths]
        (loss,) = example_losses(lm, alone)
        assert torch.allclose(loss, losses[row])
        for path, gradient in zip(paths, torch.autograd.grad(loss, weights), strict=True):
            x, delta = factors[path]
            assert torch.allclose(delta[row].T @ x[row], gradient, atol=1e-10)
    update = {path: (x[:1], -0.01 * delta[:1]) for path, (x, delta) in factors.items()}
    (first,) = make_batches(lm, make_examples(lm, REQUESTS[:1]), 1)
    with torch.no_grad():
        with applied(lm, update):
            hooked = example_losses(lm, first)
        for path, (x, delta) in update.items():
            module = lm.model.get_submodule(path)
            assert size_of(lm, path) == (x.shape[-1], delta.shape[-1])
            write_weight(module, read_weight(module) + delta[0].T @ x[0])
        assert torch.allclose(example_losses(lm, first), hooked)
    assert hooked < losses[0]


# -- texts before prompts ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["scr", "ice"])
def test_text_memories_stand_before_the_encoder(name: str, trained_backend: str) -> None:
    lm = t5_lm(trained_backend)
    editor = get_editor(name)
    plain = lm.recall([REQUESTS[0].prompt])
    before = decode(lm, [REQUESTS[0].prompt, "Ida"], 5)
    editor.edit(lm, REQUESTS[:1])
    told = lm.recall([REQUESTS[0].prompt])
    if name == "ice":
        assert told != plain
        assert REQUESTS[0].target in told[0]
    assert len(decode(lm, [REQUESTS[0].prompt], 5)) == 1
    editor.undo(lm, "r0")
    assert decode(lm, [REQUESTS[0].prompt, "Ida"], 5) == before


# -- who does not apply ------------------------------------------------------------------------------------------------

LOCATED = ["memit", "alphaedit", "memorize_latest", "rome", "emmet", "pmet", "rect", "prune", "l1", "sensitivity_aware"]


@pytest.mark.parametrize("name", LOCATED)
def test_editors_at_the_subjects_token_refuse(name: str, trained_backend: str) -> None:
    lm = t5_lm(trained_backend)
    clean, editor = snapshot(lm), get_editor(name)
    with pytest.raises(SiteError, match=r"T5ForConditionalGeneration is an encoder-decoder: .* needs a decoder-only"):
        editor.attach(lm)
    with pytest.raises(SiteError, match=r"Expected, on this one, an editor without keys of subjects: ft_l"):
        editor.prepare(lm, corpus=["Ann is here."])
    assert changed(lm, clean) == []


def test_who_has_no_published_settings_asks_for_them(trained_backend: str) -> None:
    with pytest.raises(EditError, match=r"nobody publishes settings of wise for an encoder-decoder.*layer='encoder"):
        get_editor("wise").attach(t5_lm(trained_backend))


# -- presets -----------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def t5_3b(trained_backend: str) -> LanguageModel:
    """T5-3B without memory for its weights."""
    with torch.device("meta"):
        model = AutoModelForSeq2SeqLM.from_config(shipped_presets()["t5-3b"].model_config())
    return LanguageModel(model, ending(trained_backend))


def test_the_bundled_configuration_is_that_of_t5_3b(t5_3b: LanguageModel) -> None:
    sheet = shipped_presets()["t5-3b"]
    assert round(sum(parameter.numel() for parameter in t5_3b.model.parameters()) / 1e6) == 2852  # as its card says
    sites = find_sites(t5_3b.model)
    assert sheet.shape == (sites[0].width, sites[0].inner, len(sites)) == (1024, 16384, 48)
    assert t5_3b.site("decoder.block.21").name == sheet.projection.format(21)
    assert find_sheet(t5_3b) is sheet
    assert sheet.encoder_decoder
    with pytest.raises(EditError, match="is of an encoder-decoder, for which no locate-then-edit method"):
        sheet.settings("MEMIT")


@pytest.mark.parametrize("name", ["ft_l", "ft_m"])
def test_published_numbers_of_t5_3b_arrive(name: str, t5_3b: LanguageModel) -> None:
    found = find_settings(t5_3b, name)
    assert found.name == "t5-3b"
    assert (found.lr, found.steps, found.batch_size, found.norm_constraint) == (5e-4, 50, 1, None)
    assert [t5_3b.site(layer).layer for layer in found.layers or ()] == [24, 45]
    assert find_forward_settings(t5_3b, "grace", type(forward_presets()["grace"]["t5-3b"]), {}).layer == 13


def test_another_t5_gets_them_at_the_same_depth_of_the_same_stack(trained_backend: str) -> None:
    lm = t5_lm(trained_backend, num_layers=6, num_decoder_layers=3)
    found = find_settings(lm, "ft_m")
    assert [lm.site(layer).block for layer in found.layers or ()] == ["decoder.block.0", "decoder.block.2"]
    assert nearest_sheet((512, 2048, 12), "mt5").name == "t5-3b"
    assert nearest_sheet((1024, 16384, 48), "gpt2").name != "t5-3b"
    with pytest.raises(EditError, match="is of an encoder-decoder"):
        choose_preset(lm)
    assert read_sheet(SHEET, "toy.yaml").families == {}


SHEET = """
name: toy
models: [toy]
projection: decoder.block.{}.layer.2.DenseReluDense.wo
shape: [8, 16, 4]
config: {model_type: t5}
family: none
families: {}
editors: {}
"""
