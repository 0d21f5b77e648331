"""Fixtures that every room of the suite shares: tiny random models, a small tokenizer, and the folder of shared data.

Nothing here downloads anything, and every model is rebuilt from a fixed seed.
"""

import os

os.environ["HF_HUB_OFFLINE"] = "1"
os.environ["WANDB_MODE"] = "offline"
os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")

from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer, decoders, pre_tokenizers
from tokenizers import models as tokenizer_models
from tokenizers import trainers as tokenizer_trainers
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedModel, PreTrainedTokenizerFast
from transformers import logging as transformers_logging

from lightning_edit.model.language_model import LanguageModel

torch.set_num_threads(1)
transformers_logging.disable_progress_bar()

WIDTH, INNER, LAYERS, HEADS, VOCABULARY, POSITIONS = 32, 64, 3, 4, 320, 128

_COMMON = {
    "vocab_size": VOCABULARY,
    "hidden_size": WIDTH,
    "intermediate_size": INNER,
    "num_hidden_layers": LAYERS,
    "num_attention_heads": HEADS,
    "num_key_value_heads": 2,
    "max_position_embeddings": POSITIONS,
    "initializer_range": 0.1,
    "eos_token_id": 0,
    "bos_token_id": 0,
    "pad_token_id": 1,
}
_GPT = {
    "vocab_size": VOCABULARY,
    "n_embd": WIDTH,
    "n_inner": INNER,
    "n_layer": LAYERS,
    "n_head": HEADS,
    "n_positions": POSITIONS,
    "initializer_range": 0.1,
    "eos_token_id": 0,
    "bos_token_id": 0,
    "pad_token_id": 1,
}
_NO_GROUPS = {key: value for key, value in _COMMON.items() if key != "num_key_value_heads"}

CONFIGS: dict[str, dict[str, Any]] = {
    "gpt2": _GPT,
    "gptj": {**_GPT, "rotary_dim": 4},
    "gpt_neox": _NO_GROUPS,
    "opt": {
        "vocab_size": VOCABULARY,
        "hidden_size": WIDTH,
        "word_embed_proj_dim": WIDTH,
        "ffn_dim": INNER,
        "num_hidden_layers": LAYERS,
        "num_attention_heads": HEADS,
        "max_position_embeddings": POSITIONS,
        "init_std": 0.1,
        "eos_token_id": 0,
        "bos_token_id": 0,
        "pad_token_id": 1,
    },
    "llama": _COMMON,
    "mistral": _COMMON,
    "qwen2": _COMMON,
    "qwen3": {**_COMMON, "head_dim": 8},
    "gemma": {**_COMMON, "head_dim": 8},
    "phi3": _COMMON,
    "olmo2": _COMMON,
    "gemma2": {**_COMMON, "head_dim": 8},
    "gemma3_text": {**_COMMON, "head_dim": 8},
    "phi": _COMMON,
    "mixtral": {**_COMMON, "num_local_experts": 4, "num_experts_per_tok": 2},
}
FAMILIES = ["gpt2", "gptj", "gpt_neox", "opt", "llama", "mistral", "qwen2", "qwen3", "gemma", "phi3", "olmo2"]
SENTENCES = [
    "The capital of the country is a large city.",
    "The mother tongue of the writer is English.",
    "She works for the company that was founded in the north of the country.",
    "He was born in the city, and the city is known for its river.",
    "What is the language of the people there? The language is known to all.",
]


def pytest_configure(config: pytest.Config) -> None:
    """Let pass what other packages warn each other about; everything else is an error."""
    config.addinivalue_line(  # peft 0.21 reads a property that transformers 5.23 deprecates
        "filterwarnings", "ignore:`is_gradient_checkpointing` is deprecated:FutureWarning"
    )


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests first, then those with many: a long file that starts last keeps one process waiting."""
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    tests = Counter(item.path for item in items)
    items.sort(key=lambda item: (item.path not in slow, -tests[item.path]))


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """The folder of shared data beside the repository; tests that need it are skipped where it is absent."""
    folder = Path(__file__).resolve().parents[2] / "shared" / "data"
    if not folder.is_dir():
        pytest.skip(f"no shared data at {folder}")
    return folder


@pytest.fixture(scope="session")
def tiny_model() -> Callable[..., PreTrainedModel]:
    """A factory of tiny random models: `tiny_model("gpt2", seed=0, dtype=torch.float32, **config)`, in eval mode."""

    def build(family: str, seed: int = 0, dtype: torch.dtype = torch.float32, **changes: Any) -> PreTrainedModel:
        config = AutoConfig.for_model(family, **{**CONFIGS[family], **changes})
        with torch.random.fork_rng():
            torch.manual_seed(seed)
            model = AutoModelForCausalLM.from_config(config)
            for name, parameter in model.named_parameters():  # nothing at zero or one: biases and norms count too
                if parameter.dim() == 1 and not name.endswith("sinks"):
                    parameter.data.add_(0.1 * torch.randn_like(parameter))
        return model.to(dtype).eval()

    return build


@pytest.fixture(params=FAMILIES)
def family(request: pytest.FixtureRequest) -> str:
    """Each architecture family in turn."""
    return request.param


@pytest.fixture
def family_model(family: str, tiny_model: Callable[..., PreTrainedModel]) -> PreTrainedModel:
    """A tiny random model of each architecture family in turn."""
    return tiny_model(family)


@pytest.fixture(scope="session")
def trained_backend() -> str:
    """A byte-level BPE with a few merges, as JSON: any text can be encoded."""
    backend = Tokenizer(tokenizer_models.BPE())
    backend.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    backend.decoder = decoders.ByteLevel()
    trainer = tokenizer_trainers.BpeTrainer(
        vocab_size=VOCABULARY,
        special_tokens=["<|endoftext|>", "<|pad|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    backend.train_from_iterator(SENTENCES, trainer)
    return backend.to_str()


@pytest.fixture
def tokenizer(trained_backend: str) -> PreTrainedTokenizerFast:
    """A small tokenizer with eos (0) and pad (1) and no bos; a fresh object for each test."""
    return PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(trained_backend),
        eos_token="<|endoftext|>",
        pad_token="<|pad|>",
        model_max_length=POSITIONS,
    )


@pytest.fixture
def tiny_lm(tiny_model: Callable[..., PreTrainedModel], tokenizer: PreTrainedTokenizerFast) -> LanguageModel:
    """A tiny random Llama with the small tokenizer."""
    return LanguageModel(tiny_model("llama"), tokenizer)
