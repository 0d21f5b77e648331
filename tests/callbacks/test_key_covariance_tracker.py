"""KeyCovarianceTracker and the pass over the training data: the right keys, once, and no trace."""

import logging
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor

from lightning_edit.algebra.moments import KeyCovariance
from lightning_edit.algebra.statistics_file import load_statistics
from lightning_edit.callbacks import KeyCovarianceTracker
from lightning_edit.callbacks.key_tap import KeyTap, empty_moments
from lightning_edit.errors import StateError, StatisticsError
from lightning_edit.model.interception import Intercept
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.model.statistics import expected_identity
from tests.callbacks.training import LAYERS, editing, fit, requests, same, stream, tiny_module, weights

SENTENCES = ["The capital of the country is a large city.", "He was born.", "The language is known to all the people."]


def read(lm: Any, batch: dict[str, Tensor], layer: int) -> Tensor:
    """Every key of a batch (b, t, n)."""
    name = lm.site(layer).name
    with torch.no_grad(), Intercept(lm.model, inputs=[name]) as seen:
        lm.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
    return seen.inputs[name]


def moment(rows: Tensor) -> Tensor:
    return rows.double().T @ rows.double() / len(rows)


def batch_of(backend: str) -> dict[str, Tensor]:
    data = stream(backend, pack=False, max_length=40)
    data.setup()
    return next(iter(data.train_dataloader()))


def test_the_tap_counts_real_tokens_only(trained_backend: str) -> None:
    lm, batch = tiny_module(trained_backend).language_model, batch_of(trained_backend)
    mask = batch["attention_mask"].bool()
    assert not mask.all()
    for limit in (None, 7):
        moments = empty_moments(lm, LAYERS)
        with KeyTap(lm, moments, limit), torch.no_grad():
            lm.model(input_ids=batch["input_ids"], attention_mask=batch["attention_mask"])
        for layer in LAYERS:
            rows = read(lm, batch, layer)[mask]
            chosen = rows if limit is None else rows[[i * len(rows) // limit for i in range(limit)]]
            assert moments[layer].count == len(chosen)
            torch.testing.assert_close(moments[layer].moment, moment(chosen), rtol=1e-10, atol=1e-12)
    assert not any(part._forward_pre_hooks for part in lm.model.modules())


@pytest.mark.parametrize("side", ["left", "right"])
@pytest.mark.parametrize(
    ("family", "changes"),
    [("gpt2", {}), ("opt", {}), ("opt", {"do_layer_norm_before": False}), ("llama", {})],
)
def test_padding_on_either_side_adds_no_key(
    family: str, changes: dict[str, Any], side: str, tiny_model: Any, tokenizer: Any
) -> None:
    lm = LanguageModel(tiny_model(family, dtype=torch.float64, **changes), tokenizer)
    encoded = lm.encode(SENTENCES, padding_side=side)
    mask = encoded.attention_mask
    assert not mask.all()
    padded, alone = empty_moments(lm, LAYERS), empty_moments(lm, LAYERS)
    with torch.no_grad():
        with KeyTap(lm, padded):
            places = (mask.cumsum(1) - 1).clamp_min(0)
            lm.model(input_ids=encoded.input_ids, attention_mask=mask, position_ids=places)
        with KeyTap(lm, alone):
            for sentence in SENTENCES:
                lm.model(input_ids=lm.encode([sentence]).input_ids)
    for layer in LAYERS:
        assert padded[layer].count == alone[layer].count == mask.sum()
        torch.testing.assert_close(padded[layer].moment, alone[layer].moment, rtol=1e-10, atol=1e-12)
        torch.testing.assert_close(padded[layer].mean, alone[layer].mean, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("family", ["opt", "llama"])
def test_the_mask_of_a_cached_forward_begins_before_its_keys(family: str, tiny_model: Any, tokenizer: Any) -> None:
    lm = LanguageModel(tiny_model(family, dtype=torch.float64), tokenizer)
    encoded = lm.encode(SENTENCES)
    ids, mask = encoded.input_ids, encoded.attention_mask
    whole, parts = empty_moments(lm, LAYERS), empty_moments(lm, LAYERS)
    with torch.no_grad():
        with KeyTap(lm, whole):
            lm.model(input_ids=ids, attention_mask=mask)
        with KeyTap(lm, parts):
            cache = lm.model(input_ids=ids[:, :5], attention_mask=mask[:, :5], use_cache=True).past_key_values
            lm.model(input_ids=ids[:, 5:], attention_mask=mask, past_key_values=cache)
    for layer in LAYERS:
        assert parts[layer].count == whole[layer].count == mask.sum()
        torch.testing.assert_close(parts[layer].moment, whole[layer].moment, rtol=1e-10, atol=1e-12)


def test_keys_that_do_not_fit_the_mask_are_named(trained_backend: str) -> None:
    lm = tiny_module(trained_backend).language_model
    with KeyTap(lm, empty_moments(lm, LAYERS)) as tap:
        tap._on_forward(lm.model, (), {"attention_mask": torch.ones(2, 3)})
        with pytest.raises(StatisticsError, match=r"found 7 keys .* shape \(2, 3\)"):
            lm.projection(0)(torch.zeros(7, lm.site(0).inner))


class Seen(pl.Callback):
    """Writes down for which batches the hooks are in place."""

    def __init__(self) -> None:
        self.batches: list[bool] = []

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: Any, *_: Any) -> None:
        self.batches.append(any(part._forward_pre_hooks for part in pl_module.modules()))

    def on_before_zero_grad(self, trainer: pl.Trainer, pl_module: Any, optimizer: Any) -> None:
        pass

    def on_after_backward(self, trainer: pl.Trainer, pl_module: Any) -> None:
        assert not any(part._forward_pre_hooks for part in pl_module.modules())


def test_every_batch_until_there_are_enough_then_some(trained_backend: str) -> None:
    tracker, seen = KeyCovarianceTracker([0], every_n_batches=4, tokens_per_batch=50, min_tokens=100), Seen()
    fit(tiny_module(trained_backend), stream(trained_backend), [tracker, seen], max_steps=10)
    assert seen.batches == [True, True, False, False, True, False, False, False, True, False]
    assert tracker.tokens == 200
    assert tracker.is_ready()


def test_tracking_does_not_change_training(trained_backend: str) -> None:
    final = []
    for callbacks in ([], [KeyCovarianceTracker(every_n_batches=1)]):
        module = tiny_module(trained_backend)
        fit(module, stream(trained_backend), callbacks)
        final.append(weights(module))
    assert same(*final)


def test_the_moments_are_those_of_the_training_batches(trained_backend: str, tmp_path: Path) -> None:
    module = tiny_module(trained_backend, lr=0.0)
    path = tmp_path / "keys.safetensors"
    tracker = KeyCovarianceTracker(every_n_batches=1, tokens_per_batch=10_000, path=path)
    data = stream(trained_backend)
    fit(module, data, [tracker], max_steps=3)
    lm, loader = module.language_model, data.train_dataloader()
    rows = torch.cat(
        [read(lm, batch, 1)[batch["attention_mask"].bool()] for _, batch in zip(range(3), loader, strict=False)]
    )
    saved = load_statistics(path, expected_identity(lm))
    assert sorted(saved) == [0, 1, 2]
    assert saved[1].count == len(rows)
    torch.testing.assert_close(saved[1].moment, moment(rows), rtol=1e-10, atol=1e-12)


def test_edits_wait_for_the_tracker_and_freeze_it(
    trained_backend: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    path = tmp_path / "keys.safetensors"
    tracker = KeyCovarianceTracker(min_tokens=240, tokens_per_batch=80, path=path)
    callback, module = editing(), tiny_module(trained_backend)
    fit(module, stream(trained_backend, requests(20)), [tracker, callback], max_steps=6)
    assert callback.count == 4  # steps 4 and 6: after step 2 there are 160 tokens
    assert caplog.text.count("Edits wait") == 1
    assert caplog.text.count("are frozen") == 1
    assert tracker.frozen
    assert tracker.tokens == load_statistics(path)[1].count == 240
    assert sorted(tracker.freeze()) == LAYERS
    assert callback.editor is not None
    assert callback.editor.layers == LAYERS


def test_one_announced_pass_without_a_tracker(trained_backend: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    module, callback = tiny_module(trained_backend), editing(statistics_tokens=300)
    given: list[dict[int, KeyCovariance]] = []
    prepare = callback.editor.prepare  # type: ignore[union-attr]

    def note(lm: Any, statistics: Any) -> None:
        given.append(statistics)
        prepare(lm, statistics=statistics)

    callback.editor.prepare = note  # type: ignore[union-attr,method-assign]
    data = stream(trained_backend, requests(2))
    rng = torch.get_rng_state()
    fit(module, data, [callback], max_steps=1)
    assert torch.equal(rng, torch.get_rng_state())
    assert "Reading keys of layers [0, 1] from up to 300 tokens of the training data" in caplog.text
    untrained = tiny_module(trained_backend).language_model
    loader = data.train_dataloader()
    rows = torch.cat(
        [read(untrained, batch, 1)[batch["attention_mask"].bool()] for _, batch in zip(range(4), loader, strict=False)]
    )
    assert given[0][1].count == len(rows) >= 300
    torch.testing.assert_close(given[0][1].moment, moment(rows), rtol=1e-10, atol=1e-12)


def test_the_pass_does_not_change_the_order_of_training(trained_backend: str, statistics: Path) -> None:
    final = []
    for source in ({"statistics_tokens": 300}, {"statistics": statistics}):
        module = tiny_module(trained_backend)
        fit(module, stream(trained_backend, requests(2)), [editing(every_n_steps=50, **source)], max_steps=3)
        final.append(weights(module))
    assert same(*final)


def test_too_few_tokens_are_named(trained_backend: str) -> None:
    data = stream(trained_backend, requests(2), max_length=8)
    with pytest.raises(StatisticsError, match="rank"):
        fit(tiny_module(trained_backend), data, [editing(statistics_tokens=20)])


def test_state_and_refusals(trained_backend: str) -> None:
    tracker = KeyCovarianceTracker([0])
    fit(tiny_module(trained_backend), stream(trained_backend), [tracker], max_steps=2)
    state = tracker.state_dict()
    with pytest.raises(StateError, match="version 9"):
        KeyCovarianceTracker([0]).load_state_dict({**state, "version": 9})
    other = KeyCovarianceTracker([1])
    other.load_state_dict(state)
    with pytest.raises(StateError, match=r"tracked layers \[0\], this run tracks \[1\]"):
        fit(tiny_module(trained_backend), stream(trained_backend), [other], max_steps=2)
    with pytest.raises(StatisticsError, match="every_n_batches=0"):
        KeyCovarianceTracker(every_n_batches=0)
