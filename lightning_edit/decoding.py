"""What a model says: continuations of many prompts at once, greedy or sampled from the likeliest tokens.

Batches are made of prompts of like length and padded so that each row is what it would be alone (`model/layout.py`);
the cache of keys and values is reused; a row that is done leaves the batch, and the batch ends when all are. This file
knows tokens and text. It does not know what the right answer is, nor where in the text the answer stands
(`evaluation/reading.py`). The model, the tokenizer and the random state stay as they were.
"""

import hashlib
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor

from lightning_edit.chat import Chat, render
from lightning_edit.errors import EditError, RequestError
from lightning_edit.model.causal import forward_last
from lightning_edit.model.encoding import tokenize
from lightning_edit.model.language_model import LanguageModel

__all__ = ["Stop", "check_room", "decode", "decode_tokens", "forward_last", "sample"]

Stop = Callable[[str, str], bool]
"""From a prompt and the text written behind it so far to whether that is enough."""

EAGER, RHYTHM = 128, 16
"""Up to `EAGER` tokens a text is read after each, then after each `RHYTHM`: long thoughts are dear to read again."""


def decode(
    lm: LanguageModel,
    prompts: Sequence[str],
    max_new_tokens: int = 32,
    batch_size: int = 64,
    stop: Stop | None = None,
    chat: Chat | None = None,
) -> list[str]:
    r"""Continue every prompt greedily: $y_t = \arg\max_y p(y \mid x, y_{<t})$.

    A row ends at an end-of-text token, after `max_new_tokens`, at the end of the model's context, or when `stop` says
    so, which is asked after each token, and after each 16th where the text is longer than 128. Equal prompts are
    decoded once. The result does not depend on how prompts are batched, up to ties that rounding decides.

    Args:
        lm: The language model.
        prompts: Texts to continue, without white space at their ends.
        max_new_tokens: Longest continuation in tokens.
        batch_size: Prompts in one forward.
        stop: When a row is done; its text is returned as it then is. None: at the first line break behind some text,
            where it is cut.
        chat: Ask through the tokenizer's chat template; None continues the bare text.

    Returns:
        The continuations in the order of the prompts, without special tokens and without white space around them.
    """
    rows = _greedy_rows(lm, prompts, max_new_tokens, chat)
    _write(lm, list(rows.values()), batch_size, stop or _has_line)
    written = _texts(lm, [row.written for row in rows.values()])
    texts = {prompt: text.strip() for prompt, text in zip(rows, written, strict=True)}
    return [texts[prompt] if stop else texts[prompt].partition("\n")[0].rstrip() for prompt in prompts]


def decode_tokens(
    lm: LanguageModel, prompts: Sequence[str], length: int = 50, batch_size: int = 64, chat: Chat | None = None
) -> list[list[int]]:
    """The greedy continuation of every prompt as token ids, with nothing to stop it but the end-of-text token.

    Args:
        lm: The language model.
        prompts: Texts to continue, without white space at their ends.
        length: Longest continuation in tokens; the model's context may end before.
        batch_size: Prompts in one forward.
        chat: Ask through the tokenizer's chat template; None continues the bare text.

    Returns:
        For each prompt at most `length` tokens, the end-of-text token not among them.
    """
    rows = _greedy_rows(lm, prompts, length, chat)
    _write(lm, list(rows.values()), batch_size, None)
    return [list(rows[prompt].written) for prompt in prompts]


def sample(
    lm: LanguageModel, prompts: Sequence[str], length: int = 100, top_k: int = 5, seed: int = 0, batch_size: int = 64
) -> list[str]:
    """Continue every prompt with tokens drawn from the `top_k` likeliest, in proportion to their probabilities.

    Each prompt has random numbers of its own, made from the seed and its place in the list, so a text does not depend
    on how prompts are batched, equal prompts get texts of their own, and nobody else's random state is touched.

    Args:
        lm: The language model.
        prompts: Texts to continue, without white space at their ends.
        length: Tokens of the whole text, the prompt's among them.
        top_k: How many of the likeliest tokens are drawn from.
        seed: Seed of all draws.
        batch_size: Prompts in one forward.

    Returns:
        The whole texts in the order of the prompts, which they begin with, without special tokens.
    """
    if top_k < 1:
        raise EditError(f"found top_k={top_k}, expected at least 1; top_k=1 is greedy.")
    rows = _rows(lm, prompts, None)
    bare = [ids for ids, _ in tokenize(lm.tokenizer, prompts)]  # a memory's part of what is read is no part of the text
    for index, (row, ids) in enumerate(zip(rows, bare, strict=True)):
        row.limit = min(length - len(ids), lm.layout.room(lm, len(row.ids)))
        row.draws = _draws(seed, index)
    _write(lm, [row for row in rows if row.limit > 0], batch_size, None, top_k)
    return _texts(lm, [ids + row.written for row, ids in zip(rows, bare, strict=True)])


def check_room(lm: LanguageModel, lengths: Iterable[tuple[str, int]]) -> None:
    """Refuse texts that are longer than the model's context.

    Args:
        lm: The language model.
        lengths: Each text with its number of tokens.
    """
    for text, length in lengths:
        if length > lm.max_length:
            raise RequestError(
                f"found {length} tokens in {text[:80]!r}, expected at most {lm.max_length} (the model's context); "
                "shorten the text or leave it out."
            )


@dataclass(slots=True)
class _Row:
    """A prompt, what the model reads, how much may be written, the random numbers of a sample, and what is written."""

    prompt: str
    ids: list[int]
    limit: int = 0
    draws: torch.Generator | None = None
    written: list[int] = field(default_factory=list)


def _rows(lm: LanguageModel, prompts: Sequence[str], chat: Chat | None) -> list[_Row]:
    """A row for each prompt, in order; all of them fit into the model's context."""
    told = lm.recall(prompts, chat)
    texts = told if chat is None else render(lm.tokenizer, told, chat)
    encoded = lm.layout.read_prompts(lm, texts, special=chat is None)
    rows = [_Row(prompt, ids) for prompt, ids in zip(prompts, encoded, strict=True)]
    check_room(lm, [(row.prompt, len(row.ids)) for row in rows])
    return rows


def _greedy_rows(lm: LanguageModel, prompts: Sequence[str], limit: int, chat: Chat | None) -> dict[str, _Row]:
    """A row for each distinct prompt."""
    rows = _rows(lm, list(dict.fromkeys(prompts)), chat)
    for row in rows:
        row.limit = min(limit, max(lm.layout.room(lm, len(row.ids)), 1))  # even a full context says what comes next
    return {row.prompt: row for row in rows}


def _write(lm: LanguageModel, rows: list[_Row], batch_size: int, stop: Stop | None, top_k: int = 1) -> None:
    """Write behind all rows, in batches of like length."""
    order = sorted(rows, key=lambda row: -len(row.ids))
    lm.progress.more(len(order))
    with lm.borrow():
        for start in range(0, len(order), batch_size):
            batch = order[start : start + batch_size]
            with lm.scope.announce([len(row.ids) for row in batch]):
                _write_batch(lm, batch, stop, top_k)


def _write_batch(lm: LanguageModel, rows: list[_Row], stop: Stop | None, top_k: int) -> None:
    """Write behind each row until all are done."""
    ends, writing = _end_tokens(lm), lm.layout.begin(lm, [row.ids for row in rows])
    for _ in range(max(row.limit for row in rows)):
        logits = writing.logits()  # (b, v)
        tokens = logits.argmax(-1) if top_k == 1 else _draw(logits, rows, top_k)  # (b,)
        going = [(slot, token) for slot, token in enumerate(tokens.tolist()) if token not in ends]
        for slot, token in going:
            rows[slot].written.append(token)
        done = _done(lm, [rows[slot] for slot, _ in going], stop)
        keep = [slot for (slot, _), over in zip(going, done, strict=True) if not over]
        if not keep:
            break
        if len(keep) < len(rows):
            index = torch.tensor(keep, device=tokens.device)
            writing.keep(index)
            lm.scope.keep(index)
            lm.progress.done(len(rows) - len(keep))
            rows, tokens = [rows[slot] for slot in keep], tokens[index]
        writing.write(tokens)
    lm.progress.done(len(rows))


def _draws(seed: int, index: int) -> torch.Generator:
    """Random numbers of one row; torch's generator looks at 32 bits of a seed, so both numbers are hashed into them."""
    digest = hashlib.blake2b(f"{seed} {index}".encode(), digest_size=4).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest))


def _draw(logits: Tensor, rows: list[_Row], top_k: int) -> Tensor:
    """One token for each row from its likeliest, with the row's own random numbers (b,)."""
    best = logits.topk(min(top_k, logits.shape[-1]), -1)
    weights = best.values.double().softmax(-1).cpu()  # (b, k)
    drawn = [torch.multinomial(weight, 1, generator=row.draws) for weight, row in zip(weights, rows, strict=True)]
    return best.indices.gather(-1, torch.stack(drawn).to(logits.device))[:, 0]


def _done(lm: LanguageModel, rows: list[_Row], stop: Stop | None) -> list[bool]:
    """Whether each row may not or need not be continued."""
    over = [len(row.written) >= row.limit for row in rows]
    if stop is not None:
        asked = [i for i, row in enumerate(rows) if len(row.written) <= EAGER or len(row.written) % RHYTHM == 0]
        for i, text in zip(asked, _texts(lm, [rows[i].written for i in asked]), strict=True):
            over[i] = over[i] or stop(rows[i].prompt, text)
    return over


def _texts(lm: LanguageModel, tokens: list[list[int]]) -> list[str]:
    """What tokens say, read anew from all of them: one token need not be a whole character."""
    if not tokens:
        return []
    texts: list[str] = lm.tokenizer.batch_decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return texts


def _has_line(prompt: str, text: str) -> bool:
    """The default stop: a line break behind some text."""
    return "\n" in text.lstrip()


def _end_tokens(lm: LanguageModel) -> set[int]:
    """Tokens after which nothing comes; chat models have more than the tokenizer's own."""
    named = getattr(getattr(lm.model, "generation_config", None), "eos_token_id", None)
    several = named if isinstance(named, list) else [named]
    return {token for token in (lm.tokenizer.eos_token_id, *several) if token is not None}
