"""The equalities of the ledger for the editors that `test_equalities.py` and its neighbours do not ask: AlphaEdit, the
general form of Prop. 3.2, Memorize-the-Latest, the L1 penalty, and restrictions with feedback over several layers."""

from collections.abc import Callable
from typing import Any

import pytest
import torch

from lightning_edit.algebra import KeyCovariance
from lightning_edit.editors import ClosedFormEditor, get_editor
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.model.weights import read_weight
from tests.editors.conftest import STRONG, fact, facts, gap, solutions, weights
from tests.reference import one_time

Make = Callable[..., LanguageModel]
Moments = Callable[[LanguageModel], dict[int, KeyCovariance]]

NULL: dict[str, Any] = {"nullspace_energy": 0.2, "l2": 0.5}
KEPT: dict[str, tuple[str, dict[str, Any]]] = {
    "alphaedit": ("alphaedit", NULL),
    "memit, projected": ("memit", {**NULL, "projected": True, "prior_weight": 0.5}),
    "memit with a ridge": ("memit", {"prior_weight": 5.0, "ridge": 0.1}),
    "l1": ("l1", {"prior_weight": 5.0, "ridge": 1.0, "l1": 1e-3, "tolerance": 1e-22}),
    "rect": ("rect", {"prior_weight": 5.0, "fraction": 0.3}),
    "prune": ("prune", {"prior_weight": 5.0, "variant": "linear"}),
}
EXACT = ["alphaedit", "memit, projected", "memit with a ridge"]  # the deployed weight is the exact one


def build(name: str, lm: LanguageModel, moments: Moments, **changes: Any) -> ClosedFormEditor:
    """An editor of the table, ready for its first edit."""
    kind, options = KEPT[name]
    editor = get_editor(kind, **{"layers": [0, 1], **STRONG, "steps": 6, **options, **changes})
    assert isinstance(editor, ClosedFormEditor)
    editor.prepare(lm, statistics=moments(lm))
    return editor


@pytest.mark.parametrize("name", KEPT)
def test_base_targets_make_order_and_batching_irrelevant(name: str, make_lm: Make, moments: Moments) -> None:
    lm, other = make_lm(), make_lm()
    editor, once = build(name, lm, moments, targets="base"), build(name, other, moments, targets="base")
    for batch in ([2], [0, 3], [1]):
        editor.edit(lm, [fact(i) for i in batch])
    once.edit(other, facts(4))
    tolerance = 1e-6 if name == "l1" else 1e-8  # a solver's, and the algebra's
    assert gap(solutions(editor), solutions(once)) < tolerance
    if name in EXACT:
        assert gap(weights(lm, editor), weights(other, once)) < tolerance


@pytest.mark.parametrize("name", KEPT)
def test_undo_is_never_having_had_it(name: str, make_lm: Make, moments: Moments) -> None:
    lm, other = make_lm(), make_lm()
    editor, without = build(name, lm, moments, targets="base"), build(name, other, moments, targets="base")
    for i in range(3):
        editor.edit(lm, [fact(i)])
    editor.undo(lm, "r1")
    without.edit(other, [fact(0), fact(2)])
    assert gap(solutions(editor), solutions(without)) < (1e-6 if name == "l1" else 1e-8)


@pytest.mark.parametrize("name", KEPT)
def test_a_contradiction_is_never_having_had_the_old_one(name: str, make_lm: Make, moments: Moments) -> None:
    lm, other = make_lm(), make_lm()
    editor, fresh = build(name, lm, moments, targets="base"), build(name, other, moments, targets="base")
    new = fact(1, "is", id="new")
    editor.edit(lm, facts(2))
    assert editor.edit(lm, [new]).replaced == ["r1"]
    fresh.edit(other, [fact(0), new])
    assert gap(solutions(editor), solutions(fresh)) < (1e-6 if name == "l1" else 1e-8)


@pytest.mark.parametrize("targets", ["live", "base"])
def test_the_latest_in_full_is_the_one_time_edit_of_the_newest_batch(
    targets: str, make_lm: Make, moments: Moments
) -> None:
    lm, plain = make_lm(), make_lm()
    editor = get_editor("memorize_latest", layers=[1], prior_weight=5.0, targets=targets, **{**STRONG, "steps": 6})
    assert isinstance(editor, ClosedFormEditor)
    editor.prepare(lm, statistics=moments(lm))
    for batch in ([0, 1], [2], [3, 4]):
        editor.edit(lm, [fact(i) for i in batch])
    ledger, base = editor.sites[0].ledger, read_weight(plain.projection(1))
    assert ledger.ids == ["r3", "r4"]
    assert torch.equal(ledger.base, base.to(ledger.base.dtype))
    expected = one_time(base, 5.0 * moments(plain)[1].moment, 1.0, ledger.keys, ledger.values)
    assert gap(weights(lm, editor), [expected]) < 1e-9
    assert gap([expected], [base]) > 1e-3
