"""ContinualEdit: when it edits, with which requests, and what it refuses."""

import logging
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from lightning.pytorch.strategies import DDPStrategy, DeepSpeedStrategy, FSDPStrategy, ModelParallelStrategy

from lightning_edit.callbacks import ContinualEdit
from lightning_edit.callbacks.commit import compatible_batches
from lightning_edit.callbacks.strategies import check_strategy
from lightning_edit.editors.report import EditRefused
from lightning_edit.errors import EditError, RequestError, StateError, StrategyError
from lightning_edit.evaluation import target_probabilities
from tests.callbacks.training import LAYERS, editing, fit, request, requests, same, stream, tiny_module, weights
from tests.callbacks.witness import Witness

# -- cadence -------------------------------------------------------------------------------------------------------


def test_edits_come_after_due_steps_and_change_only_edited_weights(trained_backend: str, statistics: Path) -> None:
    module, callback, witness = tiny_module(trained_backend), editing(statistics), Witness()
    fit(module, stream(trained_backend, requests(5)), [callback, witness], max_steps=7)
    assert witness.commits == [(2, ["r0", "r1"]), (4, ["r2", "r3"]), (6, ["r4"])]
    for before, after in zip(witness.before, witness.after, strict=True):
        changed = {name for name in before if not torch.equal(before[name], after[name])}
        assert changed == {f"model.model.layers.{layer}.mlp.down_proj.weight" for layer in LAYERS}
    assert module.editor is callback.editor
    assert [item.id for item in module.editor.requests] == [f"r{number}" for number in range(5)]
    assert callback.summary()["edits"] == callback.count == 5
    assert callback.summary()["editor"] == "memit"


def test_edits_take_and_can_be_undone(trained_backend: str) -> None:
    module, edits = tiny_module(trained_backend, spread=0.3), requests(3)
    lm, prompts, targets = module.language_model, [item.prompt for item in edits], [item.target for item in edits]
    before = target_probabilities(lm, prompts, targets).mean
    options = {"layers": [0], "steps": 30, "lr": 1.0, "clamp": 100.0, "weight_decay": 0.0, "contexts": []}
    callback = editing(edits_per_commit=3, editor_options=options, statistics_tokens=400)
    fit(module, stream(trained_backend, edits), [callback], max_steps=2)
    after = target_probabilities(lm, prompts, targets).mean
    assert (after > before + 0.3).all()
    module.editor.undo(module, [item.id for item in edits])
    undone = target_probabilities(lm, prompts, targets).mean
    assert (undone < after - 0.3).all()


def test_a_control_run_trains_as_if_nobody_watched(trained_backend: str) -> None:
    alone, watched = tiny_module(trained_backend), tiny_module(trained_backend)
    callback, witness = editing(editor=None), Witness()
    fit(alone, stream(trained_backend), [])
    fit(watched, stream(trained_backend, requests(5)), [callback, witness])
    assert same(weights(alone), weights(watched))
    assert [len(ids) for _, ids in witness.commits] == [2, 2, 1]
    assert callback.summary() == {"editor": "none", "aligned": False, "edits": 0, "requests": 5}
    assert watched.editor is None


def test_one_commit_for_one_optimizer_step(trained_backend: str) -> None:
    witness = Witness()
    callbacks = [editing(editor=None, every_n_steps=1, edits_per_commit=1), witness]
    fit(
        tiny_module(trained_backend),
        stream(trained_backend, requests(20)),
        callbacks,
        max_steps=4,
        accumulate_grad_batches=3,
    )
    assert [step for step, _ in witness.commits] == [1, 2, 3, 4]


def test_epochs_predicates_and_dry_runs(trained_backend: str) -> None:
    class Odd(ContinualEdit):
        def should_edit(self, step: int | None = None, epoch: int | None = None) -> bool:
            return step in (1, 3) or epoch == 1

    def commits(callback: ContinualEdit, **options: Any) -> list[int]:
        witness = Witness()
        data = stream(trained_backend, requests(40), train=["A few words, and then some more."] * 6, max_length=16)
        fit(tiny_module(trained_backend), data, [callback, witness], **options)
        return [step for step, _ in witness.commits]

    per_epoch = 2
    assert commits(ContinualEdit(editor=None), max_steps=-1, max_epochs=3) == [per_epoch, 2 * per_epoch, 3 * per_epoch]
    assert commits(ContinualEdit(editor=None, every_n_epochs=2), max_steps=-1, max_epochs=3) == [2 * per_epoch]
    assert commits(Odd(editor=None), max_steps=-1, max_epochs=2) == [1, 3, 2 * per_epoch]
    assert commits(ContinualEdit(editor=None, every_n_steps=50), fast_dev_run=2) == [1, 2]
    assert commits(ContinualEdit(editor=None, every_n_steps=1, edits_per_commit=2, max_edits=3)) == [1, 2]
    with pytest.raises(StrategyError, match="every_n_steps=0"):
        ContinualEdit(editor=None, every_n_steps=0)


def test_the_end_of_the_stream_is_said_once(trained_backend: str, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    fit(tiny_module(trained_backend), stream(trained_backend, requests(1)), [editing(editor=None, every_n_steps=1)])
    assert caplog.text.count("No edit requests are left after 1.") == 1


# -- requests ------------------------------------------------------------------------------------------------------


def test_a_contradiction_within_a_commit_is_resolved_in_order(trained_backend: str, statistics: Path) -> None:
    edits = [request(0), request(1), request(0, id="new", target="Berlin"), request(2)]
    assert [[item.id for item in batch] for batch in compatible_batches(edits)] == [["r0", "r1"], ["new", "r2"]]
    module, callback = tiny_module(trained_backend), editing(statistics, edits_per_commit=4)
    fit(module, stream(trained_backend, edits), [callback], max_steps=2)
    assert [item.id for item in module.editor.requests] == ["r1", "new", "r2"]
    assert [item.id for item in callback.session.handed_over()] == ["r0", "r1", "new", "r2"]


def test_a_request_that_the_editor_cannot_take(trained_backend: str, statistics: Path) -> None:
    edits = [request(0), request(1, subject=None), request(2)]
    with pytest.raises(RequestError, match="'r1' has no subject"):
        fit(tiny_module(trained_backend), stream(trained_backend, edits), [editing(statistics, edits_per_commit=3)])
    module, callback = tiny_module(trained_backend), editing(statistics, edits_per_commit=3, on_bad="skip")
    with pytest.warns(UserWarning, match="request 'r1' was left out"):
        fit(module, stream(trained_backend, edits), [callback])
    assert [item.id for item in module.editor.requests] == ["r0", "r2"]
    assert (callback.count, callback.session.rejected, callback.summary()["edits"]) == (3, ["r1"], 2)


def test_a_refused_edit_costs_its_requests_and_nothing_else(
    trained_backend: str, statistics: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    callback = editing(statistics)

    def refuse(*_: Any, **__: Any) -> None:
        raise EditRefused("no.")

    monkeypatch.setattr(callback.editor, "edit", refuse)
    alone, module = tiny_module(trained_backend), tiny_module(trained_backend)
    fit(alone, stream(trained_backend), [])
    with pytest.warns(UserWarning, match="r0, r1"):
        fit(module, stream(trained_backend, requests(2)), [callback])
    assert same(weights(alone), weights(module))
    assert (callback.count, callback.session.rejected) == (2, ["r0", "r1"])


def test_where_requests_come_from(trained_backend: str) -> None:
    witness, given = Witness(), requests(2, start=7)
    fit(tiny_module(trained_backend), stream(trained_backend), [editing(editor=None, requests=given), witness])
    assert witness.commits == [(2, ["r7", "r8"])]
    with pytest.raises(RequestError, match="found no edit requests"):
        fit(tiny_module(trained_backend), stream(trained_backend), [editing(editor=None)])


# -- what is refused -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", [FSDPStrategy, DeepSpeedStrategy, ModelParallelStrategy])
def test_strategies_that_cut_weights_are_refused(kind: type) -> None:
    with pytest.raises(StrategyError, match=rf"{kind.__name__}\), which cuts .* expected one device or DDP"):
        check_strategy(SimpleNamespace(strategy=object.__new__(kind)))  # type: ignore[arg-type]
    check_strategy(SimpleNamespace(strategy=DDPStrategy()))  # type: ignore[arg-type]


def test_impossible_arguments_and_states() -> None:
    with pytest.raises(EditError, match="no editor 'memitt'"):
        ContinualEdit("memitt")
    with pytest.raises(EditError, match="is no editor; expected a subclass"):
        ContinualEdit({"class_path": "collections.OrderedDict", "init_args": {}})
    with pytest.raises(EditError, match="together with the options"):
        ContinualEdit(editor=None, editor_options={"layers": [0]})
    with pytest.raises(StrategyError, match="edits_per_commit=0"):
        ContinualEdit(editor=None, edits_per_commit=0)
    control = ContinualEdit(editor=None).state_dict()
    with pytest.raises(StateError, match="version 99"):
        ContinualEdit(editor=None).load_state_dict({**control, "version": 99})
    with pytest.raises(StateError, match="cannot resume each other"):
        ContinualEdit("memit").load_state_dict(control)
    built = ContinualEdit(
        {"class_path": "lightning_edit.editors.MEMIT", "init_args": {"aligned": False}}, drift="ignore"
    )
    assert built.editor is not None
    assert (built.editor.aligned, built.editor.drift) == (False, "ignore")
