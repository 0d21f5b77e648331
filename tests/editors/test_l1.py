"""The L1 editor, and penalties and restrictions on any other editor."""

from collections.abc import Callable

import pytest
import torch

from lightning_edit.algebra import L1Penalty, TopKRelativeChange
from lightning_edit.editors import ClosedFormEditor
from lightning_edit.model.language_model import LanguageModel
from tests.editors.conftest import facts, weights
from tests.editors.restricted import QUICK, base_weights, edit_in_batches

Make = Callable[..., LanguageModel]
MakeEditor = Callable[..., ClosedFormEditor]


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
