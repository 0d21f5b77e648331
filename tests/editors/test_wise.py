"""WISE: side memories, their merges and their router, and every promise of an editor."""

import random
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from lightning_edit.editors import EditRefused, get_editor
from lightning_edit.editors.forward_settings import WiseSettings
from lightning_edit.editors.prompt_rows import PromptBatch, prompt_rows
from lightning_edit.editors.wise import WISE, learning
from lightning_edit.editors.wise.merging import merge
from lightning_edit.editors.wise.routing import activation_difference, route
from lightning_edit.editors.wise.side import NEWER, OLDER, Side
from lightning_edit.editors.wise.teaching import margin_loss, shard_mask
from lightning_edit.errors import EditError, RequestError, StateError
from lightning_edit.evaluation.likelihood import log_likelihoods
from lightning_edit.model.generation import generate
from lightning_edit.model.language_model import LanguageModel
from tests.callbacks.training import same
from tests.editors.forward import FAMILIES, OTHERS, Make, fact, facts, logits, one_by_one, prompts_of, says, written
from tests.editors.gradient import changed, nothing_else_changes, snapshot
from tests.reference_grace_wise import activation_difference as difference_loops
from tests.reference_grace_wise import margins, ties

QUICK: dict[str, Any] = {
    "layer": 1,
    "lr": 1.0,
    "steps": 60,
    "alpha": 0.2,
    "beta": 1.5,
    "gamma": 1.0,
    "density": 0.5,
    "stop_loss": 0.05,
    "contexts": ["The city is known. "],
    "texts": OTHERS,
    "unrelated": 3,
}


def wise(lm: LanguageModel, **options: Any) -> WISE:
    made = get_editor("wise", **{**QUICK, **options})
    made.attach(lm)
    assert isinstance(made, WISE)
    return made


# -- the closed rules ----------------------------------------------------------------------------------------------


def test_ties_is_that_of_the_loops() -> None:
    for seed in range(30):
        draw = random.Random(seed)
        vectors = [[draw.gauss(0, 1) for _ in range(12)] for _ in range(draw.choice([1, 2, 3]))]
        for kept in (0.3, 0.53, 1.0):
            found = merge([torch.tensor(vector, dtype=torch.float64).view(3, 4) for vector in vectors], "ties", kept)
            assert found.flatten().tolist() == pytest.approx(ties(vectors, kept), rel=1e-12)


def test_the_other_merges() -> None:
    one, two = torch.tensor([[4.0, -1.0, 0.5, 0.0]]), torch.tensor([[-2.0, -3.0, 0.1, 0.0]])
    assert merge([one, two], "linear").tolist() == [[1.0, -2.0, pytest.approx(0.3), 0.0]]
    assert merge([one, two], "sign").tolist() == [[4.0, -2.0, pytest.approx(0.3), 0.0]]
    assert merge([one, two], "magnitude", 0.25).tolist() == [[2.0, -1.5, 0.0, 0.0]]
    many = torch.ones(1, 20_000)
    thin = merge([many], "dare_linear", 0.25, seed=3)
    assert set(thin.unique().tolist()) == {0.0, 4.0}  # the rest is scaled up
    assert float(thin.mean()) == pytest.approx(1.0, abs=0.05)
    assert torch.equal(merge([many], "dare_linear", 0.25, seed=3), thin)
    assert merge([many, -3 * many], "dare_ties", 0.5, seed=1).unique().tolist() == [-6.0, 0.0, 2.0]


def test_the_router_is_that_of_the_loops() -> None:
    generator = torch.Generator().manual_seed(0)
    y, other = (torch.randn(2, 5, 4, generator=generator, dtype=torch.float64) for _ in range(2))
    prompt = torch.tensor([[False, True, True, True, False], [True, True, False, False, False]])
    found = activation_difference(y, other, prompt, nn.functional.silu)
    for row in range(2):
        kept = prompt[row].nonzero()[:, 0]
        expected = difference_loops(y[row, kept].tolist(), other[row, kept].tolist())
        assert float(found[row]) == pytest.approx(expected, rel=1e-12)
    differences = torch.tensor([[1.0, 5.0, 0.7, 2.0], [2.0, 4.0, 0.7, 0.1]])
    assert route(differences, [2.0, 1.0], 0.5).tolist() == [1, 0, 1, 0]
    assert route(differences, [20.0, 10.0], 0.5).tolist() == [-1, -1, -1, -1]


def test_the_margins_are_those_of_the_loops() -> None:
    draw = random.Random(1)
    for _ in range(20):
        edited, unrelated = ([draw.uniform(0, 3) for _ in range(count)] for count in (4, 2))
        bounds = tuple(draw.uniform(0, 2) for _ in range(3))
        found = margin_loss(torch.tensor(edited, dtype=torch.float64), torch.tensor(unrelated).double(), *bounds)
        assert float(found) == pytest.approx(margins(edited, unrelated, *bounds), rel=1e-6)
    assert float(margin_loss(torch.tensor([9.0]), torch.tensor([0.0]), 1.0, 2.0, 3.0)) == 0.0


@pytest.mark.parametrize("retrieve", [True, False])
def test_shards_are_put_by_and_merged(retrieve: bool) -> None:
    settings = WiseSettings(shard_edits=2, merge_shards=2, merge="linear", retrieve=retrieve)
    side = Side.blank(2, 3, torch.float64)
    assert side.memories == []
    seen = []
    for number in range(1, 10):
        side = side.after(torch.full((2, 3), float(number), dtype=torch.float64), 10.0 - number, settings, 0)
        seen.append([(float(memory.task[0, 0]), memory.threshold, memory.edits) for memory in side.memories])
    assert seen[0] == [(1.0, 9.0, 1)]
    assert seen[1] == [(2.0, 8.0, 2)]  # full, not merged; the next one starts from nothing
    assert seen[2] == [(2.0, 8.0, 2), (3.0, 7.0, 1)]
    assert seen[3] == [(3.0, 6.0, 4)]
    merged = 7.0 if retrieve else OLDER * 3 + NEWER * 7
    assert seen[7] == ([(3.0, 6.0, 4), (7.0, 2.0, 4)] if retrieve else [(pytest.approx(merged), 2.0, 8)])
    assert (side.shard, side.edits) == (4, 9)
    again = Side.of(side.tensors())
    assert same(again.tensors(), side.tensors())


# -- answers -------------------------------------------------------------------------------------------------------


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


@pytest.mark.parametrize("family", ["gpt2", "llama"])
def test_beams_in_a_batch_write_what_each_writes_alone(family: str, make_lm: Make) -> None:
    lm = make_lm(family)
    prompts = [*prompts_of(facts(3)), *OTHERS]
    random.Random(1).shuffle(prompts)
    plain = generate(lm, prompts, 5, num_beams=3)
    wise(lm).edit(lm, facts(3))
    together = generate(lm, prompts, 5, num_beams=3)
    assert together == [generate(lm, [prompt], 5, num_beams=3)[0] for prompt in prompts]
    moved = [prompt for prompt, text, before in zip(prompts, together, plain, strict=True) if text != before]
    assert moved
    assert not set(moved) & set(OTHERS)


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


# -- promises ------------------------------------------------------------------------------------------------------


def test_commits_are_taken_back_as_a_whole(make_lm: Make) -> None:
    lm = make_lm(dtype=torch.float32)
    made = wise(lm, steps=15, undo_depth=2)
    plain = logits(lm, prompts_of(facts(4)))
    states, answers = [], []
    for batch in ([fact(0)], [fact(1), fact(2)], [fact(0, "language", id="new")]):
        report = made.edit(lm, batch)
        states.append(made.state_dict()["book"]["side"])
        answers.append(logits(lm, prompts_of(facts(4))))
    assert report.replaced == ["r0"]
    assert [request.id for request in made.requests] == ["r1", "r2", "new"]
    for ids, match in ((["r1"], "one commit"), (["r1", "r2"], "only the last ones"), (["r9"], "not at work")):
        with pytest.raises(EditError, match=match):
            made.undo(lm, ids)
    with pytest.raises(EditError, match=r"one of \[0, 1, 3, 4\]"):
        made.rollback(lm, 2)
    with pytest.raises(EditError, match="kept for the last 2 only"):
        made.rollback(lm, 4)
    report = made.undo(lm, ["new"])
    assert (report.ids, report.restored, report.active) == (["new"], ["r0"], 3)
    assert same(made.state_dict()["book"]["side"], states[1])
    assert torch.equal(logits(lm, prompts_of(facts(4))), answers[1])
    made.rollback(lm, 2)
    assert torch.equal(logits(lm, prompts_of(facts(4))), answers[0])
    assert not torch.equal(answers[0], plain)
    with pytest.raises(RequestError, match="applied already"):
        made.edit(lm, [fact(0)])


def test_the_first_commit_can_be_taken_back(make_lm: Make) -> None:
    lm = make_lm(dtype=torch.float32)
    plain = logits(lm, prompts_of(facts(4)))
    made = wise(lm, steps=15)
    made.edit(lm, facts(2))
    made.rollback(lm, 2)
    assert made.requests == []
    assert torch.equal(logits(lm, prompts_of(facts(4))), plain)


@pytest.mark.parametrize("fault", ["guard", "error", "infinite"])
def test_what_fails_leaves_everything_as_it_was(fault: str, make_lm: Make, monkeypatch: pytest.MonkeyPatch) -> None:
    lm = make_lm(dtype=torch.float32)
    made = wise(lm, steps=15)
    made.edit(lm, facts(1))
    state, answers = made.state_dict(), logits(lm, prompts_of(facts(4)))
    heard: list[torch.Tensor] = []

    def guard(report: object) -> bool:
        heard.append(logits(lm, prompts_of(facts(4))))
        return False

    with nothing_else_changes(lm):
        if fault == "guard":
            with pytest.raises(EditRefused):
                made.edit(lm, facts(2, 1), guard)
            with pytest.raises(EditRefused):
                made.undo(lm, "r0", guard)
        elif fault == "error":
            taught = learning.teach
            calls = []

            def teach(*args: Any) -> Any:
                calls.append(args)
                return taught(*args) if len(calls) == 1 else 1 / 0

            monkeypatch.setattr(learning, "teach", teach)
            with pytest.raises(ZeroDivisionError):
                made.edit(lm, facts(2, 1))
        else:
            made._settings = None
            monkeypatch.setitem(made._given, "lr", float("nan"))
            with pytest.raises(EditError, match=r"not finite|lr"):
                made.edit(lm, facts(2, 1))
    if fault == "guard":
        assert not torch.equal(heard[0], answers)  # it looks at the edited model
    assert same(made.state_dict(), state)
    assert torch.equal(logits(lm, prompts_of(facts(4))), answers)


def test_an_edit_disturbs_nothing(make_lm: Make) -> None:
    lm = make_lm(dtype=torch.float32)
    made = wise(lm, texts=None, contexts=1, steps=5)
    parameters = snapshot(lm)
    with nothing_else_changes(lm):
        made.edit(lm, facts(2))
        made.rollback(lm, 2)
    assert changed(lm, parameters) == []


def test_a_state_goes_on_bit_for_bit(make_lm: Make, tmp_path: Path) -> None:
    options = {"steps": 10, "shard_edits": 2, "merge_shards": 2, "texts": None, "contexts": None}
    lm, other = make_lm(dtype=torch.float32), make_lm(dtype=torch.float32)
    made = wise(lm, **options)
    for number in range(3):
        made.edit(lm, [fact(number)])
    made.save(tmp_path / "wise.pt")
    loaded = get_editor("wise", **{**QUICK, **options})
    loaded.load(tmp_path / "wise.pt")
    assert loaded.attach(other) == [1]
    assert torch.equal(logits(lm, prompts_of(facts(4))), logits(other, prompts_of(facts(4))))
    for one, model in ((made, lm), (loaded, other)):
        one.edit(model, facts(2, 3))
        one.undo(model, ["r3", "r4"])
        one.edit(model, [fact(5)])
    assert same(made.state_dict(), loaded.state_dict())
    assert len(made.side.finished) == 1
    assert torch.equal(logits(lm, prompts_of(facts(6))), logits(other, prompts_of(facts(6))))
    with pytest.raises(StateError, match="shard_edits"):
        wise(make_lm(), shard_edits=7).load_state_dict(made.state_dict())


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


@pytest.mark.parametrize("name", ["grace", "wise"])
def test_a_system_turn_needs_a_chat(name: str, make_lm: Make) -> None:
    lm, options = make_lm(), {"layer": 1, "system": "Be brief."}
    for chat in (None, False):
        made = get_editor(name, **options, chat=chat)
        with pytest.raises(EditError, match=r"system='Be brief.' without a chat"):
            made.attach(lm)
        with pytest.raises(EditError, match="without a chat"):
            made.edit(lm, facts(1))
        assert not lm.projection(1)._forward_hooks
    preset = get_editor("wise", preset="llama-3-8b", layer=1, system="Be brief.")  # of a chat model
    with pytest.raises(EditError, match="without a chat"):
        preset.attach(lm)
    lm.tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    assert preset.attach(lm) == [1]
    assert get_editor(name, **options, chat=True).attach(lm) == [1]


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
