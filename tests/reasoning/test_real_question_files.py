"""The published benchmark files themselves: every row is read, and asked unless another row contradicts it."""

from pathlib import Path

import pytest
import yaml

from lightning_edit.data.text import read_texts
from lightning_edit.reasoning.forms import FORMS
from lightning_edit.reasoning.sources import read_rows, shape

TASKS = Path(__file__).parents[2] / "lightning_edit" / "reasoning" / "tasks"
COUNTS = {
    "gsm8k": ("gsm8k/test.jsonl", 1_319, 1_319),
    "math500": ("math500/test.jsonl", 500, 500),
    "aime24": ("aime24/test.jsonl", 30, 30),
    "amc": ("amc23/test.jsonl", 40, 40),
    "olympiadbench": ("olympiadbench/test.jsonl", 675, 675),
    "arc_challenge": ("arc_challenge/test.jsonl", 1_172, 1_172),
    "mmlu_pro": ("mmlu_pro/test.jsonl", 12_032, 12_032),
    "sst2": ("glue_eval/sst2.jsonl", 856, 856),
    "cola": ("glue_eval/cola.jsonl", 644, 638),  # three sentences stand there twice, good the one time, bad the other
    "mrpc": ("glue_eval/mrpc.jsonl", 258, 258),
    "rte": ("glue_eval/rte.jsonl", 262, 262),
    "nli": ("glue_eval/nli.jsonl", 2_489, 2_489),
    "mmlu": ("glue_eval/mmlu.jsonl", 1_516, 1_516),
}
"""Task to its file, the rows in it, and the questions that are asked."""


@pytest.mark.parametrize("name", COUNTS)
def test_every_row_is_a_question_with_an_answer(name: str, shared_data: Path) -> None:
    file, rows, questions = COUNTS[name]
    path = shared_data / file
    if not path.is_file():
        pytest.skip(f"{path} is not here")
    text = (TASKS / f"{name}.yaml").read_text(encoding="utf-8").replace("!function ", "")
    task = yaml.safe_load(text)["dataset_kwargs"]
    assert file.removesuffix(".jsonl") in task["files"]
    read = read_rows(path)
    assert len(read) == rows
    shaped = shape(read, FORMS[task["form"]], str(path))
    assert len(shaped) == questions
    assert all(str(question["answer"]).strip() for question in shaped)


@pytest.mark.parametrize(("file", "sections", "words"), [("valid", 1_160, 213_886), ("test", 1_320, 241_211)])
def test_wikitext_is_read_section_by_section(file: str, sections: int, words: int, shared_data: Path) -> None:
    path = shared_data / "wikitext2" / f"wiki.{file}.tokens"
    if not path.is_file():
        pytest.skip(f"{path} is not here")
    texts = read_texts(path)
    assert len(texts) == sections
    assert sum(len(text.split()) for text in texts) == words
    assert all(text == text.strip() for text in texts)
