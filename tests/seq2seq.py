"""Tiny encoder-decoders, and a tokenizer that ends texts as T5's does."""

import copy
from typing import Any

import torch
from tokenizers import Tokenizer
from tokenizers.processors import TemplateProcessing
from torch import Tensor
from transformers import AutoConfig, AutoModelForSeq2SeqLM, PreTrainedModel, PreTrainedTokenizerFast

from lightning_edit.model.language_model import LanguageModel

WIDTH, INNER, BLOCKS, END, PAD = 32, 64, 2, 0, 1
T5 = {
    "vocab_size": 320,
    "d_model": WIDTH,
    "d_kv": 8,
    "d_ff": INNER,
    "num_layers": BLOCKS,
    "num_heads": 4,
    "relative_attention_num_buckets": 8,
    "eos_token_id": END,
    "pad_token_id": PAD,
    "decoder_start_token_id": PAD,
}
VERSIONS: dict[str, dict[str, Any]] = {
    "t5": {},
    "t5 v1.1": {"feed_forward_proj": "gated-gelu", "tie_word_embeddings": False},
}


def tiny_t5(version: str = "t5", seed: int = 0, dtype: torch.dtype = torch.float32, **changes: Any) -> PreTrainedModel:
    """A tiny random T5, in eval mode; a random one is flat, so its head is steep."""
    family = changes.pop("family", "t5")
    config = AutoConfig.for_model(family, **{**T5, **VERSIONS[version], **changes})
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        model = AutoModelForSeq2SeqLM.from_config(config)
        for parameter in model.parameters():
            if parameter.dim() == 1:
                parameter.data.add_(0.1 * torch.randn_like(parameter))
        model.decoder.final_layer_norm.weight.data.mul_(4)
        for stack in (model.encoder, model.decoder):  # heard by what comes after it
            for block in stack.block:
                block.layer[-1].DenseReluDense.wo.weight.data.mul_(3)
    built: PreTrainedModel = model.to(dtype).eval()
    return built


def ending(backend: str) -> PreTrainedTokenizerFast:
    """The small tokenizer of the suite, which puts the end token behind every text."""
    core = Tokenizer.from_str(backend)
    core.post_processor = TemplateProcessing(single="$A <|endoftext|>", special_tokens=[("<|endoftext|>", END)])
    return PreTrainedTokenizerFast(
        tokenizer_object=core, eos_token="<|endoftext|>", pad_token="<|pad|>", model_max_length=128
    )


def t5_lm(backend: str, version: str = "t5", dtype: torch.dtype = torch.float32, **changes: Any) -> LanguageModel:
    """A tiny T5 with that tokenizer."""
    return LanguageModel(tiny_t5(version, dtype=dtype, **changes), ending(backend))


def answer_logits(lm: LanguageModel, prompt: str, answer: list[int]) -> Tensor:
    """What transformers itself predicts for an answer's tokens, one row alone and without padding (t, v)."""
    ids = torch.tensor([lm.tokenizer(prompt)["input_ids"]])
    model = copy.deepcopy(lm.model)
    for module in model.modules():
        module._forward_hooks.clear()
        module._forward_pre_hooks.clear()
    with torch.no_grad():
        logits: Tensor = model(input_ids=ids, labels=torch.tensor([answer])).logits[0]
    return logits


def tokens(lm: LanguageModel, text: str, end: bool = False) -> list[int]:
    """Tokens of an answer."""
    ids: list[int] = lm.tokenizer(text, add_special_tokens=False)["input_ids"]
    return [*ids, END] if end else ids
