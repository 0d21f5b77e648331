"""Batched decoding says what one-by-one decoding says, ends where it should, and leaves the model as it was."""

import copy
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from lightning_edit.decoding import decode
from lightning_edit.errors import RequestError
from lightning_edit.evaluation import target_probabilities
from lightning_edit.evaluation.reading import is_settled
from lightning_edit.model.language_model import LanguageModel
from tests.scripted import ScriptedLM

PROMPTS = [
    "The capital of the country is",
    "He",
    "The mother tongue of the writer, who was born in the north of the country, is",
    "She works for",
    "What is the language of the people there?",
    "The river is",
]


def decode_alone(lm: LanguageModel, prompt: str, steps: int) -> str:
    """The specification: no batch, no padding, no cache, the whole text anew for each token."""
    ids, written = lm.encode([prompt]).input_ids[0].tolist(), list[int]()
    for _ in range(steps):
        with torch.no_grad():
            token = int(lm.model(input_ids=torch.tensor([ids + written])).logits[0, -1].argmax())
        if token == lm.tokenizer.eos_token_id:
            break
        written.append(token)
        if "\n" in lm.tokenizer.decode(written).lstrip():
            break
    text = lm.tokenizer.decode(written, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text.strip().partition("\n")[0].rstrip()


def test_every_family_decodes_in_batches_as_alone(family_model: Any, tokenizer: Any) -> None:
    lm = LanguageModel(family_model, tokenizer)
    alone = [decode_alone(lm, prompt, 10) for prompt in PROMPTS]
    assert len(set(alone)) > 3
    assert decode(lm, PROMPTS, max_new_tokens=10, batch_size=4) == alone
    assert decode(lm, PROMPTS[::-1], max_new_tokens=10, batch_size=64) == alone[::-1]
    assert decode(lm, PROMPTS, max_new_tokens=10, batch_size=1) == alone


@pytest.mark.parametrize("family", ["mistral", "gemma2", "gemma3_text"])
def test_sliding_windows_survive_padding_and_leaving_rows(family: str, tiny_model: Any, tokenizer: Any) -> None:
    lm = LanguageModel(tiny_model(family, sliding_window=8), tokenizer)
    long = [" ".join(PROMPTS), *PROMPTS]
    assert decode(lm, long, max_new_tokens=12) == [decode_alone(lm, prompt, 12) for prompt in long]


def test_rows_end_at_eos_line_or_limit(tokenizer: Any) -> None:
    script = {"a": " one", "bb bb": " two\nthree", "c": "\n\n four", "d d d": " " + "x" * 40}
    lm = ScriptedLM(tokenizer, script)
    assert decode(lm, list(script), max_new_tokens=20) == ["one", "two", "four", "x" * 19]


def test_a_chat_models_own_end_tokens_count(tokenizer: Any) -> None:
    lm = ScriptedLM(tokenizer, {"a": " one#two"})
    assert decode(lm, ["a"]) == ["one#two"]
    lm.model.generation_config = SimpleNamespace(eos_token_id=[0, tokenizer.convert_tokens_to_ids("#")])
    assert decode(lm, ["a"]) == ["one"]


def test_work_ends_when_all_rows_are_done_and_done_rows_leave(tokenizer: Any) -> None:
    script = {"a": "xx", "b": "xxxx", "c": "x" * 9}
    lm = ScriptedLM(tokenizer, script)
    assert decode(lm, ["a", "b", "c", "a"], max_new_tokens=50) == ["xx", "xxxx", "x" * 9, "xx"]
    assert lm.model.calls == 10  # the longest row and its end token
    assert lm.model.rows == 3 + 5 + 10  # each row is fed until its own end token, equal prompts once
    assert sorted(lm.model.fed) == ["a", "b", "c"]


def test_batches_are_made_of_like_lengths(tokenizer: Any) -> None:
    prompts = ["x" * length for length in (1, 30, 2, 31, 3, 32)]
    lm = ScriptedLM(tokenizer, dict.fromkeys(prompts, "y"))
    decode(lm, prompts, batch_size=3)
    assert sorted(map(len, lm.model.fed[:3])) == [30, 31, 32]


def test_stop_sees_prompt_and_text(tokenizer: Any) -> None:
    script = {"a": " Dr. X lives. He", "b": " St. Petersburg. It is", "c": " 3.5 km. No"}
    lm = ScriptedLM(tokenizer, script)
    texts = decode(lm, list(script), 40, stop=is_settled)
    assert texts == ["Dr. X lives. He", "St. Petersburg. I", "3.5 km. N"]
    assert decode(lm, ["a"], 40, stop=lambda prompt, text: prompt == "a" and "D" in text) == ["D"]


def test_context_is_never_left(tokenizer: Any, tiny_model: Any) -> None:
    lm = ScriptedLM(tokenizer, {"x" * 6: "y" * 30, "z": "y" * 30}, context=10)
    assert decode(lm, ["x" * 6, "z"]) == ["y" * 4, "y" * 9]
    with pytest.raises(RequestError, match=r"found 11 tokens.*expected at most 10"):
        decode(lm, ["x" * 11, "z"])
    learned = LanguageModel(tiny_model("gpt2", n_positions=12), tokenizer)  # has no embedding for a 13th position
    text = decode(learned, ["x" * 9], 50)
    assert text == [decode_alone(learned, "x" * 9, 3)]


def test_nothing_is_disturbed(tiny_model: Any, tokenizer: Any) -> None:
    lm = LanguageModel(tiny_model("llama"), tokenizer)
    lm.model.train()
    lm.model.model.layers[0].eval()
    tokenizer.padding_side = "right"
    tokenizer.backend_tokenizer.enable_padding(length=7)
    modes = [module.training for module in lm.model.modules()]
    weights = copy.deepcopy(lm.model.state_dict())
    settings = tokenizer.backend_tokenizer.to_str()
    random, cached = torch.get_rng_state(), lm.model.config.use_cache
    decode(lm, PROMPTS, 4)
    assert [module.training for module in lm.model.modules()] == modes
    assert all(torch.equal(value, weights[name]) for name, value in lm.model.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in lm.model.parameters())
    assert (tokenizer.backend_tokenizer.to_str(), tokenizer.padding_side) == (settings, "right")
    assert torch.equal(torch.get_rng_state(), random)
    assert lm.model.config.use_cache == cached


def test_no_prompts(tiny_lm: LanguageModel) -> None:
    assert decode(tiny_lm, []) == []


@pytest.mark.parametrize("name", ["stories260K", "tiny1m"])
def test_real_models_with_their_own_tokenizers(name: str, shared_data: Any) -> None:
    folder = shared_data / "lm" / name
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    lm = LanguageModel(model, AutoTokenizer.from_pretrained(folder))
    prompts = ["Once upon a time", "Lily and her mom went to the park. They saw", "The dog was", "Tom said"]
    assert decode(lm, prompts, max_new_tokens=16) == [decode_alone(lm, prompt, 16) for prompt in prompts]
    scores = target_probabilities(lm, ["Once upon a", "Lily went to the"], ["time", "xylophone of doubt"])
    assert scores.mean[0] > scores.mean[1]
    assert scores.top.tolist() == [True, False]
