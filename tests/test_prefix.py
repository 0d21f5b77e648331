"""Cached prefixes: what attention kept of each is what running it alone leaves, and what is common is run once."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast
from transformers.cache_utils import DynamicCache

from lightning_edit.model.language_model import LanguageModel
from lightning_edit.targets.beginnings import shared_beginnings
from lightning_edit.targets.prefix import cache_prefixes

CONTEXT, OTHER = (5, 6, 7, 8, 9), (10, 11, 12)
PREFIXES = [
    (20, 21),
    (*CONTEXT, 20, 21),
    (*OTHER, 20, 21),
    (22,),
    (*CONTEXT, 22),
    (*OTHER, 22),
    (*CONTEXT, 23, 24, 25),
    (22,),
    CONTEXT,
    (),
]


def alone(lm: LanguageModel, prefix: tuple[int, ...]) -> DynamicCache:
    """What the model keeps of one prefix."""
    cache = DynamicCache()
    with torch.no_grad():
        lm.model(input_ids=torch.tensor([prefix]), past_key_values=cache, use_cache=True)
    return cache


@pytest.mark.parametrize("family", ["gpt2", "llama", "gptj", "qwen2"])
@pytest.mark.parametrize("prefixes", [PREFIXES, PREFIXES[:1], [CONTEXT, CONTEXT], [(), (20,)]])
def test_each_prefix_is_kept_as_if_it_ran_alone(
    family: str,
    prefixes: list[tuple[int, ...]],
    tiny_model: Callable[..., PreTrainedModel],
    tokenizer: PreTrainedTokenizerFast,
) -> None:
    lm = LanguageModel(tiny_model(family, dtype=torch.float64), tokenizer)
    with lm.borrow(), torch.no_grad():
        cache = cache_prefixes(lm, prefixes)
    assert cache is not None
    longest = max(map(len, prefixes))
    assert cache.get_seq_length() == longest
    for row, prefix in enumerate(prefixes):
        expected = alone(lm, prefix) if prefix else None
        for number, layer in enumerate(cache.layers):
            for name in ("keys", "values"):
                found = getattr(layer, name)[row]
                assert found[:, : longest - len(prefix)].eq(0).all()
                if expected is not None:
                    exact = getattr(expected.layers[number], name)[0]
                    torch.testing.assert_close(found[:, longest - len(prefix) :], exact, rtol=0, atol=1e-6)


def test_common_beginnings_run_once(tiny_lm: LanguageModel) -> None:
    tokens: list[int] = []

    def count(module: object, args: object, kwargs: dict[str, Any]) -> None:
        tokens.append(kwargs["input_ids"].numel())

    prefixes = [(*context, 30 + i) for i in range(20) for context in (CONTEXT, OTHER)]
    handle = tiny_lm.model.register_forward_pre_hook(count, with_kwargs=True)
    with tiny_lm.borrow(), torch.no_grad():
        cache_prefixes(tiny_lm, prefixes)
    handle.remove()
    assert tokens == [2 * len(CONTEXT), len(prefixes)]


def test_positions_stay_within_the_context(
    tiny_model: Callable[..., PreTrainedModel], tokenizer: PreTrainedTokenizerFast
) -> None:
    lm = LanguageModel(tiny_model("gpt2", n_positions=8), tokenizer)
    with lm.borrow(), torch.no_grad():
        cache = cache_prefixes(lm, [(*CONTEXT, 20, 21, 22), CONTEXT, (30, 31, 32, 33, 34), (*CONTEXT, 23)])
    assert cache is not None
    assert cache.get_seq_length() == 8


@pytest.mark.parametrize("sequences", [PREFIXES[:7], [(1,)], [(1, 2), (3, 4)], [(1, 2, 3), (1, 2)]])
def test_beginnings_are_beginnings(sequences: list[tuple[int, ...]]) -> None:
    heads, of = shared_beginnings(sequences)
    assert len(set(heads)) == len(heads)
    assert {*of} == {*range(len(heads))}
    for ids, head in zip(sequences, of, strict=True):
        assert ids[: len(heads[head])] == heads[head]
    rest = max(len(ids) - len(heads[head]) for ids, head in zip(sequences, of, strict=True))
    assert len(heads) * max(map(len, heads)) + len(sequences) * rest <= len(sequences) * max(map(len, sequences))
