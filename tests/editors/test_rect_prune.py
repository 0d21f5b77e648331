"""RECT, PRUNE and L1 keep what every editor promises: they resume, fail without a trace, and refuse bad options."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lightning_edit.algebra import L1Penalty, TopKRelativeChange
from lightning_edit.editors import ClosedFormEditor, get_editor
from lightning_edit.editors.edited_site import EditedSite
from lightning_edit.errors import EditError, LedgerError
from lightning_edit.model.language_model import LanguageModel
from tests.editors.conftest import fact, facts, solutions, train_a_bit, weights
from tests.editors.restricted import QUICK, small_weight

Make = Callable[..., LanguageModel]
MakeEditor = Callable[..., ClosedFormEditor]


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
