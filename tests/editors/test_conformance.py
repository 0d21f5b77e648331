"""What every editor promises, whatever its method: one suite over all of them."""

import io
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from lightning_edit import EditableModule, save_edits
from lightning_edit.editors import ClosedFormEditor, EditRefused
from lightning_edit.editors.editor import Editor
from lightning_edit.editors.registry import EDITORS
from lightning_edit.errors import EditError, LedgerError, RequestError
from lightning_edit.evaluation.likelihood import log_likelihoods
from lightning_edit.model.statistics import collect_statistics
from lightning_edit.model.weights import read_weight
from lightning_edit.reasoning.harness_model import HarnessModel
from tests.callbacks.training import same
from tests.editors.conformance import (
    CASES,
    PROMPTS,
    UNRELATED,
    Make,
    answers,
    equal,
    make_editor,
    obedient,
    parameters,
    second,
)
from tests.editors.conftest import fact, facts, solutions
from tests.editors.gradient import nothing_else_changes
from tests.seq2seq import ending, tiny_t5

ROOT = Path(__file__).resolve().parents[2]
EVERY = pytest.mark.parametrize("name", CASES)
Build = Callable[[str, EditableModule], Editor]


@pytest.fixture(autouse=True)
def agreeing() -> Iterator[None]:
    with obedient():
        yield


@pytest.fixture
def make(tiny_model: Callable[..., PreTrainedModel], tokenizer: PreTrainedTokenizerFast, trained_backend: str) -> Make:
    """A factory of equal modules, for an editor by its name."""

    def build(name: str) -> EditableModule:
        if CASES[name].family == "t5":
            return EditableModule.from_model(tiny_t5(dtype=torch.float64), ending(trained_backend))
        model = tiny_model("llama", dtype=torch.float64)
        model.get_output_embeddings().weight.data.mul_(5)
        return EditableModule.from_model(model, tokenizer)

    return build


@pytest.fixture(scope="session")
def shelf(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What is made once: a folder, and key statistics."""
    return {"folder": tmp_path_factory.mktemp("conformance")}


@pytest.fixture
def build(shelf: dict[str, Any], make: Make, corpus: list[str]) -> Build:
    """A factory of editors that are ready to edit."""
    if "statistics" not in shelf:
        shelf["statistics"] = dict(collect_statistics(make("memit").language_model, corpus))
    return lambda name, module: make_editor(name, module, shelf["folder"], shelf["statistics"])


def test_no_editor_is_left_out() -> None:
    assert {case.editor for case in CASES.values()} == set(EDITORS)


@EVERY
def test_edits_are_at_work_and_disturb_nothing_else(name: str, make: Make, build: Build) -> None:
    module, case = make(name), CASES[name]
    before, weights = answers(module), parameters(module)
    editor = build(name, module)
    assert equal(answers(module), before)  # an editor that has learned nothing changes nothing
    assert editor.edit(module, []).count == editor.undo(module, []).count == editor.rollback(module, 0).count == 0
    assert equal(answers(module), before)
    with nothing_else_changes(module.language_model):
        report = editor.edit(module, iter(facts(2)))
    assert (report.kind, report.count, report.active, report.ids) == ("edit", 2, 2, ["r0", "r1"])
    assert report.seconds["total"] > 0
    assert editor.requests == facts(2)
    assert not torch.equal(answers(module)["likely"][:2], before["likely"][:2])
    if case.silent:
        assert same(parameters(module), weights)
    with nothing_else_changes(module.language_model):
        editor.repair(module, refresh=True)
    assert editor.edit(module, second()).replaced == ["r0"]
    assert [request.id for request in editor.requests] == ["r1", "r2", "new"]


@EVERY
def test_requests_are_taken_back_or_it_is_said_that_they_cannot(name: str, make: Make, build: Build) -> None:
    module, case = make(name), CASES[name]
    start = carried(name, build(name, module), module)
    editor = build(name, module)
    editor.edit(module, facts(2))
    first = carried(name, editor, module)
    editor.edit(module, second())
    later, state = answers(module), editor.state_dict()
    if case.undo == "none":
        with pytest.raises(LedgerError, match="no longer in the ledger"):
            editor.undo(module, "r1")
        assert same(editor.state_dict(), state)
        assert equal(answers(module), later)
        return
    with nothing_else_changes(module.language_model):
        report = editor.undo(module, ["r2", "new"])
    assert (report.kind, sorted(report.ids), report.restored, report.active) == ("undo", ["new", "r2"], ["r0"], 2)
    assert close(carried(name, editor, module), first, case.slack)
    if case.undo == "last":
        with pytest.raises(EditError, match="one commit"):
            editor.undo(module, "r0")
        assert editor.rollback(module, 2).count == 2
    else:
        editor.undo(module, "r0")
        assert [request.id for request in editor.requests] == ["r1"]
        assert editor.rollback(module, 1).ids == ["r1"]
    assert editor.requests == []
    assert close(carried(name, editor, module), start, case.slack)


def carried(name: str, editor: Editor, module: EditableModule) -> dict[str, Any]:
    """What an undo has to bring back: answers and weights, or the exact weights where the model has others."""
    if CASES[name].restricted:
        assert isinstance(editor, ClosedFormEditor)
        exact = solutions(editor) or [read_weight(module.language_model.projection(i)) for i in editor.layers]
        return {str(layer): value.clone() for layer, value in zip(editor.layers, exact, strict=True)}
    return {**answers(module), **parameters(module)}


def close(one: dict[str, Any], other: dict[str, Any], slack: float) -> bool:
    """Whether all is the same, up to what rounding leaves of a weight that went and came back."""
    pairs = [(one[key], other[key]) for key in one]
    return all(a == b if isinstance(a, list) else torch.allclose(a, b, rtol=0, atol=slack) for a, b in pairs)


@EVERY
def test_an_edit_that_fails_leaves_everything_as_it_was(name: str, make: Make, build: Build) -> None:
    module = make(name)
    editor, lm = build(name, module), module.language_model
    editor.edit(module, facts(1))
    before, weights, state = answers(module), parameters(module), editor.state_dict()
    hooks = [len(part._forward_hooks) for part in module.model.modules()]
    seen: list[bool] = []

    def refuse(report: object) -> bool:
        seen.append(equal(answers(module), before))
        return False

    def stumble(report: object) -> bool:
        raise ZeroDivisionError

    def stays() -> None:
        assert same(parameters(module), weights)
        assert same(editor.state_dict(), state)
        assert equal(answers(module), before)
        assert [len(part._forward_hooks) for part in module.model.modules()] == hooks

    wrong = {
        "too long": [fact(1), fact(2, prompt="the mother " * 90 + "of Ida", sentence="Ida " * 200), fact(3)],
        "known": [fact(1), fact(0), fact(3)],
        "twice": [fact(1), fact(2), fact(1)],
    }
    with nothing_else_changes(lm):
        for batch in wrong.values():
            with pytest.raises(RequestError):
                editor.edit(module, batch)
        with pytest.raises(EditRefused):
            editor.edit(module, facts(2, 1), refuse)
        with pytest.raises(ZeroDivisionError):
            editor.edit(module, facts(2, 1), stumble)
    assert seen == [False]  # the guard looks at the edited model
    stays()
    if CASES[name].listens:
        calls: list[object] = []

        def fall(*given: object) -> None:
            calls.append(given)
            if len(calls) > 1:
                raise ZeroDivisionError

        handle = lm.model.get_submodule(lm.sites[-1].block).register_forward_pre_hook(fall)
        with nothing_else_changes(lm), pytest.raises(ZeroDivisionError):
            editor.edit(module, facts(2, 1))
        handle.remove()
        stays()
    if CASES[name].undo != "none":
        with pytest.raises(EditRefused):
            editor.undo(module, "r0", lambda report: False)
        stays()
    editor.edit(module, facts(2, 1))  # and nothing is the worse for it
    assert [request.id for request in editor.requests] == ["r0", "r1", "r2"]


@EVERY
def test_a_state_goes_on_as_if_it_had_never_stopped(name: str, make: Make, build: Build) -> None:
    module, other = make(name), make(name)
    editor = build(name, module)
    editor.edit(module, facts(2))
    file = io.BytesIO()
    torch.save(editor.state_dict(), file)
    file.seek(0)
    state = torch.load(file, weights_only=True)
    assert same(state, editor.state_dict())
    other.model.load_state_dict(module.model.state_dict())
    fresh = build(name, other)
    fresh.load_state_dict(state)
    assert fresh.requests == editor.requests
    assert equal(answers(other), answers(module))
    for each, model in ((editor, module), (fresh, other)):
        torch.manual_seed(len(str(id(model))) + id(model) % 97)  # of no effect
        each.edit(model, second())
    assert same(fresh.state_dict(), editor.state_dict())
    assert same(parameters(other), parameters(module))
    assert equal(answers(other), answers(module))
    assert same(state["version"], fresh.state_dict()["version"])


@EVERY
def test_prompts_in_a_batch_are_answered_as_one_by_one(name: str, make: Make, build: Build) -> None:
    module = make(name)
    build(name, module).edit(module, facts(3))
    mixed = [PROMPTS[index] for index in (4, 0, 5, 2, 6, 1, 3)]
    together = answers(module, mixed)
    alone = [answers(module, [prompt]) for prompt in mixed]
    assert together["written"] == [one["written"][0] for one in alone]
    assert torch.allclose(together["likely"], torch.cat([one["likely"] for one in alone]), rtol=1e-9, atol=1e-9)
    assert answers(module, mixed, use_cache=False)["written"] == together["written"]
    assert module.generate(mixed[1], 5) == together["written"][1:2]


@EVERY
def test_lm_eval_asks_the_edited_model(name: str, make: Make, build: Build) -> None:
    from types import SimpleNamespace

    module = make(name)
    harness = HarnessModel(module.language_model, batch_size=3)
    asked: list[Any] = [SimpleNamespace(args=(prompt, " the city")) for prompt in PROMPTS]

    def found() -> torch.Tensor:
        return torch.tensor([log for log, _ in harness.loglikelihood(asked)], dtype=torch.float64)

    clean = found()
    build(name, module).edit(module, facts(2))
    edited = found()
    expected = log_likelihoods(module.language_model, PROMPTS, ["the city"] * len(PROMPTS), "sum")
    assert torch.allclose(edited, expected.double(), atol=1e-5)
    assert not torch.allclose(edited[:2], clean[:2], atol=1e-4)


@pytest.mark.parametrize("name", ["memit", "grace", "scr"])
def test_lm_eval_lets_the_edited_model_write(name: str, make: Make, build: Build) -> None:
    from types import SimpleNamespace

    module = make(name)
    harness = HarnessModel(module.language_model, batch_size=3)
    asked: list[Any] = [SimpleNamespace(args=(prompt, {"until": ["\n"], "max_gen_toks": 5})) for prompt in PROMPTS]

    def cut(text: str) -> str:
        return text.partition("\n")[0].strip()

    clean = harness.generate_until(asked)
    assert clean == [cut(text) for text in module.generate(PROMPTS, 5)]
    build(name, module).edit(module, facts(2))
    edited = harness.generate_until(asked)
    assert edited == [cut(text) for text in module.generate(PROMPTS, 5)]
    assert edited[:2] != clean[:2]
    if CASES[name].silent:
        assert edited[-len(UNRELATED) :] == clean[-len(UNRELATED) :]


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.silent])
def test_where_an_editor_does_not_fire_the_forward_is_untouched(name: str, make: Make, build: Build) -> None:
    module = make(name)
    batch = dict(module.tokenizer(UNRELATED, padding=True, return_tensors="pt"))
    batch.pop("token_type_ids", None)
    starts = {"decoder_input_ids": torch.ones(3, 1, dtype=torch.long)} if CASES[name].family == "t5" else {}

    def everything() -> dict[str, Any]:
        with torch.no_grad():
            bare = module.model(**batch, **starts)  # as a user runs it, with nobody to say where prompts end
        return {**answers(module, UNRELATED), "logits": bare.logits, "one": answers(module, UNRELATED[:1])}

    before = everything()
    editor = build(name, module)
    editor.edit(module, facts(3))
    assert same(everything(), before)
    edited = answers(module)
    editor.detach(module)
    assert same(everything(), before)
    assert not equal(answers(module), edited)
    assert all(not part._forward_hooks for part in module.model.modules())
    editor.attach(module)
    assert equal(answers(module), edited)


@pytest.fixture(scope="session")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """A folder for every editor, what its model said, and whether another process has read them."""
    return {"folder": tmp_path_factory.mktemp("saved"), "said": {}, "read": False}


def save_all(saved: dict[str, Any], make: Make, build: Build) -> None:
    """Every editor with its model in a folder of its own, then one process that loads them all."""
    for name in CASES:
        module = make(name)
        editor = build(name, module)
        editor.edit(module, facts(2))
        said = answers(module)
        save_edits(module, saved["folder"] / name.replace(" ", "_"), editor)
        assert equal(answers(module), said), name
        editor.edit(module, second())
        saved["said"][name] = {"answers": said, "after": answers(module), "state": editor.state_dict()}
    script = [sys.executable, str(ROOT / "tests" / "editors" / "conformance.py"), str(saved["folder"])]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    done = subprocess.run(script, env=environment, capture_output=True, text=True, check=False, timeout=900)
    assert done.returncode == 0, done.stderr[-3000:]
    saved["read"] = True


@EVERY
def test_a_fresh_process_loads_the_folder_and_goes_on(
    name: str, saved: dict[str, Any], make: Make, build: Build
) -> None:
    if not saved["said"]:
        save_all(saved, make, build)
    assert saved["read"]
    found = torch.load(saved["folder"] / name.replace(" ", "_") / "fresh.pt", weights_only=True)
    expected = saved["said"][name]
    for part in ("answers", "after"):
        assert equal(found[part], expected[part]), part
    assert same(found["state"], expected["state"])
