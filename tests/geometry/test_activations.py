"""Reading representations: where, which samples, and in which state of the model."""

from typing import Any

import pytest
import torch
from transformers import PreTrainedModel, T5Config, T5ForConditionalGeneration

from lightning_edit.errors import GeometryError, SiteError
from lightning_edit.geometry import (
    PerturbationNorm,
    Point,
    RelativeChangeRate,
    edited_parameters,
    ffn_points,
    random_state,
    read_rows,
    read_states,
    spectrum,
    swapped,
)
from lightning_edit.geometry.activations import pool
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.model.weights import read_weight

TEXTS = ["The capital of the country is a large city.", "She works.", "He was born in the city, and the city is known."]


def batch(lm: LanguageModel, side: Any = "right") -> dict[str, Any]:
    encoded = lm.encode(TEXTS, side)
    return {"input_ids": encoded.input_ids, "attention_mask": encoded.attention_mask, "use_cache": False}


def tiny_t5() -> PreTrainedModel:
    config = T5Config(
        vocab_size=100,
        d_model=16,
        d_kv=4,
        d_ff=32,
        num_layers=2,
        num_heads=4,
        decoder_start_token_id=0,
        dropout_rate=0.0,
    )
    with torch.random.fork_rng():
        torch.manual_seed(0)
        return T5ForConditionalGeneration(config).eval()


def t5_batch() -> dict[str, Any]:
    return {
        "input_ids": torch.tensor([[5, 6, 7, 8], [9, 10, 0, 0]]),
        "attention_mask": torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0]]),
        "decoder_input_ids": torch.tensor([[0, 11, 12], [0, 13, 0]]),
        "decoder_attention_mask": torch.tensor([[1, 1, 1], [1, 1, 0]]),
        "use_cache": False,
    }


@pytest.mark.parametrize("side", ["right", "left"])
def test_padding_never_counts(tiny_lm: LanguageModel, side: Any) -> None:
    points = ffn_points(tiny_lm, [1], ("output", "input"))
    alone: dict[str, list[torch.Tensor]] = {"tokens": [], "last": [], "mean": []}
    together = {}
    with tiny_lm.borrow():
        inputs = batch(tiny_lm, side)
        if side == "left":
            inputs["position_ids"] = (inputs["attention_mask"].cumsum(-1) - 1).clamp_min(0)
        for pooling in alone:
            together[pooling] = read_rows(tiny_lm.model, inputs, points, pooling)  # type: ignore[arg-type]
        for text in TEXTS:
            encoded = tiny_lm.encode([text])
            one = {"input_ids": encoded.input_ids, "attention_mask": encoded.attention_mask}
            rows = read_rows(tiny_lm.model, one, points)["layer1"]
            alone["tokens"].append(rows)
            alone["last"].append(rows[-1:])
            alone["mean"].append(rows.mean(dim=0, keepdim=True))
    for pooling, parts in alone.items():
        assert torch.allclose(together[pooling]["layer1"], torch.cat(parts), atol=1e-5)
        assert together[pooling]["layer1_input"].shape == (len(torch.cat(parts)), 64)


def test_unknown_pooling_is_refused() -> None:
    with pytest.raises(GeometryError, match="expected tokens, last or mean"):
        pool(torch.zeros(1, 2, 3), torch.ones(1, 2), "first")  # type: ignore[arg-type]


def test_every_family_shows_its_points(family_model: PreTrainedModel, tokenizer: Any) -> None:
    lm = LanguageModel(family_model, tokenizer)
    points = ffn_points(lm, [0, 2], ("output", "input", "up"))
    assert len({point.name for point in points}) == len(points) >= 6
    ups = [point for point in points if point.name.startswith("layer0_") and not point.name.endswith("_input")]
    assert ups  # a gate and an up projection, one of both fused, or the only one there is
    with lm.borrow():
        found = read_rows(lm.model, batch(lm), points)
    rows = int(lm.encode(TEXTS).attention_mask.sum())
    for point in ups:
        assert found[point.name].shape[0] == rows
        assert found[point.name].shape[1] in (64, 128)
    assert found["layer0"].shape == (rows, 32)
    assert found["layer2_input"].shape == (rows, 64)
    names = edited_parameters(lm, [0, 2])
    assert [lm.model.get_parameter(name).numel() for name in names] == [32 * 64] * 2


def test_encoder_and_decoder_have_masks_of_their_own() -> None:
    model = tiny_t5()
    ffn = "layer.{}.DenseReluDense"
    points = [
        Point("enc_wi", f"encoder.block.1.{ffn.format(1)}.wi"),
        Point("dec_wo", f"decoder.block.1.{ffn.format(2)}.wo", mask="decoder_attention_mask"),
        Point("dec_act", f"decoder.block.1.{ffn.format(2)}.wo", "input", mask="decoder_attention_mask"),
    ]
    with torch.no_grad():
        found = read_rows(model, t5_batch(), points)
    assert found["enc_wi"].shape == (6, 32)
    assert found["dec_wo"].shape == (5, 16)
    assert found["dec_act"].shape == (5, 32)
    assert bool((found["dec_act"] >= 0).all())  # behind the ReLU


def test_states_are_read_on_the_same_batch_and_the_model_is_as_it_was(tiny_lm: LanguageModel) -> None:
    (name,) = edited_parameters(tiny_lm, [1])
    weight = tiny_lm.model.get_parameter(name)
    own = weight.detach().clone()
    update = 0.01 * torch.randn(own.shape, generator=torch.Generator().manual_seed(1))
    points = ffn_points(tiny_lm, [0, 1, 2])
    with tiny_lm.borrow():
        states = {"now": {}, "again": {}, "edited": {name: own + update}}
        found = read_states(tiny_lm.model, batch(tiny_lm), points, states)  # type: ignore[arg-type]
        keys = read_rows(tiny_lm.model, batch(tiny_lm), ffn_points(tiny_lm, [1], ("input",)))["layer1_input"]
    assert torch.equal(weight, own)
    assert torch.equal(found["now"]["layer0"], found["edited"]["layer0"])  # below the edit
    assert torch.allclose(found["edited"]["layer1"] - found["now"]["layer1"], keys @ update.T, atol=1e-5)
    assert not torch.equal(found["now"]["layer2"], found["edited"]["layer2"])
    for place in ("layer0", "layer1", "layer2"):  # the null-edit control, exactly
        null, norms = RelativeChangeRate(spectrum(found["now"][place])), PerturbationNorm()
        null.update(found["again"][place], found["now"][place])
        norms.update(found["again"][place], found["now"][place])
        assert all(value == 0 for value in {**null.compute(), **norms.compute()}.values())


def test_weights_come_back_after_an_error_and_unknown_names_change_nothing(tiny_lm: LanguageModel) -> None:
    (name,) = edited_parameters(tiny_lm, [1])
    own = tiny_lm.model.get_parameter(name).detach().clone()
    seen = []

    def fail() -> None:
        with swapped(tiny_lm.model, {name: torch.zeros_like(own)}):
            seen.append(bool(tiny_lm.model.get_parameter(name).any()))
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert seen == [False]
    assert torch.equal(tiny_lm.model.get_parameter(name), own)
    wrong = {name: torch.zeros_like(own), "nowhere": own}
    with pytest.raises(GeometryError, match="nowhere"), swapped(tiny_lm.model, wrong):
        pass
    assert torch.equal(tiny_lm.model.get_parameter(name), own)
    with pytest.raises(SiteError, match="layer 9"):
        ffn_points(tiny_lm, [9])


def test_the_random_control_has_the_norm_of_the_edit_and_nothing_else_of_it(tiny_lm: LanguageModel) -> None:
    names = edited_parameters(tiny_lm, [0, 1])
    before = {name: tiny_lm.model.get_parameter(name).detach().clone() for name in names}
    after = {name: value + (index + 1) * 0.01 * value.roll(1, 0) for index, (name, value) in enumerate(before.items())}
    control = random_state(before, after, seed=3)
    for name in names:
        noise, change = control[name] - before[name], after[name] - before[name]
        assert noise.norm() == pytest.approx(change.norm().item(), rel=1e-4)
        assert abs(float((noise * change).sum())) < 0.1 * float(change.norm()) ** 2
        assert torch.equal(control[name], random_state(before, after, seed=3)[name])
        assert not torch.equal(control[name], random_state(before, after, seed=4)[name])
    same = random_state(before, before, seed=3)
    assert all(torch.equal(same[name], before[name]) for name in names)


def test_the_weight_behind_a_name_is_the_sites(tiny_lm: LanguageModel) -> None:
    (name,) = edited_parameters(tiny_lm, [2])
    assert torch.equal(tiny_lm.model.get_parameter(name), read_weight(tiny_lm.projection(2)))
