"""Edits over two layers whose key statistics have a condition of 1e8 and 1e12, in float64 and in float32 models."""

from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
import torch

from lightning_edit.algebra import KeyCovariance, TopKRelativeChange
from lightning_edit.editors import ClosedFormEditor, get_editor
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.model.weights import read_weight
from tests.algebra.toys import null_basis
from tests.conftest import INNER
from tests.editors.conftest import STRONG, facts, gap, solutions, weights
from tests.reference import one_time, prune, rect, relative
from tests.reference_feedback import ROUNDING, error_feedback

Make = Callable[..., LanguageModel]

COVARIANCE: dict[str, Any] = {"prior_weight": 5.0}
EDITORS: dict[str, tuple[str, dict[str, Any], Callable[..., Any]]] = {
    "rect": ("rect", {**COVARIANCE, "fraction": 0.3}, partial(rect, fraction=0.3)),
    "prune": (
        "prune",
        {**COVARIANCE, "variant": "linear", "multiple": 0.05, "reference": "current"},
        lambda update, weight: prune(update, 0.05 * weight).numpy(),
    ),
    "alphaedit, restricted": (
        "alphaedit",
        {"nullspace_threshold": 0.02, "l2": 0.5, "restriction": TopKRelativeChange(0.3)},
        partial(rect, fraction=0.3),
    ),
}


def ill(cond: float) -> dict[int, KeyCovariance]:
    """Moments of two layers, with eigenvalues from 1 down to 1 / cond."""
    moments = {}
    for layer in (0, 1):
        generator = torch.Generator().manual_seed(layer)
        rotation = torch.linalg.qr(torch.randn(INNER, INNER, generator=generator, dtype=torch.float64)).Q
        spectrum = cond ** -torch.linspace(0, 1, INNER, dtype=torch.float64)
        moments[layer] = KeyCovariance(INNER)
        moments[layer].update((rotation * (INNER * spectrum).sqrt()).T)
    return moments


def build(kind: str, lm: LanguageModel, cond: float, **options: Any) -> ClosedFormEditor:
    """An editor with such statistics, ready for its first edit."""
    editor = get_editor(kind, **{**STRONG, "layers": [0, 1], "steps": 6, **options})
    assert isinstance(editor, ClosedFormEditor)
    editor.prepare(lm, statistics=ill(cond))
    return editor


@pytest.mark.parametrize("name", EDITORS)
@pytest.mark.parametrize("cond", [1e8, 1e12])
def test_every_layer_is_deployed_as_algorithm_one_would(name: str, cond: float, make_lm: Make) -> None:
    lm = make_lm()
    kind, options, plainly = EDITORS[name]
    editor = build(kind, lm, cond, **options)
    for first in range(3):
        editor.edit(lm, facts(2, 2 * first))
    moments = ill(cond)
    for site, now in zip(editor.sites, weights(lm, editor), strict=True):
        moment, ledger = moments[site.layer].moment, site.ledger
        batches = [(ledger.keys[:, i : i + 2], ledger.values[:, i : i + 2]) for i in (0, 2, 4)]
        basis = null_basis(moment, 0.02) if kind == "alphaedit" else None
        penalty = 0.5 * torch.eye(INNER, dtype=torch.float64) if kind == "alphaedit" else 5.0 * moment
        expected, _, pending = error_feedback(ledger.base, penalty, batches, plainly, basis)
        bound = ROUNDING[cond] if basis is None else 1e-12
        assert relative(now - ledger.base, expected - ledger.base) < bound
        assert relative(now - ledger.solution(), pending) < bound
        assert site.pending == pytest.approx(float(pending.norm()), rel=bound)
        exact = one_time(ledger.base, penalty, 1.0, ledger.keys, ledger.values, basis)
        assert relative(ledger.solution() - ledger.base, exact - ledger.base) < bound
        assert float(pending.norm()) > 0.02 * float((exact - ledger.base).norm())


@pytest.mark.parametrize("cond", [1e8, 1e12])
def test_a_float32_model_carries_the_float64_solution_as_float32_can_hold_it(cond: float, make_lm: Make) -> None:
    lm = make_lm(dtype=torch.float32)
    base = [read_weight(lm.projection(layer)).clone() for layer in (0, 1)]
    editor = build("memit", lm, cond, **COVARIANCE)
    for first in range(3):
        editor.edit(lm, facts(2, 2 * first))
    moments = ill(cond)
    for site, old, now in zip(editor.sites, base, weights(lm, editor), strict=True):
        keys, values = site.ledger.keys, site.ledger.values
        exact = one_time(old, 5.0 * moments[site.layer].moment, 1.0, keys, values)
        assert now.dtype == site.ledger.base.dtype == torch.float32
        assert relative(site.ledger.solution() - old, exact - old.double()) < ROUNDING[cond]
    assert gap(weights(lm, editor), solutions(editor)) < 2**-24
