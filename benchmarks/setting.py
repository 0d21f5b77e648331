"""What the benchmarks run on: a model of the embedded model's shape, and how much of everything there is.

The model has random weights, so no number depends on a trained checkpoint; the tokenizer reads the embedded world's
language. This file knows sizes; the benchmarks know what to do with them.
"""

from dataclasses import dataclass

import torch
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from lightning_edit.data.world.tokenizer import train_tokenizer
from lightning_edit.module import EditableModule


@dataclass(frozen=True, slots=True)
class Sizes:
    """How large everything is; the defaults are those of the published numbers.

    Args:
        width: Width of the residual stream, d.
        inner: Inner width of every FFN, n.
        blocks: Number of blocks.
        heads: Number of attention heads.
        vocabulary: Tokens of the vocabulary.
        tokenizer_texts: Documents that the tokenizer is trained on.
        columns: Targets that are optimised.
        columns_at_once: Columns in one graph.
        target_steps: Passes of each target.
        target_layer: The block that takes the offset.
        target_rounds: Rounds of the comparison.
        corpus_texts: Documents that key statistics are read from.
        corpus_rounds: Rounds of the comparison.
        edits: Columns of the ledger at the end, N.
        edits_per_commit: Columns that arrive at once.
        ledger_rounds: Rounds of the comparison.
        batch: Rows in a training batch.
        length: Tokens in a row.
        train_steps: Optimizer steps in a turn; a multiple of how often a tracker samples.
        train_rounds: Rounds of the comparison.
    """

    width: int = 192
    inner: int = 2048
    blocks: int = 6
    heads: int = 6
    vocabulary: int = 2048
    tokenizer_texts: int = 2000
    columns: int = 32
    columns_at_once: int = 16
    target_steps: int = 6
    target_layer: int = 1
    target_rounds: int = 3
    corpus_texts: int = 96
    corpus_rounds: int = 5
    edits: int = 600
    edits_per_commit: int = 20
    ledger_rounds: int = 3
    batch: int = 4
    length: int = 128
    train_steps: int = 16
    train_rounds: int = 4


FULL = Sizes()
TINY = Sizes(
    width=24,
    inner=48,
    blocks=3,
    heads=4,
    vocabulary=320,
    tokenizer_texts=60,
    columns=4,
    columns_at_once=2,
    target_steps=3,
    target_rounds=2,
    corpus_texts=8,
    corpus_rounds=2,
    edits=8,
    edits_per_commit=4,
    ledger_rounds=2,
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
