"""Any of the requests taken back in any order, over two layers.

With live targets S is then the one-time solution over what the ledger had recorded for the others, layer by layer: the
keys of the upper layer and the targets stay those that were found while the model carried what is gone. Only on the
base, where every change rebuilds, is it the S of an editor that never had those requests.
"""

from collections.abc import Callable
from random import Random
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_edit.algebra import KeyCovariance
from lightning_edit.editors import ClosedFormEditor, get_editor
from lightning_edit.model.language_model import LanguageModel
from tests.editors.conftest import STRONG, fact, facts, gap, solutions, weights
from tests.reference import interpolation, one_time

Make = Callable[..., LanguageModel]
Moments = Callable[[LanguageModel], dict[int, KeyCovariance]]

COVARIANCE: dict[str, Any] = {"prior_weight": 5.0}
OPTIONS: dict[str, dict[str, Any]] = {
    "memit": COVARIANCE,
    "alphaedit": {"nullspace_energy": 0.2, "l2": 0.5},
    "rome": {**COVARIANCE, "history": "kept"},
    "rect": {**COVARIANCE, "fraction": 0.3, "deployment": "feedback"},
}
BATCHES = [(0, 1), (2,), (3, 4, 5), (6, 7)]


def build(name: str, lm: LanguageModel, moments: Moments, **changes: Any) -> ClosedFormEditor:
    """An editor of the table, ready for its first edit."""
    editor = get_editor(name, **{**STRONG, "layers": [0, 1], "steps": 6, **OPTIONS[name], **changes})
    assert isinstance(editor, ClosedFormEditor)
    editor.prepare(lm, statistics=moments(lm))
    return editor


def edit_all(editor: ClosedFormEditor, lm: LanguageModel) -> None:
    """Eight facts in four commits."""
    for batch in BATCHES:
        editor.edit(lm, [fact(i) for i in batch])


def undo_some(editor: ClosedFormEditor, lm: LanguageModel, gone: list[str], random: Random) -> None:
    """Take requests back in a random order, one or two at a time."""
    order = random.sample(gone, len(gone))
    while order:
        count = random.randint(1, 2)
        editor.undo(lm, order[:count])
        order = order[count:]


def one_time_over(editor: ClosedFormEditor, name: str, layer: int, moment: KeyCovariance, names: list[str]) -> Tensor:
    """The reference's solution at one layer over some of the columns that its ledger holds now."""
    ledger = next(site.ledger for site in editor.sites if site.layer == layer)
    places = [ledger.ids.index(key) for key in names]
    base, keys, values = ledger.base, ledger.keys[:, places], ledger.values[:, places]
    if name == "rome":
        return interpolation(base, 5.0 * moment.moment, keys, values)
    if name == "alphaedit":
        basis = torch.linalg.eigh(ledger.prior.project(torch.eye(len(keys), dtype=torch.float64))).eigenvectors
        basis = basis[:, -ledger.prior.rank :]  # of eigenvalue 1
        return one_time(base, 0.5 * torch.eye(len(keys), dtype=torch.float64), 1.0, keys, values, basis)
    return one_time(base, 5.0 * moment.moment, 1.0, keys, values)


@pytest.mark.parametrize("name", OPTIONS)
@pytest.mark.parametrize("seed", [0, 1])
def test_live_it_is_the_one_time_solution_over_the_recorded_others(
    name: str, seed: int, make_lm: Make, moments: Moments
) -> None:
    lm, random = make_lm(), Random(seed)
    original, statistics = make_lm(), moments(lm)
    editor = build(name, lm, moments)
    edit_all(editor, lm)
    gone = [f"r{i}" for i in random.sample(range(8), random.randint(2, 6))]
    rest = [request.id for request in editor.requests if request.id not in gone]
    expected = [one_time_over(editor, name, layer, statistics[layer], rest) for layer in (0, 1)]
    undo_some(editor, lm, gone, random)
    assert [request.id for request in editor.requests] == rest
    assert gap(solutions(editor), expected) < 1e-9
    assert gap(solutions(editor), weights(original, editor)) > 1e-3  # the others are still there
    if name != "rect":
        assert gap(weights(lm, editor), expected) < 1e-9
    fresh_lm = make_lm()
    fresh = build(name, fresh_lm, moments)
    fresh.edit(fresh_lm, [fact(int(key[1:])) for key in rest])
    for site, other in zip(editor.sites, fresh.sites, strict=True):  # an editor with the others' columns only
        other.ledger.set_columns(site.ledger.ids, site.ledger.keys, site.ledger.values)
    assert gap(solutions(editor), solutions(fresh)) < 1e-9


@pytest.mark.parametrize("name", OPTIONS)
def test_on_the_base_it_is_never_having_had_them(name: str, make_lm: Make, moments: Moments) -> None:
    lm, other, random = make_lm(), make_lm(), Random(2)
    editor, without = build(name, lm, moments, targets="base"), build(name, other, moments, targets="base")
    edit_all(editor, lm)
    undo_some(editor, lm, ["r0", "r3", "r4", "r6", "r7"], random)
    without.edit(other, [fact(i) for i in (5, 1, 2)])
    assert gap(solutions(editor), solutions(without)) < 1e-8
    if name != "rect":
        assert gap(weights(lm, editor), weights(other, without)) < 1e-8


@pytest.mark.parametrize("name", OPTIONS)
def test_live_the_order_of_undos_is_forgotten_by_a_rebuild(name: str, make_lm: Make, moments: Moments) -> None:
    found = []
    for seed in (0, 1):
        lm = make_lm()
        editor = build(name, lm, moments)
        edit_all(editor, lm)
        undo_some(editor, lm, ["r1", "r2", "r5", "r6"], Random(seed))
        recorded = solutions(editor)
        editor.rebuild(lm)
        found.append(solutions(editor))
    assert gap(found[0], found[1]) < 1e-9
    assert gap(found[0], recorded) > 1e-6  # which is another thing than what was recorded live


@pytest.mark.parametrize("name", OPTIONS)
def test_live_it_is_not_never_having_had_them(name: str, make_lm: Make, moments: Moments) -> None:
    lm, other = make_lm(), make_lm()
    editor, without = build(name, lm, moments), build(name, other, moments)
    edit_all(editor, lm)
    undo_some(editor, lm, [f"r{i}" for i in range(4)], Random(3))
    without.edit(other, facts(4, 4))
    assert gap(solutions(editor), solutions(without)) > 1e-3
