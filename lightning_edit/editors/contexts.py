"""Texts that are put before a prompt, so that a key or target does not hang on one position.

The reference implementations sample such texts without a seed, once per process, from whatever model came first. Here
they are a fixed list, or sampled from the model with a seed; either way they are part of the editor's state.
"""

from collections.abc import Sequence

import torch
from torch import Tensor

from lightning_edit.decoding import sample
from lightning_edit.errors import EditError
from lightning_edit.model.language_model import LanguageModel

DEFAULT_CONTEXTS = (
    "The weather was mild that day. ",
    "Here is what we know so far. ",
    "Many people asked about it. ",
    "It was a quiet evening. ",
    "Let us begin with this. ",
)
_SEEDS = ("The", "Therefore", "Because", "I", "You")


def resolve_contexts(
    lm: LanguageModel, contexts: Sequence[str] | int | None, seed: int, length: int = 10
) -> tuple[str, ...]:
    """The texts to put before prompts.

    Args:
        lm: The language model to sample from.
        contexts: A list of texts (put before the prompt as they are), how many to sample, or None for a fixed list.
        seed: Seed of the sampling.
        length: Tokens of a sampled text.
    """
    if contexts is None:
        return DEFAULT_CONTEXTS
    if isinstance(contexts, int):
        return sample_contexts(lm, contexts, seed, length)
    if isinstance(contexts, str) or not all(isinstance(text, str) for text in contexts):
        raise EditError(f"contexts={contexts!r}; expected a list of texts, a number of texts to sample, or None.")
    return tuple(contexts)


@torch.no_grad()
def sample_contexts(lm: LanguageModel, count: int, seed: int, length: int = 10, top_k: int = 5) -> tuple[str, ...]:
    """Sample short texts from the model, the same for the same model and seed.

    Args:
        lm: The language model.
        count: Number of texts.
        seed: Seed of the sampling; the global random state is left alone.
        length: Tokens of each text.
        top_k: Choose among the most likely tokens.
    """
    if lm.layout.separate:  # its answers are short texts already
        beginnings = [_SEEDS[i % len(_SEEDS)] for i in range(count)]
        written = sample(lm, beginnings, length, top_k, seed)
        return tuple(" ".join(text.split()).rstrip(".") + ". " for text in written)
    generator = torch.Generator().manual_seed(seed)
    texts = []
    with lm.borrow():
        for i in range(count):
            encoded = lm.encode([_SEEDS[i % len(_SEEDS)]])
            ids = encoded.input_ids
            while ids.shape[1] < length:
                ids = torch.cat([ids, _next(lm, ids, generator, top_k)], dim=1)
            text = lm.tokenizer.decode(ids[0].tolist(), skip_special_tokens=True)
            texts.append(" ".join(text.split()).rstrip(".") + ". ")
    return tuple(texts)


def _next(lm: LanguageModel, ids: Tensor, generator: torch.Generator, top_k: int) -> Tensor:
    """One more token (1, 1)."""
    logits: Tensor = lm.model(input_ids=ids, use_cache=False).logits[0, -1].float().cpu()
    values, tokens = logits.topk(min(top_k, logits.numel()))
    return tokens[torch.multinomial(values.softmax(0), 1, generator=generator)].to(ids.device).view(1, 1)
