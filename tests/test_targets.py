"""Targets: batched equals one by one equals a plain loop, and the model is left as it was."""

from collections.abc import Callable

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from lightning_edit.errors import EditError, RequestError
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.targets import Column, TargetOptions, TargetPrompt, optimize_targets
from tests.plain_targets import check_against_plain_loop, columns, easy_columns, loud

Build = Callable[..., PreTrainedModel]
STRONG = TargetOptions(steps=12, clamp=3.0, stop_loss=1e-3)


@pytest.mark.parametrize("prefix_cache", [True, False])
def test_batched_equals_one_by_one(
    family: str, prefix_cache: bool, tiny_model: Build, tokenizer: PreTrainedTokenizerFast
) -> None:
    lm = LanguageModel(tiny_model(family, dtype=torch.float64), tokenizer)
    options = TargetOptions(steps=8, clamp=3.0, prefix_cache=prefix_cache)
    together = optimize_targets(lm, columns(), 1, options)
    for i, column in enumerate(columns()):
        alone = optimize_targets(lm, [column], 1, options)
        torch.testing.assert_close(together.z[i], alone.z[0], rtol=0, atol=1e-8)
        torch.testing.assert_close(together.loss[i], alone.loss[0], rtol=0, atol=1e-8)


def careful_columns() -> list[Column]:
    """The same columns, each with texts whose continuation is to stay; one of them says what the first prompt says."""
    made = columns()
    for column in made:
        said, length = column.prompts[0], len(column.id)
        column.preserved = [(f"{column.id} likes", (0, length)), (f"He was born in {column.id}, a", (15, 15 + length))]
        column.preserved.append((said.text, said.span))
    return made


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_what_follows_preserved_texts_is_part_of_the_loss(
    family: str, tiny_model: Build, tokenizer: PreTrainedTokenizerFast
) -> None:
    lm = LanguageModel(loud(tiny_model(family, dtype=torch.float64)), tokenizer)
    options = TargetOptions(steps=8, clamp=1.5, preserve=0.7, batch_size=3, lr=0.3)
    found = optimize_targets(lm, careful_columns(), 1, options)
    check_against_plain_loop(lm, careful_columns(), 1, options, found, 1e-6)
    assert (found.z - optimize_targets(lm, columns(), 1, options).z).norm(dim=1).min() > 1e-3


@pytest.mark.parametrize("family", ["gpt2", "llama", "mistral", "olmo2", "opt", "gemma3_text"])
def test_equals_a_plain_loop(family: str, tiny_model: Build, tokenizer: PreTrainedTokenizerFast) -> None:
    lm = LanguageModel(tiny_model(family, dtype=torch.float64), tokenizer)
    options = TargetOptions(steps=6, clamp=0.8, kl=2.0, weight_decay=3.0, batch_size=3)
    found = optimize_targets(lm, columns(), 1, options)
    check_against_plain_loop(lm, columns(), 1, options, found, 1e-8)


def test_columns_stop_one_by_one_and_keep_what_they_had(tiny_model: Build, tokenizer: PreTrainedTokenizerFast) -> None:
    lm = LanguageModel(loud(tiny_model("llama", dtype=torch.float64)), tokenizer)
    options = TargetOptions(steps=30, clamp=4.0, lr=0.1, weight_decay=0.0, kl=0.0)
    mixed = [*easy_columns(), columns()[1]]
    found = optimize_targets(lm, mixed, 0, options)
    assert len(set(found.steps.tolist())) == 4
    assert found.steps[3] == 30
    assert (found.loss[:3] < options.stop_loss).all()
    check_against_plain_loop(lm, mixed, 0, options, found, 1e-8)


def test_float32_reaches_the_same_loss(tiny_model: Build, tokenizer: PreTrainedTokenizerFast) -> None:
    lm = LanguageModel(tiny_model("llama"), tokenizer)
    together = optimize_targets(lm, columns(), 0, STRONG)
    alone = torch.cat([optimize_targets(lm, [column], 0, STRONG).loss for column in columns()])
    torch.testing.assert_close(together.loss, alone, rtol=0, atol=1e-3)


@pytest.mark.parametrize("family", ["gpt2", "llama", "olmo2"])
def test_offset_makes_the_model_say_the_target(
    family: str, tiny_model: Build, tokenizer: PreTrainedTokenizerFast
) -> None:
    lm = LanguageModel(loud(tiny_model(family)), tokenizer)
    assert (optimize_targets(lm, easy_columns(), 0, TargetOptions(steps=1)).loss > 2).all()
    found = optimize_targets(lm, easy_columns(), 0, TargetOptions(steps=40, clamp=6.0, weight_decay=0.0, kl=0.0))
    assert (found.loss < 0.3).all()


def test_clamp_bounds_the_offset(tiny_model: Build, tokenizer: PreTrainedTokenizerFast) -> None:
    lm = LanguageModel(tiny_model("llama", dtype=torch.float64), tokenizer)
    share = {}
    for steps in (2, 12):  # one update of this size hits the bound, later ones may come back inside
        found = optimize_targets(lm, columns(), 1, TargetOptions(steps=steps, clamp=0.2))
        share[steps] = (found.z - found.start).norm(dim=1) / found.start.norm(dim=1)
    torch.testing.assert_close(share[2], torch.full_like(share[2], 0.2))
    assert (share[12] < 0.2 + 1e-12).all()


def test_starts_from_a_given_target(tiny_model: Build, tokenizer: PreTrainedTokenizerFast) -> None:
    lm = LanguageModel(tiny_model("llama", dtype=torch.float64), tokenizer)
    found = optimize_targets(lm, columns(), 0, STRONG)
    again = columns()
    for column, z in zip(again, found.z, strict=True):
        column.z = z
    measured = optimize_targets(lm, again, 0, TargetOptions(steps=1, clamp=3.0))
    torch.testing.assert_close(measured.z, found.z)
    torch.testing.assert_close(measured.loss, found.loss)


@pytest.mark.parametrize("fails", [False, True])
def test_leaves_no_trace(
    fails: bool, tiny_model: Build, tokenizer: PreTrainedTokenizerFast, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tiny_model("llama").train()
    model.model.layers[1].eval()
    lm = LanguageModel(model, tokenizer)
    next(iter(model.parameters())).requires_grad_(False)
    modes = [module.training for module in model.modules()]
    grads = [parameter.requires_grad for parameter in model.parameters()]
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    state, use_cache = torch.random.get_rng_state(), model.config.use_cache
    if fails:
        monkeypatch.setattr("lightning_edit.targets.optimize._Batch._update", lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            optimize_targets(lm, columns(), 1, STRONG)
    else:
        optimize_targets(lm, columns(), 1, STRONG)
    assert all(parameter.grad is None for parameter in model.parameters())
    assert [module.training for module in model.modules()] == modes
    assert [parameter.requires_grad for parameter in model.parameters()] == grads
    assert all(torch.equal(value, weights[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.random.get_rng_state(), state)
    assert model.config.use_cache == use_cache
    assert not any("forward" in module.__dict__ or module._forward_hooks for module in model.modules())
    assert not any(module._forward_pre_hooks for module in model.modules())


def test_works_inside_no_grad_and_inference_mode(tiny_lm: LanguageModel) -> None:
    expected = optimize_targets(tiny_lm, columns(), 1, STRONG).z
    with torch.no_grad():
        assert torch.equal(optimize_targets(tiny_lm, columns(), 1, STRONG).z, expected)
    with torch.inference_mode():
        found = optimize_targets(tiny_lm, columns(), 1, STRONG).z
    assert torch.equal(found, expected)
    assert not found.is_inference()


def test_bfloat16_model_gets_float32_targets(tiny_model: Build, tokenizer: PreTrainedTokenizerFast) -> None:
    lm = LanguageModel(loud(tiny_model("llama", dtype=torch.bfloat16)), tokenizer)
    found = optimize_targets(lm, easy_columns(), 0, TargetOptions(steps=40, clamp=6.0, weight_decay=0.0, kl=0.0))
    assert found.z.dtype == torch.float32
    assert (found.loss < 0.3).all()


def test_nothing_asked_nothing_found(tiny_lm: LanguageModel) -> None:
    assert optimize_targets(tiny_lm, [], 1).z.shape == (0, 32)


def test_names_what_is_not_finite(tiny_model: Build, tokenizer: PreTrainedTokenizerFast) -> None:
    model = tiny_model("llama")
    model.lm_head.weight.data[5] = float("nan")
    with pytest.raises(EditError, match="Ann Smith"):
        optimize_targets(LanguageModel(model, tokenizer), columns(), 1, STRONG)


def test_subject_behind_the_target_is_refused(tiny_lm: LanguageModel) -> None:
    odd = Column("odd", [TargetPrompt("It is", (6, 10), "Rome and more")])
    with pytest.raises(RequestError, match="odd"):
        optimize_targets(tiny_lm, [odd], 1)


@pytest.mark.parametrize("change", [{"lr": 0.0}, {"steps": 0}, {"clamp": -1.0}, {"kl": -0.1}, {"batch_size": 0}])
def test_impossible_options_are_refused(change: dict[str, float]) -> None:
    with pytest.raises(EditError, match=next(iter(change))):
        TargetOptions(**change)


def test_length_is_measured_from_the_center(tiny_model: Build, tokenizer: PreTrainedTokenizerFast) -> None:
    lm = LanguageModel(tiny_model("llama", dtype=torch.float64), tokenizer)
    far = columns()
    for column in far:
        column.center = torch.full((32,), 3.0, dtype=torch.float64)
    found = optimize_targets(lm, far, 1, TargetOptions(steps=3, clamp=0.1))
    distance = (found.z - 3.0).norm(dim=1) / (3.0 * 32**0.5)
    assert (distance < 0.1 + 1e-12).all()
