"""What the benchmarks run on: models of known shapes, and how much of everything there is.

Models have random weights, so no number depends on a trained checkpoint; the tokenizer reads the embedded world's
language. This file knows sizes; the benchmarks know what to do with them.
"""

from dataclasses import dataclass
from typing import Any

import torch
from transformers import (
    AutoModelForCausalLM,
    GPT2Config,
    LlamaConfig,
    LlamaForCausalLM,
    PretrainedConfig,
    PreTrainedTokenizerFast,
)

from lightning_edit.data.world.tokenizer import train_tokenizer
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.module import EditableModule


@dataclass(frozen=True, slots=True)
class Shape:
    """A model with random weights.

    Args:
        name: What it is called in the table.
        family: Its architecture: `gpt2` or `llama`.
        width: Width of the residual stream, d.
        inner: Inner width of every FFN, n.
        blocks: Number of blocks.
        heads: Number of attention heads.
        groups: Number of heads for keys and values.
        vocabulary: Tokens of the vocabulary; texts use those of the embedded world's tokenizer.
        layers: Layers that are edited; targets live in the last one.
    """

    name: str
    family: str
    width: int
    inner: int
    blocks: int
    heads: int
    groups: int
    vocabulary: int
    layers: tuple[int, ...]


LLAMA_8B = Shape("Llama-3-8B", "llama", 4096, 14336, 32, 32, 8, 128256, (4, 5, 6, 7, 8))
GPT2 = Shape("GPT-2 small", "gpt2", 768, 3072, 12, 12, 12, 50257, (3, 4, 5))
LLAMA = Shape("Llama 135M", "llama", 576, 1536, 30, 9, 3, 49152, (3, 4, 5, 6, 7))


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large everything is; the defaults are those of the published numbers.

    Args:
        shapes: Models that targets and keys are found in.
        width: Width of the residual stream, d.
        inner: Inner width of every FFN, n.
        blocks: Number of blocks.
        heads: Number of attention heads.
        vocabulary: Tokens of the vocabulary.
        tokenizer_texts: Documents that the tokenizer is trained on.
        columns: Targets that are optimised, and requests whose keys are read.
        plain_columns: Of these, how many the plain way does; times are per request.
        columns_at_once: Columns in one graph.
        target_steps: Passes of each target; the default of `TargetOptions`.
        target_rounds: Rounds of the comparison.
        key_rounds: Rounds of the comparison.
        corpus_texts: Documents that key statistics are read from.
        corpus_rounds: Rounds of the comparison.
        edits: Columns of the ledger at the end, N.
        edits_per_commit: Columns that arrive at once.
        ledger_rounds: Rounds of the comparison.
        solve_shape: d and n of a site in which single commits are solved.
        solve_wide_shape: d and n of a wider one.
        solve_held: Columns that they hold.
        solve_batch: Columns of the commit.
        solve_rounds: Rounds of the comparison.
        restricted_shape: d and n of an update that is restricted.
        restricted_rank: Its rank.
        memory_shape: d and n of a site whose memory is counted.
        memory_held: Columns that it holds.
        memory_batch: Columns that a step brings.
        held_shape: d and n of a small site that holds more and more.
        held: How many columns it holds.
        held_gram: Up to how many the factor of the columns is timed where the ledger has left it.
        device: Where the step of `device` runs.
        device_shape: Its model.
        device_columns: Its edits.
        device_at_once: Columns in one graph.
        device_held: Columns that a layer holds before it.
        batch: Rows in a training batch.
        length: Tokens in a row.
        train_steps: Optimizer steps in a turn; a multiple of how often a tracker samples.
        train_rounds: Rounds of the comparison.
    """

    shapes: tuple[Shape, ...] = (GPT2, LLAMA)
    width: int = 192
    inner: int = 2048
    blocks: int = 6
    heads: int = 6
    vocabulary: int = 2048
    tokenizer_texts: int = 2000
    columns: int = 50
    plain_columns: int = 3
    columns_at_once: int = 16
    target_steps: int = 25
    target_rounds: int = 1
    key_rounds: int = 3
    corpus_texts: int = 96
    corpus_rounds: int = 5
    edits: int = 600
    edits_per_commit: int = 20
    ledger_rounds: int = 3
    solve_shape: tuple[int, int] = (1024, 4096)
    solve_wide_shape: tuple[int, int] = (2048, 8192)
    solve_held: int = 1000
    solve_batch: int = 100
    solve_rounds: int = 2
    restricted_shape: tuple[int, int] = (768, 3072)
    restricted_rank: int = 100
    memory_shape: tuple[int, int] = (4096, 14336)
    memory_held: int = 2000
    memory_batch: int = 100
    held_shape: tuple[int, int] = (64, 1024)
    held: tuple[int, ...] = (100, 200, 500, 520, 1000, 2000, 5000, 10_000, 20_000)
    device: str = "cpu"
    device_shape: Shape = LLAMA_8B
    device_columns: int = 100
    device_at_once: int = 25
    device_held: int = 1000
    held_gram: int = 5000
    batch: int = 4
    length: int = 128
    train_steps: int = 16
    train_rounds: int = 4


FULL = Sizes()
TINY = Sizes(
    shapes=(Shape("tiny GPT-2", "gpt2", 24, 48, 3, 4, 4, 320, (0, 1)),),
    width=24,
    inner=48,
    blocks=3,
    heads=4,
    vocabulary=320,
    tokenizer_texts=60,
    columns=4,
    plain_columns=2,
    columns_at_once=2,
    target_steps=3,
    target_rounds=2,
    key_rounds=2,
    corpus_texts=8,
    corpus_rounds=2,
    edits=8,
    edits_per_commit=4,
    ledger_rounds=2,
    solve_shape=(8, 24),
    solve_wide_shape=(8, 32),
    solve_held=6,
    solve_batch=2,
    solve_rounds=2,
    restricted_shape=(8, 24),
    restricted_rank=4,
    memory_shape=(8, 24),
    memory_held=4,
    memory_batch=2,
    held_shape=(4, 16),
    held=(4, 8, 12, 40),
    held_gram=12,
    device_shape=Shape("tiny Llama", "llama", 24, 48, 3, 4, 2, 320, (0, 1)),
    device_columns=4,
    device_at_once=2,
    device_held=4,
    batch=2,
    length=16,
    train_steps=2,
    train_rounds=1,
)


def make_tokenizer(sizes: Sizes) -> PreTrainedTokenizerFast:
    """A tokenizer of the embedded world's language.

    Args:
        sizes: Vocabulary and how much is read.
    """
    return train_tokenizer(sizes.vocabulary, documents=sizes.tokenizer_texts)


def make_language_model(shape: Shape, sizes: Sizes, device: torch.device | str = "cpu") -> LanguageModel:
    """A model of a shape with random weights, the same in every process.

    Args:
        shape: The shape.
        sizes: What its tokenizer is trained on.
        device: Where it is made.
    """
    names: dict[str, Any] = {"vocab_size": shape.vocabulary, "bos_token_id": None, "eos_token_id": 0, "pad_token_id": 1}
    config: PretrainedConfig
    if shape.family == "gpt2":
        gpt: dict[str, Any] = {"n_embd": shape.width, "n_inner": shape.inner}
        gpt |= {"n_layer": shape.blocks, "n_head": shape.heads}
        config = GPT2Config(n_positions=512, **gpt, **names)
    else:
        config = LlamaConfig(
            hidden_size=shape.width,
            intermediate_size=shape.inner,
            num_hidden_layers=shape.blocks,
            num_attention_heads=shape.heads,
            num_key_value_heads=shape.groups,
            max_position_embeddings=512,
            tie_word_embeddings=True,
            **names,
        )
    with torch.random.fork_rng(), torch.device(device):
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config)
    return LanguageModel(model.eval(), make_tokenizer(sizes))


def make_module(sizes: Sizes) -> EditableModule:
    """A Llama with random weights, the same in every process.

    Args:
        sizes: Its shape.
    """
    config = LlamaConfig(
        vocab_size=sizes.vocabulary,
        hidden_size=sizes.width,
        intermediate_size=sizes.inner,
        num_hidden_layers=sizes.blocks,
        num_attention_heads=sizes.heads,
        num_key_value_heads=sizes.heads,
        max_position_embeddings=512,
        tie_word_embeddings=True,
        bos_token_id=None,
        eos_token_id=0,
        pad_token_id=1,
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        model = LlamaForCausalLM(config)
    return EditableModule.from_model(model, make_tokenizer(sizes), lr=1e-4)
