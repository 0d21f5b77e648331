"""Key statistics from a corpus: one streaming pass for all layers.

This file knows how to run texts through a model and hand every real token's keys to `KeyCovariance`. It knows neither
what the moments are used for nor where they are kept in the end (`algebra.statistics_file`).
"""

import hashlib
import os
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from tqdm import tqdm  # type: ignore[import-untyped]

from lightning_edit.algebra.moments import KeyCovariance
from lightning_edit.algebra.statistics_file import Identity
from lightning_edit.errors import StatisticsError
from lightning_edit.model.encoding import pad, padding_token, tokenize
from lightning_edit.model.interception import Intercept
from lightning_edit.model.language_model import LanguageModel

CHUNK = 16  # batches whose texts are sorted by length together
SAVE_SECONDS = 60.0  # how often a resumable pass writes its partial file, at most


class KeyStatistics(dict[int, KeyCovariance]):
    """Moments of keys by layer, with whose they are.

    Args:
        moments: Moments by layer.
        identity: Model, sites, corpus and precision, as `save_statistics` wants it.
    """

    def __init__(self, moments: Mapping[int, KeyCovariance], identity: Identity) -> None:
        super().__init__(moments)
        self.identity = identity

    @property
    def tokens(self) -> int:
        """Number of tokens seen."""
        return max((moment.count for moment in self.values()), default=0)


def expected_identity(lm: LanguageModel, layers: Sequence[int] | None = None) -> Identity:
    """What a file of statistics must say to belong to a model.

    Args:
        lm: The language model.
        layers: The layers that are needed; None means all.
    """
    chosen = [site.layer for site in lm.sites] if layers is None else layers
    return Identity(model=lm.identity, sites={layer: lm.site(layer).name for layer in chosen})


def collect_statistics(
    lm: LanguageModel,
    texts: Iterable[str],
    layers: Sequence[int] | None = None,
    max_tokens: int | None = None,
    max_length: int = 512,
    batch_size: int = 16,
    progress: bool = False,
    resume: str | Path | None = None,
) -> KeyStatistics:
    """Moments of the keys of every token of a corpus, for all layers at once.

    One forward pass per batch, which stops behind the deepest layer; padding does not count. The order in which texts
    are read is fixed, so equal calls give equal bits, interrupted or not.

    Args:
        lm: The language model.
        texts: The corpus; blank texts are left out.
        layers: The layers; None means every site.
        max_tokens: Stop after this many tokens; None reads the whole corpus.
        max_length: Keep this many tokens of each text at most.
        batch_size: Texts in one forward.
        progress: Show a progress bar.
        resume: A file for the partial result. Where it exists, the pass goes on from it; it is removed at the end.

    Returns:
        Moments by layer, with the identity to save them under.
    """
    lm.check_decoder_only("Collecting keys")
    chosen = [site.layer for site in lm.sites] if layers is None else sorted(set(layers))
    settings = {
        "model": lm.identity,
        "layers": chosen,
        "max_tokens": max_tokens,
        "max_length": min(max_length, lm.max_length),
        "batch_size": batch_size,
        "dtype": str(lm.dtype).removeprefix("torch."),
    }
    file = None if resume is None else Path(resume)
    with lm.borrow():  # the sums too are made in here: ordinary tensors, whatever mode the caller is in
        state = _Pass(lm, settings)
        _run(state, iter(texts), file, progress)
    if state.tokens == 0:
        raise StatisticsError("the corpus has no tokens; expected at least one text. Check the corpus.")
    if file is not None:
        file.unlink(missing_ok=True)
    identity = Identity(
        model=lm.identity,
        sites={layer: lm.site(layer).name for layer in chosen},
        corpus=state.digest,
        dtype=str(settings["dtype"]),
    )
    return KeyStatistics(state.moments, identity)


def _run(state: "_Pass", source: Iterator[str], file: Path | None, progress: bool) -> None:
    """Read chunk after chunk until the corpus or the token budget ends."""
    if file is not None and file.exists():
        state.restore(file, source)
    saved, budget = time.monotonic(), state.settings["max_tokens"]
    heard = state.lm.progress
    heard.more((budget or state.tokens) - state.tokens)
    with tqdm(total=budget, initial=state.tokens, unit=" tokens", disable=not progress) as bar:
        while not state.full and (chunk := list(islice(source, CHUNK * state.settings["batch_size"]))):
            count = state.read(chunk)
            heard.more(count if budget is None else 0)
            heard.done(count)
            bar.update(count)
            if file is not None and time.monotonic() - saved >= SAVE_SECONDS:
                state.save(file)
                saved = time.monotonic()


class _Pass:
    """A pass over the corpus that can be put down between two chunks.

    The digest chains a hash over every text that was read: it names the corpus, and tells on resuming whether the
    texts before the interruption are still the same.
    """

    def __init__(self, lm: LanguageModel, settings: dict[str, Any]) -> None:
        self.lm, self.settings = lm, settings
        self.moments = {
            layer: KeyCovariance(lm.site(layer).inner, device=next(lm.projection(layer).parameters()).device)
            for layer in settings["layers"]
        }
        self.texts, self.tokens, self.digest = 0, 0, ""

    @property
    def full(self) -> bool:
        """Whether the token budget is used up."""
        return self.settings["max_tokens"] is not None and self.tokens >= self.settings["max_tokens"]

    def read(self, chunk: list[str]) -> int:
        """Add the keys of some texts; returns the number of tokens."""
        rows = [ids for ids, _ in tokenize(self.lm.tokenizer, [t for t in chunk if t.strip()], self._max_length)]
        left = None if self.settings["max_tokens"] is None else self.settings["max_tokens"] - self.tokens
        rows = sorted(_within(rows, left), key=len)
        for start in range(0, len(rows), self.settings["batch_size"]):
            self._forward(rows[start : start + self.settings["batch_size"]])
        count = sum(map(len, rows))
        self._advance(chunk)
        self.tokens += count
        return count

    @property
    def _max_length(self) -> int:
        return int(self.settings["max_length"])

    def _advance(self, chunk: Iterable[str]) -> None:
        for text in chunk:
            self.digest = hashlib.sha256(f"{self.digest}\n{text}".encode()).hexdigest()
            self.texts += 1

    def _forward(self, rows: list[list[int]]) -> None:
        lm = self.lm
        ids, mask = pad(rows, padding_token(lm.tokenizer), "right", lm.device)  # (b, t)

        def into(moment: KeyCovariance) -> Any:
            def update(keys: Tensor) -> None:
                moment.update(keys.reshape(*ids.shape, -1), mask.to(keys.device))  # (b, t, n)

            return update

        watch = {lm.site(layer).name: into(moment) for layer, moment in self.moments.items()}
        with Intercept(lm.model, inputs=watch, stop=True):
            lm.model(input_ids=ids, attention_mask=mask, use_cache=False)

    def save(self, file: Path) -> None:
        """Write everything to the partial file; it is always either the old one or the new one."""
        state = {
            "settings": self.settings,
            "texts": self.texts,
            "tokens": self.tokens,
            "digest": self.digest,
            "moments": {layer: moment.state_dict() for layer, moment in self.moments.items()},
        }
        file.parent.mkdir(parents=True, exist_ok=True)
        partial = file.with_name(file.name + ".writing")
        torch.save(state, partial)
        os.replace(partial, file)

    def restore(self, file: Path, source: Iterator[str]) -> None:
        """Go on from a partial file, skipping the texts that it has seen."""
        state = torch.load(file, weights_only=True)
        changed = [key for key, value in self.settings.items() if state["settings"].get(key) != value]
        if changed:
            seen = {key: state["settings"].get(key) for key in changed}
            raise StatisticsError(
                f"{file} was begun with {seen}; this pass has { {key: self.settings[key] for key in changed} }. "
                "Go on with the same settings, or delete the file to start anew."
            )
        self._advance(islice(source, state["texts"]))
        if self.digest != state["digest"]:
            raise StatisticsError(
                f"the first {state['texts']} texts are not those that {file} was begun with; expected the same corpus "
                "in the same order. Delete the file to start anew."
            )
        self.tokens = state["tokens"]
        for layer, moment in self.moments.items():
            moment.load_state_dict(state["moments"][layer])


def _within(rows: list[list[int]], budget: int | None) -> list[list[int]]:
    """The rows that fit into a budget of tokens, the last one cut."""
    if budget is None:
        return rows
    kept = []
    for row in rows:
        if budget <= 0:
            break
        kept.append(row[:budget])
        budget -= len(row)
    return kept
