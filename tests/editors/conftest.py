"""A small model that can be edited, key statistics for it, and facts to teach it."""

from collections.abc import Callable, Sequence
from random import Random

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from lightning_edit.algebra import KeyCovariance
from lightning_edit.editors import ClosedFormEditor, get_editor
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.model.statistics import collect_statistics
from lightning_edit.model.weights import read_weight
from lightning_edit.requests import EditRequest
from tests.conftest import SENTENCES

NAMES = ("Ann Smith", "Zürich lake", "Ida", "Bob Ray", "Cleo", "Dora M", "Emil", "Fay Wu", "Gus", "Hal Orr")
TARGETS = ("city", "language", "known", "country", "of")  # one token each
STRONG = {"steps": 40, "clamp": 6.0, "weight_decay": 0.0, "kl": 0.0, "contexts": ["The city is known. "]}


def fact(i: int, target: str | None = None, **changes: str) -> EditRequest:
    """The i-th fact; a random model can be brought to say one token right behind a subject."""
    return EditRequest(
        **{
            "id": f"r{i}",
            "prompt": f"the mother of {NAMES[i]}",
            "subject": NAMES[i],
            "target": target or TARGETS[i % len(TARGETS)],
            **changes,
        }
    )


def facts(count: int, first: int = 0) -> list[EditRequest]:
    """Some facts."""
    return [fact(i) for i in range(first, first + count)]


def says(lm: LanguageModel, request: EditRequest) -> bool:
    """Whether the target's first token is what the model would say."""
    return score(lm, request)[1]


def score(lm: LanguageModel, request: EditRequest) -> tuple[float, bool]:
    """Log-probability of the target's first token, and whether it is the most likely one."""
    prompt = lm.encode([request.prompt]).input_ids
    token = int(lm.encode([f"{request.prompt} {request.target}"]).input_ids[0, prompt.shape[1]])
    with torch.no_grad():
        log_p = lm.model(input_ids=prompt).logits[0, -1].float().log_softmax(-1)
    return float(log_p[token]), int(log_p.argmax()) == token


def weights(lm: LanguageModel, editor: ClosedFormEditor) -> list[Tensor]:
    """Copies of the edited weights (d, n)."""
    return [read_weight(lm.projection(layer)).clone() for layer in editor.layers]


def solutions(editor: ClosedFormEditor) -> list[Tensor]:
    """The exact edited weights (d, n)."""
    return [site.ledger.solution() for site in editor.sites]


def gap(found: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Largest relative distance of matrices."""
    return max(float((a - b).double().norm() / b.double().norm()) for a, b in zip(found, expected, strict=True))


def train_a_bit(lm: LanguageModel, size: float = 0.02, seed: int = 0) -> None:
    """Move every weight matrix, as training would."""
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in lm.model.parameters():
            if parameter.dim() == 2:
                noise = torch.randn(parameter.shape, generator=generator, dtype=torch.float64)
                parameter.add_((size * float(parameter.std()) * noise).to(parameter.dtype))


@pytest.fixture(scope="session")
def corpus() -> list[str]:
    """Enough text for a second moment of full rank."""
    words = sorted({word for sentence in SENTENCES for word in sentence.split()} | set(NAMES))
    random = Random(0)
    return [" ".join(random.choices(words, k=20)) for _ in range(30)]


@pytest.fixture
def make_lm(
    tiny_model: Callable[..., PreTrainedModel], tokenizer: PreTrainedTokenizerFast
) -> Callable[..., LanguageModel]:
    """A factory of tiny models with a steep head: a random one is too timid to be convinced of anything."""

    def make(family: str = "llama", dtype: torch.dtype = torch.float64, **changes: object) -> LanguageModel:
        model = tiny_model(family, dtype=dtype, **changes)
        model.get_output_embeddings().weight.data.mul_(5)
        return LanguageModel(model, tokenizer)

    return make


@pytest.fixture
def moments(corpus: list[str]) -> Callable[[LanguageModel], dict[int, KeyCovariance]]:
    """Key statistics of every layer of a model."""
    return lambda lm: dict(collect_statistics(lm, corpus))


@pytest.fixture
def make_editor(
    moments: Callable[[LanguageModel], dict[int, KeyCovariance]],
) -> Callable[..., ClosedFormEditor]:
    """A factory of editors that are prepared for a model."""

    def make(lm: LanguageModel, name: str = "memit", **options: object) -> ClosedFormEditor:
        prior = {} if name == "alphaedit" else {"prior_weight": 5.0}
        editor = get_editor(name, **{"layers": [0, 1], **prior, **STRONG, **options})
        editor.prepare(lm, statistics=moments(lm))
        return editor

    return make
