"""The live model as lm-eval sees it: against lm-eval's own wrapper, and where that one would cut in silence."""

from types import SimpleNamespace
from typing import Any

import pytest
import torch

pytest.importorskip("lm_eval", reason="lm-eval is not installed: pip install lightning-edit[eval]")

from lightning_edit.chat import Chat
from lightning_edit.decoding import decode
from lightning_edit.errors import EditError, RequestError
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.reasoning.harness_model import HarnessModel
from tests.scripted import ScriptedLM

TEMPLATE = "{% for m in messages %}<{{ m['role'] }}>{{ m['content'] }}{% endfor %}<assistant>"
PAIRS = [
    ("The capital of the country is", " a large city"),
    ("She works for", " the company"),
    ("He was born in the city, and", " the city"),
    ("What is the language?\nAnswer:", "\nEnglish"),
    ("", "The mother tongue"),
]


def asked(*arguments: Any) -> Any:
    return SimpleNamespace(args=arguments)


def greedy(prompt: str, until: list[str], length: int = 12, **more: Any) -> Any:
    return asked(prompt, {"until": until, "max_gen_toks": length, **more})


@pytest.fixture
def wrapped(tiny_model: Any, tokenizer: Any) -> tuple[HarnessModel, Any]:
    """Our wrapper and lm-eval's own, around one model."""
    huggingface = pytest.importorskip("lm_eval.models.huggingface", reason="lm-eval's own wrapper needs accelerate")
    model = tiny_model("llama", dtype=torch.float64)
    theirs = huggingface.HFLM(pretrained=model, tokenizer=tokenizer, batch_size=1, max_length=128)
    return HarnessModel(LanguageModel(model, tokenizer), batch_size=3), theirs


def test_likelihoods_are_those_of_lm_evals_own_wrapper(wrapped: tuple[HarnessModel, Any]) -> None:
    ours, theirs = wrapped
    found = ours.loglikelihood([asked(*pair) for pair in PAIRS])
    expected = theirs.loglikelihood([asked(*pair) for pair in PAIRS], disable_tqdm=True)
    assert [log for log, _ in found] == pytest.approx([log for log, _ in expected], abs=1e-6)
    assert [top for _, top in found] == [bool(top) for _, top in expected]


def test_rolling_likelihoods_are_those_of_lm_evals_own_wrapper(wrapped: tuple[HarnessModel, Any]) -> None:
    ours, theirs = wrapped
    texts = [asked("The language is known to all. " * 30), asked("She works.")]
    expected = theirs.loglikelihood_rolling(texts, disable_tqdm=True)
    assert ours.loglikelihood_rolling(texts) == pytest.approx(expected, abs=1e-6)


def test_what_is_written_is_that_of_the_packages_decoder(tiny_lm: LanguageModel) -> None:
    prompts = [f"The language of {name} is" for name in ("the people", "the writer", "the city")]
    found = HarnessModel(tiny_lm, batch_size=2).generate_until([greedy(prompt, []) for prompt in prompts])
    assert found == decode(tiny_lm, prompts, 12, stop=lambda prompt, text: False)


def test_answers_end_at_the_first_stop_string_and_stay_in_order(tokenizer: Any) -> None:
    script = {"One:": " 1\n2 Question: three", "Two, which is longer:": " 4 END 5", "Six:": " 7"}
    lm = ScriptedLM(tokenizer, script)
    requests = [greedy(prompt, ["Question:", "END"], 60) for prompt in script]
    assert HarnessModel(lm).generate_until(requests) == ["1\n2", "4", "7"]


def test_tasks_of_different_settings_go_together(tokenizer: Any) -> None:
    lm = ScriptedLM(tokenizer, {"One:": " 1 2 3", "Two:": " 4 5 6"})
    requests = [greedy("One:", ["2"], 60), greedy("Two:", "6", 60), greedy("One:", [], 60)]
    assert HarnessModel(lm).generate_until(requests) == ["1", "4 5", "1 2 3"]


def test_the_longest_answer_can_be_lowered_and_not_raised(tokenizer: Any) -> None:
    lm = ScriptedLM(tokenizer, {"One:": "1" * 30})
    written = [
        HarnessModel(lm, max_new_tokens=most).generate_until([greedy("One:", [], 10)])[0] for most in (4, None, 99)
    ]
    assert [len(text) for text in written] == [4, 10, 10]


def test_a_prompt_that_leaves_no_room_is_an_error_and_not_cut(tokenizer: Any) -> None:
    lm = ScriptedLM(tokenizer, {}, context=64)
    long = "The capital of the country is a large city. " * 9
    with pytest.raises(RequestError, match=r"and 1 of 2 prompts.*expected at most 32: .*context is 64"):
        HarnessModel(lm).generate_until([greedy("One:", [], 40), greedy(long, [], 40)])
    with pytest.raises(RequestError, match="the model's context"):
        HarnessModel(lm).loglikelihood([asked(long, " yes")])
    assert lm.model.calls == 0


def test_an_answer_with_less_room_than_allowed_is_told_of(tokenizer: Any) -> None:
    lm = ScriptedLM(tokenizer, {"One:": " 1"}, context=64)
    with pytest.warns(UserWarning, match="1 of 1 prompts leave room for fewer than 100 new tokens"):
        assert HarnessModel(lm).generate_until([greedy("One:", [], 100)]) == ["1"]


@pytest.mark.parametrize("settings", [{"do_sample": True}, {"temperature": 0.6}])
def test_sampling_is_refused(tokenizer: Any, settings: dict[str, Any]) -> None:
    with pytest.raises(EditError, match="do_sample: false"):
        HarnessModel(ScriptedLM(tokenizer, {})).generate_until([greedy("One:", [], 4, **settings)])


def test_in_a_chat_the_prompt_is_the_users_turn(tokenizer: Any) -> None:
    tokenizer.chat_template = TEMPLATE
    lm = ScriptedLM(tokenizer, {"<system>Be brief.<user>One:<assistant>": "1"}, special=False)
    model = HarnessModel(lm, chat=Chat("Be brief."))
    assert model.generate_until([greedy("One:", [])]) == ["1"]
    scored = model.loglikelihood([asked("One:", " 1"), asked("One:", " 2")])
    assert [top for _, top in scored] == [True, False]


def test_thoughts_are_no_answer(tokenizer: Any) -> None:
    tokenizer.chat_template = TEMPLATE
    script = {
        "<user>One:<assistant>": "Question: which?</think> 1 Question: two",
        "<user>Two:<assistant>": "still at it",
    }
    lm = ScriptedLM(tokenizer, script, special=False)
    model = HarnessModel(lm, max_new_tokens=35, chat=Chat(thinking=True), reasoning=True)
    requests = [greedy(prompt, ["Question:"], 70) for prompt in ("One:", "Two:")]
    assert model.generate_until(requests) == ["1", ""]


def test_thoughts_have_a_budget_beside_that_of_a_short_answer(tokenizer: Any) -> None:
    written = "Is it?\nShe liked it very much.</think>\n\npositive, " + "x" * 60 + "\nReview"
    thoughts = len(tokenizer(written.partition("</think>")[0] + "</think>")["input_ids"])
    lm = ScriptedLM(tokenizer, {"Sentiment:": written})
    asked = [greedy("Sentiment:", ["\n"], 10)]
    (said,) = HarnessModel(lm, max_new_tokens=thoughts, reasoning=True).generate_until(asked)
    assert thoughts > 10
    assert said.startswith("positive")
    assert HarnessModel(lm, max_new_tokens=thoughts // 2 - 2, reasoning=True).generate_until(asked) == [""]
    assert HarnessModel(lm, max_new_tokens=10).generate_until(asked) == ["Is it?"]
    before = lm.model.calls
    with pytest.warns(UserWarning, match="leave room for fewer than 8202 new tokens"):
        assert HarnessModel(lm, reasoning=True).generate_until(asked)[0].startswith("positive, xxx")
    assert lm.model.calls > before + thoughts + 10


def test_an_end_of_thinking_that_decoding_drops_is_named_and_not_an_empty_answer(tokenizer: Any) -> None:
    tokenizer.add_special_tokens({"additional_special_tokens": ["</think>"]})
    lm = ScriptedLM(tokenizer, {"One:": "Two?</think> 1"})
    with pytest.raises(EditError, match=r"</think> is a special token.*special=False"):
        HarnessModel(lm, max_new_tokens=30, reasoning=True)
    assert HarnessModel(lm, max_new_tokens=30).generate_until([greedy("One:", [], 20)]) == ["Two? 1"]


def test_a_memory_before_the_model_is_at_work(tokenizer: Any) -> None:
    lm = ScriptedLM(tokenizer, {"Ann lives in Rome. Where is Ann?": " Rome", "Where is Ann?": " Oslo"})

    class Memory:
        def rewrite(self, lm: Any, prompts: Any, chat: Any) -> list[str]:
            return [f"Ann lives in Rome. {prompt}" for prompt in prompts]

    model = HarnessModel(lm)
    assert model.generate_until([greedy("Where is Ann?", [])]) == ["Oslo"]
    with lm.with_memory(Memory()):
        assert model.generate_until([greedy("Where is Ann?", [])]) == ["Rome"]
        assert [top for _, top in model.loglikelihood([asked("Where is Ann?", " Rome")])] == [True]
