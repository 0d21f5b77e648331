"""How likely targets are behind prompts, in a batch as one by one."""

from typing import Any

import pytest
import torch

from lightning_edit.errors import RequestError
from lightning_edit.evaluation import target_probabilities
from lightning_edit.model.language_model import LanguageModel


def test_target_probabilities_equal_one_by_one(family_model: Any, tokenizer: Any) -> None:
    lm = LanguageModel(family_model, tokenizer)
    prompts = ["He", "The capital of the country is", "The mother tongue of the writer who was born in the city is"]
    targets = ["known for its large rivers", "English", "x"]
    scores = target_probabilities(lm, prompts, targets)
    for index, (prompt, target) in enumerate(zip(prompts, targets, strict=True)):
        ids = tokenizer(f"{prompt} {target}", return_tensors="pt")["input_ids"]
        start = len(tokenizer(prompt)["input_ids"])
        assert ids[0, :start].tolist() == tokenizer(prompt)["input_ids"]  # the prompt's tokens stay whole here
        with torch.no_grad():
            logs = lm.model(input_ids=ids).logits[0].log_softmax(-1)
        each = torch.stack([logs[place - 1, ids[0, place]] for place in range(start, ids.shape[1])])
        torch.testing.assert_close(scores.sum[index], each.sum(), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(scores.mean[index], each.mean(), atol=1e-4, rtol=1e-4)
    assert target_probabilities(lm, [], []).sum.shape == (0,)


def test_targets_without_text_are_named(tiny_lm: LanguageModel) -> None:
    with pytest.raises(RequestError, match="found 0 target tokens"):
        target_probabilities(tiny_lm, ["He is"], [""])
    with pytest.raises(RequestError, match="expected at most 128"):
        target_probabilities(tiny_lm, ["He is"], ["x" * 200])
