"""RECT and PRUNE on models: Algorithm 1 and its ablations, published baselines, and the restriction of the total."""

import math
from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from lightning_edit.algebra import KeyCovariance, SpectrumLimit
from lightning_edit.editors import ClosedFormEditor
from lightning_edit.editors.prune import AppliedTwice
from lightning_edit.model.language_model import LanguageModel
from tests import reference
from tests.editors.conftest import fact, gap, solutions, train_a_bit, weights
from tests.editors.restricted import QUICK, base_weights, edit_in_batches, small_weight
from tests.reference_rect_prune import everything, naive

Make = Callable[..., LanguageModel]
MakeEditor = Callable[..., ClosedFormEditor]
Moments = Callable[[LanguageModel], dict[int, KeyCovariance]]


def rect(update: object, weight: object) -> object:
    """RECT's restriction as the reference has it."""
    return reference.rect(update, weight, 0.2)


def prune(update: object, weight: object) -> object:
    """PRUNE's restriction as the reference has it, against the current weight."""
    return reference.prune(update, weight, math.e).numpy()


def linear_prune_against(original: Tensor) -> Callable:
    """PRUNE's linear restriction as the reference has it, against the original weight."""
    return lambda update, weight: reference.prune(update, original).numpy()


@pytest.mark.parametrize(("name", "options"), [("rect", {}), ("prune", {"variant": "linear"})])
def test_aligned_is_algorithm_one(
    name: str, options: dict, make_lm: Make, make_editor: MakeEditor, moments: Moments
) -> None:
    lm = small_weight(make_lm())
    editor, base = make_editor(lm, name, layers=[1], **QUICK, **options), base_weights(lm, [1])[0]
    penalty, restrict = 5.0 * moments(lm)[1].moment, rect if name == "rect" else linear_prune_against(base)
    batches = edit_in_batches(lm, editor)
    expected, error_matrix, error = reference.algorithm_one(base, penalty, batches, restrict)
    assert gap([weights(lm, editor)[0] - base], [expected - base]) < 1e-9
    assert gap([editor.sites[0].ledger.compensation(weights(lm, editor)[0])], [error_matrix]) < 1e-7
    assert gap([weights(lm, editor)[0] - solutions(editor)[0]], [error]) < 1e-7  # W_T = S_T + D_T
    assert float(error.norm()) > 1e-3 * float((expected - base).norm())


@pytest.mark.parametrize(("name", "restrict"), [("rect", rect), ("prune", prune)])
def test_without_correction_is_the_papers_ablation(
    name: str, restrict: Callable, make_lm: Make, make_editor: MakeEditor, moments: Moments
) -> None:
    lm = small_weight(make_lm())
    editor = make_editor(lm, name, layers=[1], deployment="none", reference="current", **QUICK)
    base, penalty = base_weights(lm, [1])[0], 5.0 * moments(lm)[1].moment
    batches = edit_in_batches(lm, editor)
    expected = reference.uncompensated(base, penalty, batches, restrict)
    assert gap([weights(lm, editor)[0] - base], [expected - base]) < 1e-9
    corrected = reference.algorithm_one(base, penalty, batches, restrict)[0]
    assert gap([corrected - base], [expected - base]) > 1e-3


@pytest.mark.parametrize(("name", "restrict"), [("rect", rect), ("prune", prune)])
def test_naive_solves_each_batch_alone_and_forgets_what_was_left_out(
    name: str, restrict: Callable, make_lm: Make, make_editor: MakeEditor, moments: Moments
) -> None:
    lm = small_weight(make_lm())
    editor = make_editor(lm, name, layers=[1], aligned=False, reference="current", **QUICK)
    assert (editor.history, editor._estate.declaration.deployment.mode) == ("absorbed", "none")
    base, penalty = base_weights(lm, [1])[0], 5.0 * moments(lm)[1].moment
    batches = edit_in_batches(lm, editor)
    expected = naive(base, penalty, batches, restrict)
    assert gap([weights(lm, editor)[0] - base], [expected - base]) < 1e-9
    assert torch.equal(editor.sites[0].ledger.base, weights(lm, editor)[0])


def test_naive_prune_is_naive_memit_where_nothing_is_clipped(make_lm: Make, make_editor: MakeEditor) -> None:
    found = []
    for name, options in (("prune", {}), ("memit", {"deployment": "none"}), ("memit", {})):
        lm = make_lm()
        lm.projection(0).weight.data.mul_(20)
        editor = make_editor(lm, name, layers=[0], aligned=False, **QUICK, **options)
        for i in (0, 1, 2):
            editor.edit(lm, [fact(i)])
        found.append(weights(lm, editor))
    assert torch.equal(found[0][0], found[1][0])
    assert gap(found[0], found[2]) < 1e-9
    assert gap(found[0], base_weights(make_lm(), [0])) > 1e-3


def test_the_published_baseline_applies_the_total_twice(
    make_lm: Make, make_editor: MakeEditor, moments: Moments
) -> None:
    lm = make_lm()
    lm.projection(1).weight.data.mul_(20)  # nothing is clipped, so naive PRUNE should be naive MEMIT
    editor = make_editor(lm, "prune", layers=[1], aligned=False, double_application=True, restrict_after=5, **QUICK)
    base, penalty = base_weights(lm, [1])[0], 5.0 * moments(lm)[1].moment
    batches = edit_in_batches(lm, editor)
    total = naive(base, penalty, batches, everything) - base
    assert gap([weights(lm, editor)[0] - base], [2 * total]) < 1e-9
    before = naive(base, penalty, batches[:-1], everything)
    keys, values = batches[-1]
    once, twice = ((values - weight @ keys).norm() for weight in (base + total, weights(lm, editor)[0]))
    assert float(twice) > 2 * float(once)  # the last batch overshoots, see docs/reproducing.md
    assert float(once) < float((values - before @ keys).norm())


def test_the_twice_applied_restriction_is_the_update_and_the_restricted_update() -> None:
    update = torch.randn(6, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weight = 0.1 * update.flip(0)
    found = AppliedTwice(SpectrumLimit())(update, weight)
    assert gap([found], [update + reference.prune(update, weight, math.e)]) < 1e-12


def test_the_restriction_waits_for_its_number_of_requests(
    make_lm: Make, make_editor: MakeEditor, moments: Moments
) -> None:
    lm = make_lm()
    options = {"aligned": False, "deployment": "project_total", "restrict_after": 3}
    editor, base = make_editor(lm, "rect", layers=[1], **options, **QUICK), base_weights(lm, [1])[0]
    batches = edit_in_batches(lm, editor, (2,))
    chain = naive(base, 5.0 * moments(lm)[1].moment, batches, everything)
    assert gap([weights(lm, editor)[0] - base], [chain - base]) < 1e-9
    editor.edit(lm, [fact(2)])
    assert float((weights(lm, editor)[0] != base).double().mean()) == pytest.approx(0.2, abs=0.01)


@pytest.mark.parametrize("aligned", [True, False])
def test_project_total_restricts_the_whole_update(
    aligned: bool, make_lm: Make, make_editor: MakeEditor, moments: Moments
) -> None:
    lm = make_lm()
    editor = make_editor(lm, "rect", layers=[1], aligned=aligned, deployment="project_total", **QUICK)
    base, penalty = base_weights(lm, [1])[0], 5.0 * moments(lm)[1].moment
    batches = edit_in_batches(lm, editor)
    if aligned:
        keys, values = (torch.cat(part, dim=1) for part in zip(*batches, strict=True))
        exact = reference.one_time(base, penalty, 1.0, keys, values)
    else:
        exact = naive(base, penalty, batches, everything)
    assert gap(solutions(editor), [exact]) < 1e-9
    expected = base + torch.from_numpy(reference.rect(exact - base, base, 0.2))
    assert gap([weights(lm, editor)[0] - base], [expected - base]) < 1e-9
    train_a_bit(lm)  # what the total is relative to moves with what training learns
    drift = weights(lm, editor)[0] - expected
    editor.repair(lm)
    site = editor.sites[0]
    moved = drift - site.ledger.project(drift)
    assert gap([site._base - base], [moved]) < 1e-9
    expected = site._base + torch.from_numpy(reference.rect(site.ledger.solution() - site._base, site._base, 0.2))
    assert gap(weights(lm, editor), [expected]) < 1e-12
