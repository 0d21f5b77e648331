"""The client of an endpoint against a server on loopback: what it sends, and what it makes of every kind of failure."""

import copy
import json
import logging
import pickle
import socket
import time
from email.utils import formatdate
from threading import Barrier, BrokenBarrierError

import pytest

from lightning_edit.errors import EditError
from lightning_edit.llm import Endpoint
from lightning_edit.llm import transport as transport_module
from lightning_edit.llm.transport import Failure, post
from tests.judges.stub import body, completion, cut, dribble, hang, hang_up, serve, status

KEY = "sk-very-secret-0123456789"


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")  # nobody is there; this machine is reached without a proxy


def endpoint(stub, **options):
    return Endpoint(stub.url, "small", **{"backoff": 0.001, "timeout": 20.0, "retries": 2, **options})


def ask(stub, prompts, **options):
    replies = dict(endpoint(stub, **options).ask(prompts))
    assert sorted(replies) == list(range(len(prompts)))
    return [replies[index] for index in range(len(prompts))]


def test_what_is_sent_and_what_comes_back():
    with serve(lambda number, prompt: f"You said {prompt}") as stub:
        replies = ask(stub, ["one", "two"], system="Be short.", extra={"seed": 7, "max_tokens": None}, concurrency=1)
    assert [reply.text for reply in replies] == ["You said one", "You said two"]
    assert stub.paths == ["/v1/chat/completions"] * 2
    assert stub.bodies[0] == {
        "model": "small",
        "messages": [{"role": "system", "content": "Be short."}, {"role": "user", "content": "one"}],
        "temperature": 0.0,
        "seed": 7,
    }
    assert stub.headers[0]["Authorization"] == f"Bearer {KEY}"
    assert stub.headers[0]["Content-Type"] == "application/json"


def test_without_a_key_none_is_sent(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    with serve(lambda number, prompt: "A") as stub:
        ask(stub, ["one"])
    assert "Authorization" not in stub.headers[0]


def test_another_variable_may_hold_the_key(monkeypatch):
    monkeypatch.setenv("JUDGE_KEY", "  other \n")
    with serve(lambda number, prompt: "A") as stub:
        ask(stub, ["one"], key_variable="JUDGE_KEY")
    assert stub.headers[0]["Authorization"] == "Bearer other"


@pytest.mark.parametrize("address", ["{}/", "{}/chat/completions", "{}"])
def test_the_address_may_be_written_as_people_write_it(address):
    with serve(lambda number, prompt: "A") as stub:
        stub.url = address.format(stub.url)
        ask(stub, ["one"])
    assert stub.paths == ["/v1/chat/completions"]


FAILURES = {
    "500": status(500, "out of memory"),
    "429": status(429, "slow down"),
    "408": status(408),
    "no json": body("<html>bad gateway</html>"),
    "no bytes": body(""),
    "no choice": body('{"choices": []}'),
    "an error in a success": body('{"error": {"message": "overloaded"}}'),
    "a list": body("[1, 2]"),
    "no text": body(completion(None)),
    "parts": body(completion([{"type": "text", "text": "A"}])),
    "bad bytes": body("\x00\x00"),
    "hang up": hang_up,
    "cut off": cut,
}


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES)
def test_a_passing_failure_is_tried_again(failure):
    with serve(lambda number, prompt: "fine" if number == 2 else failure) as stub:
        (reply,) = ask(stub, ["one"])
    assert (reply.text, reply.fault) == ("fine", None)
    assert stub.prompts == ["one"] * 3


@pytest.mark.parametrize(
    ("failure", "words"),
    [
        ("500", "status 500: out of memory, 3 times over"),
        ("no json", "no chat completion (JSONDecodeError): '<html>bad gateway</html>', 3 times over"),
        ("no text", "found a reply of type NoneType, expected a text, 3 times over"),
        ("hang up", "no response (RemoteDisconnected: "),
        ("cut off", "no chat completion (JSONDecodeError): '{\"choices\"', 3 times over"),
    ],
)
def test_a_lasting_failure_is_named_and_costs_only_its_own_prompt(failure, words):
    with serve(lambda number, prompt: FAILURES[failure] if prompt == "bad" else "fine") as stub:
        replies = ask(stub, ["good", "bad", "better"])
    assert [reply.text for reply in replies] == ["fine", None, "fine"]
    assert words in replies[1].fault
    assert stub.prompts.count("bad") == 3


@pytest.mark.parametrize("slow", [hang(3.0), dribble(3.0)], ids=["silent", "dribbling"])
def test_a_slow_reply_is_given_up(slow):
    with serve(lambda number, prompt: slow) as stub:
        start = time.monotonic()
        with pytest.raises(Failure, match=r"no complete response within 0\.3 s"):
            post(f"{stub.url}/chat/completions", json.dumps({"messages": [{"content": "x"}]}).encode(), None, 0.3)
        assert time.monotonic() - start < 2.5


def test_a_slow_reply_is_asked_for_again():
    with serve(lambda number, prompt: "fine" if number else hang(3.0)) as stub:
        (reply,) = ask(stub, ["one"], timeout=1.0)
    assert (reply.text, len(stub.bodies)) == ("fine", 2)


def test_a_response_without_end_is_given_up(monkeypatch):
    monkeypatch.setattr(transport_module, "MOST_BYTES", 1000)
    with serve(lambda number, prompt: "x" * 5000) as stub:
        (reply,) = ask(stub, ["one"], retries=0)
    assert reply.fault == "found a response of more than 1000 bytes, 1 times over"


def test_nobody_there():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"http://127.0.0.1:{free.getsockname()[1]}/v1"
        replies = dict(Endpoint(address, "small", retries=1, backoff=0.001).ask(["one"]))
    assert "no response (URLError: " in replies[0].fault
    assert replies[0].fault.endswith("2 times over")


@pytest.mark.parametrize("code", [400, 413, 422])
def test_a_request_that_is_wrong_by_itself_is_not_sent_again(code):
    with serve(lambda number, prompt: status(code, "too long") if prompt == "bad" else "fine") as stub:
        replies = ask(stub, ["bad", "good"])
    assert [reply.text for reply in replies] == [None, "fine"]
    assert replies[0].fault == f"status {code}: too long, 1 times over"


@pytest.mark.parametrize("code", [401, 403, 404, 302])
def test_what_is_refused_for_good_ends_everything(code):
    with serve(lambda number, prompt: status(code, "no", Location="/v1/elsewhere")) as stub:
        replies = ask(stub, ["one", "two", "three"], concurrency=1)
    assert len(stub.bodies) == 1
    assert stub.paths == ["/v1/chat/completions"]  # no redirection was followed
    assert replies[0].fault == f"status {code}: no (the environment variable OPENAI_API_KEY is set)"
    assert [reply.fault for reply in replies[1:]] == [f"not asked: {replies[0].fault}"] * 2


def test_a_missing_key_is_named(monkeypatch):
    monkeypatch.delenv("OPENAI_API_KEY")
    with serve(lambda number, prompt: status(401)) as stub:
        (reply,) = ask(stub, ["one"])
    assert reply.fault == "status 401 (the environment variable OPENAI_API_KEY is not set)"


def test_after_many_failures_in_a_row_nothing_more_is_sent():
    with serve(lambda number, prompt: "fine" if number == 2 else status(500)) as stub:
        replies = ask(stub, [str(n) for n in range(9)], concurrency=1, retries=0, patience=3)
    assert len(stub.bodies) == 6  # two failures, a success, three failures
    assert [reply.fault is None for reply in replies] == [False, False, True] + [False] * 6
    assert replies[8].fault == "not asked: 3 requests in a row have failed, the last with: status 500"


@pytest.mark.parametrize("value", ["0.4", formatdate(time.time() + 3600, usegmt=True)], ids=["seconds", "date"])
def test_the_server_says_how_long_to_wait(value, monkeypatch):
    waits = []
    monkeypatch.setattr("lightning_edit.llm.endpoint.LONGEST_WAIT", 0.5)
    with serve(lambda number, prompt: "fine" if number else status(429, Retry_After=value)) as stub:
        start = time.monotonic()
        (reply,) = ask(stub, ["one"], backoff=0.0)
        waits.append(time.monotonic() - start)
    assert reply.text == "fine"
    assert waits[0] >= 0.4


@pytest.mark.parametrize("value", ["-3", "soon", "nan", formatdate(0)])
def test_a_time_to_wait_that_means_nothing_is_no_wait(value):
    with serve(lambda number, prompt: "fine" if number else status(503, Retry_After=value)) as stub:
        (reply,) = ask(stub, ["one"])
    assert reply.text == "fine"


def test_waits_grow():
    moments = []

    def script(number, prompt):
        moments.append(time.monotonic())
        return status(500)

    with serve(script) as stub:
        ask(stub, ["one"], backoff=0.2, retries=2)
    first, second = moments[1] - moments[0], moments[2] - moments[1]
    assert first >= 0.75 * 0.2
    assert second >= 0.75 * 0.4


def test_no_more_requests_at_once_than_allowed():
    meeting = Barrier(3)

    def script(number, prompt):
        try:
            meeting.wait(timeout=10.0)  # three are under way together, or the test fails
        except BrokenBarrierError:
            return status(400, "alone")
        return "fine"

    with serve(script) as stub:
        replies = ask(stub, [str(n) for n in range(9)], concurrency=3)
    assert [reply.text for reply in replies] == ["fine"] * 9
    assert stub.most_at_once == 3


def test_breaking_off_leaves_nothing_under_way():
    with serve(lambda number, prompt: "fine") as stub:
        replies = endpoint(stub, concurrency=1).ask([str(n) for n in range(50)])
        next(replies)
        replies.close()
        sent = len(stub.bodies)
        assert sent < 50
        time.sleep(0.2)
        assert len(stub.bodies) == sent


def test_the_key_shows_up_nowhere(caplog):
    def script(number, prompt):
        return status(401 if number else 500, f"wrong key {KEY}, Bearer {KEY}")

    with caplog.at_level(logging.DEBUG), serve(script) as stub:
        asked = endpoint(stub, concurrency=1)
        faults = [reply.fault for _, reply in asked.ask(["one", "two"])]
    shown = [repr(asked), asked.identity, asked.name, str(vars(asked)), caplog.text, *faults]
    assert "wrong key ***, Bearer ***" in faults[0]
    assert all(KEY not in text for text in shown)
    assert KEY.encode() not in pickle.dumps(asked)
    assert copy.deepcopy(asked).identity == asked.identity


@pytest.mark.parametrize("key", ["two words", "line\nbreak", "k\u00e9y", "bell\x07"])
def test_a_key_that_is_none_is_refused_unseen(key, monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with pytest.raises(EditError, match="OPENAI_API_KEY holds more than a key") as caught:
        list(Endpoint("http://127.0.0.1:9/v1", "small").ask(["one"]))
    assert key not in str(caught.value)


@pytest.mark.parametrize(
    "address", ["ftp://host/v1", "host/v1", "", "https://", "https://user:secret@host/v1", "https://host/v1?key=secret"]
)
def test_addresses_of_another_form_are_refused(address):
    with pytest.raises(EditError, match="base_url"):
        Endpoint(address, "small")


@pytest.mark.parametrize("address", ["https://user:hunter2@host/v1", "https://host/v1?key=hunter2", "https://hunter2@"])
def test_a_secret_in_the_address_is_not_repeated(address):
    with pytest.raises(EditError) as caught:
        Endpoint(address, "small")
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    "options", [{"timeout": 0}, {"retries": -1}, {"backoff": -1}, {"concurrency": 0}, {"patience": 0}]
)
def test_numbers_that_mean_nothing_are_refused(options):
    with pytest.raises(EditError, match="expected a positive timeout"):
        Endpoint("http://127.0.0.1:9/v1", "small", **options)


def test_whatever_decides_a_reply_is_part_of_the_identity():
    base = {"base_url": "http://127.0.0.1:9/v1", "model": "small"}
    changes = [{}, {"base_url": "http://127.0.0.1:8/v1"}, {"model": "large"}, {"system": "x"}, {"max_tokens": 1}]
    changes += [{"temperature": 0.5}, {"extra": {"seed": 1}}]
    assert len({Endpoint(**{**base, **change}).identity for change in changes}) == len(changes)
    same = [{"timeout": 1.0}, {"retries": 0}, {"concurrency": 1}, {"key_variable": "OTHER"}]
    assert len({Endpoint(**{**base, **change}).identity for change in ({}, *same)}) == 1


def test_nothing_to_ask():
    with serve(lambda number, prompt: "A") as stub:
        assert ask(stub, []) == []
    assert stub.bodies == []
