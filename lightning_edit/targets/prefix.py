"""The attention keys and values of prefixes, each token run as seldom as possible.

Rows of a column differ behind the subject, hardly in front of it, and the prompts of many columns stand behind the same
few contexts: each different prefix is run once, and a beginning that many have in common once for all of them. This
file knows tokens and caches; it knows no offset and no loss.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from transformers.cache_utils import DynamicCache, DynamicLayer

from lightning_edit.model.language_model import LanguageModel
from lightning_edit.targets.beginnings import Tokens, shared_beginnings


def cache_prefixes(lm: LanguageModel, prefixes: Sequence[Tokens]) -> DynamicCache | None:
    """Keys and values of prefixes in every block, a row for each, moved to the right end of the longest.

    Args:
        lm: The language model, already borrowed.
        prefixes: Tokens, at least one of them not empty.

    Returns:
        A cache whose left padding has to be masked; None where the model fills no plain cache.
    """
    unique = {prefix: i for i, prefix in enumerate(dict.fromkeys(prefixes))}
    heads, head_of = shared_beginnings(list(unique))
    common = [len(heads[head]) for head in head_of]
    cache = DynamicCache()
    width = _extend(lm, cache, heads, [0] * len(heads), 0)
    if width:
        if not _is_plain(cache, lm.num_layers, width):
            return None
        _move(cache, head_of, common, [0] * len(common), width)
    rests = [prefix[length:] for prefix, length in zip(unique, common, strict=True)]
    filled = width + _extend(lm, cache, rests, common, width)
    if not _is_plain(cache, lm.num_layers, filled):
        return None
    row = [unique[prefix] for prefix in prefixes]
    lengths = [len(prefix) for prefix in prefixes]
    _move(cache, row, lengths, [width - common[i] for i in row], max(lengths))
    return cache


def run(lm: LanguageModel, ids: Tensor, mask: Tensor, positions: Tensor, cache: DynamicCache | None) -> Tensor:
    """Logits of one call of the whole model; what is skipped or cut is up to the caller.

    Args:
        lm: The language model.
        ids: Tokens (r, a).
        mask: What attention sees, cached tokens first (r, p + a).
        positions: Positions of the tokens (r, a).
        cache: Keys and values of the tokens before; it grows by the new ones.
    """
    logits: Tensor = lm.model(
        input_ids=ids,
        attention_mask=mask,
        position_ids=positions,
        past_key_values=cache,
        use_cache=cache is not None,
        return_dict=True,
    ).logits
    return logits


@contextmanager
def head_at(lm: LanguageModel, rows: Tensor, positions: Tensor) -> Iterator[None]:
    """Let the head see only some hidden states, as one sequence.

    Args:
        lm: The language model.
        rows: Their rows (s,).
        positions: Their places among the tokens that are run (s,).
    """
    handle = lm.head.register_forward_pre_hook(lambda module, args: (args[0][rows, positions].unsqueeze(0), *args[1:]))
    try:
        yield
    finally:
        handle.remove()


def pad(sequences: Sequence[Tokens], width: int, device: torch.device) -> Tensor:
    """Token ids, padded on the right (r, width).

    Args:
        sequences: The tokens of each row.
        width: Tokens of every row.
        device: Where to.
    """
    return torch.tensor([[*ids, *[0] * (width - len(ids))] for ids in sequences], device=device)


def _extend(lm: LanguageModel, cache: DynamicCache, pieces: Sequence[Tokens], behind: Sequence[int], width: int) -> int:
    """Run pieces of text behind the last so many of the tokens that the cache holds; returns the longest's length."""
    longest = max(map(len, pieces))
    if longest:
        ids, device = pad(pieces, longest, lm.device), lm.device
        before = torch.tensor(behind, device=device)[:, None]
        last = before + torch.tensor([max(len(piece) - 1, 0) for piece in pieces], device=device)[:, None]
        mask = torch.arange(width + longest, device=device) >= width - before
        first = torch.zeros(1, dtype=torch.long, device=device)
        with head_at(lm, first, first):
            run(lm, ids, mask.long(), (before + torch.arange(longest, device=device)).minimum(last), cache)
    return longest


def _move(cache: DynamicCache, rows: Sequence[int], lengths: Sequence[int], begins: Sequence[int], width: int) -> None:
    """Rows of a plain cache, of each so many tokens from a begin on, moved to the right end of a width."""
    device = _layers(cache)[0].keys.device
    number, length, begin = (torch.tensor(part, device=device) for part in (rows, lengths, begins))
    place = torch.arange(width, device=device) - (width - length)[:, None]  # (r, w), negative in the padding
    source = torch.where(place < 0, -1, place + begin[:, None])
    for layer in _layers(cache):
        layer.keys, layer.values = _take(layer.keys[number], source), _take(layer.values[number], source)


def _take(states: Tensor, source: Tensor) -> Tensor:
    """Attention keys or values (r, heads, p, size) at other places; zero where the place is negative."""
    index = source.to(states.device).clamp_min(0)[:, None, :, None].expand(-1, states.shape[1], -1, states.shape[3])
    return states.gather(2, index) * (source >= 0)[:, None, :, None].to(states.device)


def _layers(cache: DynamicCache) -> list[Any]:
    """The parts of a cache that are of the plain kind and have seen tokens; their keys and values are tensors."""
    return [layer for layer in cache.layers if type(layer) is DynamicLayer and layer.keys is not None]


def _is_plain(cache: DynamicCache, blocks: int, width: int) -> bool:
    """Whether every block has filled a cache of the plain kind."""
    plain = [layer for layer in _layers(cache) if layer.get_seq_length() == width]
    return len(cache.layers) == len(plain) == blocks
