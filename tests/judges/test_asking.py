"""Asking until a reply has the right form, and the cache of replies."""

import pickle
import sqlite3
import threading

import pytest

from lightning_edit.errors import EditError, StateError
from lightning_edit.llm import Malformed, Reply, ReplyCache, ask_strictly, without_thoughts
from tests.judges.scribe import Scribe


def number(text):
    if not text.isdigit():
        raise Malformed("expected a number")
    return int(text)


def ask(scribe, prompts, **options):
    return ask_strictly(scribe, prompts, number, "counting", "Digits only.", **options)


@pytest.fixture
def cache(tmp_path):
    return ReplyCache(tmp_path / "deep" / "replies.sqlite")


@pytest.mark.parametrize("backwards", [False, True])
def test_results_stand_in_the_order_of_the_prompts(backwards):
    scribe = Scribe(lambda prompt: str(len(prompt)), backwards)
    assert [asked.value for asked in ask(scribe, ["a", "ccc", "bb"])] == [1, 3, 2]


def test_equal_prompts_are_asked_once():
    scribe = Scribe(lambda prompt: "7")
    assert [asked.value for asked in ask(scribe, ["a", "b", "a", "a"])] == [7] * 4
    assert scribe.asked == ["a", "b"]


def test_a_malformed_reply_is_asked_for_again_with_a_reminder():
    scribe = Scribe(lambda prompt: "5" if prompt.endswith("Digits only.") or prompt == "good" else "five")
    first, second = ask(scribe, ["bad", "good"])
    assert (first.value, second.value, first.fault) == (5, 5, None)
    assert scribe.asked == ["bad", "good", "bad\n\nDigits only."]


def test_a_reply_that_stays_malformed_is_a_fault():
    (asked,) = ask(Scribe(lambda prompt: "many " * 100), ["a"], attempts=3)
    assert asked.value is None
    assert asked.fault.startswith("malformed reply, 3 times over: expected a number; found 'many many")
    assert len(asked.fault) < 250


def test_no_reply_is_a_fault_and_not_asked_for_again_here():
    scribe = Scribe(lambda prompt: Reply(None, "status 500") if prompt == "a" else "2")
    first, second = ask(scribe, ["a", "b"])
    assert (first.value, first.fault, second.value) == (None, "status 500", 2)
    assert scribe.asked == ["a", "b"]


def test_a_prompt_that_an_assistant_forgets_is_a_fault():
    class Forgetful(Scribe):
        def ask(self, prompts):
            yield from list(super().ask(prompts))[:1]

    first, second = ask(Forgetful(lambda prompt: "1"), ["a", "b"])
    assert (first.value, second.fault) == (1, "scribe gave no reply to this prompt")


def test_at_least_one_attempt():
    with pytest.raises(EditError, match="found attempts=0"):
        ask(Scribe(lambda prompt: "1"), ["a"], attempts=0)


def test_replies_are_found_again(cache):
    ask(Scribe(lambda prompt: "4"), ["a", "b"], cache=cache)
    silent = Scribe(lambda prompt: AssertionError("nobody should ask"))
    again = ask(silent, ["b", "a"], cache=ReplyCache(cache.path))
    assert [(asked.value, asked.cached) for asked in again] == [(4, True), (4, True)]
    assert len(cache) == 2


def test_the_key_is_purpose_model_and_prompt(cache):
    cache.put("counting", "scribe-1", "a", "4")
    assert cache.find("counting", "scribe-1", ["a", "a ", "A"]) == {"a": "4"}
    assert cache.find("judge", "scribe-1", ["a"]) == {}
    assert cache.find("counting", "scribe-2", ["a"]) == {}
    cache.put("counting", "scribe-1", "a", "5")
    assert (len(cache), cache.find("counting", "scribe-1", ["a"])) == (1, {"a": "5"})


def test_what_was_not_understood_is_not_cached(cache):
    replies = {"a": "three", "b": "3", "c": Reply(None, "down")}
    ask(Scribe(lambda prompt: replies.get(prompt, "three")), ["a", "b", "c"], cache=cache)
    assert cache.find("counting", "scribe-1", ["a", "b", "c"]) == {"b": "3"}


def test_a_reply_that_came_after_a_reminder_is_kept_under_its_own_prompt(cache):
    ask(Scribe(lambda prompt: "3" if "Digits" in prompt else "three"), ["a"], cache=cache)
    assert cache.find("counting", "scribe-1", ["a"]) == {"a": "3"}


def test_a_cached_reply_that_is_no_longer_taken_is_asked_for_anew(cache):
    cache.put("counting", "scribe-1", "a", "four")
    scribe = Scribe(lambda prompt: "4")
    assert [asked.value for asked in ask(scribe, ["a"], cache=cache)] == [4]
    assert cache.find("counting", "scribe-1", ["a"]) == {"a": "4"}


def test_replies_are_kept_as_they_come_and_the_assistant_is_closed(cache):
    scribe = Scribe(lambda prompt: KeyError("crash") if prompt == "c" else "1")
    with pytest.raises(KeyError):
        ask(scribe, ["a", "b", "c", "d"], cache=cache)
    assert cache.find("counting", "scribe-1", ["a", "b", "c", "d"]) == {"a": "1", "b": "1"}
    assert scribe.closed == 1


def test_a_failing_cache_closes_the_assistant(cache):
    scribe = Scribe(lambda prompt: "1")
    cache.put = lambda *_: (_ for _ in ()).throw(StateError("disk full"))
    with pytest.raises(StateError, match="disk full"):
        ask(scribe, ["a", "b"], cache=cache)
    assert (scribe.asked, scribe.closed) == (["a"], 1)


def test_texts_of_any_kind_are_kept(cache):
    odd = "quote \" ' ; DROP TABLE replies; \u6771\u4eac \n\t {} \U0001f600"
    cache.put("p", "m", odd, odd)
    assert cache.find("p", "m", [odd]) == {odd: odd}


def test_a_cache_travels_and_serves_many_threads(cache):
    copies = [pickle.loads(pickle.dumps(cache)) for _ in range(8)]
    workers = [threading.Thread(target=copy.put, args=("p", "m", str(n), "r")) for n, copy in enumerate(copies)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    assert len(cache) == 8


def test_another_file_is_no_cache(tmp_path):
    text = tmp_path / "notes.txt"
    text.write_text("not a database, but long enough to have a header" * 10)
    with pytest.raises(StateError, match=r"notes\.txt: .* expected a cache of replies"):
        ReplyCache(text)
    with sqlite3.connect(tmp_path / "other.db") as other:
        other.execute("CREATE TABLE mine (x)")
    other.close()
    with pytest.raises(StateError, match=r"found a database that is no cache of replies of version 1"):
        ReplyCache(tmp_path / "other.db")


@pytest.mark.parametrize(
    ("text", "said"),
    [(" A\n", "A"), ("<think>B</think>A", "A"), ("<think>x</think>y</think> z", "z"), ("<think>B", "<think>B")],
)
def test_without_thoughts(text, said):
    assert without_thoughts(text) == said
