"""Which edits and probes are asked where not all of them are: always the same ones, and no more than are needed."""

import dataclasses
import random
from typing import Any

import pytest
import torch

from lightning_edit.errors import EditError
from lightning_edit.evaluation import AnswerOptions, Evaluator
from lightning_edit.probes import Probe
from lightning_edit.requests import EditRequest
from tests.evaluated import request
from tests.scripted import ScriptedLM


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
