"""WandbEditLogger, tested by reading the offline run back."""

import dataclasses
import json
import struct
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import wandb
from lightning.pytorch.loggers import CSVLogger, WandbLogger

from lightning_edit.callbacks import EditGuard, EditMonitor, WandbEditLogger
from lightning_edit.callbacks import wandb_edit_logger as room
from lightning_edit.evaluation import AnswerOptions, say
from tests.callbacks.test_edit_guard import Culprit
from tests.callbacks.training import editing, fit, requests, stream, tiny_module

BLOCK, HEADER = 32768, struct.Struct("<IHB")  # checksum, length, and which part of a record it is: 1 whole, 4 the last


def records(folder: Path) -> Iterator[Any]:
    """Every record of the one offline run in a folder: W&B writes them as LevelDB writes its log."""
    from wandb.proto.wandb_internal_pb2 import Record

    (path,) = folder.glob("wandb/offline-run-*/run-*.wandb")
    content, position, data = path.read_bytes(), 7, b""  # behind the header of the file
    assert content.startswith(b":W&B")
    while position + HEADER.size <= len(content):
        if BLOCK - position % BLOCK < HEADER.size:  # too little room was left in this block
            position += BLOCK - position % BLOCK
        _, length, part = HEADER.unpack_from(content, position)
        data += content[position + HEADER.size : position + HEADER.size + length]
        position += HEADER.size + length
        if part in (1, 4):
            record = Record()
            record.ParseFromString(data)
            yield record
            data = b""


def key_of(item: Any) -> str:
    return item.key or "/".join(item.nested_key)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_the_offline_run_holds_axis_curves_and_table(
    trained_backend: str, statistics: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_CONSOLE", "off")
    logger = WandbLogger(project="test", save_dir=tmp_path, offline=True)
    logs = [logger, CSVLogger(tmp_path / "csv")]
    edits = editing(statistics)
    guard = EditGuard({"mood": 0.0}, measures={"mood": Culprit(edits, "r1", "r3")})
    monitor, module = EditMonitor(max_new_tokens=3, chat=True, until="line"), tiny_module(trained_backend)
    module.tokenizer.chat_template = "{% for m in messages %}<{{ m.content }}>{% endfor %}"
    ways: list[AnswerOptions] = []
    monkeypatch.setattr(room, "say", lambda lm, prompts, how: ways.append(how) or say(lm, prompts, how))
    callbacks = [edits, guard, monitor, WandbEditLogger(max_rows=3, batch_size=2)]
    fit(module, stream(trained_backend, requests(4)), callbacks, logger=logs)
    assert ways == [dataclasses.replace(monitor.options, batch_size=2)] * 3  # before two commits, and at the end
    logger.experiment.finish()
    wandb.teardown()  # on a busy machine its writer is not done before it is told to go

    axes, rows = {}, []
    for record in records(tmp_path):
        kind = record.WhichOneof("record_type")
        if kind == "metric":
            axes[record.metric.glob_name or record.metric.name] = record.metric.step_metric
        elif kind == "history":
            rows.append({key_of(item): json.loads(item.value_json) for item in record.history.item})
    assert axes["edit/*"] == axes["efficiency/*"] == "edit/count"
    assert all("edit/count" in row for row in rows if any(key.startswith("edit/") for key in row))
    measured = [row for row in rows if "edit/reliability" in row]
    assert [row["edit/count"] for row in measured] == [2, 4, 4]
    assert {"edit/generalization", "edit/locality", "edit/portability"} <= measured[0].keys()
    assert [row["edit/count"] for row in rows if "edit/seconds_per_edit" in row] == [2, 4]

    (table,) = tmp_path.glob("wandb/offline-run-*/files/media/table/edit_requests_*.table.json")
    content = json.loads(table.read_text())
    assert content["columns"] == ["id", "prompt", "target", "before", "after", "active", "refused"]
    assert [(row[0], row[2], row[5]) for row in content["data"]] == [
        (item.id, item.target, item.id != "r1") for item in requests(3)
    ]
    assert [bool(row[6]) for row in content["data"]] == [False, True, False]
    assert content["data"][1][6].startswith("refused: mood: the growth of mood is 1 in one batch")
    assert all(isinstance(row[3], str) and isinstance(row[4], str) for row in content["data"])
    (refused,) = tmp_path.glob("wandb/offline-run-*/files/media/table/edit_refusals_*.table.json")
    content = json.loads(refused.read_text())
    assert content["columns"] == ["id", "prompt", "target", "edits", "fate", "reason"]
    assert [(row[0], row[3], row[4]) for row in content["data"]] == [("r1", 0, "refused"), ("r3", 2, "refused")]


def test_beside_other_loggers_it_does_nothing(trained_backend: str, tmp_path: Path) -> None:
    quiet = WandbEditLogger()
    callbacks = [quiet, editing(editor=None)]
    fit(tiny_module(trained_backend), stream(trained_backend, requests(2)), callbacks, logger=CSVLogger(tmp_path))
    assert quiet.state_dict() == {"before": {}}


def test_answers_before_the_edits_survive(trained_backend: str) -> None:
    one, other = WandbEditLogger(), WandbEditLogger()
    one.load_state_dict({"before": {"r0": "Oslo"}})
    other.load_state_dict(one.state_dict())
    assert other.state_dict() == {"before": {"r0": "Oslo"}}
