"""One whole measurement on a tiny model: what it says is what happened, and the model is as it was."""

import io
import itertools
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from transformers import PreTrainedModel

from lightning_edit.errors import GeometryError, StateError
from lightning_edit.geometry import edited_parameters, ffn_points, perturbation_norms, read_rows, spectrum
from lightning_edit.geometry import reference as reference_of_the_model
from lightning_edit.geometry.plots import draw_growth, draw_site
from lightning_edit.geometry.probe import GeometryProbe
from lightning_edit.geometry.reference import READINGS, Batch, on_device
from lightning_edit.model.language_model import LanguageModel
from tests.geometry import reference_geometry as reference

TEXTS = [
    "The capital of the country is a large city.",
    "The mother tongue of the writer is English.",
    "She works for the company that was founded in the north of the country.",
    "He was born in the city, and the city is known for its river.",
]


@pytest.fixture
def lm(tiny_model: Callable[..., PreTrainedModel], tokenizer: Any) -> LanguageModel:
    return LanguageModel(tiny_model("llama"), tokenizer)


def batches(lm: LanguageModel) -> list[Batch]:
    parts = [lm.encode(TEXTS[start : start + 2]) for start in (0, 2)]
    return [{"input_ids": part.input_ids, "attention_mask": part.attention_mask} for part in parts]


def probe(lm: LanguageModel, layers: tuple[int, ...] = (1, 2), **options: Any) -> GeometryProbe:
    fields = {"sizes": (2, 8), "sketch": 10_000, "first_order": 2, **options}
    return GeometryProbe(ffn_points(lm, layers), edited_parameters(lm, [1]), ffn_points(lm, [2], ("up",)), **fields)


def push(lm: LanguageModel, size: float, seed: int) -> dict[str, torch.Tensor]:
    """Change the edited weight, and give the one before."""
    (name,) = edited_parameters(lm, [1])
    weight = lm.model.get_parameter(name)
    before = weight.detach().clone()
    with torch.no_grad():
        weight += size * torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed))
    return {name: before}


def rows(lm: LanguageModel) -> dict[str, torch.Tensor]:
    with lm.borrow():
        parts = [read_rows(lm.model, on_device(lm, batch), ffn_points(lm, [1, 2])) for batch in batches(lm)]
    return {name: torch.cat([part[name] for part in parts]) for name in parts[0]}


def test_the_unedited_model_measured_against_itself_is_exactly_zero(lm: LanguageModel) -> None:
    found = probe(lm).begin(lm, batches(lm))
    for name in ("layer1", "layer2"):
        for label in ("total", "null", "edited", "random"):
            assert found[f"{name}/{label}/R_mean_abs_max"] == 0
            assert found[f"{name}/{label}/norm_max"] == 0
        assert found[f"{name}/cos_min_k8"] == pytest.approx(1)
    assert not any("first_order" in name or "law" in name for name in found)


def test_numbers_are_those_of_the_rows_read_by_hand(lm: LanguageModel) -> None:
    before = rows(lm)
    measured = probe(lm)
    found = measured.begin(lm, batches(lm))
    known = spectrum(before["layer1"])
    for what, value in known.summary(torch.float32).items():
        assert found[f"layer1/{what}"] == pytest.approx(value, rel=1e-6)
    assert known.count == sum(int(batch["attention_mask"].sum()) for batch in batches(lm))
    push(lm, 0.05, seed=1)
    after = rows(lm)
    found = measured.measure(lm, 3)
    for name in ("layer1", "layer2"):
        expected = reference.relative_change(before[name].double(), after[name].double(), "mean_abs")
        for label in ("total", "edited"):  # nothing but the edited matrix has changed, and the sketch holds all
            assert found[f"{name}/{label}/R_mean_abs_median"] == pytest.approx(np.median(expected), rel=1e-6)
            assert found[f"{name}/{label}/R_mean_abs_max"] == pytest.approx(expected.max(), rel=1e-6)
        norms = perturbation_norms(after[name].double() - before[name].double())
        assert found[f"{name}/total/norm_mean"] == pytest.approx(norms["mean"], rel=1e-6)
        assert found[f"{name}/null/norm_max"] == 0
        assert found[f"{name}/null/R_mean_abs_max"] == 0
    rate = measured.history[-1]["rates"]["total"]["layer1"]
    assert np.allclose(rate, reference.relative_change(before["layer1"], after["layer1"], "mean_abs"), rtol=1e-5)
    assert "layer1/commit/norm_mean" not in found


def test_a_random_edit_and_its_control_look_alike(lm: LanguageModel) -> None:
    measured = probe(lm)
    measured.begin(lm, batches(lm))
    before = push(lm, 0.05, seed=1)
    found = measured.measure(lm, 1, before)
    for what, near in (("R_mean_abs_median", 0.5), ("norm_mean", 0.3)):  # one draw against another
        for one, control in (("edited", "random"), ("commit", "commit_random")):
            assert found[f"layer1/{one}/{what}"] == pytest.approx(found[f"layer1/{control}/{what}"], rel=near)
            assert found[f"layer1/{one}/{what}"] != found[f"layer1/{control}/{what}"]
    assert found["layer1/edited/R_mean_abs_median"] == found["layer1/commit/R_mean_abs_median"]


def test_the_last_commit_is_told_from_all_of_them(lm: LanguageModel) -> None:
    measured = probe(lm)
    measured.begin(lm, batches(lm))
    push(lm, 0.05, seed=1)
    before = push(lm, 0.005, seed=2)
    found = measured.measure(lm, 2, before)
    ratio = found["layer1/edited/norm_mean"] / found["layer1/commit/norm_mean"]
    assert ratio == pytest.approx(10, rel=0.2)
    assert found["layer1/commit/first_order_error"] < 1e-4  # exact up to float32
    small, large = (found[f"layer2/{label}/first_order_error"] for label in ("commit", "edited"))
    assert 1e-4 < small < large < 1
    assert small < 0.1
    assert found["layer2_gate_proj/commit/first_order_cosine"] > 0.99


def test_growth_follows_the_law_when_every_edit_is_the_same_push(lm: LanguageModel) -> None:
    same, mixed = probe(lm), probe(lm)
    own = {name: value.clone() for name, value in lm.model.state_dict().items()}
    found = {}
    for name, measured, seeds in (("same", same, (1, 1, 1, 1)), ("mixed", mixed, (1, 2, 3, 4))):
        lm.model.load_state_dict(own)
        measured.begin(lm, batches(lm))
        for count, seed in enumerate(seeds, 1):
            push(lm, 0.01, seed)
            found[name] = measured.measure(lm, count)
    assert found["same"]["layer1/law_ratio"] == pytest.approx(1, rel=1e-3)
    assert found["same"]["layer1/growth_exponent"] == pytest.approx(1, rel=1e-3)
    assert found["same"]["layer1/coherence"] == pytest.approx(1, rel=1e-3)
    assert found["mixed"]["layer1/law_ratio"] == pytest.approx(0.5, abs=0.12)
    assert found["mixed"]["layer1/growth_exponent"] == pytest.approx(0.5, abs=0.2)
    assert found["mixed"]["layer1/coherence"] == pytest.approx(0.5, abs=0.12)
    assert "layer1/law_ratio" not in same.measure(lm, 0)  # nothing to compare with before the first edit


def test_a_measurement_leaves_no_trace(lm: LanguageModel) -> None:
    measured = probe(lm)
    measured.begin(lm, batches(lm))
    before = push(lm, 0.05, seed=1)
    lm.model.train()
    weights = {name: value.clone() for name, value in lm.model.state_dict().items()}
    random = torch.get_rng_state()
    measured.measure(lm, 1, before)
    assert all(torch.equal(value, weights[name]) for name, value in lm.model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
    assert lm.model.training
    assert all(parameter.requires_grad and parameter.grad is None for parameter in lm.model.parameters())


def test_state_survives_a_checkpoint_bit_for_bit(lm: LanguageModel) -> None:
    one = probe(lm)
    one.begin(lm, batches(lm))
    push(lm, 0.05, seed=1)
    one.measure(lm, 1)
    file = io.BytesIO()
    torch.save(one.state_dict(), file)
    file.seek(0)
    other = probe(lm)
    other.load_state_dict(torch.load(file, weights_only=True))
    before = push(lm, 0.05, seed=2)
    assert other.measure(lm, 2, before) == one.measure(lm, 2, before)
    assert [row["count"] for row in other.history] == [0, 1, 2]
    with pytest.raises(StateError, match=r"pass layers= and\s+parts= as before"):
        probe(lm, layers=(0,)).load_state_dict(one.state_dict())


def test_a_small_sketch_is_spread_evenly(lm: LanguageModel) -> None:
    measured = probe(lm, sketch=7)
    measured.begin(lm, batches(lm))
    known = measured.reference
    assert known is not None
    assert known.sketch["layer1"].shape == (7, 32)
    before = rows(lm)["layer1"]
    places = torch.arange(7) * len(before) // 7
    assert torch.allclose(known.sketch["layer1"], before[places], atol=1e-6)


@pytest.mark.parametrize("pooling", ["last", "mean"])
def test_other_samples_of_a_text(lm: LanguageModel, pooling: Any) -> None:
    measured = probe(lm, pooling=pooling, aggregation="rms", sizes=(1,))
    found = measured.begin(lm, batches(lm))
    assert found["layer1/samples"] == 4
    assert found["layer1/under_floor"] == 32 - 3
    push(lm, 0.05, seed=1)
    assert measured.measure(lm, 1)["layer1/total/R_rms_median"] > 0


def test_a_short_budget_reads_less_and_says_what_it_left_out(lm: LanguageModel) -> None:
    measured = probe(lm, seconds=1e-9)
    found = measured.begin(lm, batches(lm))
    assert measured.reference is not None
    assert len(measured.reference.batches) == 1
    assert measured.skipped == ["spectra"]
    assert found["layer1/null/R_mean_abs_max"] == 0
    push(lm, 0.05, seed=1)
    found = measured.measure(lm, 1)
    assert measured.skipped == ["spectra", "first order of edited"]
    assert found["layer1/total/R_mean_abs_median"] > 0
    assert "layer1/condition" not in found


@pytest.mark.parametrize(
    ("seconds", "kept"), [(2.5 * READINGS, 2), (1.1 * READINGS, 1), (99.0 * READINGS, 4), (None, 4)]
)
def test_a_budget_keeps_as_many_texts_as_it_has_time_for(
    lm: LanguageModel, monkeypatch: pytest.MonkeyPatch, seconds: float | None, kept: int
) -> None:
    ticks = itertools.count()
    clock = SimpleNamespace(perf_counter=lambda: float(next(ticks)))  # each reading takes a second
    monkeypatch.setattr(reference_of_the_model, "time", clock)
    parts = [lm.encode([text]) for text in TEXTS]
    texts = [{"input_ids": part.input_ids, "attention_mask": part.attention_mask} for part in parts]
    made = reference_of_the_model.make_reference(lm, texts, ffn_points(lm, [1]), [], seconds=seconds)
    assert len(made.batches) == kept
    assert made.samples == sum(int(batch["attention_mask"].sum()) for batch in texts[:kept])


def test_wrong_use_is_named(lm: LanguageModel) -> None:
    with pytest.raises(StateError, match="expected `begin` before"):
        probe(lm).measure(lm, 1)
    with pytest.raises(GeometryError, match="no text"):
        probe(lm).begin(lm, [])


def test_pictures_are_drawn_whatever_is_zero(tmp_path: Path) -> None:
    curves = {"unedited": torch.tensor([3.0, 1.0, 0.0]), "9 edits": torch.tensor([2.0, 1.0, 0.5])}
    for path in (
        draw_site(tmp_path / "new" / "layer3.png", "layer3", curves, {"9 edits": torch.zeros(3)}, torch.ones(3)),
        draw_site(tmp_path / "bare.png", "layer3", curves, {}),
        draw_growth(tmp_path / "growth.png", [1, 10], {"layer3": [0.1, 0.8], "layer4": [0.0, 0.0]}),
    ):
        assert path.read_bytes().startswith(b"\x89PNG")
