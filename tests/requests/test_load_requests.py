"""Request files as they come: broken lines, bytes and ends, each named with its line; and what `skip` reports."""

import json

import pytest

from lightning_edit.data import load_requests
from lightning_edit.errors import RequestError


def record(name, **changes):
    return {"id": name, "prompt": f"The colour of {name} is", "subject": name, "target": "red", **changes}


def line(name, **changes):
    return json.dumps(record(name, **changes))


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "edits.jsonl"

    def write(*parts):
        path.write_bytes(b"\n".join(part if isinstance(part, bytes) else part.encode() for part in parts))
        return path

    return write


def fault(path, **options):
    with pytest.raises(RequestError) as caught:
        load_requests(path, **options)
    return str(caught.value)


BAD_LINES = [
    ('{"id": "x", "prompt": "p"', None, "found text that is no JSON"),
    ("[1]", None, "found a list of 1, expected an object"),
    ("5", None, "found the number 5, expected an object"),
    ("[" * 100_000, None, "found text that is no JSON"),
    ('{"id": "x", "target": "t"}', "prompt", "found no such field"),
    ('{"id": "x", "prompt": "p", "target": ""}', "target", "found an empty string"),
    ('{"id": "x", "prompt": "p", "target": ["t"]}', "target", "found a list of 1, expected a string"),
    ('{"id": "x", "prompt": "p", "target": NaN}', "target", "found the number nan, expected a string"),
    ('{"id": "x", "prompt": "p", "subject": "q", "target": "t"}', "subject", "found no 'q' in the prompt 'p'"),
    ('{"id": "x", "prompt": "p", "target": "t", "lokality": {}}', "lokality", "did you mean 'locality'?"),
    (b'{"id": "x", "prompt": "p", "target": "caf\xe9"}', "target", "found the byte 0xe9, expected valid UTF-8"),
    (b'{"id": "x", "prompt": "p", "target": "t", "old": "\xff"}', "old", "found the byte 0xff"),
    (b'{"id": "x", "pr\xffmpt": "p", "target": "t"}', "pr?mpt", "found the byte 0xff"),
    ('{"id": "x", "prompt": "p", "target": "\\ud83d"}', "target", "half a surrogate pair (U+D83D)"),
    (b'\xff{"id": "x", "prompt": "p", "target": "t"}', None, "found text that is no JSON"),
    ('{"id": "a", "prompt": "p", "target": "t"}', "id", "found the id 'a' a second time (first at"),
]


@pytest.mark.parametrize(("bad", "field", "words"), BAD_LINES)
def test_a_bad_line_is_named_or_skipped(bad, field, words, file):
    path = file(line("a"), "", bad, line("b"))
    message = fault(path)
    where = f"{path}, line 3" + (f", field '{field}'" if field else "") + ": "
    assert message.startswith(where)
    assert words in message
    requests = load_requests(path, on_bad="skip")
    assert [edit.id for edit in requests] == ["a", "b"]
    (skipped,) = requests.skipped
    assert (skipped.file, skipped.line, skipped.field) == (str(path), 3, field)
    assert f"{where}{skipped.reason}" == str(skipped) == message
    assert requests.report() == f"read 2 requests (the package's own JSONL), skipped 1\n{message}"


def test_the_first_of_two_equal_ids_is_kept(file):
    requests = load_requests(file(line("a"), line("a", target="blue")), on_bad="skip")
    assert [edit.target for edit in requests] == ["red"]


def test_a_skipped_record_does_not_claim_its_id(file):
    requests = load_requests(file(line("a", target=""), line("a")), on_bad="skip")
    assert [edit.source.line for edit in requests] == [2]


def test_an_array_gives_the_line_where_each_record_starts(file):
    text = json.dumps([record(name, target=target) for name, target in ("ax", "by", "cz")], indent=1)
    path = file(text)
    lines = [edit.source.line for edit in load_requests(path)]
    assert lines == [number for number, content in enumerate(text.split("\n"), 1) if content == " {"]


def test_a_bad_record_of_an_array_is_named_by_line_and_number(file):
    path = file("[", line("a") + ",", line("b", target=7) + ",", line("c"), "]")
    assert fault(path).startswith(f"{path}, line 3, record 2, field 'target': found the number 7")
    requests = load_requests(path, on_bad="skip")
    assert [edit.id for edit in requests] == ["a", "c"]
    assert [(found.line, found.record) for found in requests.skipped] == [(3, 2)]


@pytest.mark.parametrize(
    ("tail", "number", "words"),
    [
        ([","], 4, "found a record that is no JSON (Expecting value"),
        ([""], 4, "found the end of the file, expected ',' or ']'"),
        ([",", '{"id": "x", "prom'], 5, "found a record that is no JSON (Unterminated string"),
        (['{"id": "x"}'], 4, "found '{', expected ',' or ']'"),
        ([",]"], 4, "found a record that is no JSON"),
        (["]", "", "more"], 6, "found text after the array's end"),
    ],
)
def test_a_broken_array_keeps_what_stands_before_the_break(tail, number, words, file):
    path = file("[", line("a") + ",", line("b"), *tail)
    message = fault(path)
    assert words in message
    assert message.startswith((f"{path}, line {number}, record 3: ", f"{path}, line {number}: "))
    requests = load_requests(path, on_bad="skip")
    assert [edit.id for edit in requests] == ["a", "b"]
    assert len(requests.skipped) == 1


def test_bad_bytes_in_an_array_cost_one_record(file):
    path = file("[", line("a") + ",", line("b").encode().replace(b"red", b"r\xe9d") + b",", line("c"), "]")
    assert fault(path).startswith(f"{path}, line 3, record 2, field 'target': found the byte 0xe9")
    assert [edit.id for edit in load_requests(path, on_bad="skip")] == ["a", "c"]


@pytest.mark.parametrize("content", [b"", b" \n\t\r\n", b"\xef\xbb\xbf"])
@pytest.mark.parametrize("on_bad", ["raise", "skip"])
def test_an_empty_file_is_an_error(content, on_bad, file):
    path = file(content)
    assert fault(path, on_bad=on_bad) == f"{path}: found an empty file, expected at least one request"


def test_an_empty_array_is_an_error(file):
    assert "found an empty array" in fault(file(" [ ] "), on_bad="skip")


def test_files_that_are_not_there_or_not_files(tmp_path):
    assert "No such file" in fault(tmp_path / "none.jsonl")
    assert "directory" in fault(tmp_path).lower()


def test_utf_16_is_called_by_its_name(file):
    assert "found UTF-16, expected UTF-8" in fault(file(line("a").encode("utf-16")))


def test_byte_order_mark_and_windows_line_ends(file):
    path = file(b"\xef\xbb\xbf" + line("a").encode() + b"\r", line("b") + "\r", "\r")
    assert [(edit.id, edit.source.line) for edit in load_requests(path)] == [("a", 1), ("b", 2)]


@pytest.mark.parametrize("odd", ["\u2028", "\u2029", "\x85", "\xa0"])
def test_odd_separators_inside_a_string_split_nothing(odd, file):
    path = file(json.dumps(record("a", old=f"x{odd}y"), ensure_ascii=False), line("b"))
    requests = load_requests(str(path))
    assert [(edit.source.line, edit.old) for edit in requests] == [(1, f"x{odd}y"), (2, None)]


def test_requests_that_replace_an_earlier_one_are_noted_not_refused(file):
    path = file(line("a"), line("b"), line("c", prompt="THE COLOUR OF A IS", subject="A", target="blue"))
    requests = load_requests(path)
    (note,) = requests.notes
    assert (
        str(note)
        == f"{path}, line 3, field 'target': 'c' wants 'blue' where 'a' wanted 'red'; the later one replaces it"
    )


def test_a_file_of_nothing_but_bad_lines_can_be_skipped_whole(file):
    requests = load_requests(file("nonsense", "more"), on_bad="skip")
    assert (requests, [found.line for found in requests.skipped]) == ([], [1, 2])


def test_requests_longer_than_the_context(file):
    def letters(texts):
        return {"input_ids": [list(text) for text in texts]}

    path = file(line("a"), line("b" * 30), line("c"))
    assert len(load_requests(path)) == 3
    message = fault(path, tokenizer=letters, max_tokens=40)
    assert message.startswith(f"{path}, line 2, field 'prompt': request '{'b' * 30}' needs 51 tokens here")
    requests = load_requests(path, on_bad="skip", tokenizer=letters, max_tokens=40)
    assert [edit.id for edit in requests] == ["a", "c"]
    assert requests.skipped[0].field == "prompt"


def test_options_that_mean_nothing_are_refused(file):
    path = file(line("a"))
    assert fault(path, on_bad="ignore") == "found on_bad='ignore', expected 'raise' or 'skip'"
    assert "expected both or neither" in fault(path, max_tokens=4)
