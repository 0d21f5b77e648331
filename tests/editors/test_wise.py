"""WISE answers out of its side memories where a prompt is routed there, and leaves everything else alone."""

import random

import pytest
import torch

from lightning_edit.editors.prompt_rows import PromptBatch, prompt_rows
from lightning_edit.editors.wise.teaching import shard_mask
from lightning_edit.errors import EditError
from lightning_edit.evaluation.likelihood import log_likelihoods
from lightning_edit.model.generation import generate
from tests.editors.forward import (
    FAMILIES,
    OTHERS,
    Make,
    fact,
    facts,
    logits,
    one_by_one,
    prompts_of,
    says,
    wise,
    written,
)
from tests.editors.gradient import changed, snapshot


@pytest.mark.parametrize("family", FAMILIES)
def test_teaches_every_architecture_and_leaves_all_else_alone(family: str, make_lm: Make) -> None:
    lm = make_lm(family, torch.float32)
    before, parameters = logits(lm, OTHERS), snapshot(lm)
    known = generate(lm, OTHERS, 6)
    made = wise(lm)
    assert torch.equal(logits(lm, OTHERS), before)
    batch = facts(3)
    assert not any(says(lm, batch))
    made.edit(lm, batch[:1])
    assert says(lm, batch[:1]) == [True]
    report = made.edit(lm, batch[1:])
    assert says(lm, batch[2:]) == [True]  # earlier ones suffer: three edits of a tiny matrix get in each other's way
    assert [request.id for request in made.requests] == [request.id for request in batch]
    assert report.losses.keys() == set(report.ids)
    assert (report.count, report.active) == (2, 3)
    assert report.delta_norm > 0
    assert set(report.seconds) == {"texts", "learn", "total"}
    assert changed(lm, parameters) == []
    assert torch.equal(logits(lm, OTHERS), before)  # bit for bit, where the main memory answers
    assert generate(lm, OTHERS, 6) == known
    mixed = logits(lm, [OTHERS[0], batch[2].prompt])
    made.detach(lm)
    plain = logits(lm, [OTHERS[0], batch[2].prompt])
    assert torch.equal(mixed[0], plain[0])
    assert not torch.equal(mixed[1], plain[1])


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_prompts_in_a_batch_are_answered_as_one_by_one(family: str, make_lm: Make) -> None:
    lm = make_lm(family)
    made = wise(lm, shard_edits=2, merge_shards=9)
    plain = written(lm, prompts_of(facts(4)))
    made.edit(lm, facts(4))
    assert len(made.side.memories) == 2
    prompts = [*prompts_of(facts(4)), *OTHERS]
    random.Random(0).shuffle(prompts)
    ours, theirs = one_by_one(lm, prompts)
    assert written(lm, prompts) == ours
    assert generate(lm, prompts, 6) == theirs == generate(lm, prompts, 6, use_cache=False)
    assert written(lm, prompts_of(facts(4))) != plain
    targets = ["the city"] * len(prompts)
    alone = torch.cat([log_likelihoods(lm, [one], [two]) for one, two in zip(prompts, targets, strict=True)])
    assert torch.allclose(log_likelihoods(lm, prompts, targets), alone, rtol=1e-9)


def test_the_decision_is_the_prompts(make_lm: Make) -> None:
    """What stands behind the prompt, and in the other rows, decides nothing."""
    lm = make_lm()
    made = wise(lm)
    made.edit(lm, facts(1))
    prompt, other = fact(0).prompt, OTHERS[2]
    chosen: list[list[int]] = []

    def watch(*_: object) -> None:
        chosen.append(lm.scope.window.recall(made).tolist())

    handle = lm.projection(1).register_forward_hook(watch)
    with lm.borrow():
        for head, tail in ((prompt, other), (other, prompt)):
            PromptBatch(lm, prompt_rows(lm, [head], [tail]), 1).losses()
    handle.remove()
    assert chosen == [[0], [-1]]
    batch = lm.encode([prompt])
    with pytest.raises(EditError, match="several pieces"), lm.scope.announce([batch.input_ids.shape[1]]):
        lm.model(input_ids=batch.input_ids[:, :-1])


def test_only_the_mask_changes_within_the_bound_and_nothing_is_reset(make_lm: Make) -> None:
    lm = make_lm()
    made = wise(lm, density=0.25, norm_constraint=0.03, shard_edits=2, merge_shards=9, steps=8)
    blank = torch.zeros(32, 64, dtype=torch.float64)
    first, second = (shard_mask(blank, 0.25, shard, 0) for shard in (0, 1))
    assert float(first.double().mean()) == pytest.approx(0.25, abs=0.04)
    assert not torch.equal(first, second)
    tasks = []
    for number in range(3):
        made.edit(lm, [fact(number)])
        tasks.append([memory.task for memory in made.side.memories])
    assert float(tasks[0][0].abs().max()) == 0.03
    assert not tasks[0][0][~first].any()
    moved = (tasks[1][0] != tasks[0][0]).double().mean()
    assert 0 < float(moved) < 0.25
    kept = (tasks[1][0] == tasks[0][0]) & (tasks[0][0] != 0)
    assert kept.any()  # the second edit began where the first one ended
    assert torch.equal(tasks[2][0], tasks[1][0])
    assert not tasks[2][1][~second].any()
    thresholds = [memory.threshold for memory in made.side.memories]
    assert all(0 < threshold < float("inf") for threshold in thresholds)


def test_what_training_does_to_the_main_memory_reaches_both(make_lm: Make) -> None:
    lm = make_lm()
    made = wise(lm, steps=15)
    made.edit(lm, facts(1))
    task = made.side.current.task
    batch = lm.encode([fact(0).prompt])
    with torch.no_grad():
        lm.projection(1).weight.mul_(1.1)
    seen = []
    handles = [lm.projection(1).register_forward_hook(lambda module, args, y: seen.append((args[0], y)))]
    lm.model(input_ids=batch.input_ids)
    handles.pop().remove()
    x, y = seen[0]
    assert torch.allclose(y, x @ (lm.projection(1).weight + task).T, rtol=1e-9)


def test_unrelated_texts_come_from_a_corpus(make_lm: Make) -> None:
    lm = make_lm()
    made = wise(lm, texts=None, steps=3)
    made.prepare(lm, corpus=["", "The city is large. " * 40, "A river."], max_tokens=70)
    made.edit(lm, facts(1))
    texts = made.state_dict()["book"]["texts"]
    assert len(texts) == 2
    assert len(lm.encode([texts[0]]).offsets[0]) == 64
    with pytest.raises(EditError, match="no text"):
        made.prepare(lm, corpus=[" "])


def test_the_users_texts_win_over_a_corpus(make_lm: Make) -> None:
    lm = make_lm()
    made = wise(lm, texts=[" Own text. "], unrelated=1, steps=3)
    made.prepare(lm, corpus=["The city is large."])
    made.edit(lm, facts(1))
    assert made.state_dict()["book"]["texts"] == ["Own text."]
    read = wise(make_lm(), texts=None, steps=3)
    read.prepare(read._lm, corpus=["The city is large."])
    other = wise(make_lm(), texts=["Own text."], unrelated=1, steps=3)
    other.load_state_dict(read.state_dict())
    other.edit(other._lm, facts(1))
    assert other.state_dict()["book"]["texts"] == ["Own text."]


def test_bad_options_are_named(make_lm: Make) -> None:
    lm = make_lm()
    for options, match in (
        ({"density": 1.5}, "density=1.5"),
        ({"merge": "slerp"}, "'ties', 'dare_ties'"),
        ({"unrelated": 0}, "unrelated=0"),
        ({"undo_depth": -1}, "undo_depth=-1"),
        ({"retrieve": 1}, "retrieve=1"),
    ):
        with pytest.raises(EditError, match=match):
            wise(lm, **options)
