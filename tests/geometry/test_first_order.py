"""The first order of an edit: exact where it must be, as good as the remainder allows elsewhere."""

import math
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from lightning_edit.errors import GeometryError
from lightning_edit.geometry import FirstOrderError, activation_change, edited_parameters, ffn_points, network_change
from lightning_edit.geometry.activations import Point
from lightning_edit.model.borrowing import borrow
from lightning_edit.model.language_model import LanguageModel
from tests.geometry import reference_geometry as reference
from tests.geometry.synthetic import randn
from tests.geometry.test_activations import batch, t5_batch, tiny_t5


def silu(x: float) -> float:
    return x / (1 + math.exp(-x))


def silu_slope(x: float) -> float:
    gate = 1 / (1 + math.exp(-x))
    return gate * (1 + x * (1 - gate))


def error(pair: tuple[torch.Tensor, torch.Tensor]) -> dict[str, float]:
    metric = FirstOrderError()
    metric.update(*pair)
    return {name: value.item() for name, value in metric.compute().items()}


def changed(model: PreTrainedModel, names: list[str], size: float) -> tuple[dict[str, Any], dict[str, Any]]:
    before = {name: model.get_parameter(name).detach().clone() for name in names}
    after = {
        name: value + size * value.norm() * randn(*value.shape, seed=4).to(value) / value.numel() ** 0.5
        for name, value in before.items()
    }
    return before, after


def test_one_layer_agrees_with_the_reference_entry_by_entry() -> None:
    weight, update, inputs = randn(5, 7), 0.1 * randn(5, 7, seed=1), randn(9, 7, seed=2)
    measured, predicted = activation_change(torch.nn.functional.silu, weight, update, inputs)
    expected = reference.ffn_change(silu, silu_slope, weight, update, inputs)
    assert np.allclose(measured, expected[0], atol=1e-13)
    assert np.allclose(predicted, expected[1], atol=1e-13)
    assert not np.allclose(measured, predicted, atol=1e-4)


def test_without_activation_the_first_order_is_all_there_is() -> None:
    weight, update, inputs = randn(5, 7), randn(5, 7, seed=1), randn(9, 7, seed=2)
    found = error(activation_change(lambda value: value, weight, update, inputs, bias=randn(5)))
    assert found == pytest.approx({"error": 0, "cosine": 1, "ratio": 1}, abs=1e-12)


def test_the_error_shrinks_with_the_edit() -> None:
    weight, update, inputs = randn(5, 7), randn(5, 7, seed=1), randn(9, 7, seed=2)
    errors = [
        error(activation_change(torch.nn.functional.silu, weight, size * update, inputs))["error"]
        for size in (1e-1, 1e-2, 1e-3)
    ]
    assert errors[0] / errors[1] == pytest.approx(10, rel=0.3)  # the remainder is of second order
    assert errors[1] / errors[2] == pytest.approx(10, rel=0.05)


@pytest.mark.parametrize("family", ["llama", "gpt2"])
def test_through_the_network_it_is_exact_at_the_edited_projection_and_first_order_behind(
    family: str, tiny_model: Any, tokenizer: Any
) -> None:
    lm = LanguageModel(tiny_model(family, dtype=torch.float64), tokenizer)
    names = edited_parameters(lm, [1])
    points = ffn_points(lm, [0, 1, 2], ("output", "input", "up"))
    own = {name: value.clone() for name, value in lm.model.state_dict().items()}
    found = []
    with lm.borrow():
        for size in (1e-2, 1e-3):
            found.append(network_change(lm.model, batch(lm), *changed(lm.model, names, size), points))
    assert all(torch.equal(value, own[name]) for name, value in lm.model.state_dict().items())
    for large, small in [(found[0][point.name], found[1][point.name]) for point in points]:
        assert large[0].shape == large[1].shape
        assert small[0].dtype == torch.float64
    below, here = found[0]["layer0"], found[0]["layer1"]
    assert not below[0].any()
    assert not below[1].any()
    assert error(here)["error"] < 1e-12
    for name in [point.name for point in points if point.name.startswith("layer2")]:
        errors = [error(result[name])["error"] for result in found]
        assert 1e-6 < errors[1] < 0.02
        assert errors[0] / errors[1] == pytest.approx(10, rel=0.2)
        assert error(found[1][name])["cosine"] > 0.999


def test_an_edit_of_the_gate_is_linear_before_and_curved_behind_the_activation(tiny_model: Any, tokenizer: Any) -> None:
    lm = LanguageModel(tiny_model("llama", dtype=torch.float64), tokenizer)
    points = ffn_points(lm, [1], ("output", "input", "up"))
    (gate,) = [point.path for point in points if point.name == "layer1_gate_proj"]
    with lm.borrow():
        found = network_change(lm.model, batch(lm), *changed(lm.model, [f"{gate}.weight"], 0.05), points)
    assert error(found["layer1_gate_proj"])["error"] < 1e-12
    assert not found["layer1_up_proj"][0].any()
    assert 1e-3 < error(found["layer1_input"])["error"] < 0.5
    assert 1e-3 < error(found["layer1"])["error"] < 0.5


def test_t5s_wi_is_tested_behind_its_activation() -> None:
    model = tiny_t5().double()
    ffn = "encoder.block.0.layer.1.DenseReluDense"
    points = [
        Point("wi", f"{ffn}.wi"),
        Point("act", f"{ffn}.wo", "input"),
        Point("decoder", "decoder.block.1.layer.2.DenseReluDense.wo", mask="decoder_attention_mask"),
    ]
    with borrow(model):
        found = network_change(model, t5_batch(), *changed(model, [f"{ffn}.wi.weight"], 0.05), points)
    assert error(found["wi"])["error"] < 1e-12
    assert found["decoder"][0].shape == (5, 16)
    assert 0 < error(found["decoder"])["error"] < 0.5
    kinked = error(found["act"])["error"]  # a ReLU is linear but for the units that change side
    assert kinked < 0.5


def test_nothing_edited_predicts_nothing_and_says_nan(tiny_lm: LanguageModel) -> None:
    names = edited_parameters(tiny_lm, [1])
    before = {name: tiny_lm.model.get_parameter(name).detach().clone() for name in names}
    with tiny_lm.borrow():
        found = network_change(tiny_lm.model, batch(tiny_lm), before, before, ffn_points(tiny_lm, [2]))["layer2"]
    assert not found[0].any()
    assert not found[1].any()
    assert all(math.isnan(value) for value in error(found).values())


def test_wrong_use_is_named(tiny_lm: LanguageModel) -> None:
    (name,) = edited_parameters(tiny_lm, [1])
    value = tiny_lm.model.get_parameter(name).detach()
    points = ffn_points(tiny_lm, [1])
    for before, after in [({}, {}), ({"nowhere": value}, {"nowhere": value}), ({name: value}, {})]:
        with pytest.raises(GeometryError, match="all of them parameters"):
            network_change(tiny_lm.model, batch(tiny_lm), before, after, points)
    with pytest.raises(GeometryError, match=r"expected the same \(m, d\)"):
        FirstOrderError().update(torch.zeros(2, 3), torch.zeros(3, 3))


def test_the_error_streams() -> None:
    measured, predicted = randn(30, 4), randn(30, 4) + 0.1 * randn(30, 4, seed=5)
    metric = FirstOrderError()
    for part in (slice(0, 7), slice(7, 30)):
        metric.update(measured[part], predicted[part])
    m, p = measured.numpy(), predicted.numpy()
    found = metric.compute()
    assert found["error"].item() == pytest.approx(np.linalg.norm(m - p) / np.linalg.norm(m))
    assert found["cosine"].item() == pytest.approx((m * p).sum() / np.linalg.norm(m) / np.linalg.norm(p))
    assert found["ratio"].item() == pytest.approx(np.linalg.norm(p) / np.linalg.norm(m))
