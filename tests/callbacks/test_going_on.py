"""`EditMonitor` says once that right answers go on, and count as wrong."""

import logging
from typing import Any

import pytest

from lightning_edit.callbacks import EditMonitor
from lightning_edit.callbacks.examiner import Examiner
from lightning_edit.evaluation import Evaluator
from lightning_edit.requests import EditRequest
from tests.scripted import ScriptedLM

EDITS = [EditRequest("a", "Ann lives in", "Rome"), EditRequest("b", "Bob lives in", "Oslo")]


def test_the_examiner_keeps_the_remark_of_the_last_answers(tokenizer: Any) -> None:
    lm = ScriptedLM(tokenizer, {"Ann lives in": " Rome, and she", "Bob lives in": " Oslo."})
    asked = Examiner(Evaluator())
    asked.begin(lm, EDITS)
    assert asked.examine(lm, EDITS, EDITS)[0]["reliability"] == 0.5
    assert asked.remark is not None
    assert "go on" in asked.remark
    lm.model.learn({"Ann lives in": " Rome.", "Bob lives in": " Oslo."})
    asked.examine(lm, EDITS, EDITS)
    assert asked.remark is None


def test_it_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    watch = EditMonitor()
    with caplog.at_level(logging.INFO):
        watch._tell()
        assert not caplog.records
        watch.examiner.remark = "answers go on"
        watch._tell()
        watch._tell()
    assert [record.message for record in caplog.records] == ["answers go on"]
