"""What an undo leaves behind where a restriction stands between, and what it says of requests that were replaced."""

from collections.abc import Callable

import pytest
import torch

from lightning_edit.editors import ClosedFormEditor
from lightning_edit.errors import LedgerError
from lightning_edit.model.language_model import LanguageModel
from tests.editors.conftest import fact, facts, gap, solutions, train_a_bit, weights

Make = Callable[..., LanguageModel]
MakeEditor = Callable[..., ClosedFormEditor]

QUICK = {"steps": 6, "contexts": []}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize(
    ("name", "options"),
    [
        ("rect", {"deployment": "none"}),
        ("rect", {"deployment": "none", "targets": "base"}),
        ("rect", {}),
        ("rect", {"deployment": "flush"}),
        ("rect", {"on": "rome", "history": "kept", "layers": [1]}),
        ("prune", {"variant": "linear", "multiple": 0.01, "deployment": "none", "unrestricted_sweep": True}),
    ],
)
def test_where_nothing_is_left_the_base_weights_are_written(
    name: str, options: dict, dtype: torch.dtype, make_lm: Make, make_editor: MakeEditor
) -> None:
    lm = make_lm(dtype=dtype)
    editor = make_editor(lm, name, **QUICK, **options)
    original = [lm.projection(layer).weight.data.clone() for layer in editor.layers]
    editor.edit(lm, facts(2))
    editor.edit(lm, [fact(2)])
    assert editor.sites[0].pending > 0
    first = editor.undo(lm, ["r1"])
    assert first.pending_norm > 0  # what the restriction left out stays, while there is something at work
    last = editor.undo(lm, ["r2", "r0"])
    assert all(torch.equal(a, b) for a, b in zip(weights(lm, editor), original, strict=True))
    assert last.pending_norm == 0
    editor.edit(lm, facts(1, 3))
    assert not torch.equal(weights(lm, editor)[0], original[0])


def test_what_training_has_taught_stays(make_lm: Make, make_editor: MakeEditor) -> None:
    lm = make_lm()
    editor = make_editor(lm, "rect", deployment="none", **QUICK)
    editor.edit(lm, facts(2))
    original = [site.ledger.base.clone() for site in editor.sites]
    train_a_bit(lm)
    editor.rollback(lm, 2)
    assert all(torch.equal(a, b) for a, b in zip(weights(lm, editor), solutions(editor), strict=True))
    assert gap(weights(lm, editor), original) > 1e-4


def test_a_refused_undo_of_everything_leaves_no_trace(make_lm: Make, make_editor: MakeEditor) -> None:
    lm = make_lm()
    editor = make_editor(lm, "rect", deployment="none", **QUICK)
    editor.edit(lm, facts(2))
    before, exact = weights(lm, editor), solutions(editor)
    with pytest.raises(Exception, match="refused this undo of 2 requests"):
        editor.rollback(lm, 2, guard=lambda report: False)
    assert all(torch.equal(a, b) for a, b in zip(weights(lm, editor), before, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(solutions(editor), exact, strict=True))


def test_a_chain_of_replacements_says_what_to_undo(make_lm: Make, make_editor: MakeEditor) -> None:
    lm = make_lm()
    editor = make_editor(lm, **QUICK)
    editor.edit(lm, [fact(0)])
    editor.edit(lm, [fact(0, "known", id="B")])
    with pytest.raises(LedgerError, match=r"'r0' was replaced by 'B'; expected .* Undo 'B' first"):
        editor.undo(lm, "r0")
    editor.edit(lm, [fact(0, "of", id="C")])
    with pytest.raises(LedgerError, match=r"'r0' was replaced by 'B', and that by 'C'; expected .* Undo 'C' first"):
        editor.undo(lm, "r0")
    with pytest.raises(LedgerError, match=r"'B' was replaced by 'C'; expected .* Undo 'C' first"):
        editor.undo(lm, "B")
    with pytest.raises(LedgerError, match=r"'nobody' is not at work; expected the id of an active request\. See"):
        editor.undo(lm, "nobody")
    assert [request.id for request in editor.requests] == ["C"]
    editor.undo(lm, ["C", "B"])
    assert [request.id for request in editor.requests] == ["r0"]
