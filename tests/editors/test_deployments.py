"""The deployment modes on models: what flushing, steps without a look back, and undo make of a restricted weight."""

from collections.abc import Callable

import pytest
import torch

from lightning_edit.algebra import KeyCovariance
from lightning_edit.editors import ClosedFormEditor
from lightning_edit.model.language_model import LanguageModel
from tests import reference
from tests.editors.conftest import fact, facts, gap, solutions, train_a_bit, weights
from tests.editors.restricted import QUICK, base_weights, edit_in_batches, small_weight

Make = Callable[..., LanguageModel]
MakeEditor = Callable[..., ClosedFormEditor]
Moments = Callable[[LanguageModel], dict[int, KeyCovariance]]


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


@pytest.mark.parametrize("aligned", [True, False])
@pytest.mark.parametrize("mode", ["feedback", "none", "project_total"])
def test_pending_is_what_was_left_out_of_the_exact_weight(
    mode: str, aligned: bool, make_lm: Make, make_editor: MakeEditor, moments: Moments
) -> None:
    lm = make_lm()
    editor, base = make_editor(lm, "rect", layers=[1], aligned=aligned, deployment=mode, **QUICK), base_weights(lm, [1])
    penalty, batches, starts, reports = 5.0 * moments(lm)[1].moment, [], [base[0]], []
    for i in range(3):
        before = weights(lm, editor)[0] if editor.sites else base[0]
        batches += edit_in_batches(lm, editor, (1,), first=i, reports=reports)
        now = weights(lm, editor)[0]
        if aligned:
            keys, values = (torch.cat(part, dim=1) for part in zip(*batches, strict=True))
            exact = reference.one_time(base[0], penalty, 1.0, keys, values)
        else:  # from the deployed weight where nothing is made up for, else from the exact one
            exact = reference.one_time(before if mode == "none" else starts[-1], penalty, 1.0, *batches[-1])
        starts.append(exact)
        assert reports[-1].pending_norm == pytest.approx(float((now - exact).norm()), rel=1e-6)
        assert reports[-1].pending_norm > 0
    ahead = editor.sites[0].distance(lm.projection(1))  # what the next deployment finds to make up for
    assert ahead == pytest.approx(0.0 if mode == "none" and not aligned else reports[-1].pending_norm, rel=1e-6)


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
