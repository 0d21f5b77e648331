"""ROME, EMMET and PMET through everything the ledger promises, with noise and without."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lightning_edit.algebra import KeyCovariance
from lightning_edit.editors import ClosedFormEditor, EditRefused, get_editor
from lightning_edit.editors.presets import Preset
from lightning_edit.errors import LedgerError, StateError
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.model.weights import read_weight
from tests.editors.conftest import NAMES, STRONG, fact, facts, gap, solutions, train_a_bit, weights
from tests.editors.test_equalities import same
from tests.reference_rome_emmet_pmet import emmet

Make = Callable[..., LanguageModel]
MakeEditor = Callable[..., ClosedFormEditor]
Moments = Callable[[LanguageModel], dict[int, KeyCovariance]]

EDITORS = {"rome": 0.0, "emmet": 0.1, "pmet": 1.0}  # name: noise


@pytest.mark.parametrize("name", EDITORS)
def test_sequential_is_one_time_on_recorded_pairs(
    name: str, make_lm: Make, make_editor: MakeEditor, moments: Moments
) -> None:
    lm, plain = make_lm(), make_lm()
    editor = make_editor(lm, name, layers=[1], history="kept", steps=6)
    for batch in ([3], [0, 5, 1], [4, 2]):
        editor.edit(lm, [fact(i) for i in batch])
    ledger, base = editor.sites[0].ledger, read_weight(plain.projection(1))
    expected = emmet(base, 5.0 * moments(plain)[1].moment, EDITORS[name], ledger.keys, ledger.values)
    assert ledger.noise == EDITORS[name]
    assert gap([ledger.solution() - base], [expected - base]) < 1e-9
    assert gap(weights(lm, editor), [expected]) < 1e-9


@pytest.mark.parametrize("name", EDITORS)
def test_base_targets_make_order_and_batching_irrelevant(name: str, make_lm: Make, make_editor: MakeEditor) -> None:
    lm, other = make_lm(), make_lm()
    options = {"targets": "base", "history": "kept", "steps": 6}
    editor, once = make_editor(lm, name, **options), make_editor(other, name, **options)
    for batch in ([2], [0, 3], [1]):
        editor.edit(lm, [fact(i) for i in batch])
    once.edit(other, facts(4))
    assert gap(weights(lm, editor), weights(other, once)) < 1e-8


@pytest.mark.parametrize("name", EDITORS)
def test_absorbed_batches_are_a_chain_of_fresh_editors(name: str, make_lm: Make, moments: Moments) -> None:
    lm, other = make_lm(), make_lm()
    statistics = moments(lm)

    def make(history: str) -> ClosedFormEditor:
        editor = get_editor(name, **{"layers": [0, 1], "prior_weight": 5.0, **STRONG, "steps": 6, "history": history})
        editor.prepare(lm, statistics=statistics)
        return editor

    editor = make("absorbed")
    for first in (0, 2):
        editor.edit(lm, facts(2, first))
        fresh = make("kept")
        fresh.edit(other, facts(2, first))
    assert [len(site.ledger) for site in editor.sites] == [0, 0]
    assert gap(weights(lm, editor), weights(other, fresh)) < 1e-10
    with pytest.raises(LedgerError, match="no longer in the ledger"):
        editor.undo(lm, ["r3"])


@pytest.mark.parametrize("name", EDITORS)
def test_undo_restores_every_bit(name: str, make_lm: Make, make_editor: MakeEditor) -> None:
    lm = make_lm(dtype=torch.float32)
    editor = make_editor(lm, name, history="kept", steps=6)
    original = [read_weight(lm.projection(layer)).clone() for layer in (0, 1)]
    editor.edit(lm, facts(2))
    exact, deployed = solutions(editor), weights(lm, editor)
    editor.edit(lm, facts(2, 2))
    assert not torch.equal(weights(lm, editor)[0], deployed[0])
    editor.undo(lm, ["r2", "r3"])
    assert all(torch.equal(a, b) for a, b in zip(solutions(editor), exact, strict=True))
    assert all(torch.equal(a, b) for a, b in zip(weights(lm, editor), deployed, strict=True))
    editor.rollback(lm, 2)
    assert all(torch.equal(a, b) for a, b in zip(weights(lm, editor), original, strict=True))


@pytest.mark.parametrize("name", EDITORS)
def test_a_contradiction_replaces_and_undoing_it_restores(name: str, make_lm: Make, make_editor: MakeEditor) -> None:
    lm, other = make_lm(), make_lm()
    options = {"targets": "base", "history": "kept", "steps": 6}
    editor, fresh = make_editor(lm, name, **options), make_editor(other, name, **options)
    editor.edit(lm, facts(2))
    before = solutions(editor)
    assert editor.edit(lm, [fact(1, "is", id="new")]).replaced == ["r1"]
    fresh.edit(other, [fact(0), fact(1, "is", id="new")])
    assert gap(weights(lm, editor), weights(other, fresh)) < 1e-8
    editor.undo(lm, ["new"])
    assert gap(solutions(editor), before) < 1e-8


@pytest.mark.parametrize("name", EDITORS)
def test_resumes_bit_for_bit(name: str, make_lm: Make, make_editor: MakeEditor, tmp_path: Path) -> None:
    lm, resumed = make_lm(dtype=torch.float32), make_lm(dtype=torch.float32)
    options = {"history": "kept", "steps": 6}
    editor = make_editor(lm, name, **options)
    editor.edit(lm, facts(2))
    editor.save(tmp_path / "editor.pt")
    resumed.model.load_state_dict(lm.model.state_dict())
    late = get_editor(name, **{"layers": [0, 1], "prior_weight": 5.0, **STRONG, **options})
    late.load(tmp_path / "editor.pt")
    assert same(late.state_dict(), editor.state_dict())
    for model, one in ((lm, editor), (resumed, late)):
        train_a_bit(model)
        one.edit(model, [fact(2), fact(1, "is", id="new")])
        one.undo(model, ["r0"])
    assert all(torch.equal(a, b) for a, b in zip(weights(lm, editor), weights(resumed, late), strict=True))
    assert same(late.state_dict(), editor.state_dict())


@pytest.mark.parametrize("name", EDITORS)
@pytest.mark.parametrize("history", ["kept", "absorbed"])
def test_a_refused_edit_leaves_no_trace(name: str, history: str, make_lm: Make, make_editor: MakeEditor) -> None:
    lm = make_lm(dtype=torch.float32)
    editor = make_editor(lm, name, history=history, steps=4)
    editor.edit(lm, facts(2))
    train_a_bit(lm)
    everything = {key: value.clone() for key, value in lm.model.state_dict().items()}
    state, seed = editor.state_dict(), torch.random.get_rng_state()
    with pytest.raises(EditRefused):
        editor.edit(lm, [fact(2), fact(0, "is", id="new")], guard=lambda report: False)
    assert all(torch.equal(value, everything[key]) for key, value in lm.model.state_dict().items())
    assert same(editor.state_dict(), state)
    assert torch.equal(torch.random.get_rng_state(), seed)


def test_keys_that_collide_are_named_and_nothing_is_changed(make_lm: Make, make_editor: MakeEditor) -> None:
    lm = make_lm()
    lm.model.model.layers[0].self_attn.o_proj.weight.data.zero_()  # nothing but the last token counts in block 0
    editor = make_editor(lm, "rome", layers=[0], contexts=[], history="kept", steps=4)
    editor.edit(lm, facts(2))
    everything, state = {k: v.clone() for k, v in lm.model.state_dict().items()}, editor.state_dict()
    with pytest.raises(LedgerError, match="'r0', 'b' collide"):
        editor.edit(lm, [fact(2), fact(0, "is", id="b", prompt=f"She is {NAMES[0]}")])
    assert all(torch.equal(value, everything[key]) for key, value in lm.model.state_dict().items())
    assert same(editor.state_dict(), state)
    noisy = make_editor(make_lm(), "emmet", layers=[0], contexts=[], noise=0.0)
    assert noisy.make_noise(Preset("any")) == 0


def test_training_between_edits_leaves_exact_edits_exact(make_lm: Make, make_editor: MakeEditor) -> None:
    lm = make_lm()
    editor = make_editor(lm, "rome", layers=[1], history="kept", drift="adopt", steps=6)
    editor.edit(lm, facts(3))
    train_a_bit(lm)
    assert editor.repair(lm).drift_norm > 0
    ledger = editor.sites[0].ledger
    torch.testing.assert_close(read_weight(lm.projection(1)) @ ledger.keys, ledger.values, rtol=0, atol=1e-9)


def test_state_with_another_noise_is_refused(make_lm: Make, make_editor: MakeEditor) -> None:
    lm = make_lm()
    editor = make_editor(lm, "emmet", steps=3, history="kept")
    editor.edit(lm, facts(1))
    late = get_editor("emmet", layers=[0, 1], prior_weight=5.0, noise=0.2, history="kept", **STRONG)
    late.load_state_dict(editor.state_dict())
    with pytest.raises(StateError, match=r"saved with noise 0.1; this one has 0.2"):
        late.edit(lm, facts(1, 1))
