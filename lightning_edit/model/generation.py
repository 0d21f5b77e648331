"""Free-running generation with transformers' own decoder.

This file knows how to hand a batch of prompts to `generate` and take strings back. Evaluation reads answers with a
decoder of its own; this one is for users, and takes every option of `transformers.GenerationConfig`.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from transformers import GenerationConfig

from lightning_edit.errors import EditError
from lightning_edit.model.encoding import pad, padding_token
from lightning_edit.model.language_model import LanguageModel


def generate(
    lm: LanguageModel, prompts: Sequence[str], max_new_tokens: int = 32, batch_size: int = 16, **options: Any
) -> list[str]:
    """Continue prompts, greedily unless `options` say otherwise, padded on the left.

    Args:
        lm: The language model.
        prompts: Texts to continue.
        max_new_tokens: Longest continuation.
        batch_size: Prompts in one batch.
        options: Fields of `transformers.GenerationConfig`, such as `do_sample=True, temperature=0.7`.

    Returns:
        The continuations without their prompts and without special tokens.
    """
    config = _config(lm, {"max_new_tokens": max_new_tokens, "do_sample": False, **options})
    told = lm.recall(prompts)
    batches = [told[start : start + batch_size] for start in range(0, len(told), batch_size)]
    return _continue(lm, (lm.layout.read_prompts(lm, batch) for batch in batches), config)


def write_freely(lm: LanguageModel, count: int, max_new_tokens: int = 64, batch_size: int = 64) -> list[str]:
    """Texts that a decoder-only model makes up from nothing but its start token, sampled.

    Args:
        lm: The language model.
        count: Number of texts.
        max_new_tokens: Longest text.
        batch_size: Texts in one batch.

    Raises:
        EditError: The tokenizer has no token that a text could start with.
    """
    lm.check_decoder_only("Writing from nothing")
    named = (lm.tokenizer.bos_token_id, lm.tokenizer.eos_token_id)
    start = next((token for token in named if token is not None), None)
    if start is None:
        raise EditError(
            "the tokenizer has no bos_token and no eos_token; expected one, for texts from nothing to start with."
        )
    config = _config(lm, {"max_new_tokens": max_new_tokens, "do_sample": True})
    sizes = [min(batch_size, count - done) for done in range(0, count, batch_size)]
    return _continue(lm, ([[start]] * size for size in sizes), config)


def _continue(lm: LanguageModel, batches: Iterable[list[list[int]]], config: GenerationConfig) -> list[str]:
    """What the model writes behind rows of tokens."""
    texts = list[str]()
    rng = not config.do_sample  # what is sampled advances the random state, as everywhere
    with lm.borrow(rng), _without_saved_settings(lm.model):
        for rows in batches:
            ids, mask = pad(rows, padding_token(lm.tokenizer), "left", lm.device)
            with lm.scope.announce(mask.sum(-1)):
                output = lm.model.generate(input_ids=ids, attention_mask=mask, generation_config=config)
            new = lm.layout.new_tokens(output, ids.shape[1])  # (b, new tokens)
            texts += lm.tokenizer.decode(new, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return texts


@contextmanager
def _without_saved_settings(model: Any) -> Iterator[None]:
    """Hide the generation settings that came with the checkpoint, which would fill in what is not set."""
    saved, model.generation_config = model.generation_config, GenerationConfig()
    try:
        yield
    finally:
        model.generation_config = saved


def _config(lm: LanguageModel, options: dict[str, Any]) -> GenerationConfig:
    """The options, with the model's own end-of-text tokens and nothing else of its saved generation settings."""
    saved = getattr(lm.model, "generation_config", None)
    ends = getattr(saved, "eos_token_id", None)
    defaults = {
        "eos_token_id": lm.tokenizer.eos_token_id if ends is None else ends,
        "bos_token_id": lm.tokenizer.bos_token_id,
        "pad_token_id": padding_token(lm.tokenizer),
        "use_cache": True,
        **lm.layout.generation_settings(lm),
    }
    return GenerationConfig(**{**defaults, **options})
