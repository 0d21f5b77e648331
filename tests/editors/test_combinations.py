"""Every closed-form editor under every history, deployment and kind of target, on one layer and on two.

A combination works, or it is refused when the editor is made; none fails later. What working means: weights stay
finite, the report says how far they are from the exact ones, a state goes on elsewhere, and what can be undone is.
Half of the combinations stand for all, see `covering`.
"""

import io
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import combinations, product
from typing import Any, get_args

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from lightning_edit.algebra import KeyCovariance, Mode
from lightning_edit.editors import ClosedFormEditor, EditReport, get_editor
from lightning_edit.editors.base import History, TargetModel
from lightning_edit.errors import EditError, LedgerError
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.model.statistics import collect_statistics
from lightning_edit.model.weights import read_weight, write_weight
from tests.callbacks.training import same
from tests.editors.conftest import fact, facts

COVARIANCE: dict[str, Any] = {"prior_weight": 5.0}
EDITORS: dict[str, tuple[str, dict[str, Any]]] = {
    "memit": ("memit", COVARIANCE),
    "alphaedit": ("alphaedit", {"nullspace_energy": 0.2, "l2": 0.5}),
    "rome": ("rome", {}),
    "emmet": ("emmet", COVARIANCE),
    "pmet": ("pmet", COVARIANCE),
    "rect": ("rect", {**COVARIANCE, "fraction": 0.3}),
    "rect on rome": ("rect", {"on": "rome", "fraction": 0.3}),
    "prune": ("prune", {**COVARIANCE, "multiple": 0.1}),
    "l1": ("l1", {**COVARIANCE, "ridge": 1.0, "l1": 1e-3, "tolerance": 1e-6}),
    "sensitivity_aware": ("sensitivity_aware", COVARIANCE),
    "memorize_latest": ("memorize_latest", COVARIANCE),
}
SETTINGS: list[Any] = [get_args(History), get_args(Mode), get_args(TargetModel), ([1], [0, 1])]
QUICK: dict[str, Any] = {"steps": 2, "clamp": 2.0, "kl": 0.0, "contexts": []}


@dataclass(frozen=True)
class Bench:
    """One small model for all, and its key statistics."""

    lm: LanguageModel
    moments: dict[int, KeyCovariance]


@pytest.fixture(scope="module")
def benches() -> list[Bench]:
    """What is made once."""
    return []


@pytest.fixture
def bench(
    benches: list[Bench],
    tiny_model: Callable[..., PreTrainedModel],
    tokenizer: PreTrainedTokenizerFast,
    corpus: list[str],
) -> Iterator[Bench]:
    """The model as every combination finds it."""
    if not benches:
        model = tiny_model("llama", dtype=torch.float64, num_hidden_layers=2)
        model.get_output_embeddings().weight.data.mul_(5)
        lm = LanguageModel(model, tokenizer)
        benches.append(Bench(lm, dict(collect_statistics(lm, corpus))))
    lm = benches[0].lm
    before = [read_weight(lm.projection(layer)).clone() for layer in (0, 1)]
    yield benches[0]
    for layer, weight in enumerate(before):
        write_weight(lm.projection(layer), weight)


def make(name: str, history: str, mode: str, targets: str, layers: list[int]) -> ClosedFormEditor:
    """The editor of a combination."""
    kind, options = EDITORS[name]
    options = {**QUICK, **options, "targets": targets, "deployment": mode, "layers": layers}
    if kind == "memorize_latest":  # whose form says what its history is
        options |= {"form": {"latest": "full", "absorbed": "simplified"}[history]}
        options |= {"nullspace_energy": 0.2, "l2": 0.5} if history == "absorbed" else {}
    else:
        options["history"] = history
        if history == "absorbed" and kind == "rect":
            options["aligned"] = False
    editor = get_editor(kind, **options)
    assert isinstance(editor, ClosedFormEditor)
    return editor


def refused(name: str, history: str, mode: str) -> bool:
    """Combinations without a solution: a step that is read on the deployed weight alone needs one C for all of it.

    The convex penalty and the weighted directions have none, and with noise 0 there is none to take a column out with,
    which only an editor that absorbs its batches never has to do.
    """
    exact = name in ("rome", "rect on rome") and history != "absorbed"
    return mode == "none" and (exact or name in ("l1", "sensitivity_aware"))


def check(editor: ClosedFormEditor, lm: LanguageModel, report: EditReport) -> None:
    """Finite weights, as far from the exact ones as is said."""
    squares = 0.0
    for site in editor.sites:
        now = read_weight(lm.projection(site.layer)).double()
        assert bool(now.isfinite().all())
        assert torch.equal(now, site.deployed.double())
        distance = float((now - site.ledger.solution()).norm())
        assert site.distance(lm.projection(site.layer)) == pytest.approx(distance, abs=1e-12)
        squares += distance**2
    if editor.history == "absorbed" and editor.sites[0].deployment.mode == "none":
        assert squares == 0  # what was left out, which the report tells, is left out for good
    else:
        assert report.pending_norm == pytest.approx(squares**0.5, rel=1e-6, abs=1e-9)
    assert report.delta_norm > 0
    assert report.active == len(editor.requests)


def covering() -> list[tuple[str, str, str, str, list[int]]]:
    """Half of all combinations, in which any three settings meet in every way, and an editor with any three others.

    Those whose four settings have an even sum of their places in the lists: where three of them are free, the fourth
    can make it even.
    """
    chosen = []
    for name, *numbers in product(EDITORS, *(range(len(values)) for values in SETTINGS)):
        history, mode, targets, layers = (values[number] for values, number in zip(SETTINGS, numbers, strict=True))
        if sum(numbers) % 2 == 0 and (name != "memorize_latest" or history != "kept"):
            chosen.append((name, history, mode, targets, layers))
    return chosen


COMBINATIONS = [pytest.param(*parts, id="-".join(parts[:4]) + f"-{len(parts[4])}") for parts in covering()]


@pytest.mark.parametrize(("name", "history", "mode", "targets", "layers"), COMBINATIONS)
def test_works_or_is_refused_when_it_is_made(
    name: str, history: str, mode: str, targets: str, layers: list[int], bench: Bench
) -> None:
    if refused(name, history, mode):
        with pytest.raises(EditError, match="deployment='none'"):
            make(name, history, mode, targets, layers)
        return
    lm, editor = bench.lm, make(name, history, mode, targets, layers)
    editor.prepare(lm, statistics=bench.moments)
    check(editor, lm, editor.edit(lm, facts(2)))
    report = editor.edit(lm, [fact(2), fact(0, "of", id="new")])
    assert report.replaced == ["r0"]
    check(editor, lm, report)

    file = io.BytesIO()
    torch.save(editor.state_dict(), file)
    file.seek(0)
    again = make(name, history, mode, targets, layers)
    again.load_state_dict(torch.load(file, weights_only=True))
    assert same(again.state_dict(), editor.state_dict())
    if history == "absorbed":
        with pytest.raises(LedgerError, match="no longer in the ledger"):
            again.undo(lm, "new")
        assert same(again.state_dict(), editor.state_dict())
        return
    report = again.undo(lm, "new")
    assert report.restored == ["r0"]
    check(again, lm, report)
    assert [request.id for request in again.requests] == ["r0", "r1", "r2"]


def test_any_three_settings_of_an_editor_meet_in_every_way() -> None:
    lists = [EDITORS, *SETTINGS[:3], [len(layers) for layers in SETTINGS[3]]]
    found = [(*parts[:4], len(parts[4])) for parts in covering()]
    for places in combinations(range(5), 4):
        if 0 in places:
            met = {tuple(parts[place] for place in places) for parts in found}
            wanted = set(product(*(lists[place] for place in places)))
            assert {parts for parts in wanted - met if not {"memorize_latest", "kept"} <= set(parts)} == set()
