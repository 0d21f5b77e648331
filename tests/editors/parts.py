"""What tests of editors at other projections than the FFN's output share: a place in a model of each kind."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from lightning_edit.decoding import decode_tokens
from lightning_edit.editors import get_editor
from lightning_edit.editors.editor import Editor
from lightning_edit.evaluation.likelihood import log_likelihoods
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.requests import EditRequest
from tests.editors.forward import OTHERS, Make, facts
from tests.seq2seq import VERSIONS, t5_lm


@dataclass(frozen=True)
class Place:
    """One projection of one model.

    Args:
        family: The model's family, or a version of T5.
        part: The part of its FFN.
        module: What the module is called.
        layer: Its block.
    """

    family: str
    part: str
    module: str
    layer: int | str = 1

    def __str__(self) -> str:
        return f"{self.family}-{self.module}-{self.layer}"


PLACES = (
    Place("gpt2", "up", "c_fc"),
    Place("llama", "up", "up_proj"),
    Place("llama", "gate", "gate_proj"),
    Place("t5", "up", "wi", "decoder.block.1"),
    Place("t5", "up", "wi", "encoder.block.1"),
    Place("t5 v1.1", "up", "wi_1", "decoder.block.1"),
    Place("t5 v1.1", "gate", "wi_0", "encoder.block.1"),
)
STRONG: dict[str, dict[str, Any]] = {
    "ft_m": {"lr": 0.02, "steps": 30},
    "grace": {"radius": 0.05, "lr": 0.5, "steps": 40, "replacement": "all"},
    "wise": {
        **{"preset": "gpt2-xl", "lr": 0.5, "steps": 40, "alpha": 0.2, "beta": 1.5, "gamma": 1.0, "density": 0.5},
        **{"contexts": ["The city is known. "], "texts": OTHERS, "unrelated": 3, "ratio": 0.8},
    },
}


def lm_at(place: Place, make_lm: Make, backend: str, dtype: torch.dtype = torch.float64) -> LanguageModel:
    """The same model each time."""
    if place.family in VERSIONS:
        return t5_lm(backend, place.family, dtype=dtype)
    return make_lm(place.family, dtype=dtype)


def editor_at(name: str, place: Place, **options: Any) -> Editor:
    """An editor that works there."""
    layer = {"layers": [place.layer]} if name.startswith("ft") else {"layer": place.layer}
    return get_editor(name, **{**STRONG[name], **layer, "part": place.part, **options})


def module_at(place: Place, lm: LanguageModel) -> torch.nn.Module:
    """The projection."""
    found: torch.nn.Module = lm.model.get_submodule(path_at(place, lm))
    return found


def path_at(place: Place, lm: LanguageModel) -> str:
    """Its path, by its name."""
    block = lm.site(place.layer).block
    paths = [name for name, _ in lm.model.named_modules() if name.startswith(f"{block}.")]
    (path,) = [name for name in paths if name.endswith(f".{place.module}")]
    return path


def likely(lm: LanguageModel, prompts: Sequence[str], target: str = "the city") -> Tensor:
    """How likely a model finds a target behind some prompts, all of them in one batch."""
    return log_likelihoods(lm, prompts, [target] * len(prompts), "sum")


def told(lm: LanguageModel, requests: Sequence[EditRequest]) -> Tensor:
    """How likely a model finds each request's target (b,)."""
    prompts, targets = [request.prompt for request in requests], [request.target for request in requests]
    return log_likelihoods(lm, prompts, targets, "sum")


def prompts() -> list[str]:
    """Prompts of three requests, and of nobody."""
    return [*(request.prompt for request in facts(3)), *OTHERS]


def words(lm: LanguageModel) -> list[list[int]]:
    """What a model writes behind them."""
    return decode_tokens(lm, prompts(), 5)
