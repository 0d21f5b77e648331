"""Likelihoods of continuations: as scored one by one, whichever side is padded, in a chat and out of it."""

from typing import Any

import pytest
import torch
from tokenizers.processors import TemplateProcessing

from lightning_edit.chat import Chat
from lightning_edit.errors import EditError, RequestError
from lightning_edit.evaluation import log_likelihoods, score_continuations
from lightning_edit.model.language_model import LanguageModel

PROMPTS = [
    "He",
    "The capital of the country is",
    "The mother tongue of the writer who was born in the city is",
    "The capital of the country is",
]
TARGETS = ["known for its large rivers", "English", "x", "a large city, and the city is known to all"]
TEMPLATE = (
    "{% if messages[0]['role'] == 'system' %}{{ messages[0]['content'] }}\n{% endif %}"
    "<|endoftext|>{{ messages[-1]['content'] }}{% if enable_thinking %}!{% endif %}{{ '\n' }}"
)


def score_alone(lm: LanguageModel, text: str, border: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The specification: one text, no padding; every token that reaches beyond the border behind all before it."""
    encoded = lm.tokenizer(text, return_offsets_mapping=True, add_special_tokens=False)
    ids = encoded["input_ids"]
    with torch.no_grad():
        logits = lm.model(input_ids=torch.tensor([ids])).logits[0].double()
    places = [place for place, (_, end) in enumerate(encoded["offset_mapping"]) if end > border]
    logs = [logits[place - 1].log_softmax(-1)[ids[place]] for place in places]
    top = [int(logits[place - 1].argmax()) == ids[place] for place in places]
    return torch.stack(logs), torch.tensor(top)


@pytest.mark.parametrize("padding", ["left", "right"])
def test_batched_equals_one_by_one(family_model: Any, tokenizer: Any, padding: Any) -> None:
    lm = LanguageModel(family_model, tokenizer)
    scores = score_continuations(lm, PROMPTS, TARGETS, padding=padding)
    for index, (prompt, target) in enumerate(zip(PROMPTS, TARGETS, strict=True)):
        logs, top = score_alone(lm, f"{prompt} {target}", len(prompt))
        assert scores.logs[index].shape == logs.shape
        assert (scores.logs[index] - logs).abs().max().item() < 1e-5
        assert torch.equal(scores.likeliest[index], top)
        assert bool(scores.exact[index]) == bool(top.all())
    pairs = score_continuations(lm, PROMPTS, TARGETS, batch_size=2, padding=padding)
    assert max((a - b).abs().max().item() for a, b in zip(scores.logs, pairs.logs, strict=True)) < 1e-5


@pytest.mark.parametrize("padding", ["left", "right"])
def test_padding_costs_nothing_in_double_precision(tiny_model: Any, tokenizer: Any, padding: Any) -> None:
    lm = LanguageModel(tiny_model("llama", dtype=torch.float64), tokenizer)
    found = log_likelihoods(lm, PROMPTS, TARGETS, "sum", padding=padding)
    alone = [score_alone(lm, f"{p} {t}", len(p))[0].sum() for p, t in zip(PROMPTS, TARGETS, strict=True)]
    torch.testing.assert_close(found, torch.stack(alone), atol=1e-10, rtol=0)


def test_mean_and_sum_differ_by_the_number_of_tokens(tiny_lm: LanguageModel) -> None:
    scores = score_continuations(tiny_lm, PROMPTS, TARGETS)
    mean, total = (log_likelihoods(tiny_lm, PROMPTS, TARGETS, reduce) for reduce in ("mean", "sum"))
    lengths = torch.tensor([len(logs) for logs in scores.logs])
    assert len(set(lengths.tolist())) > 2
    torch.testing.assert_close(mean * lengths, total)
    assert torch.equal(log_likelihoods(tiny_lm, PROMPTS, TARGETS), mean)
    assert (total < 0).all()
    assert log_likelihoods(tiny_lm, [], []).shape == (0,)
    with pytest.raises(EditError, match="reduce='max'"):
        log_likelihoods(tiny_lm, PROMPTS, TARGETS, "max")  # type: ignore[arg-type]


def test_a_chat_is_scored_as_rendered_without_a_second_start(tiny_model: Any, tokenizer: Any) -> None:
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", 0)]
    )
    lm = LanguageModel(tiny_model("llama"), tokenizer)
    assert tokenizer("He")["input_ids"][0] == 0
    with pytest.raises(EditError, match="no chat template"):
        log_likelihoods(lm, ["He"], ["English"], chat=Chat())
    tokenizer.chat_template = TEMPLATE
    for chat, head in (
        (Chat(), "<|endoftext|>He\n"),
        (Chat("Be brief."), "Be brief.\n<|endoftext|>He\n"),
        (Chat(thinking=True), "<|endoftext|>He!\n"),
    ):
        found = score_continuations(lm, ["He"], ["English"], chat=chat).logs[0]
        logs, _ = score_alone(lm, f"{head}English", len(head))
        assert (found - logs).abs().max().item() < 1e-5


def test_what_cannot_be_scored_is_named(tiny_lm: LanguageModel) -> None:
    with pytest.raises(RequestError, match="found 0 target tokens"):
        log_likelihoods(tiny_lm, ["He is"], [" "])
    with pytest.raises(RequestError, match="expected at most 128"):
        log_likelihoods(tiny_lm, ["He is"], ["x" * 200])


def test_the_model_is_given_back_as_it_was(tiny_lm: LanguageModel) -> None:
    tiny_lm.model.train()
    random = torch.get_rng_state()
    log_likelihoods(tiny_lm, PROMPTS, TARGETS)
    assert tiny_lm.model.training
    assert all(parameter.grad is None and parameter.requires_grad for parameter in tiny_lm.model.parameters())
    assert torch.equal(torch.get_rng_state(), random)
