"""Batched decoding says what one-by-one decoding says, ends where it should, and leaves the model as it was."""

import copy
import hashlib
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from tokenizers.processors import TemplateProcessing
from transformers import AutoModelForCausalLM, AutoTokenizer

from lightning_edit.chat import Chat
from lightning_edit.decoding import EAGER, RHYTHM, decode, decode_tokens, sample
from lightning_edit.errors import EditError, RequestError
from lightning_edit.evaluation import AnswerOptions, Baseline, evaluate, measure_baseline, say, target_probabilities
from lightning_edit.evaluation.reading import is_settled
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.probes import Probe
from lightning_edit.requests import EditRequest
from tests.scripted import ScriptedLM

PROMPTS = [
    "The capital of the country is",
    "He",
    "The mother tongue of the writer, who was born in the north of the country, is",
    "She works for",
    "What is the language of the people there?",
    "The river is",
]


def decode_alone(lm: LanguageModel, prompt: str, steps: int) -> str:
    """The specification: no batch, no padding, no cache, the whole text anew for each token."""
    ids, written = lm.encode([prompt]).input_ids[0].tolist(), list[int]()
    for _ in range(steps):
        with torch.no_grad():
            token = int(lm.model(input_ids=torch.tensor([ids + written])).logits[0, -1].argmax())
        if token == lm.tokenizer.eos_token_id:
            break
        written.append(token)
        if "\n" in lm.tokenizer.decode(written).lstrip():
            break
    text = lm.tokenizer.decode(written, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return text.strip().partition("\n")[0].rstrip()


def test_every_family_decodes_in_batches_as_alone(family_model: Any, tokenizer: Any) -> None:
    lm = LanguageModel(family_model, tokenizer)
    alone = [decode_alone(lm, prompt, 10) for prompt in PROMPTS]
    assert len(set(alone)) > 3
    assert decode(lm, PROMPTS, max_new_tokens=10, batch_size=4) == alone
    assert decode(lm, PROMPTS[::-1], max_new_tokens=10, batch_size=64) == alone[::-1]
    assert decode(lm, PROMPTS, max_new_tokens=10, batch_size=1) == alone


@pytest.mark.parametrize("family", ["mistral", "gemma2", "gemma3_text"])
def test_sliding_windows_survive_padding_and_leaving_rows(family: str, tiny_model: Any, tokenizer: Any) -> None:
    lm = LanguageModel(tiny_model(family, sliding_window=8), tokenizer)
    long = [" ".join(PROMPTS), *PROMPTS]
    assert decode(lm, long, max_new_tokens=12) == [decode_alone(lm, prompt, 12) for prompt in long]


def test_rows_end_at_eos_line_or_limit(tokenizer: Any) -> None:
    script = {"a": " one", "bb bb": " two\nthree", "c": "\n\n four", "d d d": " " + "x" * 40}
    lm = ScriptedLM(tokenizer, script)
    assert decode(lm, list(script), max_new_tokens=20) == ["one", "two", "four", "x" * 19]


def test_a_chat_models_own_end_tokens_count(tokenizer: Any) -> None:
    lm = ScriptedLM(tokenizer, {"a": " one#two"})
    assert decode(lm, ["a"]) == ["one#two"]
    lm.model.generation_config = SimpleNamespace(eos_token_id=[0, tokenizer.convert_tokens_to_ids("#")])
    assert decode(lm, ["a"]) == ["one"]


def test_work_ends_when_all_rows_are_done_and_done_rows_leave(tokenizer: Any) -> None:
    script = {"a": "xx", "b": "xxxx", "c": "x" * 9}
    lm = ScriptedLM(tokenizer, script)
    assert decode(lm, ["a", "b", "c", "a"], max_new_tokens=50) == ["xx", "xxxx", "x" * 9, "xx"]
    assert lm.model.calls == 10  # the longest row and its end token
    assert lm.model.rows == 3 + 5 + 10  # each row is fed until its own end token, equal prompts once
    assert sorted(lm.model.fed) == ["a", "b", "c"]


def test_batches_are_made_of_like_lengths(tokenizer: Any) -> None:
    prompts = ["x" * length for length in (1, 30, 2, 31, 3, 32)]
    lm = ScriptedLM(tokenizer, dict.fromkeys(prompts, "y"))
    decode(lm, prompts, batch_size=3)
    assert sorted(map(len, lm.model.fed[:3])) == [30, 31, 32]


def test_stop_sees_prompt_and_text(tokenizer: Any) -> None:
    script = {"a": " Dr. X lives. He", "b": " St. Petersburg. It is", "c": " 3.5 km. No"}
    lm = ScriptedLM(tokenizer, script)
    texts = decode(lm, list(script), 40, stop=is_settled)
    assert texts == ["Dr. X lives. He", "St. Petersburg. I", "3.5 km. N"]
    assert decode(lm, ["a"], 40, stop=lambda prompt, text: prompt == "a" and "D" in text) == ["D"]


def test_context_is_never_left(tokenizer: Any, tiny_model: Any) -> None:
    lm = ScriptedLM(tokenizer, {"x" * 6: "y" * 30, "z": "y" * 30}, context=10)
    assert decode(lm, ["x" * 6, "z"]) == ["y" * 4, "y" * 9]
    with pytest.raises(RequestError, match=r"found 11 tokens.*expected at most 10"):
        decode(lm, ["x" * 11, "z"])
    learned = LanguageModel(tiny_model("gpt2", n_positions=12), tokenizer)  # has no embedding for a 13th position
    text = decode(learned, ["x" * 9], 50)
    assert text == [decode_alone(learned, "x" * 9, 3)]


def test_nothing_is_disturbed(tiny_model: Any, tokenizer: Any) -> None:
    lm = LanguageModel(tiny_model("llama"), tokenizer)
    lm.model.train()
    lm.model.model.layers[0].eval()
    tokenizer.padding_side = "right"
    tokenizer.backend_tokenizer.enable_padding(length=7)
    modes = [module.training for module in lm.model.modules()]
    weights = copy.deepcopy(lm.model.state_dict())
    settings = tokenizer.backend_tokenizer.to_str()
    random, cached = torch.get_rng_state(), lm.model.config.use_cache
    decode(lm, PROMPTS, 4)
    assert [module.training for module in lm.model.modules()] == modes
    assert all(torch.equal(value, weights[name]) for name, value in lm.model.state_dict().items())
    assert all(parameter.grad is None and parameter.requires_grad for parameter in lm.model.parameters())
    assert (tokenizer.backend_tokenizer.to_str(), tokenizer.padding_side) == (settings, "right")
    assert torch.equal(torch.get_rng_state(), random)
    assert lm.model.config.use_cache == cached


def test_no_prompts(tiny_lm: LanguageModel) -> None:
    assert decode(tiny_lm, []) == []


@pytest.mark.parametrize("name", ["stories260K", "tiny1m"])
def test_real_models_with_their_own_tokenizers(name: str, shared_data: Any) -> None:
    folder = shared_data / "lm" / name
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    lm = LanguageModel(model, AutoTokenizer.from_pretrained(folder))
    prompts = ["Once upon a time", "Lily and her mom went to the park. They saw", "The dog was", "Tom said"]
    assert decode(lm, prompts, max_new_tokens=16) == [decode_alone(lm, prompt, 16) for prompt in prompts]
    scores = target_probabilities(lm, ["Once upon a", "Lily went to the"], ["time", "xylophone of doubt"])
    assert scores.mean[0] > scores.mean[1]
    assert scores.top.tolist() == [True, False]


# -- tokens --------------------------------------------------------------------------------------------------------


def test_tokens_go_on_past_lines_and_sentences(tokenizer: Any) -> None:
    script = {"a": " one.\ntwo", "b": ""}
    lm = ScriptedLM(tokenizer, script)
    tokens = decode_tokens(lm, ["a", "b", "a"], length=50)
    assert [tokenizer.decode(ids) for ids in tokens] == [" one.\ntwo", "", " one.\ntwo"]
    assert all(tokenizer.eos_token_id not in ids for ids in tokens)
    assert [len(ids) for ids in decode_tokens(lm, ["a", "b"], length=3)] == [3, 0]


def test_tokens_do_not_depend_on_the_batch(tiny_lm: LanguageModel) -> None:
    alone = [ids for prompt in PROMPTS for ids in decode_tokens(tiny_lm, [prompt], 12)]
    assert decode_tokens(tiny_lm, PROMPTS, 12, batch_size=4) == alone
    assert decode_tokens(tiny_lm, PROMPTS[::-1], 12) == alone[::-1]


def test_long_texts_are_read_now_and_then(tokenizer: Any) -> None:
    lm = ScriptedLM(tokenizer, {"a": " " + "x" * 400}, context=500)
    read: list[int] = []
    decode(lm, ["a"], EAGER + 40, stop=lambda _, text: read.append(len(text)) or False)
    assert read == [*range(1, EAGER + 1), *(n for n in range(EAGER + 1, EAGER + 41) if n % RHYTHM == 0)]
    cut = decode(lm, ["a"], 400, stop=lambda _, text: len(text) > EAGER)
    assert cut == ["x" * (EAGER + RHYTHM - 1)]


# -- sampling ------------------------------------------------------------------------------------------------------


def sample_alone(lm: LanguageModel, prompt: str, length: int, top_k: int, draws: torch.Generator) -> str:
    """The specification: the whole text anew for each token, one draw from the renormalised k likeliest."""
    ids = lm.encode([prompt]).input_ids[0].tolist()
    while len(ids) < length:
        with torch.no_grad():
            logits = lm.model(input_ids=torch.tensor([ids])).logits[0, -1].double()
        likely, tokens = logits.softmax(-1).topk(top_k)
        token = int(tokens[torch.multinomial(likely / likely.sum(), 1, generator=draws)])
        if token == lm.tokenizer.eos_token_id:
            break
        ids.append(token)
    return lm.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)


def test_samples_are_those_of_the_specification(tiny_lm: LanguageModel) -> None:
    prompts = [*PROMPTS[:4], PROMPTS[0]]
    state = torch.get_rng_state()
    texts = sample(tiny_lm, prompts, length=24, top_k=3, seed=4, batch_size=2)
    draws = [hashlib.blake2b(f"4 {index}".encode(), digest_size=4).digest() for index in range(len(prompts))]
    seeds = [int.from_bytes(digest) for digest in draws]
    alone = [
        sample_alone(tiny_lm, prompt, 24, 3, torch.Generator().manual_seed(seed))
        for prompt, seed in zip(prompts, seeds, strict=True)
    ]
    assert texts == alone
    assert texts[0] != texts[4]  # the same prompt, drawn twice
    assert all(text.startswith(prompt) for text, prompt in zip(texts, prompts, strict=True))
    assert torch.equal(torch.get_rng_state(), state)
    assert sample(tiny_lm, prompts, length=24, top_k=3, seed=5) != texts


def test_samples_end_where_the_whole_text_is_long_enough(tiny_lm: LanguageModel) -> None:
    length = len(tiny_lm.tokenizer(PROMPTS[2])["input_ids"])
    assert sample(tiny_lm, [PROMPTS[2]], length=length) == sample(tiny_lm, [PROMPTS[2]], length=2) == [PROMPTS[2]]
    greedy = tiny_lm.tokenizer.decode(decode_tokens(tiny_lm, [PROMPTS[2]], 5)[0])
    assert sample(tiny_lm, [PROMPTS[2]], length=length + 5, top_k=1) == [PROMPTS[2] + greedy]
    with pytest.raises(EditError, match="top_k=0"):
        sample(tiny_lm, PROMPTS, top_k=0)


# -- chat and reasoning --------------------------------------------------------------------------------------------

TEMPLATE = (
    "<|endoftext|>{% for turn in messages %}[{{ turn['role'] }}]{{ turn['content'] }}\n{% endfor %}"
    "{% if add_generation_prompt %}[model]{% if enable_thinking %}<think>{% endif %}{% endif %}"
)


@pytest.fixture
def chat_tokenizer(tokenizer: Any) -> Any:
    """A tokenizer with a chat template that, like many, puts a token in front that the template brings as well."""
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing(
        single="<|endoftext|> $A", special_tokens=[("<|endoftext|>", tokenizer.eos_token_id)]
    )
    tokenizer.chat_template = TEMPLATE
    return tokenizer


def test_a_chat_is_rendered_once_and_starts_once(chat_tokenizer: Any) -> None:
    asked = "<|endoftext|>[user]Where does Ann live?\n[model]"
    lm = ScriptedLM(chat_tokenizer, {asked: "St. Petersburg. It is cold"}, special=False)
    assert decode(lm, ["Where does Ann live?"], 40, chat=Chat()) == ["St. Petersburg. It is cold"]
    assert lm.model.fed == [asked]
    brief = asked.replace("[user]", "[system]Be brief.\n[user]")
    lm.model.learn({brief: "Oslo"})
    assert decode(lm, ["Where does Ann live?"], 40, chat=Chat("Be brief.")) == ["Oslo"]
    bare = ScriptedLM(chat_tokenizer, {"Ann lives in": " Oslo"})
    assert decode(bare, ["Ann lives in"], 40) == ["Oslo"]  # without a chat the tokenizer adds its own start


def test_a_chat_needs_a_template(tokenizer: Any) -> None:
    with pytest.raises(EditError, match="has no chat template"):
        decode(ScriptedLM(tokenizer, {}), ["a"], chat=Chat())


QUESTION = "Where does Ann live?"
THINKING = f"<|endoftext|>[user]{QUESTION}\n[model]<think>"


@pytest.mark.parametrize(
    ("written", "answer"),
    [
        ("She was in Oslo. Or Rome?</think>\n\nSt. Petersburg. It is cold", "St. Petersburg"),
        ("</think>Rome", "Rome"),
        ("She was in Oslo. Then she", ""),  # cut while thinking: nothing was said
        ("Oslo</think>Rome. </think> Paris.", "Rome"),
    ],
)
def test_a_reasoning_models_answer_follows_its_thoughts(chat_tokenizer: Any, written: str, answer: str) -> None:
    lm = ScriptedLM(chat_tokenizer, {THINKING: written}, special=False)
    options = AnswerOptions.for_reasoning(80)
    assert say(lm, [QUESTION], options) == {QUESTION: answer}
    request = EditRequest(id="Ann", prompt=QUESTION, target=answer or "Oslo")
    scores = evaluate(lm, [request], options=options)
    assert scores == {"reliability": float(bool(answer))}
    assert (scores.protocol.reasoning, scores.protocol.chat, scores.protocol.max_new_tokens) == (True, True, 80)
    assert evaluate(lm, [request], options=AnswerOptions.for_reasoning(2)) == {"reliability": 0.0}


def test_thoughts_do_not_settle_an_answer(chat_tokenizer: Any) -> None:
    text = "No. She moved.\nSo it is. </think> Rome. It is warm. And so on"
    settled = [is_settled("q", text[:end], reasoning=True) for end in range(len(text) + 1)]
    assert settled.index(True) == text.index("It is warm") + 1
    lm = ScriptedLM(chat_tokenizer, {THINKING: text}, special=False)
    say(lm, [QUESTION], AnswerOptions.for_reasoning())
    written = len(chat_tokenizer(text[: settled.index(True)], add_special_tokens=False)["input_ids"])
    assert lm.model.calls == written  # nothing is written behind the answer


def test_thoughts_without_an_end_before_and_after_are_told_of(chat_tokenizer: Any) -> None:
    lm = ScriptedLM(chat_tokenizer, {THINKING: "She was in Oslo. Then she"}, special=False)
    request = EditRequest(id="Ann", prompt="Q", target="x", locality={"near": [Probe(QUESTION, ("Rome",))]})
    options = AnswerOptions.for_reasoning(80)
    with pytest.warns(UserWarning, match=r"1 of 1 answers of the unedited model are empty.*max_new_tokens \(80\)"):
        baseline = measure_baseline(lm, [request], options)
    assert baseline.silent == [QUESTION]
    lm.model.learn({THINKING: "Oslo, of course. Or"})
    assert evaluate(lm, [request], baseline)["locality"] == 1.0  # as docs/metrics.md says
    lm.model.learn({THINKING: "Oslo.</think> Oslo."})
    assert evaluate(lm, [request], baseline)["locality"] == 0.0
    assert measure_baseline(lm, [request], options).silent == []  # and nothing is said of it


def test_instruct_models_are_asked_by_chat_for_each_metric(chat_tokenizer: Any) -> None:
    plain = THINKING.removesuffix("<think>")
    lm = ScriptedLM(chat_tokenizer, {plain: "Rome. It is warm", QUESTION: " Oslo"}, special=False)
    request = EditRequest(id="Ann", prompt=QUESTION, target="Rome")
    options = AnswerOptions.for_instruct()
    assert evaluate(lm, [request], options=options) == {"reliability": 1.0}
    assert evaluate(lm, [request], decode="teacher_forced", options=options) == {"reliability": 1.0}
    baseline = measure_baseline(lm, [], options)
    copied = Baseline()
    copied.load_state_dict(baseline.state_dict())
    assert copied.options == options
    assert evaluate(lm, [request], copied) == {"reliability": 1.0}  # asked as the baseline was


def test_a_line_or_all_of_it_can_be_the_answer(tokenizer: Any) -> None:
    lm = ScriptedLM(tokenizer, {"a": " Rome. It is warm.\nAnd so on."})
    told = {until: say(lm, ["a"], AnswerOptions(60, until=until))["a"] for until in ("sentence", "line", "end")}
    assert told == {"sentence": "Rome", "line": "Rome. It is warm.", "end": "Rome. It is warm.\nAnd so on."}


def test_a_dropped_end_of_thinking_is_named(chat_tokenizer: Any) -> None:
    chat_tokenizer.add_special_tokens({"additional_special_tokens": ["</think>"]})
    lm = ScriptedLM(chat_tokenizer, {}, special=False)
    with pytest.raises(EditError, match="special=False"):
        say(lm, [QUESTION], AnswerOptions.for_reasoning())
