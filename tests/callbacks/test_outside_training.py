"""Edits are at work where the Trainer validates, tests and predicts, in this process and in a fresh one."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from lightning.pytorch.trainer.states import TrainerFn
from torch.utils.data import DataLoader

from lightning_edit.callbacks import ContinualEdit, EditGuard, EditMonitor, ReasoningBenchmark
from lightning_edit.decoding import decode
from lightning_edit.errors import StrategyError
from lightning_edit.evaluation.likelihood import log_likelihoods
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.module import EditableModule
from tests.callbacks.test_edit_guard import Culprit
from tests.callbacks.test_foreign_modules import Data, Stranger
from tests.callbacks.test_reasoning_benchmark import data as world_data
from tests.callbacks.test_reasoning_benchmark import module as world_module
from tests.callbacks.training import (
    SILENT,
    SaveAt,
    fit,
    make_tokenizer,
    request,
    requests,
    same,
    stream,
    tiny_module,
    weights,
)
from tests.editors.conformance import obedient
from tests.survival.editors_ddp_run import EDITORS, TEXTS

EDITS = requests(4)
PROMPTS, TARGETS = [edit.prompt for edit in EDITS], [edit.target for edit in EDITS]
ROW = torch.tensor([5, 6, 7, 8])
ROWS: Any = [{"input_ids": ROW, "attention_mask": torch.ones_like(ROW), "labels": ROW}]
BESIDE = ("grace", "wise", "scr", "lora")  # editors that keep edits beside the weights
FOREIGN = ("memit", "grace", "wise", "scr")
RUNS = ("validate", "test", "predict")


@pytest.fixture(autouse=True)
def agreeing() -> Iterator[None]:
    with obedient():
        yield


class Teller(EditableModule):
    """Writes behind prompts where it is asked to predict."""

    def test_step(self, batch: Any, batch_idx: int) -> None:
        return None

    def predict_step(self, batch: Any, batch_idx: int) -> list[str]:
        return self.generate(PROMPTS, 4)


class Guest(Stranger):
    """Somebody's module that can be validated, tested and asked to predict."""

    def validation_step(self, batch: Any, batch_idx: int) -> None:
        return None

    test_step = validation_step

    def predict_step(self, batch: Any, batch_idx: int) -> int:
        return batch_idx


class GuestData(Data):
    """Its data."""

    def val_dataloader(self) -> DataLoader[Any]:
        return DataLoader(ROWS)


class Parity:
    """A judge whose verdict hangs on what exactly was written."""

    name = "parity"

    def judge(self, cases: Any) -> list[bool]:
        return [len(case.answer) % 2 == 0 for case in cases]


class Ear(pl.Callback):
    """Hears what the model under edit says in the middle of a run that is no fit."""

    def __init__(self, editing: ContinualEdit) -> None:
        self.editing, self.heard = editing, []

    def _ask(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *_: Any) -> None:
        if trainer.state.fn != TrainerFn.FITTING:
            self.heard.append(said(self.editing.find_language_model(trainer, pl_module)))

    on_validation_batch_start = on_test_batch_start = on_predict_batch_start = _ask


def said(lm: LanguageModel) -> tuple[list[str], torch.Tensor]:
    """What is written behind the prompts, and how likely the targets are there."""
    return decode(lm, PROMPTS, 4), log_likelihoods(lm, PROMPTS, TARGETS, "sum")


def alike(one: Any, other: Any) -> bool:
    return one[0] == other[0] and torch.allclose(one[1], other[1], atol=1e-4)


def teller(backend: str) -> Teller:
    tiny = tiny_module(backend)
    return Teller.from_model(tiny.model, tiny.tokenizer, lr=1e-3)


def editing(kind: str, statistics: Path | None = None, **options: Any) -> ContinualEdit:
    name, given = EDITORS[kind]
    rhythm = {"every_n_steps": 2, "edits_per_commit": 2}
    return ContinualEdit(name, editor_options=given, statistics=statistics, **rhythm, **options)


def alone(callbacks: list[pl.Callback]) -> pl.Trainer:
    """A Trainer that is not asked to fit."""
    return pl.Trainer(callbacks=callbacks, logger=False, enable_checkpointing=False, **SILENT)


def go(trainer: pl.Trainer, run: str, module: pl.LightningModule, ckpt_path: Path | None = None) -> Any:
    silent = {} if run == "predict" else {"verbose": False}
    return getattr(trainer, run)(module, DataLoader(ROWS), ckpt_path=ckpt_path, **silent)


@pytest.mark.parametrize("kind", ["memit", *BESIDE])
def test_a_fresh_process_answers_with_the_edits_of_the_checkpoint(
    kind: str, trained_backend: str, statistics: Path, tmp_path: Path
) -> None:
    edited, first = teller(trained_backend), editing(kind, statistics)
    fit(edited, stream(trained_backend, EDITS), [first, SaveAt(tmp_path, 4)], max_steps=4)
    expected, told = said(edited.language_model), edited.generate(PROMPTS, 4)
    saved = torch.load(tmp_path / "4.ckpt", weights_only=True)["state_dict"]
    for run in RUNS:
        module, fresh = teller(trained_backend), editing(kind, statistics)  # without requests: none are needed
        ear = Ear(fresh)
        answer = go(alone([fresh, ear]), run, module, tmp_path / "4.ckpt")
        assert alike(ear.heard[0], expected), run
        assert run != "predict" or answer == [told]
        assert same(dict(module.state_dict()), saved)  # nothing is edited or repaired
        assert (fresh.count, module.editor) == (4, fresh.editor)
        assert [edit.id for edit in fresh.editor.requests] == ["r0", "r1", "r2", "r3"]
        assert alike(said(module.language_model), expected)
        module.editor.detach(module)
        assert alike(said(module.language_model), expected) == (kind == "memit")


@pytest.mark.parametrize("kind", FOREIGN)
def test_a_foreign_module_keeps_its_edits_after_the_fit_and_in_a_fresh_process(
    kind: str, trained_backend: str, statistics: Path, tmp_path: Path
) -> None:
    def callbacks(**options: Any) -> tuple[ContinualEdit, Ear]:
        given = {"backbone": "parts.lm", "tokenizer": make_tokenizer(trained_backend), **options}
        edits = editing(kind, statistics, **given)
        return edits, Ear(edits)

    module, (edits, ear) = Guest(trained_backend), callbacks(requests=EDITS)
    trainer = fit(module, GuestData(trained_backend), [edits, ear, SaveAt(tmp_path, 4)], max_steps=4)
    lm, before = edits.find_language_model(trainer, module), weights(module)
    expected = said(lm)
    for run in RUNS:
        go(trainer, run, module)
    other, (fresh, late) = Guest(trained_backend), callbacks()
    for run in RUNS:
        go(alone([fresh, late]), run, other, tmp_path / "4.ckpt")
    assert len(ear.heard) == len(late.heard) == 3
    assert all(alike(heard, expected) for heard in (*ear.heard, *late.heard))
    assert same(weights(module), before)
    assert edits.find_language_model(trainer, module) is lm
    assert other.editor is fresh.editor
    lm.memory = None
    edits.editor.detach(lm)
    assert alike(said(lm), expected) == (kind == "memit")


def test_another_module_is_left_alone_and_that_is_said(trained_backend: str, statistics: Path) -> None:
    edited, other, edits = teller(trained_backend), teller(trained_backend), editing("grace", statistics)
    trainer = fit(edited, stream(trained_backend, EDITS), [edits], max_steps=4)
    expected, bare = said(edited.language_model), said(other.language_model)
    with pytest.warns(UserWarning, match="The 4 edits of GRACE are in another model than this run's"):
        go(trainer, "validate", other)
    assert alike(said(other.language_model), bare)
    assert alike(said(edited.language_model), expected)
    assert other.editor is None
    go(trainer, "validate", edited)
    assert alike(said(edited.language_model), expected)


def test_a_model_without_edits_is_validated_as_it_is(trained_backend: str) -> None:
    module, edits = teller(trained_backend), editing("grace")
    hooks = [len(part._forward_hooks) for part in module.model.modules()]
    go(alone([edits]), "validate", module)
    assert [len(part._forward_hooks) for part in module.model.modules()] == hooks
    assert module.editor is None


def test_a_look_at_a_checkpoint_loses_no_place_in_the_stream(
    trained_backend: str, statistics: Path, tmp_path: Path
) -> None:
    first, edits = editing("memit", statistics), requests(8)
    fit(tiny_module(trained_backend), stream(trained_backend, edits), [first, SaveAt(tmp_path, 4)], max_steps=4)
    module, fresh = teller(trained_backend), editing("memit", statistics)
    go(alone([fresh]), "validate", module, tmp_path / "4.ckpt")
    saved = torch.load(tmp_path / "4.ckpt", weights_only=True)["callbacks"]["ContinualEdit"]
    assert saved["source"]["cursor"] == 4
    assert same(fresh.state_dict(), saved)
    fit(module, stream(trained_backend, edits), [fresh], max_steps=4)
    assert [edit.id for edit in fresh.editor.requests] == [edit.id for edit in edits]
    assert fresh.count == 8


def test_a_failed_fit_leaves_nothing_that_a_validation_could_repair(trained_backend: str, statistics: Path) -> None:
    class Fault(pl.Callback):
        def on_train_batch_start(self, trainer: pl.Trainer, *_: Any) -> None:
            if trainer.global_step == 3:
                raise ZeroDivisionError

    module, edits = teller(trained_backend), editing("memit", statistics)
    with pytest.raises(ZeroDivisionError):
        fit(module, stream(trained_backend, EDITS), [edits, Fault()], max_steps=4)
    before, trainer = weights(module), alone([edits])
    go(trainer, "validate", module)
    assert edits.repair(trainer) is None
    assert same(weights(module), before)


def test_benchmarks_ask_the_edited_model_whatever_the_order_of_callbacks(tmp_path: Path) -> None:
    def watch(**options: Any) -> ReasoningBenchmark:
        return ReasoningBenchmark(["world_perplexity"], limit=2, batch_size=4, **options)

    def edits() -> ContinualEdit:  # an adapter on each block changes what every text is worth
        options = {"steps": 5, "rank": 2, "lr": 0.05}
        return ContinualEdit("lora", editor_options=options, every_n_steps=2, edits_per_commit=2)

    module, in_fit = world_module(), watch(every_n_validations=None)
    fit(module, world_data(EDITS), [edits(), in_fit, SaveAt(tmp_path, 4)], max_steps=4)
    fresh = world_module()
    (found,) = go(alone([watch(), edits()]), "validate", fresh, tmp_path / "4.ckpt")
    assert found["reasoning/world_perplexity"] == pytest.approx(in_fit.history[-1]["world_perplexity"], rel=1e-5)
    assert found["edit/count"] == 4
    fresh.editor.detach(fresh)
    (bare,) = go(alone([watch()]), "validate", fresh)
    assert bare["reasoning/world_perplexity"] != pytest.approx(found["reasoning/world_perplexity"], rel=1e-2)


def test_a_benchmark_of_its_own_backbone_meets_the_editor(trained_backend: str, statistics: Path) -> None:
    place = {"backbone": "parts.lm", "tokenizer": make_tokenizer(trained_backend)}
    module, edits = Guest(trained_backend), editing("scr", statistics, requests=EDITS, **place)
    watch = ReasoningBenchmark(["world_perplexity"], **place)
    trainer = fit(module, GuestData(trained_backend), [edits], max_steps=4)
    trainer.callbacks.append(watch)
    assert watch._model(trainer, module).memory is edits.editor


def test_questions_about_edits_of_a_checkpoint_are_not_asked(tmp_path: Path) -> None:
    def edits() -> ContinualEdit:
        return editing("scr")

    fit(world_module(), world_data(EDITS), [edits(), SaveAt(tmp_path, 4)], max_steps=4)
    watch = ReasoningBenchmark(["world_perplexity"], limit=1, batch_size=4)
    go(alone([watch, edits()]), "validate", world_module(), tmp_path / "4.ckpt")
    assert watch.benchmark.avoid == sorted(str(edit.subject) for edit in EDITS)


def monitor(**options: Any) -> EditMonitor:
    return EditMonitor(**{"max_new_tokens": 3, "thought_tokens": 3, **options})


@pytest.mark.parametrize("kind", ["memit", "scr"])
def test_a_monitor_measures_the_edits_of_a_checkpoint(
    kind: str, trained_backend: str, statistics: Path, tmp_path: Path
) -> None:
    in_fit = monitor(by_kind=True, judge=Parity())
    callbacks = [editing(kind, statistics), in_fit, SaveAt(tmp_path, 4)]
    trainer = fit(teller(trained_backend), stream(trained_backend, EDITS), callbacks, max_steps=4)
    last = {f"edit/{name}": value for name, value in in_fit.history[-1].items() if name not in ("count", "step")}
    assert {"edit/reliability", "edit/locality/near", "edit/portability/hop", "edit/retention"} <= last.keys()
    (found,) = go(trainer, "validate", trainer.lightning_module)
    for run in ("validate", "test"):
        late = monitor(by_kind=True, judge=Parity())
        (again,) = go(alone([late, editing(kind, statistics)]), run, teller(trained_backend), tmp_path / "4.ckpt")
        assert {name: value for name, value in again.items() if name != "val_loss"} == pytest.approx(
            {"edit/count": 4, **last}
        )
        assert late.baseline == in_fit.baseline
    assert found == again | {"val_loss": found["val_loss"]}


def test_a_monitor_says_what_it_cannot_measure(trained_backend: str, statistics: Path, tmp_path: Path) -> None:
    saver = SaveAt(tmp_path, 4)
    fit(teller(trained_backend), stream(trained_backend, EDITS), [editing("scr"), saver], max_steps=4)
    with pytest.warns(UserWarning, match="no answers of the unedited model, so locality is left out"):
        (found,) = go(alone([monitor(), editing("scr")]), "test", teller(trained_backend), tmp_path / "4.ckpt")
    assert found.keys() == {"edit/count", "edit/reliability", "edit/generalization", "edit/portability"}
    with pytest.warns(UserWarning, match="found no edits at work in the model, after 0 requests"):
        assert go(alone([monitor(), editing("scr")]), "test", teller(trained_backend)) == [{}]
    with pytest.raises(StrategyError, match="EditMonitor found no ContinualEdit"):
        go(alone([monitor()]), "validate", teller(trained_backend))
    watch = monitor()
    trainer = alone([watch, editing("scr")])
    go(trainer, "predict", teller(trained_backend))
    assert watch.history == []


def test_a_monitor_asks_no_probe_that_the_unedited_model_was_not_asked(trained_backend: str, tmp_path: Path) -> None:
    edits = [*requests(2), *(request(0, id=f"again {n}", target=city) for n, city in enumerate(("Lima", "Cairo")))]
    callbacks = [editing("scr"), monitor(budget=1), SaveAt(tmp_path, 4)]
    fit(teller(trained_backend), stream(trained_backend, edits), callbacks, max_steps=4)
    late = monitor(budget=1)
    (found,) = go(alone([late, editing("scr")]), "test", teller(trained_backend), tmp_path / "4.ckpt")
    assert "edit/reliability" in found


def test_what_a_guard_handed_over_is_at_work_too(trained_backend: str, statistics: Path, tmp_path: Path) -> None:
    def callbacks(**options: Any) -> list[pl.Callback]:
        edits = editing("memit", statistics)
        return [edits, EditGuard({"mood": 0.0}, measures={"mood": Culprit(edits, "r1")}, another="scr", **options)]

    guard = {"another_options": TEXTS}
    edited = teller(trained_backend)
    fit(edited, stream(trained_backend, EDITS), [*callbacks(**guard), SaveAt(tmp_path, 4)], max_steps=4)
    told = edited.language_model.recall(PROMPTS)
    assert told[1] != PROMPTS[1]
    module, fresh = teller(trained_backend), callbacks(**guard)
    go(alone(fresh[::-1]), "validate", module, tmp_path / "4.ckpt")
    assert module.language_model.recall(PROMPTS) == told
    assert alike(said(module.language_model), said(edited.language_model))
    assert [edit.id for edit in fresh[0].session.active_requests()] == ["r0", "r2", "r3", "r1"]
