"""Causal tracing: which hidden states carry a fact from its subject to its answer.

Meng et al. (2022), "Locating and Editing Factual Associations in GPT", section 2: noise on the subject's embeddings
makes the model lose the answer; then one state of the clean run is put back, at one token and one layer, and the
answer's probability says how much of the fact passes there. The answer is its first token: that one alone hangs on the
prompt's states directly, later ones also read the corrupted subject again. Knows models, not Trainers and not editors.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from lightning_edit.errors import RequestError, SiteError
from lightning_edit.model.encoding import tokenize
from lightning_edit.model.interception import Intercept
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.requests import EditRequest

KINDS = ("hidden", "ffn", "attention")
"""What is put back: the residual stream behind a block, or what its FFN or its attention adds to it."""

PLACES = ("first_subject", "middle_subject", "last_subject", "further", "last")
"""Kinds of tokens. A subject of one token has only its last; tokens before the subject carry nothing of it."""


@dataclass(frozen=True)
class Fact:
    """A fact to trace, in tokens.

    Args:
        tokens: The prompt.
        subject: First token of the subject, and the one behind its last.
        answer: The answer's first token.
    """

    tokens: tuple[int, ...]
    subject: tuple[int, int]
    answer: int

    @property
    def positions(self) -> range:
        """Tokens whose states can carry the fact: from the subject to the end of the prompt."""
        return range(self.subject[0], len(self.tokens))

    def place(self, position: int) -> str:
        """What kind of token stands at a position.

        Args:
            position: Index of a token.
        """
        first, end = self.subject
        if position == end - 1:
            return "last_subject"
        if position < end:
            return "first_subject" if position == first else "middle_subject"
        return "last" if position == len(self.tokens) - 1 else "further"


@dataclass(frozen=True)
class Trace:
    """What tracing one fact found.

    Args:
        clean: Probability of the answer.
        corrupted: The same with noise on the subject, mean over the samples.
        restored: The same with one state put back: kind to (positions, layers), of what was asked for.
    """

    clean: float
    corrupted: float
    restored: dict[str, Tensor]


def read_fact(lm: LanguageModel, request: EditRequest, answer: str) -> Fact:
    """A request's prompt with an answer, in tokens.

    Args:
        lm: The language model.
        request: A request with a subject.
        answer: What the model is thought to say behind the prompt.
    """
    if request.subject_span is None:
        raise RequestError(f"request {request.id!r} has no subject; expected one, since its tokens are corrupted")
    [(ids, offsets)] = tokenize(lm.tokenizer, [f"{request.prompt} {answer}"])
    start, end = request.subject_span
    inside = [index for index, (left, right) in enumerate(offsets) if left < end and right > start]
    behind = [index for index, (_, right) in enumerate(offsets) if right > len(request.prompt)]
    if not inside or not behind:
        raise RequestError(f"request {request.id!r}: no token covers the subject or the answer {answer!r}")
    return Fact(tuple(ids[: behind[0]]), (inside[0], inside[-1] + 1), ids[behind[0]])


def subject_scale(lm: LanguageModel, facts: Sequence[Fact]) -> float:
    """Standard deviation of the embeddings of all subjects' tokens: the unit of the noise.

    Args:
        lm: The language model.
        facts: The facts that will be traced.
    """
    tokens = sorted({token for fact in facts for token in fact.tokens[slice(*fact.subject)]})
    with lm.borrow():
        return float(lm.model.get_input_embeddings()(torch.tensor(tokens, device=lm.device)).float().std())


def trace(
    lm: LanguageModel,
    fact: Fact,
    scale: float,
    samples: int = 4,
    window: int = 1,
    batch_size: int = 256,
    seed: int = 0,
    kinds: Sequence[str] = KINDS,
    positions: Sequence[int] | None = None,
) -> Trace:
    """Trace one fact.

    Args:
        lm: The language model.
        fact: The fact.
        scale: Standard deviation of the noise.
        samples: Draws of the noise.
        window: Layers around the named one whose FFN or attention is put back together; the hidden state is put back
            at one layer.
        batch_size: Rows in one forward.
        seed: Seed of the noise.
        kinds: What is put back, some of `KINDS`.
        positions: Tokens at which it is; None takes all from the subject on.
    """
    lm.check_decoder_only("Causal tracing")
    start, end = fact.subject
    chosen = list(fact.positions if positions is None else positions)
    width = lm.model.get_input_embeddings().weight.shape[1]
    noise = torch.zeros(samples, len(fact.tokens), width)
    draw = torch.randn(samples, end - start, width, generator=torch.Generator().manual_seed(seed))
    noise[:, start:end] = scale * draw
    noise = noise.to(lm.device)
    modules = {kind: [module_name(lm, kind, layer) for layer in range(lm.num_layers)] for kind in kinds}
    with lm.borrow():
        clean, states = _clean_run(lm, fact, [name for names in modules.values() for name in names])
        corrupted = _probability(lm, fact, noise, {}).mean()
        restored = {}
        for kind, names in modules.items():
            reach = 1 if kind == "hidden" else window
            columns = []
            for layer in range(lm.num_layers):
                first = max(0, layer - reach // 2)
                put_back = {name: states[name] for name in names[first : layer - reach // 2 + reach]}
                columns.append(_restored(lm, fact, noise, put_back, chosen, batch_size))
            restored[kind] = torch.stack(columns, dim=1)  # (positions, layers)
    return Trace(clean, float(corrupted), restored)


def module_name(lm: LanguageModel, kind: str, layer: int) -> str:
    """Name of the module whose output is put back.

    Args:
        lm: The language model.
        kind: One of `KINDS`.
        layer: Number of the block.
    """
    site = lm.site(layer)
    if kind == "hidden":
        return site.block
    if kind == "ffn":
        return site.name
    named = lm.model.get_submodule(site.block).named_children()
    found = [name for name, child in named if type(child).__name__.lower().endswith(("attention", "attn"))]
    if not found:
        raise SiteError(f"found no attention among the parts of {site.block}, expected a child module that is one")
    return f"{site.block}.{found[0]}"


def _clean_run(lm: LanguageModel, fact: Fact, names: Sequence[str]) -> tuple[float, dict[str, Tensor]]:
    """Probability of the answer, and the output of every named module (t, d)."""
    tokens = torch.tensor([fact.tokens], device=lm.device)
    with Intercept(lm.model, outputs=names) as seen:
        logits = lm.model(input_ids=tokens, use_cache=False).logits
    states = {name: seen.outputs[name].reshape(len(fact.tokens), -1) for name in names}
    return float(_answer_probability(logits, fact)[0]), states


def _restored(
    lm: LanguageModel,
    fact: Fact,
    noise: Tensor,
    states: dict[str, Tensor],
    chosen: Sequence[int],
    batch_size: int,
) -> Tensor:
    """Probability of the answer with the clean states put back at one position after another (positions,)."""
    samples = len(noise)
    positions = torch.tensor(chosen, device=lm.device).repeat_interleave(samples)
    rows = noise.repeat(len(chosen), 1, 1)  # (positions * samples, t, d)
    found = []
    for start in range(0, len(rows), batch_size):
        part = slice(start, start + batch_size)
        edits = {name: _put_back(state, positions[part]) for name, state in states.items()}
        found.append(_probability(lm, fact, rows[part], edits))
    return torch.cat(found).view(-1, samples).mean(1)


def _put_back(state: Tensor, positions: Tensor) -> Callable[[Tensor], Tensor]:
    """A function that replaces row i of an output at its position by the clean state there."""

    def replace(output: Tensor) -> Tensor:
        rows = output.reshape(len(positions), -1, output.shape[-1]).clone()  # OPT's FFN runs on (b t, d)
        rows[torch.arange(len(positions), device=rows.device), positions] = state[positions].to(rows.dtype)
        return rows.view(output.shape)

    return replace


def _probability(lm: LanguageModel, fact: Fact, noise: Tensor, edits: dict[str, Any]) -> Tensor:
    """Probability of the answer under noise on the embeddings, one row for each row of the noise (b,)."""
    tokens = torch.tensor(fact.tokens, device=lm.device).repeat(len(noise), 1)

    def corrupt(embedded: Tensor) -> Tensor:
        return embedded + noise.to(embedded.dtype)

    with Intercept(lm.model, edits={_embedding_name(lm): corrupt, **edits}):
        logits = lm.model(input_ids=tokens, use_cache=False).logits
    return _answer_probability(logits, fact)


def _answer_probability(logits: Tensor, fact: Fact) -> Tensor:
    """Probability of the answer behind the prompt (b,)."""
    return logits[:, -1].float().softmax(-1)[:, fact.answer].cpu()


def _embedding_name(lm: LanguageModel) -> str:
    embedding: nn.Module = lm.model.get_input_embeddings()
    names: dict[nn.Module, str] = {module: name for name, module in lm.model.named_modules()}
    return names[embedding]
