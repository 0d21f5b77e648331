"""Latency, sizes and peaks: what is counted, and what is compared with what."""

import dataclasses
from typing import Any

import pytest
import torch

from lightning_edit.errors import EditError, RequestError
from lightning_edit.evaluation import cost
from lightning_edit.evaluation.cost import Latency, measure_latency, peak_cuda, peak_rss, reset_peak_cuda, state_bytes
from lightning_edit.model.language_model import LanguageModel


def test_exactly_so_many_tokens_whatever_the_model_would_rather_do(tiny_lm: LanguageModel) -> None:
    rows: list[int] = []
    tiny_lm.model.generation_config.eos_token_id = list(range(2, 320))  # anything it says would end the text
    handle = tiny_lm.model.register_forward_hook(lambda *_: rows.append(1))
    found = measure_latency(tiny_lm, ["the capital", "she was born in the north"], tokens=7, runs=3, warmup=2)
    handle.remove()
    assert len(rows) == 2 * (3 + 2) * 7  # one forward a token
    assert (found.tokens, found.runs) == (7, 6)
    assert 0 < found.low <= found.median <= found.high


def test_median_and_quartiles_leave_the_warm_up_out(tiny_lm: LanguageModel, monkeypatch: pytest.MonkeyPatch) -> None:
    taken = iter([100.0, 3.0, 1.0, 2.0, 5.0, 4.0])
    monkeypatch.setattr(cost, "_seconds", lambda *_: next(taken))
    found = measure_latency(tiny_lm, ["the"], runs=5, warmup=1)
    assert (found.low, found.median, found.high) == (2.0, 3.0, 4.0)
    monkeypatch.setattr(cost, "_seconds", lambda *_: 6.0)
    alone = measure_latency(tiny_lm, ["the"], runs=1, warmup=0)
    assert (alone.low, alone.median, alone.high) == (6.0, 6.0, 6.0)
    assert alone.relative_to(found) == 2.0
    assert Latency(**found.to_dict()) == found


def test_only_like_is_compared_with_like(tiny_lm: LanguageModel) -> None:
    found = Latency(1.0, 1.0, 1.0, 50, 5, cost.device_name(tiny_lm))
    for change in ({"tokens": 20}, {"where": "another machine"}):
        with pytest.raises(EditError, match="as many tokens on the same device"):
            found.relative_to(dataclasses.replace(found, **change))


@pytest.mark.parametrize("bad", [{"prompts": []}, {"tokens": 0}, {"runs": 0}, {"warmup": -1}])
def test_what_cannot_be_timed(tiny_lm: LanguageModel, bad: dict[str, Any]) -> None:
    with pytest.raises(EditError, match="expected at least one prompt"):
        measure_latency(tiny_lm, **{"prompts": ["the"], **bad})
    with pytest.raises(RequestError, match="at most 128"):
        measure_latency(tiny_lm, ["the city"], tokens=128)


def test_the_model_is_given_back_as_it_was(tiny_lm: LanguageModel) -> None:
    tiny_lm.model.train()
    before, state = tiny_lm.model.generation_config, torch.random.get_rng_state()
    measure_latency(tiny_lm, ["the"], tokens=2, runs=1)
    assert tiny_lm.model.training
    assert tiny_lm.model.generation_config is before
    assert torch.equal(torch.random.get_rng_state(), state)


def test_a_state_is_as_large_as_what_is_in_it() -> None:
    state = {"a": torch.zeros(3, 5, dtype=torch.float64), "b": [torch.zeros(4, dtype=torch.bfloat16), {"c": "é"}]}
    assert state_bytes(state) == 120 + 8 + 2
    assert state_bytes({"n": 1, "x": 2.0, "none": None, "yes": True, "raw": b"abc"}) == 8 + 8 + 8 + 3


def test_peaks_grow_with_what_is_held() -> None:
    before = peak_rss()
    assert before is not None
    held = torch.ones(24_000_000)  # 96 MB
    grown = peak_rss()
    assert grown is not None
    assert grown >= before
    assert grown > held.numel() * held.element_size()
    assert peak_cuda(torch.device("cpu")) is None


def test_the_count_of_a_gpu_begins_anew_and_others_have_none(monkeypatch: pytest.MonkeyPatch) -> None:
    reset: list[str] = []
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda device: reset.append(str(device)))
    reset_peak_cuda(torch.device("cpu"))
    reset_peak_cuda(torch.device("cuda:0"))
    assert reset == ["cuda:0"]
