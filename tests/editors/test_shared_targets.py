"""Targets that one editor has found are, bit for bit, those that another would have found."""

from collections.abc import Callable

import pytest
import torch

from lightning_edit.editors import ClosedFormEditor
from lightning_edit.editors.shared_targets import hand_over_targets
from lightning_edit.errors import EditError
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.model.weights import write_weight
from tests.editors.conftest import facts, says, weights

Make = Callable[..., LanguageModel]
MakeEditor = Callable[..., ClosedFormEditor]


def play(lm: LanguageModel, editor: ClosedFormEditor, count: int, searched: int) -> list[torch.Tensor]:
    """The weights after an edit for which some targets were searched; the model is clean again afterwards."""
    clean = weights(lm, editor)
    assert len(editor.edit(lm, facts(count)).losses) == searched
    assert all(says(lm, request) for request in facts(count))
    found = weights(lm, editor)
    for layer, weight in zip(editor.layers, clean, strict=True):
        write_weight(lm.projection(layer), weight)
    return found


def test_another_editor_solves_for_the_same_targets_without_searching(make_lm: Make, make_editor: MakeEditor) -> None:
    lm = make_lm()
    finder = make_editor(lm, targets="base")
    play(lm, finder, 4, 4)
    alone = play(lm, make_editor(lm, "sensitivity_aware", targets="base", exponent=0.5), 4, 4)
    taker = make_editor(lm, "sensitivity_aware", targets="base", exponent=0.5)
    assert hand_over_targets(finder, taker, lm) == 4
    shared = play(lm, taker, 4, 0)
    assert all(torch.equal(a, b) for a, b in zip(shared, alone, strict=True))


def test_what_is_lacking_is_looked_for(make_lm: Make, make_editor: MakeEditor) -> None:
    lm = make_lm()
    finder, taker = make_editor(lm, targets="base"), make_editor(lm, targets="base")
    play(lm, finder, 2, 2)
    alone = play(lm, make_editor(lm, targets="base"), 4, 4)
    hand_over_targets(finder, taker, lm)
    shared = play(lm, taker, 4, 2)
    for one, other in zip(shared, alone, strict=True):  # other batches in one graph: equal up to rounding
        assert (one - other).norm() < 1e-6 * other.norm()


def test_targets_that_would_differ_are_refused(make_lm: Make, make_editor: MakeEditor) -> None:
    lm = make_lm()
    finder = make_editor(lm, targets="base")
    for options, message in [
        ({"targets": "live"}, "targets: base and live"),
        ({"targets": "base", "layers": [0]}, "layer: 1 and 0"),
        ({"targets": "base", "steps": 3}, "options: "),
        ({"targets": "base", "contexts": []}, "contexts: "),
    ]:
        with pytest.raises(EditError, match=message):
            hand_over_targets(finder, make_editor(lm, **options), lm)
    live = make_editor(lm), make_editor(lm)
    with pytest.raises(EditError, match="live targets depend on earlier edits"):
        hand_over_targets(*live, lm)
