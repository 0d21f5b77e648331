"""`compact=True`: editors whose ledgers rest between edits do what they did, and hold little meanwhile."""

from collections.abc import Callable

import pytest
import torch

from lightning_edit.algebra.packing import Packed
from lightning_edit.editors import ClosedFormEditor
from lightning_edit.errors import EditError
from lightning_edit.model.language_model import LanguageModel
from tests.editors.conftest import facts, gap, solutions, weights

Make = Callable[..., LanguageModel]
MakeEditor = Callable[..., ClosedFormEditor]


@pytest.mark.parametrize(("name", "options"), [("memit", {}), ("alphaedit", {"nullspace_energy": 0.2})])
def test_it_edits_as_it_did_and_rests_afterwards(
    make_lm: Make, make_editor: MakeEditor, name: str, options: dict[str, float]
) -> None:
    found = []
    for compact in (False, True):
        lm = make_lm()
        editor = make_editor(lm, name, compact=compact, **options)
        for first in (0, 2):
            editor.edit(lm, facts(2, first))
            assert all(isinstance(site.ledger.snapshot(), Packed) == compact for site in editor.sites)
            assert all(isinstance(site._last, Packed) == compact for site in editor.sites)
        editor.undo(lm, ["r1"])
        found.append(solutions(editor))
        assert gap(weights(lm, editor), found[-1]) < 1e-12
    assert gap(*found) < 1e-4  # keys and values are those of float32, and targets react to that


def test_an_edit_that_fails_leaves_it_at_rest(make_lm: Make, make_editor: MakeEditor) -> None:
    lm = make_lm()
    editor = make_editor(lm, compact=True)
    editor.edit(lm, facts(2))
    before, deployed = [site.ledger.snapshot() for site in editor.sites], weights(lm, editor)
    with pytest.raises(EditError):
        editor.edit(lm, facts(2, 2), guard=lambda report: False)
    assert all(site.ledger.snapshot() is kept for site, kept in zip(editor.sites, before, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(weights(lm, editor), deployed, strict=True))


def test_it_is_saved_and_goes_on_bit_for_bit(make_lm: Make, make_editor: MakeEditor) -> None:
    lm, other = make_lm(), make_lm()
    editor = make_editor(lm, compact=True)
    editor.edit(lm, facts(2))
    other.model.load_state_dict(lm.model.state_dict())
    loaded = make_editor(other, compact=True)
    loaded.load_state_dict(editor.state_dict())
    for one, model in ((editor, lm), (loaded, other)):
        one.edit(model, facts(2, 2))
    assert all(torch.equal(a, b) for a, b in zip(weights(lm, editor), weights(other, loaded), strict=True))
