"""A tiny model that knows a few facts by heart, in a folder, with a file of requests about them."""

import json
from collections.abc import Callable
from pathlib import Path

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


@pytest.fixture(scope="session")
def model_folder(
    tiny_model: Callable[..., PreTrainedModel], trained_backend: str, tmp_path_factory: pytest.TempPathFactory
) -> Path:
    """A tiny Llama that learned the facts, with its tokenizer."""
    tokenizer = PreTrainedTokenizerFast(
        tokenizer_object=Tokenizer.from_str(trained_backend), eos_token="<|endoftext|>", pad_token="<|pad|>"
    )
    model = tiny_model("llama", initializer_range=0.05).train()
    rows = [tokenizer(f"{PROMPT.format(name)} {answer}.", return_tensors="pt").input_ids for name, answer in FACTS]
    optimizer = torch.optim.AdamW(model.parameters(), lr=3e-3)
    for _ in range(120):
        loss = torch.stack([model(input_ids=row, labels=row).loss for row in rows]).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    folder = tmp_path_factory.mktemp("model")
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder
