"""A tiny model that knows a few facts by heart, in a folder, with a file of requests about them."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from tokenizers import Tokenizer
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from lightning_edit.requests import EditRequest

FACTS = [("Ann Smith", "city"), ("Bob Ray", "language"), ("Cleo", "known"), ("Emil", "country")]
OTHERS = ["language", "known", "country", "city"]
PROMPT = "the mother of {}"  # ends at the subject, and answers are one token each: even a tiny model can be edited


@pytest.fixture(scope="session")
def known_requests() -> list[EditRequest]:
    """Requests whose `old` the model in `model_folder` says."""
    return [
        EditRequest(f"r{number}", PROMPT.format(subject), new, subject, old=old, relation="mother")
        for number, ((subject, old), new) in enumerate(zip(FACTS, OTHERS, strict=True))
    ]


@pytest.fixture(scope="session")
def request_file(known_requests: list[EditRequest], tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same requests as a file, with locality probes about each other's subjects."""
    file = tmp_path_factory.mktemp("requests") / "requests.jsonl"
    records = []
    for request, (subject, old) in zip(known_requests, FACTS[1:] + FACTS[:1], strict=True):
        probe = {"prompt": f"They say that the mother of {subject}", "answers": [old]}
        records.append({**request.to_dict(), "locality": {"neighbour": [probe]}})
    file.write_text("\n".join(map(json.dumps, records)))
    return file


@pytest.fixture
def two_seeds(model_folder: Path, request_file: Path) -> dict[str, Any]:
    """How a job plays all four requests in two steps, twice."""
    where = {"model": str(model_folder), "requests": str(request_file), "device": "cpu"}
    return {**where, "count": 4, "steps": 2, "seeds": [0, 1]}


@pytest.fixture(scope="session")
def model_folder(
    tiny_model: Callable[..., PreTrainedModel], trained_backend: str, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A tiny Llama that learned the facts, with its tokenizer."""
    return taught(tiny_model("llama", initializer_range=0.05), trained_backend, "", tmp_path_factory.mktemp("model"))


@pytest.fixture(scope="session")
def brief_folder(
    tiny_model: Callable[..., PreTrainedModel], trained_backend: str, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """The same, but it is silent behind an answer, where the other goes on: many answers cost half as much."""
    model, end = tiny_model("llama", initializer_range=0.05), "<|endoftext|>"
    return taught(model, trained_backend, end, tmp_path_factory.mktemp("brief"))


def taught(model: PreTrainedModel, backend: str, end: str, folder: Path) -> Path:
    """A folder with a model that was trained on the facts, each followed by an end, and its tokenizer."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(backend), eos_token="<|endoftext|>", pad_token="<|pad|>"
    )
    facts = [f"{PROMPT.format(name)} {answer}.{end}" for name, answer in FACTS]
    rows = [tokenizer(fact, return_tensors="pt").input_ids for fact in facts]
    optimizer = torch.optim.AdamW(model.train().parameters(), lr=3e-3)
    for _ in range(120):
        loss = torch.stack([model(input_ids=row, labels=row).loss for row in rows]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
