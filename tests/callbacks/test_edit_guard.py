"""EditGuard: what it refuses, what becomes of it, and that a refusal leaves no trace."""

import csv
import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.loggers import CSVLogger

from lightning_edit.callbacks import ContinualEdit, EditGuard
from lightning_edit.callbacks.edit_callback import EditCallback
from lightning_edit.callbacks.guard_probes import LocalityProbe, LossProbe, RateProbe
from lightning_edit.editors import get_editor
from lightning_edit.errors import EditError, StateError, StrategyError
from lightning_edit.evaluation import say
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.requests import EditRequest
from tests.callbacks.memory import Memory
from tests.callbacks.training import (
    LAYERS,
    QUICK,
    SaveAt,
    editing,
    fit,
    request,
    requests,
    same,
    stream,
    texts,
    tiny_module,
    weights,
)


class Watch(EditCallback):
    """Copies of weights and ledgers just before and just after each commit."""

    def __init__(self) -> None:
        self.pairs: list[list[Any]] = []

    def look(self, trainer: pl.Trainer, module: pl.LightningModule) -> Any:
        callback = next(c for c in trainer.callbacks if isinstance(c, ContinualEdit))
        assert callback.editor is not None
        sites = [site.ledger.state_dict() for site in callback.editor.sites]
        return {"weights": weights(module), "sites": sites, "book": callback.editor.state_dict()["book"]}

    def on_before_edit(self, trainer: Any, pl_module: Any, requests: Sequence[EditRequest]) -> None:
        self.pairs.append([self.look(trainer, pl_module)])

    def on_after_edit(self, trainer: Any, pl_module: Any, requests: Sequence[EditRequest], report: Any) -> None:
        self.pairs[-1].append(self.look(trainer, pl_module))


class Culprit:
    """A measure that does not like some requests: how many of them are in an editor."""

    def __init__(self, callback: ContinualEdit, *ids: str) -> None:
        self.callback, self.ids = callback, set(ids)

    def __call__(self, lm: LanguageModel) -> float:
        """Edits are in the weights before they are in the book, so the ledger's columns are counted."""
        assert self.callback.editor is not None
        sites = self.callback.editor.sites
        return float(len(self.ids & set(sites[0].ledger.ids))) if sites else 0.0


def guard(**options: Any) -> EditGuard:
    return EditGuard(**{"texts": texts(6), "max_new_tokens": 2, "batch_size": 6, **options})


def run(backend: str, callbacks: Sequence[pl.Callback], count: int = 6, **options: Any) -> pl.Trainer:
    return fit(tiny_module(backend), stream(backend, requests(count)), callbacks, **options)


def test_a_refused_batch_leaves_everything_bit_equal_and_the_stream_goes_on(
    trained_backend: str, statistics: Path
) -> None:
    edits, watch = editing(statistics), Watch()
    keeper = guard(budgets={"mood": 0.5}, measures={"mood": Culprit(edits, "r2")}, action="refuse")
    run(trained_backend, [edits, keeper, watch])
    assert [entry.id for entry in keeper.refusals] == ["r2", "r3"]  # the batch that holds the culprit
    assert {entry.fate for entry in keeper.refusals} == {"refused"}
    assert keeper.refusals[0].reason == "mood: the growth of mood is 1 in one batch, 0.5 are allowed"
    assert keeper.refusals[0].edits == 2
    passed, refused, third = watch.pairs
    assert same(*refused)
    assert not same(*passed)
    assert not same(*third)
    assert edits.editor is not None
    assert [item.id for item in edits.editor.requests] == ["r0", "r1", "r4", "r5"]
    assert edits.count == 6
    assert edits.summary()["edits"] == 4
    assert keeper.summary() == {"refused": 2, "weakened": 0, "handed_over": 0, "spent/mood": 0.0}


@pytest.mark.parametrize("action", ["halve", "weaken"])
def test_whatever_was_tried_in_vain_leaves_everything_bit_equal(
    trained_backend: str, statistics: Path, action: Any
) -> None:
    edits, watch = editing(statistics, max_edits=4), Watch()
    keeper = guard(budgets={"mood": 0.5}, measures={"mood": Culprit(edits, "r2", "r3")}, action=action)
    run(trained_backend, [edits, keeper, watch], max_steps=4)
    assert [(entry.id, entry.fate) for entry in keeper.refusals] == [("r2", "refused"), ("r3", "refused")]
    passed, refused = watch.pairs
    assert not same(*passed)
    assert same(*refused)


def test_a_run_in_which_nothing_passes_is_a_run_without_edits(trained_backend: str, statistics: Path) -> None:
    module, control = tiny_module(trained_backend), tiny_module(trained_backend)
    keeper = guard(budgets={"loss": -math.inf, "locality": 0.0, "R_median": 1.0}, action="halve")
    fit(module, stream(trained_backend, requests(4)), [editing(statistics), keeper])
    fit(control, stream(trained_backend, requests(4)), [editing(editor=None)])
    assert same(weights(module), weights(control))
    assert len(keeper.refusals) == 4


def test_halving_finds_the_culprits(trained_backend: str, statistics: Path) -> None:
    edits = editing(statistics, edits_per_commit=4)
    keeper = guard(budgets={"mood": 0.0}, measures={"mood": Culprit(edits, "r1", "r6")})
    run(trained_backend, [keeper, edits], count=8)
    assert [entry.id for entry in keeper.refusals] == ["r1", "r6"]
    assert edits.editor is not None
    assert [item.id for item in edits.editor.requests] == ["r0", "r2", "r3", "r4", "r5", "r7"]
    assert edits.session.rejected == ["r1", "r6"]


def test_what_is_spent_adds_up_and_training_is_not_blamed(trained_backend: str, statistics: Path) -> None:
    edits = editing(statistics)
    free = guard(budgets={"R_median": 1e9, "loss": 1e9})
    run(trained_backend, [edits, free])
    assert free.refusals == []
    assert free.spent["R_median"] > 0
    short = guard(total_budgets={"R_median": 0.7 * free.spent["R_median"]}, action="refuse")
    run(trained_backend, [editing(statistics), short])
    assert {"r4", "r5"} <= {entry.id for entry in short.refusals}
    assert "in all" in short.refusals[0].reason
    assert short.spent["R_median"] <= 0.7 * free.spent["R_median"]


def test_less_strength_is_tried_and_given_back(trained_backend: str, statistics: Path) -> None:
    norms = {}
    for name, options in {"full": {"budgets": {"R_median": 1e9}}, "weak": {}}.items():
        edits, watch = editing(statistics, max_edits=2), Watch()
        if name == "weak":
            limit = norms["full"][1] * 0.6
            options = {"budgets": {"R_median": limit}, "action": "weaken", "strengths": [0.9, 0.3]}
        keeper = guard(**options)
        run(trained_backend, [edits, keeper, watch], max_steps=2)
        before, after = watch.pairs[0]
        change = [after["weights"][key] - value for key, value in before["weights"].items()]
        norms[name] = (float(torch.stack([part.norm() for part in change]).norm()), keeper.spent["R_median"])
        assert edits.editor is not None
        assert edits.editor.strength == 1.0
    assert 0.1 < norms["weak"][0] / norms["full"][0] < 0.6
    assert [entry.fate for entry in keeper.refusals] == ["strength 0.3"] * 2
    assert [item.id for item in edits.editor.requests] == ["r0", "r1"]  # it is an edit, a weak one
    assert keeper.summary()["weakened"] == 2


def test_a_weakened_edit_can_be_undone_and_holds_its_own_loss(trained_backend: str, statistics: Path) -> None:
    module = tiny_module(trained_backend)
    editor, clean = get_editor("memit", **QUICK), weights(module)
    editor.prepare(module, statistics=str(statistics))
    editor.strength = 0.25
    report = editor.edit(module, requests(2))
    assert editor.repair(module, refresh=True).losses == {}  # part of the way is where it should be
    full = get_editor("memit", **QUICK)
    other = tiny_module(trained_backend)
    full.prepare(other, statistics=str(statistics))
    assert full.edit(other, requests(2)).delta_norm > 2 * report.delta_norm
    editor.undo(module, ["r0", "r1"])
    assert same(weights(module), clean)


def test_refused_requests_go_to_the_other_editor(trained_backend: str, statistics: Path, tmp_path: Path) -> None:
    edits, memory = editing(statistics, edits_per_commit=4), Memory()
    keeper = guard(budgets={"mood": 0.0}, measures={"mood": Culprit(edits, "r1", "r6")}, another=memory)
    logger = CSVLogger(tmp_path)
    run(trained_backend, [edits, keeper], count=8, logger=logger)
    assert [item.id for item in memory.requests] == ["r1", "r6"]
    assert [(entry.id, entry.fate) for entry in keeper.refusals] == [("r1", "Memory"), ("r6", "Memory")]
    assert edits.session.rejected == []
    with (Path(logger.log_dir) / "metrics.csv").open() as file:
        rows = [row for row in csv.DictReader(file) if row.get("guard/mood")]
    assert [(row["edit/count"], row["guard/refused"]) for row in rows] == [("4", "0"), ("8", "0")]


def test_the_later_word_counts_across_both_editors(trained_backend: str, statistics: Path) -> None:
    stale, fresh = request(0, id="stale", target="Oslo"), request(0, id="fresh", target="Lima")
    edits, memory = editing(statistics, edits_per_commit=1), Memory()

    class AtEnd(pl.Callback):
        def __init__(self) -> None:
            self.active: list[str] = []

        def on_train_end(self, trainer: Any, pl_module: Any) -> None:
            self.active = [item.id for item in edits.session.active_requests()]

    seen = AtEnd()
    keeper = guard(budgets={"mood": 0.0}, measures={"mood": Culprit(edits, "stale")}, another=memory)
    data = stream(trained_backend, [request(0), stale, request(1)])
    fit(tiny_module(trained_backend), data, [edits, keeper, seen])
    assert [item.id for item in memory.requests] == ["stale"]
    assert seen.active == ["r1", "stale"]  # r0 is in the weights, but the memory contradicts it

    edits, memory = editing(statistics, edits_per_commit=1), Memory()
    keeper = guard(budgets={"mood": 0.0}, measures={"mood": Culprit(edits, "stale")}, another=memory)
    data = stream(trained_backend, [stale, fresh])
    fit(tiny_module(trained_backend), data, [edits, keeper], max_steps=4)
    assert memory.requests == []  # the weights know better now


class Logs(pl.Callback):
    """Logs one number a step, before the edits of the step."""

    def __init__(self, values: Sequence[float]) -> None:
        self.values = values

    def on_train_batch_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        pl_module.log("drift", self.values[trainer.global_step])


def test_nothing_passes_while_a_logged_metric_is_above_its_limit(trained_backend: str, statistics: Path) -> None:
    edits, watch = editing(statistics), Watch()
    keeper = guard(limits={"drift": 0.5})
    run(trained_backend, [Logs([0.5, 0.5, 0.6, math.nan] + [0.1] * 20), edits, keeper, watch])
    refused = [entry.id for entry in keeper.refusals]
    assert refused
    assert all(entry.reason.startswith("drift was logged as ") for entry in keeper.refusals)
    assert all(entry.reason.endswith(", 0.5 is allowed") for entry in keeper.refusals)
    assert edits.editor is not None
    assert [item.id for item in edits.editor.requests] == [f"r{n}" for n in range(6) if f"r{n}" not in refused]
    assert len(edits.editor.requests) >= 2
    assert [same(*pair) for pair in watch.pairs] == [f"r{2 * n}" in refused for n in range(3)]
    assert keeper.state_dict()["logged"]["drift"] <= 0.5


def test_a_limit_on_what_nobody_logs_is_said(trained_backend: str, statistics: Path) -> None:
    keeper = guard(limits={"nobody/logs/this": 0.5})
    with pytest.warns(UserWarning, match="limits on nobody/logs/this stood for nothing"):
        run(trained_backend, [editing(statistics), keeper])
    assert not keeper.refusals


@pytest.mark.parametrize("steps", [3, 5])
def test_a_resumed_run_refuses_what_the_uninterrupted_one_does(
    trained_backend: str, statistics: Path, tmp_path: Path, steps: int
) -> None:
    def play(*more: pl.Callback, **options: Any) -> tuple[Any, EditGuard, Memory]:
        edits, memory = editing(statistics), Memory()
        budgets = {"R_median": limit, "loss": 1e9, "mood": 0.0, "locality": 1.0}
        keeper = guard(
            budgets=budgets,
            total_budgets={"R_median": 1e9},
            measures={"mood": Culprit(edits, "r0", "r3")},
            another=memory,
        )
        module = tiny_module(trained_backend)
        data = stream(trained_backend, requests(6))
        fit(module, data, [edits, keeper, *more], default_root_dir=tmp_path, **options)
        return weights(module), keeper, memory

    limit = 1e9
    whole, keeper, memory = play(SaveAt(tmp_path, steps))
    state = torch.load(tmp_path / f"{steps}.ckpt", weights_only=True)
    assert any("EditGuard" in key for key in state["callbacks"])
    again, resumed, held = play(ckpt_path=tmp_path / f"{steps}.ckpt")
    assert [entry.id for entry in keeper.refusals] == ["r0", "r3"]
    assert same(whole, again)
    assert resumed.refusals == keeper.refusals
    assert held.requests == memory.requests
    state, other = resumed.state_dict(), keeper.state_dict()
    assert state["gate"].pop("seconds") > 0
    other["gate"].pop("seconds")
    assert same(state, other)


def test_probes_see_what_changed(trained_backend: str, statistics: Path) -> None:
    module = tiny_module(trained_backend, spread=0.3)
    lm, edits = module.language_model, requests(4)
    batches = [{key: getattr(lm.encode(texts(5)), key).cpu() for key in ("input_ids", "attention_mask")}]
    loss, rates, stays = LossProbe(batches), RateProbe(batches, LAYERS), LocalityProbe()
    rates.measure_reference(lm)
    for probe in (loss, rates, stays):
        probe.begin(lm, edits)
        assert probe.harm(lm) == 0
    with torch.no_grad():
        told = lm.model(**{k: v for k, v in batches[0].items()}, labels=None).logits[:, :-1].log_softmax(-1)
        real = batches[0]["attention_mask"][:, 1:].bool()
        picked = told.gather(-1, batches[0]["input_ids"][:, 1:, None])[..., 0][real]
    assert loss._standard == pytest.approx(-float(picked.mean()), rel=1e-5)
    before = say(lm, stays._standard, stays.options)
    with torch.no_grad():
        for layer in LAYERS:
            lm.projection(layer).weight.add_(torch.randn_like(lm.projection(layer).weight))
    after = say(lm, stays._standard, stays.options)
    assert stays.harm(lm) == sum(before[key] != after[key] for key in before) / len(before) > 0
    assert rates.harm(lm) > 0.1
    assert loss.harm(lm) != 0
    harm = rates.harm(lm)
    rates.accept()
    assert rates.harm(lm) == 0
    again = RateProbe([], LAYERS)
    again.load_state_dict(rates.state_dict())
    again._standard = rates._standard
    assert again.harm(lm) == 0
    assert harm > 0


def test_wrong_use_is_named(trained_backend: str, statistics: Path, tmp_path: Path) -> None:
    for options, message in [
        ({"budgets": {"perplexity": 1.0}}, "budgets for perplexity; expected some of locality, loss, R_median"),
        ({"budgets": {"loss": 1.0}, "measures": {"mine": float}}, "no budget for mine"),
        ({"budgets": {"loss": 1.0}, "measures": {"loss": float}}, "loss in measures"),
        ({"action": "ask"}, "action='ask'"),
        ({"strengths": [1.5]}, r"strengths=\[1.5\]"),
    ]:
        with pytest.raises(StrategyError, match=message):
            EditGuard(**options)
    with pytest.raises(StateError, match="version None"):
        guard().load_state_dict({})
    with pytest.raises(StateError, match="give it as before"):
        guard(another=Memory()).load_state_dict({**guard().state_dict()})
    same_layers = get_editor("memit", **QUICK)
    for callbacks, message in [
        ([guard()], "found no ContinualEdit"),
        ([editing(statistics), guard(another=same_layers)], "write 2 weights both"),
        ([editing(statistics), guard(another="memit", another_options={**QUICK, "layers": [2]})], "no key statistics"),
        ([editing(Memory(), editor_options=None, editor=Memory()), guard(action="weaken")], "has no strength to lower"),
    ]:
        with pytest.raises(EditError, match=message):
            run(trained_backend, callbacks, default_root_dir=tmp_path)


def test_requests_without_locality_probes_are_said(trained_backend: str, statistics: Path) -> None:
    bare = [request(number, locality={}) for number in range(2)]
    with pytest.warns(UserWarning, match="bring no locality probes"):
        fit(tiny_module(trained_backend), stream(trained_backend, bare), [editing(statistics), guard()], max_steps=2)
