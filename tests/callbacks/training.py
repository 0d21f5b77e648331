"""A tiny module, tiny data and a Trainer that says nothing: what every test of the callbacks starts from."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from lightning_edit.algebra.statistics_file import save_statistics
from lightning_edit.callbacks import ContinualEdit
from lightning_edit.data.stream import EditStream
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.model.statistics import collect_statistics
from lightning_edit.module import EditableModule
from lightning_edit.requests import EditRequest, Probe

LAYERS = [0, 1]
QUICK = {"layers": LAYERS, "steps": 4, "contexts": ["Well. "], "prior_weight": 0.2}
NAMES = ["Anna", "Boris", "Clara", "David", "Elena", "Frank", "Greta", "Henry", "Irene", "Jonas", "Karla", "Louis"]
CITIES = ["Rome", "Oslo", "Lima", "Cairo"]
SILENT = {"enable_progress_bar": False, "enable_model_summary": False, "accelerator": "cpu", "devices": 1}
CONFIG = {
    "vocab_size": 320,
    "hidden_size": 32,
    "intermediate_size": 64,
    "num_hidden_layers": 3,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
    "max_position_embeddings": 128,
    "eos_token_id": 0,
    "bos_token_id": 0,
    "pad_token_id": 1,
}


def tiny_module(
    backend: str, dtype: torch.dtype = torch.float32, lr: float = 1e-3, spread: float = 0.1
) -> EditableModule:
    """A random Llama, always the same, with the tokenizer whose JSON is given."""
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model("llama", **CONFIG, initializer_range=spread))
    return EditableModule.from_model(model.to(dtype), make_tokenizer(backend), lr=lr)


def make_tokenizer(backend: str) -> PreTrainedTokenizerFast:
    """The tokenizer whose JSON is given."""
    from tokenizers import Tokenizer

    tokenizer = Tokenizer.from_str(backend)
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, eos_token="<|endoftext|>", pad_token="<|pad|>")


def requests(count: int, start: int = 0) -> list[EditRequest]:
    """Requests with probes, each about a subject of its own."""
    return [request(number) for number in range(start, start + count)]


def request(number: int, **changes: Any) -> EditRequest:
    """One request."""
    name = f"{NAMES[number % len(NAMES)]} {number}"
    other = NAMES[(number + 5) % len(NAMES)]
    fields = {
        "id": f"r{number}",
        "prompt": f"{name} lives in",
        "subject": name,
        "target": CITIES[number % len(CITIES)],
        "paraphrases": (f"The home of {name} is in",),
        "locality": {"near": (Probe(f"{other} lives in", ("Rome",)),)},
        "portability": {"hop": (Probe(f"The country of {name} is", ("Italy",)),)},
    }
    return EditRequest(**{**fields, **changes})


def texts(count: int = 40) -> list[str]:
    """Documents to train on."""
    return [
        f"{NAMES[i % 12]} was born in {CITIES[i % 4]} in the year {1900 + i}. The city is large." for i in range(count)
    ]


def statistics_file(folder: Path, backend: str) -> Path:
    """Key statistics of the untrained tiny module."""
    path = folder / "statistics.safetensors"
    if not path.is_file():
        lm: LanguageModel = tiny_module(backend).language_model
        found = collect_statistics(lm, texts(), LAYERS)
        save_statistics(path, found, found.identity)
    return path


def stream(backend: str, edits: Any = None, **options: Any) -> EditStream:
    """Text and requests."""
    fields = {
        "train": texts(),
        "val": texts(3),
        "max_length": 24,
        "batch_size": 4,
        "tokenizer": make_tokenizer(backend),
        **options,
    }
    return EditStream(requests=edits, **fields)


def editing(statistics: Path | None = None, **options: Any) -> ContinualEdit:
    """The callback with an editor that is quick."""
    fields = {"editor_options": QUICK, "every_n_steps": 2, "edits_per_commit": 2, "statistics": statistics, **options}
    if fields.get("editor", "memit") is None:
        fields["editor_options"] = None
    return ContinualEdit(**fields)


def fit(
    module: pl.LightningModule,
    data: Any,
    callbacks: Sequence[pl.Callback],
    ckpt_path: str | Path | None = None,
    **options: Any,
) -> pl.Trainer:
    """Train without a sound."""
    fields = {**SILENT, "max_steps": 6, "logger": False, "enable_checkpointing": False, **options}
    trainer = pl.Trainer(callbacks=list(callbacks), **fields)
    trainer.fit(module, data, ckpt_path=ckpt_path)
    return trainer


class SaveAt(pl.Callback):
    """Writes checkpoints after chosen steps, where ModelCheckpoint does."""

    def __init__(self, folder: Path, *steps: int) -> None:
        self.folder, self.steps = folder, set(steps)

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step in self.steps:
            self.steps.remove(trainer.global_step)
            trainer.save_checkpoint(self.folder / f"{trainer.global_step}.ckpt")


def weights(module: torch.nn.Module) -> dict[str, Tensor]:
    """A copy of every parameter."""
    return {name: value.detach().clone() for name, value in module.named_parameters()}


def same(left: Any, right: Any) -> bool:
    """Whether nested containers of tensors and plain values are equal bit for bit."""
    if isinstance(left, Tensor):
        return isinstance(right, Tensor) and left.dtype == right.dtype and torch.equal(left, right)
    if isinstance(left, dict):
        return isinstance(right, dict) and left.keys() == right.keys() and all(same(left[k], right[k]) for k in left)
    if isinstance(left, list | tuple):
        return len(left) == len(right) and all(same(a, b) for a, b in zip(left, right, strict=True))
    return bool(left == right)
