"""Editors made ready for a clean model, seed after seed: priors once, contexts anew, each as if it were made alone."""

from collections.abc import Callable
from typing import Any

import pytest

from lightning_edit.algebra import KeyCovariance
from lightning_edit.editors import ClosedFormEditor
from lightning_edit.editors.memit import MEMIT
from lightning_edit.errors import StateError
from lightning_edit.jobs.cast import Cast, Declared
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.model.statistics import collect_statistics
from lightning_edit.model.weights import read_weight
from lightning_edit.requests import EditRequest

OPTIONS: dict[str, Any] = {"layers": [0, 1], "contexts": 2, "prior_weight": 5.0, "steps": 4}
REQUESTS = [EditRequest("r0", "the mother of Ann Smith", "city", subject="Ann Smith")]
TEXTS = [f"Ann {i} lives in the city by the river, and Bob {i} in the north of the country." for i in range(60)]


@pytest.fixture(scope="module")
def moments() -> dict[str, dict[int, KeyCovariance]]:
    return {}


@pytest.fixture
def cast(tiny_lm: LanguageModel, moments: dict[str, dict[int, KeyCovariance]]) -> Callable[..., Cast]:
    def build(name: str = "memit", **changes: Any) -> Cast:
        if not moments:
            moments["all"] = dict(collect_statistics(tiny_lm, TEXTS))
        return Cast(Declared(name, {**OPTIONS, **changes}, 1), tiny_lm, moments["all"])

    return build


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """One entry for each prior that MEMIT makes."""
    found: list[int] = []
    make = MEMIT.make_prior

    def counted(self: MEMIT, statistics: KeyCovariance, preset: Any) -> Any:
        found.append(statistics.size)
        return make(self, statistics, preset)

    monkeypatch.setattr(MEMIT, "make_prior", counted)
    return found


def contexts_of(editor: Any) -> list[str]:
    return editor.state_dict()["contexts"]


def test_priors_are_made_once_and_contexts_for_each_seed(
    cast: Callable[..., Cast], tiny_lm: LanguageModel, made: list[int]
) -> None:
    ours = cast()
    editors = {seed: ours.editor(seed) for seed in (0, 1, 2, 1)}
    assert len(made) == 2  # of two layers
    assert len({tuple(contexts_of(editor)) for editor in editors.values()}) == 3
    for seed, editor in editors.items():
        alone = cast().editor(seed)
        assert contexts_of(editor) == contexts_of(alone)
        assert edited(editor, tiny_lm) == edited(alone, tiny_lm)
    assert len(made) == 2 + 3 * 2


def test_editors_of_one_cast_do_not_hear_of_each_others_edits(
    cast: Callable[..., Cast], tiny_lm: LanguageModel
) -> None:
    ours = cast()
    first, second = ours.editor(0), ours.editor(0)
    apart = edited(first, tiny_lm)
    assert len(first.requests) == 1
    assert second.requests == ours.editor(0).requests == []
    assert edited(second, tiny_lm) == apart
    assert edited(ours.editor(0), tiny_lm) == apart


def test_texts_that_are_given_stay_and_a_seed_that_is_given_counts(cast: Callable[..., Cast], made: list[int]) -> None:
    given = cast(contexts=["Well. "])
    assert contexts_of(given.editor(0)) == contexts_of(given.editor(1)) == ["Well. "]
    fixed = cast(seed=7)
    assert contexts_of(fixed.editor(0)) == contexts_of(fixed.editor(1)) == contexts_of(cast().editor(7))
    assert len(made) == 6


def test_a_twin_is_of_an_editor_without_edits_on_the_same_model(
    cast: Callable[..., Cast], tiny_lm: LanguageModel, tiny_model: Any, tokenizer: Any
) -> None:
    editor = cast().editor(0)
    assert isinstance(editor, ClosedFormEditor)
    with pytest.raises(StateError, match="holds the edits of model"):
        editor.twin(LanguageModel(tiny_model("gpt2"), tokenizer), 1)
    editor.edit(tiny_lm, REQUESTS)
    with pytest.raises(StateError, match="has ledgers of 1 requests; expected one that was prepared"):
        editor.twin(tiny_lm, 1)
    editor.undo(tiny_lm, "r0")


def test_an_editor_that_learns_inside_the_forward_pass_is_made_anew(tiny_lm: LanguageModel) -> None:
    options = {"layer": 1, "preset": "gpt2-xl", "steps": 2}
    ours = Cast(Declared("grace", options, 1), tiny_lm, {})
    one, other = ours.editor(0), ours.editor(1)
    assert one is not other
    assert (one.seed, other.seed) == (0, 1)
    for editor in (one, other):
        editor.detach(tiny_lm)


def edited(editor: Any, lm: LanguageModel) -> list[bytes]:
    """The weights that an edit leads to, bit for bit; the model is as before afterwards."""
    clean = {name: value.clone() for name, value in lm.model.state_dict().items()}
    before = weights(editor, lm)
    editor.edit(lm, REQUESTS)
    found = weights(editor, lm)
    assert all(one != other for one, other in zip(found, before, strict=True))
    lm.model.load_state_dict(clean)
    return found


def weights(editor: Any, lm: LanguageModel) -> list[bytes]:
    """The weights of its layers."""
    editor.attach(lm)
    return [read_weight(lm.projection(layer)).numpy().tobytes() for layer in editor.layers]
