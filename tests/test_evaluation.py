"""What counts as right, what is asked, and what the shares are, on a model that says what its script tells it."""

import dataclasses
import random
from typing import Any

import pytest
import torch

from lightning_edit.errors import EditError, RequestError, StateError
from lightning_edit.evaluation import (
    AnswerOptions,
    Baseline,
    Evaluator,
    ask,
    evaluate,
    first_sentence,
    is_right,
    measure_baseline,
    read_answer,
    target_probabilities,
)
from lightning_edit.evaluation.questions import make_questions
from lightning_edit.evaluation.reading import is_settled
from lightning_edit.judge import exact_match
from lightning_edit.metrics import Locality
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.probes import Probe
from lightning_edit.requests import EditRequest
from tests.scripted import ScriptedLM

EXAMPLES = [
    ("Paris. It is a city.", "Paris"),
    (" St. Petersburg. It lies on the Neva.", "St. Petersburg"),
    ("3.5 km. That is far.", "3.5 km"),
    ("Dr. X. He was born", "Dr. X"),
    ("J. R. R. Tolkien. He wrote", "J. R. R. Tolkien"),
    ("George W. Bush", "George W. Bush"),
    ("J.K. Rowling. She wrote", "J.K. Rowling"),
    ("Washington, D.C. It lies on", "Washington, D.C"),
    ("No. 10 Downing Street. The house", "No. 10 Downing Street"),
    ("No. He is not.", "No"),
    ("Acme Inc. of Ohio. It makes", "Acme Inc. of Ohio"),
    ("Acme Inc. The company", "Acme Inc"),
    ("Plan B. He had no other", "Plan B"),
    ("P. D. James. She wrote", "P. D. James"),
    ("Jan. 5, 1990. He", "Jan. 5, 1990"),
    ("5 Sept. 1990. He", "5 Sept. 1990"),
    ("5 Dec. He died", "5 Dec"),
    ("May. He died", "May"),
    ("cities, e.g. The Hague. It", "cities, e.g. The Hague"),
    ("the capital, i.e. Rome. It", "the capital, i.e. Rome"),
    ("5 p.m. on Monday. He", "5 p.m. on Monday"),
    ("5 p.m. He left", "5 p.m"),
    ("A.M. Turing. He", "A.M. Turing"),
    ("1990. In that year", "1990"),
    ('"Paris." He said', '"Paris'),
    ("Paris! Rome? Lyon", "Paris"),
    ("Paris… and then", "Paris"),
    ("東京。それは", "東京"),
    ("\n\n Paris\nRome. Lyon", "Paris"),
    ("www.example.com. It", "www.example.com"),
    ("Paris", "Paris"),
    ("", ""),
]


@pytest.mark.parametrize(("text", "answer"), EXAMPLES)
def test_first_sentence(text: str, answer: str) -> None:
    assert first_sentence(text) == answer


@pytest.mark.parametrize(("text", "_"), EXAMPLES)
@pytest.mark.parametrize("more", ["", " The next. And", "\nThe next. And", " Texas, and. So on"])
@pytest.mark.parametrize("prompt", ["Where?", "Where? Thoughts:"])
def test_what_is_settled_never_changes(text: str, _: str, more: str, prompt: str) -> None:
    full = f"She. moves. Answer:{text}{more}" if prompt.endswith("Thoughts:") else text + more
    settled = [length for length in range(len(full) + 1) if is_settled(prompt, full[:length])]
    assert all(read_answer(prompt, full[:length]) == read_answer(prompt, full) for length in settled)
    assert is_settled(prompt, full + "\n") == bool((text + more).strip())


def test_ordinary_sentences_are_settled_by_the_next_letter() -> None:
    assert [is_settled("Where?", text) for text in ("Paris", "Paris.", "Paris. ", "Paris. I")] == [False] * 3 + [True]
    assert is_settled("Where?", "Paris. It is.")  # what comes after the answer's end does not matter
    assert [is_settled("Where?", text) for text in ("D.C. I", "D.C. It", "D.C. It ")] == [False, False, True]
    assert not is_settled("Where? Thoughts:", "She moved. To Paris. Then")
    assert is_settled("Where? Thoughts:", "She moved. Answer: Paris. Then")


@pytest.mark.parametrize(
    ("answer", "accepted"),
    [
        ("paris", "Paris"),
        ("The United States.", "United States"),
        ("  New   York ", "New York"),
        ("“Paris”", "Paris"),
        ("\uff30aris", "Paris"),  # full width
        ("USA", ("United States", "USA")),
        ("Jean\u2013Luc", "Jean-Luc"),
        ("C#", "C#"),
        ("?", "?"),
    ],
)
def test_exact_match_forgives_spelling(answer: str, accepted: Any) -> None:
    assert exact_match(answer, accepted)


@pytest.mark.parametrize(
    ("answer", "accepted"),
    [
        ("Paris, Texas", "Paris"),
        ("New", "New York"),
        ("Vitamin", "Vitamin A"),
        ("5", ".5"),
        ("5", "-5"),
        ("", "Paris"),
        ("Paris Paris", "Paris"),
        ("C", "C++"),
        ("C", "C#"),
        ("Zurich", "Zürich"),
        ("Paris", ()),
    ],
)
def test_exact_match_refuses_other_answers(answer: str, accepted: Any) -> None:
    assert not exact_match(answer, accepted)


def test_accepted_answers_of_several_sentences() -> None:
    assert is_right("q", "Yahoo! Inc. In 2010", ["Yahoo! Inc"])
    assert not is_right("q", "Yahoo! Japan. In 2010", ["Yahoo! Inc"])
    assert is_right("q", "Yahoo! Inc. In 2010", ["Yahoo"])  # read as one sentence
    assert is_right("q? Thoughts:", "She is in Yahoo. Answer: Lyon. Ok", ["Lyon"])
    assert not is_right("q?", "She is in Yahoo. Answer: Lyon. Ok", ["Lyon"])


# -- evaluate ------------------------------------------------------------------------------------------------------


def request(name: str, **changes: Any) -> EditRequest:
    fields = {
        "id": name,
        "prompt": f"{name} lives in",
        "subject": name,
        "target": "Lyon",
        "paraphrases": (f"The home of {name} is", f"{name} dwells in"),
        "locality": {
            "same": (Probe(f"{name} plays the", ("harp",)),),
            "near": (Probe("Bo lives in", ("Rome",)), Probe("Cy lives in", ())),
        },
        "portability": {"reasoning": (Probe(f"Question: Which river is near {name}? Thoughts:", ("Rhone",)),)},
    }
    return EditRequest(**{**fields, **changes})


BEFORE = {
    "Ann lives in": " Paris. She",
    "The home of Ann is": " Paris.",
    "Ann dwells in": " Paris.",
    "Ann plays the": " harp. He",
    "Bo lives in": " Oslo.",
    "Cy lives in": " St. Petersburg. It",
    "Question: Which river is near Ann? Thoughts:": " Hm.",
}
AFTER = {
    **BEFORE,
    "Ann lives in": " Lyon. It is",
    "Ann dwells in": " the “Lyon”.\n",
    "Cy lives in": " St. Petersburg\nThe",
    "Bo lives in": " Rome. He",
    "Question: Which river is near Ann? Thoughts:": " Ann lives in Lyon. Lyon is on the Rhone. Answer: Rhone. Q",
}


def test_evaluate_counts_by_hand(tokenizer: Any) -> None:
    lm = ScriptedLM(tokenizer, BEFORE)
    edits = [request("Ann")]
    baseline = measure_baseline(lm, edits)
    assert baseline.answers == {"Ann plays the": "harp", "Bo lives in": "Oslo", "Cy lives in": "St. Petersburg"}
    options = AnswerOptions(max_new_tokens=24, thought_tokens=96)
    before = {"reliability": 0.0, "generalization": 0.0, "locality": 1.0, "portability": 0.0}
    assert evaluate(lm, edits, baseline) == before
    lm.model.learn(AFTER)
    result = evaluate(lm, edits, baseline, by_kind=True, options=options)
    outcomes = [one for one in ask(lm, edits, baseline) if one.question.dimension == "locality"]
    metric = Locality(kinds=["same", "near"])
    metric.update([one.right for one in outcomes], [str(one.question.kind) for one in outcomes])
    assert {key: value.item() for key, value in metric.compute().items()} == pytest.approx(
        {key: value for key, value in result.items() if key.startswith("locality")}
    )
    two_thirds = 2 / 3
    assert result == {
        "reliability": 1.0,
        "generalization": 0.5,
        "locality": two_thirds,
        "locality/same": 1.0,
        "locality/near": 0.5,
        "portability": 1.0,
        "portability/reasoning": 1.0,
    }


def test_without_baseline_locality_is_called_gold(tokenizer: Any) -> None:
    lm = ScriptedLM(tokenizer, AFTER)
    result = evaluate(lm, [request("Ann", portability={})])
    assert result == {"reliability": 1.0, "generalization": 0.5, "locality_gold": 1.0}  # Cy has no gold answer
    bare = request("Ann", paraphrases=(), locality={}, portability={})
    assert evaluate(lm, [bare]) == {"reliability": 1.0}
    assert evaluate(lm, []) == {}


def test_every_distinct_prompt_is_decoded_once(tokenizer: Any) -> None:
    edits = [request("Ann"), request("Dan"), request("Eve")]  # all three ask about Bo and Cy
    lm = ScriptedLM(tokenizer, AFTER)
    baseline = measure_baseline(lm, edits)
    assert len(lm.model.fed) == len(set(lm.model.fed)) == 5
    lm.model.fed.clear()
    outcomes = ask(lm, edits, baseline)
    assert len(lm.model.fed) == len(set(lm.model.fed)) == 3 * 5 + 2
    assert len(outcomes) == 3 * 7
    assert outcomes[0].answer == "Lyon"


def test_probes_that_edits_change_are_not_asked() -> None:
    edits = [request("Ann"), request("Bo", prompt="bo lives  in", locality={})]
    asked = [(q.request, q.prompt) for q in make_questions(edits, dict.fromkeys(("Ann plays the", "Cy lives in"), "x"))]
    assert ("Ann", "Bo lives in") not in asked
    assert ("Ann", "Cy lives in") in asked
    assert "Bo lives in" in [q.prompt for q in make_questions(edits[:1])]
    assert "Bo lives in" not in [q.prompt for q in make_questions(edits[:1], active=edits)]


def test_teacher_forced_judges_the_target_tokens(tokenizer: Any) -> None:
    lm = ScriptedLM(tokenizer, BEFORE)
    edits = [request("Ann")]
    baseline = measure_baseline(lm, edits)
    calls = lm.model.calls
    assert evaluate(lm, edits, baseline, "teacher_forced") == {"reliability": 0, "generalization": 0, "locality": 1}
    assert lm.model.calls == calls + 1
    lm.model.learn({**AFTER, "Ann lives in": " Lyon is what she left"})
    result = evaluate(lm, edits, baseline, "teacher_forced")
    assert result == {"reliability": 1, "generalization": 0, "locality": pytest.approx(2 / 3)}
    assert evaluate(lm, edits, baseline)["reliability"] == 0  # it goes on: another answer
    with pytest.raises(EditError, match="found decode='sampled'"):
        evaluate(lm, edits, decode="sampled")  # type: ignore[arg-type]


def test_baseline_is_plain_complete_and_comparable(tokenizer: Any, tmp_path: Any) -> None:
    lm = ScriptedLM(tokenizer, BEFORE)
    ann, dan = request("Ann"), request("Dan")
    baseline = measure_baseline(lm, [ann], AnswerOptions(max_new_tokens=9))
    torch.save(baseline.state_dict(), tmp_path / "baseline.pt")
    loaded = Baseline()
    loaded.load_state_dict(torch.load(tmp_path / "baseline.pt", weights_only=True))
    assert loaded == baseline
    assert loaded.missing([ann, dan]) == ["Dan plays the"]
    with pytest.raises(StateError, match="no answer to 'Dan plays the'"):
        evaluate(lm, [ann, dan], loaded)
    lm.model.learn({"Bo lives in": " Rome.", "Dan plays the": " drum."})
    assert measure_baseline(lm, [ann, dan], into=loaded) is loaded
    assert (loaded.answers["Bo lives in"], loaded.answers["Dan plays the"]) == ("Oslo", "drum")  # only what lacked
    with pytest.raises(StateError, match="'max_new_tokens': 9"):
        evaluate(lm, [ann], loaded, options=AnswerOptions(max_new_tokens=10))
    with pytest.raises(StateError, match="version 7"):
        loaded.load_state_dict({"version": 7})


# -- the budget ----------------------------------------------------------------------------------------------------


def many(count: int) -> list[EditRequest]:
    names = [f"P{i}" for i in range(count)]
    near = tuple(Probe(f"near {i}", ("x",)) for i in range(5))
    same = tuple(Probe(f"same {i}", ("x",)) for i in range(5))
    return [request(name, locality={"near": near, "same": same}) for name in names]


def test_the_sample_is_stable_and_nested() -> None:
    stream = many(60)
    samples = {n: {r.id for r in Evaluator(budget=10, seed=3).draw(stream[:n])} for n in range(61)}
    assert all(len(samples[n]) == min(n, 10) for n in samples)
    for n in range(60):
        assert samples[n + 1] <= samples[n] | {stream[n].id}
    larger = {r.id for r in Evaluator(budget=20, seed=3).draw(stream)}
    assert samples[60] <= larger
    shuffled = random.Random(0).sample(stream, len(stream))
    assert {r.id for r in Evaluator(budget=10, seed=3).draw(shuffled)} == samples[60]
    assert {r.id for r in Evaluator(budget=10, seed=4).draw(stream)} != samples[60]
    ever = [r.id for r in Evaluator(budget=10, seed=3).draw_ever(stream)]
    assert set(ever) == set().union(*samples.values())
    assert 10 < len(ever) < 60
    assert Evaluator(budget=None).draw(stream) == Evaluator(budget=60).draw_ever(stream)
    assert Evaluator(budget=0).draw(stream) == Evaluator(budget=0).draw_ever(stream) == []


def test_probes_take_turns_and_stay() -> None:
    wide, narrow = (Evaluator(paraphrases=n, locality=n, portability=n).draw(many(20)) for n in (4, 2))
    for more, less, full in zip(wide, narrow, many(20), strict=True):
        assert {kind: len(probes) for kind, probes in more.locality.items()} == {"near": 2, "same": 2}
        assert {kind: len(probes) for kind, probes in less.locality.items()} == {"near": 1, "same": 1}
        assert all(set(less.locality[kind]) <= set(more.locality[kind]) for kind in less.locality)
        assert more.paraphrases == less.paraphrases == full.paraphrases
        assert dataclasses.replace(more, locality=full.locality) == full
    chosen = {request.locality[kind][0] for request in narrow for kind in ("near", "same")}
    assert len(chosen) > 5  # not the same probes everywhere
    single = Evaluator(paraphrases=0, locality=1, portability=0).draw(many(20))
    assert {kind for request in single for kind in request.locality} == {"near", "same"}
    assert not any(request.paraphrases or request.portability for request in single)


def test_evaluator_needs_no_more_than_its_own_baseline(tokenizer: Any) -> None:
    stream = [request(f"P{i}", paraphrases=(), portability={}) for i in range(30)]
    lm = ScriptedLM(tokenizer, {r.prompt: " Lyon." for r in stream[::2]})
    evaluator = Evaluator(budget=6, locality=1, options=AnswerOptions(max_new_tokens=5))
    state = torch.get_rng_state()
    baseline = evaluator.measure_baseline(lm, stream)
    for n in (1, 5, 17, 30):
        drawn = evaluator.draw(stream[:n])
        right = sum(r in stream[::2] or int(r.id[1:]) % 2 == 0 for r in drawn)
        result = evaluator.evaluate(lm, stream[:n], baseline)
        assert result == {"reliability": pytest.approx(right / len(drawn)), "locality": 1.0}
    assert torch.equal(torch.get_rng_state(), state)
    with pytest.raises(EditError, match="expected one of"):
        Evaluator(decode="beam")  # type: ignore[arg-type]


# -- probabilities -------------------------------------------------------------------------------------------------


def test_target_probabilities_equal_one_by_one(family_model: Any, tokenizer: Any) -> None:
    lm = LanguageModel(family_model, tokenizer)
    prompts = ["He", "The capital of the country is", "The mother tongue of the writer who was born in the city is"]
    targets = ["known for its large rivers", "English", "x"]
    scores = target_probabilities(lm, prompts, targets)
    for index, (prompt, target) in enumerate(zip(prompts, targets, strict=True)):
        ids = tokenizer(f"{prompt} {target}", return_tensors="pt")["input_ids"]
        start = len(tokenizer(prompt)["input_ids"])
        assert ids[0, :start].tolist() == tokenizer(prompt)["input_ids"]  # the prompt's tokens stay whole here
        with torch.no_grad():
            logs = lm.model(input_ids=ids).logits[0].log_softmax(-1)
        each = torch.stack([logs[place - 1, ids[0, place]] for place in range(start, ids.shape[1])])
        torch.testing.assert_close(scores.sum[index], each.sum(), atol=1e-4, rtol=1e-4)
        torch.testing.assert_close(scores.mean[index], each.mean(), atol=1e-4, rtol=1e-4)
    assert target_probabilities(lm, [], []).sum.shape == (0,)


def test_targets_without_text_are_named(tiny_lm: LanguageModel) -> None:
    with pytest.raises(RequestError, match="found 0 target tokens"):
        target_probabilities(tiny_lm, ["He is"], [""])
    with pytest.raises(RequestError, match="expected at most 128"):
        target_probabilities(tiny_lm, ["He is"], ["x" * 200])
