"""Live sources: what grows while it is read, and what a bad request costs."""

from collections import deque
from pathlib import Path
from queue import Queue

import pytest

from lightning_edit.data import iter_requests
from lightning_edit.errors import RequestError
from lightning_edit.requests import EditRequest

FILES = Path(__file__).parents[1] / "fixtures" / "requests"


def edit(name):
    return EditRequest(name, "p", "t")


def ids(requests):
    return [request.id for request in requests]


def test_requests_and_dicts_may_be_mixed():
    assert ids(iter_requests([edit("a"), edit("b").to_dict()])) == ["a", "b"]


def test_a_path_is_read_in_its_own_format():
    assert ids(iter_requests(FILES / "zsre.json")) == ["zsre-0", "zsre-1"]
    assert ids(iter_requests(str(FILES / "own.jsonl")))[0] == "mayor-1"


def test_what_a_file_had_to_skip_is_reported(tmp_path):
    path = tmp_path / "edits.jsonl"
    path.write_text('{"id": "a", "prompt": "p", "target": "t"}\nnonsense\n')
    requests = iter_requests(path, on_bad="skip")
    assert ids(requests) == ["a"]
    assert [found.line for found in requests.skipped] == [2]


def test_a_list_may_grow_even_after_its_end():
    source = [edit("a")]
    requests = iter_requests(source)
    assert next(requests).id == "a"
    source.append(edit("b"))
    assert ids(requests) == ["b"]
    with pytest.raises(StopIteration):
        next(requests)
    source.append(edit("c"))
    assert ids(requests) == ["c"]


@pytest.mark.parametrize("kind", [Queue, deque])
def test_queues_are_emptied_and_may_be_filled_again(kind):
    source = kind()
    put = source.put if kind is Queue else source.append
    requests = iter_requests(source)
    assert ids(requests) == []
    put(edit("a"))
    put(edit("b").to_dict())
    assert ids(requests) == ["a", "b"]
    put(edit("c"))
    assert next(requests).id == "c"
    assert (source.qsize() if kind is Queue else len(source)) == 0


def test_a_generator_is_asked_for_one_item_at_a_time():
    asked = []

    def generate():
        for name in "abc":
            asked.append(name)
            yield edit(name)

    requests = iter_requests(generate())
    assert asked == []
    assert next(requests).id == "a"
    assert asked == ["a"]


BAD = [
    ({"id": "x", "prompt": "p"}, "target", "found no such field"),
    ({"id": "x", "prompt": "p", "target": "t", "subject": "q"}, "subject", "found no 'q'"),
    ("text", None, "found the string 'text', expected an EditRequest or a dict"),
    ({"id": "a", "prompt": "p", "target": "t"}, "id", "found the id 'a' a second time"),
]


@pytest.mark.parametrize(("item", "field", "words"), BAD)
def test_a_bad_request_costs_only_itself(item, field, words):
    source = [edit("a"), item, edit("b")]
    requests = iter_requests(source)
    assert next(requests).id == "a"
    with pytest.raises(RequestError, match=words) as caught:
        next(requests)
    assert caught.value.field == field
    assert (caught.value.source.file, caught.value.source.line) == ("stream", 2)
    assert ids(requests) == ["b"]

    skipping = iter_requests(source, on_bad="skip")
    assert ids(skipping) == ["a", "b"]
    assert [(found.line, found.field) for found in skipping.skipped] == [(2, field)]


def test_what_cannot_be_iterated_is_refused():
    with pytest.raises(RequestError, match="found the number 5, expected a path, a sequence, a queue"):
        iter_requests(5)
    with pytest.raises(RequestError, match="found on_bad='no'"):
        iter_requests([], on_bad="no")
