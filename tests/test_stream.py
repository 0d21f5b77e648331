"""EditStream: text into rows, rows into batches that a checkpoint can go on from, requests with a cursor."""

import json
import queue
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.utilities.model_helpers import is_overridden
from torch import Tensor

from lightning_edit.data.rows import RowLoader
from lightning_edit.data.source import Limit, RequestSource
from lightning_edit.data.stream import EditStream
from lightning_edit.data.text import read_texts, token_rows
from lightning_edit.errors import EditError, RequestError, StateError
from lightning_edit.requests import EditRequest


def request(number: int, **changes: Any) -> EditRequest:
    subject = f"Person {number}"
    fields = {"id": f"r{number}", "prompt": f"{subject} lives in", "target": "Rome", "subject": subject}
    return EditRequest(**{**fields, **changes})


def write(path: Path, *requests: EditRequest) -> Path:
    path.write_text("".join(json.dumps(item.to_dict()) + "\n" for item in requests))
    return path


def ids(requests: list[EditRequest]) -> list[str]:
    return [item.id for item in requests]


# -- texts ---------------------------------------------------------------------------------------------------------


def test_texts_from_files(tmp_path: Path) -> None:
    lines = tmp_path / "a.jsonl"
    lines.write_text('{"text": "one", "id": 1}\n\n"two"\n')
    plain = tmp_path / "a.txt"
    plain.write_text("first\ngoes on\r\n\r\nsecond\n\n\n")
    assert read_texts(lines) == ["one", "two"]
    assert read_texts(plain) == ["first\ngoes on", "second"]
    assert read_texts(["x", " "]) == ["x"]


@pytest.mark.parametrize(
    ("name", "content", "said"),
    [
        ("a.jsonl", '{"text": "one"}\n{"body": "two"}\n', "line 2: found body"),
        ("a.jsonl", '{"text": \n', "line 1: found text that is no JSON"),
        ("a.txt", "  \n\n ", "found no text"),
    ],
)
def test_bad_texts_are_named(tmp_path: Path, name: str, content: str, said: str) -> None:
    path = tmp_path / name
    path.write_text(content)
    with pytest.raises(EditError, match=said):
        read_texts(path)
    with pytest.raises(EditError, match="no such file"):
        read_texts(tmp_path / "none.jsonl")


@pytest.mark.parametrize("pack", [True, False])
def test_every_token_is_in_one_row(tokenizer: Any, pack: bool) -> None:
    texts = ["The capital of the country is a large city.", "He was born.", "x"]
    rows = token_rows(texts, tokenizer, 8, pack)
    expected = [token for text in texts for token in [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]]
    kept = rows["input_ids"][rows["attention_mask"].bool()].tolist()
    assert kept == expected
    assert torch.equal(rows["labels"] == -100, rows["attention_mask"] == 0)
    assert (rows["input_ids"][rows["attention_mask"] == 0] == tokenizer.pad_token_id).all()
    if pack:
        assert rows["attention_mask"][:-1].all()
    else:
        starts = {tuple(row.tolist()) for row in rows["input_ids"][:, :2]}
        assert {tuple(tokenizer(text)["input_ids"][:2]) for text in texts[:2]} <= starts


# -- rows ----------------------------------------------------------------------------------------------------------


def numbered(count: int) -> dict[str, Tensor]:
    return {"input_ids": torch.arange(count * 2).view(count, 2)}


def seen(loader: RowLoader) -> list[list[int]]:
    return [(batch["input_ids"][:, 0] // 2).tolist() for batch in loader]


def test_an_epoch_shows_every_row_once_and_another_epoch_differs() -> None:
    loader = RowLoader(numbered(12), 3)
    first = seen(loader)
    assert sorted(row for batch in first for row in batch) == list(range(12))
    assert seen(loader) == first
    loader.set_epoch(1)
    assert seen(loader) != first


def test_ranks_share_one_global_batch() -> None:
    whole = seen(RowLoader(numbered(12), 4))
    parts = [seen(RowLoader(numbered(12), 2, rank=rank, world=2)) for rank in range(2)]
    assert [sorted(a + b) for a, b in zip(*parts, strict=True)] == [sorted(batch) for batch in whole]


def test_validation_shows_every_row_in_order() -> None:
    assert seen(RowLoader(numbered(7), 3, seed=None, drop_last=False)) == [[0, 1, 2], [3, 4, 5], [6]]
    shares = [seen(RowLoader(numbered(7), 2, None, rank, 2, drop_last=False)) for rank in range(2)]
    assert shares == [[[0, 2], [4, 6]], [[1, 3], [5, 0]]]
    assert len(RowLoader(numbered(7), 3)) == 2
    assert len(RowLoader(numbered(2), 3)) == 1


def test_a_loader_goes_on_in_the_middle_of_an_epoch() -> None:
    loader = RowLoader(numbered(12), 3)
    loader.set_epoch(5)
    expected = seen(loader)
    batches = iter(loader)
    next(batches), next(batches)
    other = RowLoader(numbered(12), 3)
    other.load_state_dict(loader.state_dict())
    iter(other)  # Lightning makes iterators that it never uses
    assert seen(other) == expected[2:]
    assert seen(other) == expected


def test_a_loader_of_other_rows_refuses_the_state() -> None:
    state = RowLoader(numbered(12), 3).state_dict()
    with pytest.raises(StateError, match="rows was 12 and is now 10"):
        RowLoader(numbered(10), 3).load_state_dict(state)
    with pytest.raises(StateError, match="global_batch was 3 and is now 6"):
        RowLoader(numbered(12), 3, world=2).load_state_dict(state)
    with pytest.raises(EditError, match="1 rows of tokens for 2 processes"):
        RowLoader(numbered(1), 3, world=2)


class Order(pl.LightningModule):
    """Writes down which rows it was shown."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = torch.nn.Parameter(torch.zeros(()))
        self.shown: list[list[int]] = []

    def training_step(self, batch: dict[str, Tensor]) -> Tensor:
        self.shown.append(batch["input_ids"][:, 0].tolist())
        return self.weight * batch["input_ids"].float().mean()

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)


class SaveEachStep(pl.Callback):
    """Writes a checkpoint where ModelCheckpoint does, after every step."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        trainer.save_checkpoint(self.folder / f"{trainer.global_step}.ckpt")


def fit(stream: EditStream, folder: Path, ckpt: Path | None = None, **options: Any) -> Order:
    module = Order()
    quiet = {
        "enable_progress_bar": False,
        "enable_model_summary": False,
        "logger": False,
        "enable_checkpointing": False,
    }
    trainer = pl.Trainer(accelerator="cpu", callbacks=[SaveEachStep(folder)], **quiet, **options)
    trainer.fit(module, stream, ckpt_path=ckpt)
    return module


@pytest.mark.parametrize("limits", [{"max_steps": 11, "max_epochs": -1}, {"max_epochs": 3}])
def test_training_goes_on_in_the_same_order_after_any_step(
    tmp_path: Path, tokenizer: Any, limits: dict[str, int]
) -> None:
    def stream() -> EditStream:
        texts = [f"The city of number {index} is a large city." for index in range(16)]
        return EditStream(train=texts, tokenizer=tokenizer, max_length=16, batch_size=4)

    whole = fit(stream(), tmp_path / "whole", **limits)
    assert len({tuple(batch) for batch in whole.shown}) > 4
    per_epoch = len(RowLoader(token_rows(stream().train, tokenizer, 16), 4))
    assert per_epoch > 3
    for step in range(1, len(whole.shown)):
        rest = fit(stream(), tmp_path / "rest", tmp_path / "whole" / f"{step}.ckpt", **limits)
        assert rest.shown == whole.shown[step:], step


def test_validation_text_is_there_when_asked_for(tokenizer: Any) -> None:
    stream = EditStream(val=["One.", "Two.", "Three."], tokenizer=tokenizer, max_length=16, batch_size=2, pack=False)
    stream.setup()
    assert [len(batch["labels"]) for batch in stream.val_dataloader()] == [2, 1]


def test_a_stream_without_text_says_so(tokenizer: Any) -> None:
    stream = EditStream(requests=[request(1)], tokenizer=tokenizer)
    stream.setup()
    assert not is_overridden("val_dataloader", stream)
    with pytest.raises(EditError, match="no text to train on"):
        stream.train_dataloader()
    with pytest.raises(EditError, match="found none"):
        EditStream(train=["x"]).setup()


# -- requests ------------------------------------------------------------------------------------------------------


def test_the_cursor_moves_on_commit_only(tmp_path: Path) -> None:
    source = RequestSource(write(tmp_path / "r.jsonl", *map(request, range(5))))
    assert ids(source.upcoming(2)) == ids(source.upcoming(2)) == ["r0", "r1"]
    assert source.cursor == 0
    source.commit(2)
    assert (source.cursor, ids(source.upcoming(9))) == (2, ["r2", "r3", "r4"])
    assert ids(source.known()) == ["r2", "r3", "r4"]
    with pytest.raises(StateError, match="cannot commit 4"):
        source.commit(4)


def test_a_file_goes_on_where_it_stood(tmp_path: Path) -> None:
    path = write(tmp_path / "r.jsonl", *map(request, range(5)))
    source = RequestSource(path)
    source.upcoming(4)
    source.commit(3)
    state = json.loads(json.dumps(source.state_dict()))
    other = RequestSource(write(path, *map(request, range(6))))
    other.load_state_dict(state)
    assert (other.cursor, ids(other.upcoming(9))) == (3, ["r3", "r4", "r5"])
    assert other.state_dict() == source.state_dict()


@pytest.mark.parametrize("changed", [[request(0), request(2)], [request(0), request(1, target="Oslo")], [request(0)]])
def test_another_file_is_refused(tmp_path: Path, changed: list[EditRequest]) -> None:
    source = RequestSource([request(0), request(1)])
    source.upcoming(2)
    source.commit(2)
    with pytest.raises(StateError, match="does not begin with the 2 requests"):
        RequestSource(write(tmp_path / "r.jsonl", *changed)).load_state_dict(source.state_dict())
    with pytest.raises(StateError, match="from a file or list, this run from a live source"):
        RequestSource(queue.Queue()).load_state_dict(source.state_dict())


def test_a_file_may_be_appended_to(tmp_path: Path) -> None:
    path = write(tmp_path / "r.jsonl", request(0))
    source = RequestSource(path)
    source.upcoming(3)
    source.commit(1)
    line = json.dumps(request(1).to_dict())
    with path.open("a") as file:
        file.write(line[:20])
    assert source.upcoming(3) == []  # the line is not complete
    with path.open("a") as file:
        file.write(line[20:] + "\n\n" + "not json\n")
    with pytest.raises(RequestError, match=r"r\.jsonl, line 4: found text that is no JSON"):
        source.upcoming(3)
    assert ids(source.upcoming(3)) == ["r1"]
    path.write_text("")
    with pytest.raises(RequestError, match="only be appended to"):
        source.upcoming(3)


def test_appending_to_a_file_without_a_last_line_break(tmp_path: Path) -> None:
    path = tmp_path / "r.jsonl"
    path.write_text(json.dumps(request(0).to_dict()))
    source = RequestSource(path, on_bad="skip")
    assert ids(source.upcoming(3)) == ["r0"]
    with path.open("a") as file:
        file.write("\n" + json.dumps(request(1).to_dict()) + "\n{}\n")
    assert ids(source.upcoming(3)) == ["r0", "r1"]
    assert [(finding.line, finding.field) for finding in source.skipped] == [(3, "id")]


def test_a_queue_keeps_what_was_pulled_in_its_state() -> None:
    live: queue.Queue[EditRequest] = queue.Queue()
    for number in range(3):
        live.put(request(number))
    source = RequestSource(live)
    assert ids(source.upcoming(2)) == ["r0", "r1"]
    source.commit(1)
    state = json.loads(json.dumps(source.state_dict()))
    live.put(request(3))
    other = RequestSource(live)
    other.load_state_dict(state)
    assert (other.cursor, ids(other.upcoming(9))) == (1, ["r1", "r2", "r3"])


def test_a_generator_that_starts_anew_repeats_nothing() -> None:
    def requests() -> Iterator[EditRequest]:
        yield from map(request, range(4))

    source = RequestSource(requests())
    source.upcoming(3)
    source.commit(2)
    other = RequestSource(requests())
    other.load_state_dict(source.state_dict())
    assert ids(other.upcoming(9)) == ["r2", "r3"]


@pytest.mark.parametrize("live", [True, False])
def test_the_same_object_goes_back_to_an_earlier_state(live: bool) -> None:
    source = RequestSource(map(request, range(6)) if live else [request(number) for number in range(6)])
    source.upcoming(3)
    source.commit(1)
    state = source.state_dict()
    source.upcoming(5)
    source.commit(4)
    source.load_state_dict(state)
    assert (source.cursor, ids(source.upcoming(9))) == (1, ["r1", "r2", "r3", "r4", "r5"])
    source.commit(1)
    assert ids(source.committed) == ["r0", "r1"]


def test_requests_that_are_too_long_are_bad(tokenizer: Any) -> None:
    stream = EditStream(requests=[request(0), request(1, target="x" * 50)], on_bad="skip", tokenizer=tokenizer)
    source = RequestSource(stream.requests, "skip", Limit(tokenizer, 30))
    assert ids(source.known()) == ["r0"]
    assert "expected at most 30" in source.skipped[0].reason
    with pytest.raises(RequestError, match="expected at most 30"):
        RequestSource(stream.requests, "raise", Limit(tokenizer, 30)).known()
