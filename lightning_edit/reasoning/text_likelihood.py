"""How likely whole texts are, however long, with nothing before them.

A text is read in windows as long as the model's context. Each token is predicted once, the first one from the
beginning-of-text token (the end-of-text token where there is no other), and the last window reaches back so that its
tokens see as much as a context holds. This is how lm-evaluation-harness measures perplexity. This file knows tokens and
their probabilities, not what they mean.
"""

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from lightning_edit.errors import EditError, RequestError
from lightning_edit.evaluation.likelihood import Likelihoods
from lightning_edit.model.causal import forward_last
from lightning_edit.model.encoding import pad, padding_token, tokenize
from lightning_edit.model.language_model import LanguageModel

Window = tuple[list[int], int]
"""Tokens, and how many of them, at the end, are predicted."""


def score_texts(
    lm: LanguageModel, texts: Sequence[str], starts: Sequence[int] | None = None, batch_size: int = 16
) -> Likelihoods:
    r"""Score texts token by token; perplexity is $\exp(-\sum_t \log p(y_t \mid y_{<t}) / T)$ over all tokens of all.

    Args:
        lm: The language model.
        texts: The texts.
        starts: For each text the character from which its tokens count; 0 where None.
        batch_size: Windows in one forward.

    Returns:
        For each text, the log-probabilities of its tokens that count.
    """
    if lm.layout.separate:
        raise EditError(
            f"{type(lm.model).__name__} is an encoder-decoder and says what follows a prompt; expected a decoder-only "
            "model, since a whole text has nothing before it. Score it behind prompts with `log_likelihoods`."
        )
    prefix, rows = _prefix(lm), tokenize(lm.tokenizer, texts, special=False)
    windows: list[tuple[int, int, Window]] = []  # text, place in it, tokens
    counted: list[int] = []
    for index, ((ids, offsets), start) in enumerate(zip(rows, starts or [0] * len(rows), strict=True)):
        if ids[0] == prefix:  # the text brings its own beginning
            ids, offsets = ids[1:], offsets[1:]
        counted.append(sum(end > start for _, end in offsets))
        if not counted[-1]:
            raise RequestError(
                f"found no token behind character {start} of {texts[index]!r}, expected at least one; leave it out."
            )
        windows += [(index, place, window) for place, window in enumerate(cut([prefix, *ids], lm.max_length))]
    windows.sort(key=lambda entry: -len(entry[2][0]))
    found: list[dict[int, tuple[Tensor, Tensor]]] = [{} for _ in rows]
    lm.progress.more(len(windows))
    with lm.borrow():
        for begin in range(0, len(windows), batch_size):
            batch = windows[begin : begin + batch_size]
            scored = _score(lm, [window for *_, window in batch])
            for (index, place, _), part in zip(batch, scored, strict=True):
                found[index][place] = part
            lm.progress.done(len(batch))
    logs, tops = [], []
    for parts, count in zip(found, counted, strict=True):
        ordered = [parts[place] for place in sorted(parts)]
        logs.append(torch.cat([log for log, _ in ordered])[-count:])
        tops.append(torch.cat([top for _, top in ordered])[-count:])
    return Likelihoods(logs, tops)


def cut(ids: Sequence[int], length: int) -> Iterator[Window]:
    """Windows over a text in which each token but the first is predicted once.

    Args:
        ids: The text's tokens; the first one is given.
        length: Tokens that a model reads.

    Example:
        >>> list(cut([0, 1, 2, 3, 4, 5], 4))
        [([0, 1, 2, 3, 4], 4), ([1, 2, 3, 4, 5], 1)]
    """
    for first in range(1, len(ids), length):
        last = min(first + length, len(ids))
        yield list(ids[max(last - 1 - length, 0) : last]), last - first


def _score(lm: LanguageModel, windows: Sequence[Window]) -> list[tuple[Tensor, Tensor]]:
    """Log-probabilities of what each window predicts, and whether each token is the likeliest."""
    ids, mask = pad([ids for ids, _ in windows], padding_token(lm.tokenizer), "left", lm.device)  # (b, T)
    most = max(length for _, length in windows)
    logits = forward_last(lm, ids[:, :-1], mask[:, :-1], most).logits  # (b, w, v)
    labels = ids[:, -most:]  # (b, w)
    normaliser = torch.stack([row.double().logsumexp(-1) for row in logits])  # row by row: all at once may not fit
    log = (logits.gather(-1, labels[..., None])[..., 0].double() - normaliser).cpu()  # (b, w)
    top = (logits.argmax(-1) == labels).cpu()
    return [(row[-length:], hit[-length:]) for row, hit, (_, length) in zip(log, top, windows, strict=True)]


def _prefix(lm: LanguageModel) -> int:
    """The token that stands before a text."""
    known = (lm.tokenizer.bos_token_id, lm.tokenizer.eos_token_id)
    found = next((token for token in known if token is not None), None)
    if found is None:
        raise EditError(
            f"{type(lm.tokenizer).__name__} has neither a beginning-of-text nor an end-of-text token; expected one to "
            "predict a text's first token from. Set tokenizer.bos_token."
        )
    return int(found)
