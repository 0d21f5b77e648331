"""What tests of editors that act inside the forward pass share."""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from lightning_edit.decoding import decode_tokens, forward_last
from lightning_edit.editors import get_editor
from lightning_edit.editors.grace import GRACE
from lightning_edit.editors.wise import WISE
from lightning_edit.evaluation.likelihood import score_continuations
from lightning_edit.model.generation import generate
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.requests import EditRequest
from tests.editors import gradient

Make = Callable[..., LanguageModel]
FAMILIES = ["gpt2", "gptj", "opt", "llama", "mistral", "qwen2"]
OTHERS = ["She works for the company", "He was born in the city, and", "What is the language of the people there?"]
GRACE_OPTIONS: dict[str, Any] = {"part": "down", "layer": 1, "radius": 0.05, "lr": 0.5, "steps": 60, "stop_loss": 0.02}
WISE_OPTIONS: dict[str, Any] = {
    "part": "down",
    "layer": 1,
    "lr": 1.0,
    "steps": 60,
    "alpha": 0.2,
    "beta": 1.5,
    "gamma": 1.0,
    "density": 0.5,
    "stop_loss": 0.05,
    "contexts": ["The city is known. "],
    "texts": OTHERS,
    "unrelated": 3,
}

__all__ = [
    "FAMILIES",
    "GRACE_OPTIONS",
    "OTHERS",
    "WISE_OPTIONS",
    "Make",
    "fact",
    "facts",
    "grace",
    "logits",
    "one_by_one",
    "prompts_of",
    "says",
    "wise",
    "written",
]


def fact(number: int, target: str | None = None, **changes: Any) -> EditRequest:
    """A request with a target of one token: one output in a random model says no more."""
    return gradient.fact(number, target or ("city", "known", "country")[number % 3], **changes)


def facts(count: int, first: int = 0) -> list[EditRequest]:
    """Some of them."""
    return [fact(number) for number in range(first, first + count)]


def says(lm: LanguageModel, requests: Sequence[EditRequest]) -> list[bool]:
    """Whether each target is, token by token, what the model would say behind the prompt."""
    prompts, targets = [request.prompt for request in requests], [request.target for request in requests]
    return score_continuations(lm, prompts, targets).exact.tolist()


def prompts_of(requests: Sequence[EditRequest]) -> list[str]:
    """Their prompts."""
    return [request.prompt for request in requests]


def logits(lm: LanguageModel, texts: Sequence[str]) -> Tensor:
    """Predictions behind every token of some texts, padded on the left."""
    batch = lm.encode(texts, "left")
    with torch.no_grad():
        output = forward_last(lm, batch.input_ids, batch.attention_mask, batch.input_ids.shape[1])
    found: Tensor = output.logits
    return found


def written(lm: LanguageModel, prompts: Sequence[str], length: int = 6) -> list[list[int]]:
    """What the model writes, all prompts in one batch."""
    return decode_tokens(lm, prompts, length)


def one_by_one(lm: LanguageModel, prompts: Sequence[str], length: int = 6) -> tuple[list[list[int]], list[str]]:
    """What the model writes behind each prompt alone: with our decoder, and with that of transformers."""
    ours = [decode_tokens(lm, [prompt], length)[0] for prompt in prompts]
    theirs = [generate(lm, [prompt], length)[0] for prompt in prompts]
    return ours, theirs


def grace(lm: LanguageModel, **options: Any) -> GRACE:
    """A quick GRACE that is attached."""
    made = get_editor("grace", **{**GRACE_OPTIONS, **options})
    made.attach(lm)
    assert isinstance(made, GRACE)
    return made


def wise(lm: LanguageModel, **options: Any) -> WISE:
    """A quick WISE that is attached."""
    made = get_editor("wise", **{**WISE_OPTIONS, **options})
    made.attach(lm)
    assert isinstance(made, WISE)
    return made
