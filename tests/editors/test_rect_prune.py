"""RECT, PRUNE and the deployment modes on models: Algorithm 1, its ablations, and what each mode promises."""

import math
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lightning_edit.algebra import KeyCovariance, L1Penalty, SiteLedger, SpectrumLimit, TopKRelativeChange
from lightning_edit.editors import ClosedFormEditor, get_editor
from lightning_edit.editors.edited_site import EditedSite
from lightning_edit.editors.prune import AppliedTwice
from lightning_edit.errors import EditError, LedgerError
from lightning_edit.model.language_model import LanguageModel
from tests import reference
from tests.editors.conftest import fact, facts, gap, solutions, train_a_bit, weights
from tests.reference_rect_prune import everything, naive

Make = Callable[..., LanguageModel]
MakeEditor = Callable[..., ClosedFormEditor]
Moments = Callable[[LanguageModel], dict[int, KeyCovariance]]
Batches = list[tuple[Tensor, Tensor]]

QUICK = {"steps": 6, "contexts": []}  # enough for the algebra; nobody has to be convinced here


def rect(update: object, weight: object) -> object:
    """RECT's restriction as the reference has it."""
    return reference.rect(update, weight, 0.2)


def prune(update: object, weight: object) -> object:
    """PRUNE's restriction as the reference has it, against the current weight."""
    return reference.prune(update, weight, math.e).numpy()


def linear_prune_against(original: Tensor) -> Callable:
    """PRUNE's linear restriction as the reference has it, against the original weight."""
    return lambda update, weight: reference.prune(update, original).numpy()


def base_weights(lm: LanguageModel, layers: list[int]) -> list[Tensor]:
    return [lm.projection(layer).weight.data.clone() for layer in layers]


def edit_in_batches(lm: LanguageModel, editor: ClosedFormEditor, sizes: tuple[int, ...] = (2, 1, 2)) -> Batches:
    """Edit one layer batch by batch, and write down what every batch asked of it."""
    batches: Batches = []
    append = SiteLedger.append

    def writing_down(ledger: SiteLedger, ids: list[str], keys: Tensor, values: Tensor) -> None:
        batches.append((keys, values))
        append(ledger, ids, keys, values)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SiteLedger, "append", writing_down)
        for i, size in enumerate(sizes):
            editor.edit(lm, facts(size, sum(sizes[:i])))
    assert len(batches) == len(sizes)
    return batches


def small_weight(lm: LanguageModel, layers: tuple[int, ...] = (1,)) -> LanguageModel:
    """A model in whose projections edits are larger than the weights, so that PRUNE has something to clip."""
    for layer in layers:
        lm.projection(layer).weight.data.mul_(0.02)
    return lm


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


@pytest.mark.parametrize("name", ["rect", "prune"])
def test_flush_shrinks_what_is_pending_and_stops(name: str, make_lm: Make, make_editor: MakeEditor) -> None:
    pending, deployed = [], []
    for steps in (0, 1, 2, 4, 32):
        lm = small_weight(make_lm())
        mode = {"deployment": "feedback"} if steps == 0 else {"deployment": "flush", "flush_steps": steps}
        linear = {"variant": "linear"} if name == "prune" else {}
        editor = make_editor(lm, name, layers=[1], **mode, **linear, **QUICK)
        report = editor.edit(lm, facts(3))
        pending.append(report.pending_norm)
        deployed.append(weights(lm, editor)[0])
        assert report.pending_norm == pytest.approx(float((deployed[-1] - solutions(editor)[0]).norm()), abs=1e-14)
    assert torch.equal(deployed[0], deployed[1])
    assert pending[0] == pending[1] > pending[2] > pending[3] > pending[4]
    assert pending[4] < 1e-6 * pending[0]
    assert gap([deployed[4]], solutions(editor)) < 1e-6  # RECT's sparsity is gone, as the documentation says


def test_flush_stops_at_rounding(make_lm: Make, make_editor: MakeEditor) -> None:
    lm = make_lm(dtype=torch.bfloat16)
    editor = make_editor(lm, "rect", deployment="flush", **QUICK)
    editor.edit(lm, facts(3))
    for now, exact in zip(weights(lm, editor), solutions(editor), strict=True):
        rounding = float((exact - exact.bfloat16().double()).norm())
        assert 0 < float((now.double() - exact).norm()) < 4 * rounding


@pytest.mark.parametrize("history", ["kept", "latest", "absorbed"])
@pytest.mark.parametrize("name", ["memit", "alphaedit"])
def test_a_step_read_on_the_deployed_weight_is_exact_where_nothing_is_restricted(
    history: str, name: str, make_lm: Make, make_editor: MakeEditor
) -> None:
    lm = make_lm()
    null = {"nullspace_energy": 0.02, "l2": 0.1} if name == "alphaedit" else {}
    editor = make_editor(lm, name, history=history, deployment="none", passes=2, stale_loss=-1.0, **null, **QUICK)
    editor.edit(lm, facts(2))
    editor.edit(lm, [fact(1, "is", id="new"), fact(2)])  # a conflict: one column has to go
    assert gap(weights(lm, editor), solutions(editor)) < 1e-9
    assert gap(weights(lm, editor), base_weights(make_lm(), editor.layers)) > 1e-3
    if history == "kept":
        assert editor.sites[0].ledger.ids == ["r0", "new", "r2"]
        editor.undo(lm, ["r0", "new"])
        assert gap(weights(lm, editor), solutions(editor)) < 1e-9
        editor.rollback(lm, 2)
        assert gap(weights(lm, editor), base_weights(make_lm(), editor.layers)) < 1e-9


def test_a_step_that_does_not_look_back_corrects_no_drift(make_lm: Make, make_editor: MakeEditor) -> None:
    for drift in ("adopt", "restore", "ignore"):
        lm = make_lm()
        editor = make_editor(lm, "rect", deployment="none", drift=drift, **QUICK)
        editor.edit(lm, facts(2))
        deployed = weights(lm, editor)
        train_a_bit(lm)
        moved = weights(lm, editor)
        editor.repair(lm)
        expected = deployed if drift == "restore" else moved
        assert all(torch.equal(a, b) for a, b in zip(weights(lm, editor), expected, strict=True)), drift
        editor.edit(lm, [fact(2)])
        changed = [(a != b).double().mean() for a, b in zip(weights(lm, editor), expected, strict=True)]
        assert max(changed) == pytest.approx(0.2, abs=0.01), drift


@pytest.mark.parametrize("targets", ["live", "base"])
@pytest.mark.parametrize("mode", ["feedback", "project_total", "flush"])
def test_undo_restores_the_exact_weights(targets: str, mode: str, make_lm: Make, make_editor: MakeEditor) -> None:
    lm = make_lm()
    editor = make_editor(lm, "rect", targets=targets, deployment=mode, **QUICK)
    original = base_weights(lm, editor.layers)
    editor.edit(lm, facts(2))
    exact, deployed = solutions(editor), weights(lm, editor)
    editor.edit(lm, facts(1, 2))
    editor.undo(lm, ["r2"])
    assert gap(solutions(editor), exact) < 1e-9
    if mode != "feedback":  # which carries the last step's own error
        assert gap(weights(lm, editor), deployed) < 1e-6
    editor.rollback(lm, 2)
    assert all(torch.equal(a, b) for a, b in zip(solutions(editor), original, strict=True))
    if mode == "project_total":
        assert all(torch.equal(a, b) for a, b in zip(weights(lm, editor), original, strict=True))


def test_from_the_base_the_exact_weights_do_not_depend_on_the_order(make_lm: Make, make_editor: MakeEditor) -> None:
    found = []
    for batches in ([(2,), (0, 1)], [(1, 0, 2)]):
        lm = make_lm()
        editor = make_editor(lm, "rect", layers=[0, 1, 2], targets="base", **QUICK)
        for batch in batches:
            before = weights(lm, editor) if editor.sites else base_weights(lm, editor.layers)
            editor.edit(lm, [fact(i) for i in batch])
            for old, now, exact in zip(before, weights(lm, editor), solutions(editor), strict=True):
                allowed = torch.from_numpy(reference.rect(exact - old, old, 0.2))
                assert gap([now], [old + allowed]) < 1e-12  # feedback, from what was deployed before
        found.append((solutions(editor), weights(lm, editor)))
    assert gap(found[0][0], found[1][0]) < 1e-9
    assert gap(found[0][1], found[1][1]) > 1e-6


@pytest.mark.parametrize("unrestricted", [False, True])
def test_upper_layers_are_read_with_what_is_deployed_below_or_with_what_would_be(
    unrestricted: bool, make_lm: Make, make_editor: MakeEditor
) -> None:
    lm, plain = make_lm(), make_lm()
    editor = make_editor(lm, "rect", unrestricted_sweep=unrestricted, **QUICK)
    editor.edit(lm, facts(2))
    below = solutions(editor)[0] if unrestricted else weights(lm, editor)[0]
    plain.projection(0).weight.data.copy_(below)
    texts, spans = [r.prompt for r in facts(2)], [r.subject_span for r in facts(2)]
    keys = plain.read_keys(texts, spans, [1])[1].T
    assert gap([editor.sites[1].ledger.keys], [keys]) < 1e-12
    assert gap(weights(lm, editor)[:1], solutions(editor)[:1]) > 1e-4


@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("rect", {}),
        ("rect", {"on": "rome"}),
        ("rect", {"aligned": False, "deployment": "project_total"}),
        ("rect", {"deployment": "none"}),
        ("prune", {"deployment": "flush"}),
        ("l1", {"l1": 0.02, "ridge": 1.0, "tolerance": 1e-8}),
    ],
)
def test_resumes_bit_for_bit(name: str, options: dict, make_lm: Make, make_editor: MakeEditor, tmp_path: Path) -> None:
    layers = [1] if options.get("on") == "rome" else [0, 1]
    lm, resumed = small_weight(make_lm(dtype=torch.float32)), make_lm(dtype=torch.float32)
    editor = make_editor(lm, name, layers=layers, **QUICK, **options)
    editor.edit(lm, facts(2))
    editor.edit(lm, [fact(1, "is", id="new")])
    editor.save(tmp_path / "editor.pt")
    resumed.model.load_state_dict(lm.model.state_dict())
    late = make_editor(lm, name, layers=layers, **QUICK, **options)
    late.load(tmp_path / "editor.pt")
    for model, one in ((lm, editor), (resumed, late)):
        train_a_bit(model)
        one.edit(model, [fact(2), fact(0, "is", id="again")])
    assert all(torch.equal(a, b) for a, b in zip(weights(lm, editor), weights(resumed, late), strict=True))
    assert all(torch.equal(a, b) for a, b in zip(solutions(editor), solutions(late), strict=True))
    if options.get("deployment") == "project_total":
        assert torch.equal(editor.sites[0].origin, late.sites[0].origin)


@pytest.mark.parametrize("options", [{"targets": "base"}, {"unrestricted_sweep": True}, {"deployment": "none"}])
def test_a_failed_edit_leaves_no_trace(
    options: dict, make_lm: Make, make_editor: MakeEditor, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm = make_lm()
    editor = make_editor(lm, "rect", **options, **QUICK)
    editor.edit(lm, facts(2))
    before, exact = weights(lm, editor), solutions(editor)
    held = [(site.ledger.snapshot(), site.pending, site._last, site._held) for site in editor.sites]
    deploy = EditedSite._deploy_from

    def fails_late(site: EditedSite, now: Tensor, projection: torch.nn.Module) -> None:
        deploy(site, now, projection)
        if site.layer == 1 and "r2" in site.ledger.ids:
            raise ZeroDivisionError

    monkeypatch.setattr(EditedSite, "_deploy_from", fails_late)
    with pytest.raises(ZeroDivisionError):
        editor.edit(lm, facts(2, 2))
    assert all(torch.equal(a, b) for a, b in zip(weights(lm, editor), before, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(solutions(editor), exact, strict=True))
    for site, (ledger, pending, last, put_by) in zip(editor.sites, held, strict=True):
        assert (site.ledger.snapshot(), site.pending, site._last, site._held) == (ledger, pending, last, put_by)
        assert put_by is None
    monkeypatch.undo()
    editor.edit(lm, facts(2, 2))
    assert len(editor.requests) == 4


def test_rect_on_rome_edits_one_layer_and_meets_values_exactly(make_lm: Make, moments: Moments) -> None:
    lm = make_lm()
    editor = get_editor("rect", on="rome", **QUICK)
    editor.prepare(lm, statistics=moments(lm))
    assert (editor.history, len(editor.layers)) == ("absorbed", 1)
    kept = get_editor("rect", on="rome", aligned=True, layers=[1], **QUICK)
    kept.prepare(lm, statistics=moments(lm))
    before = base_weights(lm, [1])
    kept.edit(lm, facts(2))
    ledger = kept.sites[0].ledger
    expected = reference.interpolation(before[0], moments(make_lm())[1].moment, ledger.keys, ledger.values)
    assert gap([ledger.solution() - before[0]], [expected - before[0]]) < 1e-9
    allowed = torch.from_numpy(reference.rect(ledger.solution() - before[0], before[0], 0.2))
    assert gap(weights(lm, kept), [before[0] + allowed]) < 1e-12


def test_the_l1_editor_is_sparse_in_sum_and_the_one_time_solution(make_lm: Make, make_editor: MakeEditor) -> None:
    lm = make_lm()
    editor = make_editor(lm, "l1", layers=[1], l1=0.05, ridge=2.0, **QUICK)
    base = base_weights(lm, [1])[0]
    batches = edit_in_batches(lm, editor)
    update, ledger = weights(lm, editor)[0] - base, editor.sites[0].ledger
    zero = update == 0
    assert 0.05 < float(zero.double().mean()) < 0.95
    keys, values = (torch.cat(part, dim=1) for part in zip(*batches, strict=True))
    penalty = ledger.prior.precision()
    slope = (update @ keys - (values - base @ keys)) @ keys.mT + update @ penalty  # optimality, entry by entry
    assert float(slope[zero].abs().max()) <= 0.05 + 1e-6
    assert float((slope + 0.05 * update.sign())[~zero].abs().max()) < 1e-6
    editor.undo(lm, ["r0", "r1", "r2", "r3", "r4"])
    assert torch.equal(weights(lm, editor)[0], base)


def test_any_editor_takes_a_penalty_or_a_restriction(make_lm: Make, make_editor: MakeEditor) -> None:
    lm = make_lm()
    editor = make_editor(lm, "memit", layers=[1], penalty=L1Penalty(weight=0.05), ridge=2.0, **QUICK)
    editor.edit(lm, facts(2))
    assert float((weights(lm, editor)[0] == base_weights(make_lm(), [1])[0]).double().mean()) > 0.05
    other = make_lm()
    alpha = make_editor(
        other, "alphaedit", layers=[1], nullspace_energy=0.02, restriction=TopKRelativeChange(0.3), **QUICK
    )
    alpha.edit(other, facts(2))
    changed = weights(other, alpha)[0] != base_weights(make_lm(), [1])[0]
    assert float(changed.double().mean()) == pytest.approx(0.3, abs=0.01)


def test_the_twice_applied_restriction_is_the_update_and_the_restricted_update() -> None:
    update = torch.randn(6, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    weight = 0.1 * update.flip(0)
    found = AppliedTwice(SpectrumLimit())(update, weight)
    assert gap([found], [update + reference.prune(update, weight, math.e)]) < 1e-12


@pytest.mark.parametrize(
    ("name", "options", "word"),
    [
        ("rect", {"on": "alphaedit"}, "'memit' or 'rome'"),
        ("rect", {"fraction": 0.0}, "fraction in"),
        ("rect", {"epsilon": 0.0}, "epsilon > 0"),
        ("rect", {"aligned": False, "history": "kept"}, "contradict"),
        ("rect", {"restriction": TopKRelativeChange()}, "restriction already"),
        ("prune", {"restriction": TopKRelativeChange()}, "restriction already"),
        ("prune", {"log_base": 1.0}, "base > 1"),
        ("prune", {"double_application": True, "deployment": "feedback"}, "project_total"),
        ("memit", {"deployment": "sideways"}, "'flush'"),
        ("memit", {"reference": "yesterday"}, "'original'"),
        ("memit", {"flush_steps": 0}, "at least 1 step"),
        ("memit", {"restrict_after": -1}, "from 0"),
        ("l1", {"l1": -1.0}, ">= 0"),
        ("l1", {"deployment": "none"}, "whole update"),
        ("l1", {"penalty": L1Penalty(weight=0.1)}, "penalty already"),
    ],
)
def test_bad_options_are_refused(name: str, options: dict, word: str) -> None:
    with pytest.raises((EditError, LedgerError), match=word):
        get_editor(name, **options)
