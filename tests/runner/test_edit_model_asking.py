"""How `edit_model` asks: through a chat, with another judge, and what it says of answers that go on."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
from transformers import AutoTokenizer

from lightning_edit import load_edits
from lightning_edit.chat import Chat, render
from lightning_edit.cli import main
from lightning_edit.evaluation import Evaluator
from lightning_edit.jobs.edit_model import measure
from lightning_edit.requests import EditRequest
from tests.scripted import ScriptedLM

TEMPLATE = "{% for m in messages %}<{{ m.role }}> {{ m.content }}\n{% endfor %}<said>"


def test_a_chat_reaches_the_questions_and_editors_that_go_by_the_prompt(
    model_folder: Path, request_file: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "instruct"
    shutil.copytree(model_folder, folder)
    tokenizer = AutoTokenizer.from_pretrained(folder)
    tokenizer.chat_template = TEMPLATE
    tokenizer.save_pretrained(folder)
    names = ["--model", str(folder), "--requests", str(request_file), "--editor=grace"]
    names += ["--options.layer=2", "--options.steps=100", "--options.radius=0.01"]
    _, after = run(tmp_path / "chat", *names, "--answers.chat=true", "--judge=begins")
    assert after["protocol"] == "greedy-24, to sentence, chat, begins, by probes, locality unedited"
    assert after["judge_agreement"] == 1.0
    module = load_edits(tmp_path / "chat" / "model")
    known = module.editor.state_dict()["book"]["active"]["requests"]
    rendered = render(module.tokenizer, [one.prompt for one in module.editor.requests], Chat())
    taught = [module.language_model.encode([text]).input_ids[0].tolist() for text in rendered]
    assert [one["signature"] for one in known] == taught


def test_a_judge_is_named_wrongly(
    model_folder: Path, request_file: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    names = ["--model", str(model_folder), "--requests", str(request_file), "--options.layers=[1]"]
    assert main(["run", "edit_model", "--output", str(tmp_path), *names, "--judge=start"]) != 0
    assert "found judge='start', expected one of exact_match, begins, contains" in capsys.readouterr().err


def test_answers_that_go_on_are_remarked_on(tokenizer: Any) -> None:
    edits = [EditRequest("a", "Ann lives in", "Rome"), EditRequest("b", "Bob lives in", "Oslo")]
    lm, asked = ScriptedLM(tokenizer, {"Ann lives in": " Rome, and she", "Bob lives in": " Oslo."}), Evaluator()
    row, remarks = measure(lm, edits, asked, asked.measure_baseline(lm, edits))
    assert row["reliability"] == 0.5
    assert [remark.partition(",")[0] for remark in remarks] == [
        "1 of 2 answers to edited prompts begin with the target"
    ]
    lm.model.learn({"Ann lives in": " Rome.", "Bob lives in": " Oslo."})
    assert measure(lm, edits, asked, asked.measure_baseline(lm, edits))[1] == []


def run(output: Path, *arguments: str) -> list[dict[str, Any]]:
    assert main(["run", "edit_model", "--output", str(output), *arguments]) == 0
    rows: list[dict[str, Any]] = json.loads((output / "summary.json").read_text())["rows"]
    return rows
