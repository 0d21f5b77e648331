"""Texts as rows of tokens that a causal language model trains on.

Knows text files and tokenizers. Refuses to know the Trainer, edits, and in which order rows are shown (`rows.py`).
"""

import json
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from lightning_edit.errors import EditError

_AT_ONCE = 1000  # texts handed to the tokenizer together
_BLANK_LINE = re.compile(r"\n[ \t]*\n")


def read_texts(source: str | Path | Iterable[str]) -> list[str]:
    """Documents of a file, or of any iterable of strings.

    Args:
        source: A `.jsonl` file (one object with the field `text`, or one string, a line), any other text file
            (documents separated by blank lines, on which spaces may stand, as in WikiText), or the documents
            themselves.
    """
    if not isinstance(source, str | Path):
        texts = list(source)
        if odd := [text for text in texts if not isinstance(text, str)]:
            raise EditError(f"found a {type(odd[0]).__name__} among the training texts; expected strings only")
        return _not_empty(texts, "the training texts")
    path = Path(source)
    if not path.is_file():
        raise EditError(f"{path}: found no such file; expected a .jsonl or text file of training documents")
    content = path.read_text(encoding="utf-8")
    if path.suffix == ".jsonl":
        return _not_empty(list(_json_lines(path, content)), str(path))
    return _not_empty([part.strip() for part in _BLANK_LINE.split(content.replace("\r\n", "\n"))], str(path))


def token_rows(texts: Sequence[str], tokenizer: Any, length: int, pack: bool = True) -> dict[str, Tensor]:
    """Texts as rows of equal length, every token in exactly one row.

    Every document is closed by the end token. Packed, documents follow each other without gaps, and only the last row
    is padded. Not packed, each document starts a row of its own and goes on in further rows where it is longer.

    Args:
        texts: The documents.
        tokenizer: The model's tokenizer.
        length: Tokens in a row.
        pack: Whether documents share rows.

    Returns:
        `input_ids`, `attention_mask` and `labels` (rows, length); labels are -100 at padding.
    """
    if length < 2:
        raise EditError(f"max_length={length}; expected at least 2 tokens, since each is predicted from those before")
    documents = _documents(texts, tokenizer)
    if pack:
        documents = iter([[token for document in documents for token in document]])
    parts = [ids[start : start + length] for ids in documents for start in range(0, len(ids), length)]
    fill = tokenizer.pad_token_id if tokenizer.pad_token_id is not None else (tokenizer.eos_token_id or 0)
    rows = torch.full((len(parts), length), fill, dtype=torch.long)
    mask = torch.zeros_like(rows)
    for index, part in enumerate(parts):
        rows[index, : len(part)] = torch.tensor(part)
        mask[index, : len(part)] = 1
    return {"input_ids": rows, "attention_mask": mask, "labels": rows.masked_fill(mask == 0, -100)}


def _documents(texts: Sequence[str], tokenizer: Any) -> Iterator[list[int]]:
    """Tokens of each document, with the end token."""
    end = [] if tokenizer.eos_token_id is None else [tokenizer.eos_token_id]
    remaining = iter(texts)
    while batch := list(islice(remaining, _AT_ONCE)):
        for ids in tokenizer(batch, add_special_tokens=False, truncation=False, verbose=False)["input_ids"]:
            yield [*ids, *end]


def _json_lines(path: Path, content: str) -> Iterator[str]:
    """The text of each line of a JSONL file."""
    for number, line in enumerate(content.split("\n"), start=1):
        if not line.strip():
            continue
        try:
            value = json.loads(line)
        except json.JSONDecodeError as error:
            raise EditError(
                f"{path}, line {number}: found text that is no JSON ({error}); expected an object"
            ) from error
        text = value.get("text") if isinstance(value, dict) else value
        if not isinstance(text, str):
            fields = ", ".join(value) if isinstance(value, dict) else type(value).__name__
            raise EditError(f"{path}, line {number}: found {fields}; expected the field 'text' with a string")
        yield text


def _not_empty(texts: list[str], where: str) -> list[str]:
    """Texts that say something; none at all is an error."""
    texts = [text for text in texts if text.strip()]
    if not texts:
        raise EditError(f"{where}: found no text; expected at least one document to train on")
    return texts
