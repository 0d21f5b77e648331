"""What a model writes about a subject when it is let go on, and how fluent and consistent that is.

CounterFact names, for each record, prompts to continue and the relation and object that identify texts about things of
which the new fact is true. Both stand in files that the user names; nothing is downloaded. This file reads them, lets
the model write, and hands the texts to `Fluency` and `Consistency`.
"""

import unicodedata
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_edit.data.records import read_text, split_records
from lightning_edit.decoding import sample
from lightning_edit.errors import RequestError
from lightning_edit.evaluation.protocol import Protocol, Scores
from lightning_edit.metrics.consistency import Consistency, Idf
from lightning_edit.metrics.fluency import Fluency, Tokenize
from lightning_edit.metrics.words import words
from lightning_edit.model.language_model import LanguageModel, as_language_model


@dataclass(frozen=True, slots=True)
class WritingTask:
    """Prompts to continue about one edit, and texts that the result should read like.

    Args:
        id: Name of the record.
        prompts: Texts to continue; a text that stands twice is continued twice.
        references: Texts about other things of which the new fact is true; none where only fluency is wanted.
    """

    id: str
    prompts: tuple[str, ...]
    references: tuple[str, ...] = ()


def read_writing_tasks(records: str | Path, snippets: str | Path | None = None) -> list[WritingTask]:
    """Read tasks from CounterFact's own files; records without generation prompts are left out.

    Args:
        records: CounterFact in its first form: `{case_id, requested_rewrite{relation_id, target_new{id}},
            generation_prompts[]}` for each record.
        snippets: `attribute_snippets.json`: `{relation_id, target_id, samples[{text}]}` for each entry. None leaves
            the references empty.
    """
    known = {} if snippets is None else _read_snippets(Path(snippets))
    tasks = []
    for line, record in _objects(Path(records)):
        if not record.get("generation_prompts"):
            continue
        try:
            name, rewrite = f"counterfact-{record['case_id']}", record["requested_rewrite"]
            about = (rewrite["relation_id"], rewrite["target_new"]["id"]) if known else ("", "")
        except (KeyError, TypeError) as error:
            raise RequestError(
                f"{records}:{line}: {error!r}; expected a record of CounterFact's first form."
            ) from error
        tasks.append(WritingTask(name, tuple(record["generation_prompts"]), known.get(about, ())))
    return tasks


def write_passages(
    lm: LanguageModel,
    tasks: Sequence[WritingTask],
    length: int = 100,
    top_k: int = 5,
    seed: int = 0,
    batch_size: int = 64,
) -> list[list[str]]:
    """Continue every prompt of every task, as the published evaluation of CounterFact does.

    Args:
        lm: The language model.
        tasks: What to write about.
        length: Tokens of the whole text, the prompt's among them.
        top_k: How many of the likeliest tokens are drawn from.
        seed: Seed of all draws.
        batch_size: Prompts in one forward.

    Returns:
        For each task its texts: prompt and continuation in Unicode's form NFKD, blank lines as spaces.
    """
    prompts = [prompt for task in tasks for prompt in task.prompts]
    texts = iter(sample(lm, prompts, length, top_k, seed, batch_size))
    return [[_tidy(next(texts)) for _ in task.prompts] for task in tasks]


def evaluate_passages(
    module: object,
    tasks: Sequence[WritingTask],
    idf: Idf | None = None,
    tokenize: Tokenize = words,
    length: int = 100,
    top_k: int = 5,
    seed: int = 0,
    batch_size: int = 64,
) -> Scores:
    """Fluency and consistency of what a model writes.

    Keys: `fluency`, in bits, and `consistency`, in 0..1, for the tasks that have references; published tables show a
    hundred times both.

    Args:
        module: An `EditableModule` or a `LanguageModel`.
        tasks: What to write about.
        idf: Weights of terms, from the files the reference was published with; None leaves consistency out.
        tokenize: How fluency splits a text into words.
        length: Tokens of the whole text, the prompt's among them.
        top_k: How many of the likeliest tokens are drawn from.
        seed: Seed of all draws.
        batch_size: Prompts in one forward.
    """
    passages = write_passages(as_language_model(module), tasks, length, top_k, seed, batch_size)
    values: dict[str, float] = {}
    if tasks:
        fluency = Fluency(tokenize)
        for task, texts in zip(tasks, passages, strict=True):
            fluency.update(texts, [task.id] * len(texts))
        values["fluency"] = fluency.compute().item()
    referred = [(texts, task.references) for task, texts in zip(tasks, passages, strict=True) if task.references]
    if idf is not None and referred:
        consistency = Consistency(idf)
        consistency.update([texts for texts, _ in referred], [references for _, references in referred])
        values["consistency"] = consistency.compute().item()
    splitter = getattr(tokenize, "__name__", type(tokenize).__name__)
    detail = f"top {top_k} of seed {seed}, {length} tokens with the prompt, words by {splitter}"
    return Scores(values, Protocol("top_k", "ngram_entropy and tfidf_cosine", "records", detail=detail))


def _tidy(text: str) -> str:
    return unicodedata.normalize("NFKD", text).replace("\n\n", " ")


def _read_snippets(path: Path) -> dict[tuple[str, str], tuple[str, ...]]:
    """Texts by relation and object."""
    texts: dict[tuple[str, str], list[str]] = defaultdict(list)
    for line, entry in _objects(path):
        try:
            texts[entry["relation_id"], entry["target_id"]] += [sample["text"] for sample in entry["samples"]]
        except (KeyError, TypeError) as error:
            raise RequestError(f"{path}:{line}: {error!r}; expected an entry of CounterFact's snippets.") from error
    return {about: tuple(found) for about, found in texts.items()}


def _objects(path: Path) -> list[tuple[int, dict[str, Any]]]:
    """The objects of a JSON file with their lines."""
    found = []
    for record in split_records(read_text(path)):
        if record.fault or not isinstance(record.value, dict):
            raise RequestError(f"{path}:{record.line}: {record.fault or 'found no object, expected a record'}.")
        found.append((record.line, record.value))
    return found
