"""RECT on ROME is ROME with RECT's restriction: the same prior, keys and numbers, on published presets too."""

from collections.abc import Callable

import pytest
import torch

from lightning_edit.algebra import KeyCovariance, RidgePrior
from lightning_edit.editors import ClosedFormEditor, get_editor
from lightning_edit.editors.preset_sheet import shipped_presets
from lightning_edit.editors.presets import Preset
from lightning_edit.model.language_model import LanguageModel
from tests import reference
from tests.editors.conftest import facts, gap, weights
from tests.editors.restricted import QUICK as PLAIN
from tests.editors.restricted import base_weights

Make = Callable[..., LanguageModel]
Moments = Callable[[LanguageModel], dict[int, KeyCovariance]]

QUICK = {"steps": 6, "layers": [1], "contexts": ["The city is known. "]}
CHOICES: dict[str, tuple[Preset | None, dict[str, object]]] = {
    "the covariance": (None, {}),
    "none, by the preset": (Preset("mine", mom2_adjustment=False), {}),
    "none, by the user": (None, {"mom2_adjustment": False}),
    "the covariance, against the preset": (Preset("mine", mom2_adjustment=False), {"mom2_adjustment": True}),
    "mismatched keys": (None, {"original_keys": True}),
}


@pytest.mark.parametrize("choice", CHOICES)
def test_keeping_everything_it_is_rome(choice: str, make_lm: Make, moments: Moments) -> None:
    preset, options = CHOICES[choice]
    found, moved = [], []
    for name, extra in (("rome", {}), ("rect", {"on": "rome", "fraction": 1.0}), ("rome", {"original_keys": False})):
        lm = make_lm()
        before = lm.projection(1).weight.data.clone()
        own = options if name == "rect" or not extra else {}
        editor = get_editor(name, **{**QUICK, "preset": preset, **own, **extra})
        assert isinstance(editor, ClosedFormEditor)
        editor.prepare(lm, statistics=moments(lm))
        editor.edit(lm, facts(1))
        editor.edit(lm, facts(1, 1))
        found.append(weights(lm, editor))
        moved.append(found[-1][0] - before)
    assert gap([moved[1]], [moved[0]]) < 1e-9
    if options:  # which are of effect, so that the two could differ
        assert gap([moved[2]], [moved[0]]) > 1e-6


@pytest.mark.parametrize("name", [name for name, sheet in shipped_presets().items() if "rome" in sheet.editors])
def test_on_every_published_preset_the_prior_is_romes(name: str, make_lm: Make, moments: Moments) -> None:
    statistics = moments(make_lm())[1]
    preset = shipped_presets()[name].settings("ROME")
    rome, rect = get_editor("rome"), get_editor("rect", on="rome")
    assert isinstance(rome, ClosedFormEditor)
    assert isinstance(rect, ClosedFormEditor)
    assert rect._estate.declaration.settings_of == "ROME"
    priors = [editor.make_prior(statistics, preset) for editor in (rome, rect)]
    assert priors[0].fingerprint == priors[1].fingerprint
    assert isinstance(priors[1], RidgePrior) is not preset.mom2_adjustment


def test_rect_on_rome_edits_one_layer_and_meets_values_exactly(make_lm: Make, moments: Moments) -> None:
    lm = make_lm()
    editor = get_editor("rect", on="rome", **PLAIN)
    editor.prepare(lm, statistics=moments(lm))
    assert (editor.history, len(editor.layers)) == ("absorbed", 1)
    kept = get_editor("rect", on="rome", aligned=True, layers=[1], **PLAIN)
    kept.prepare(lm, statistics=moments(lm))
    before = base_weights(lm, [1])
    kept.edit(lm, facts(2))
    ledger = kept.sites[0].ledger
    expected = reference.interpolation(before[0], moments(make_lm())[1].moment, ledger.keys, ledger.values)
    assert gap([ledger.solution() - before[0]], [expected - before[0]]) < 1e-9
    allowed = torch.from_numpy(reference.rect(ledger.solution() - before[0], before[0], 0.2))
    assert gap(weights(lm, kept), [before[0] + allowed]) < 1e-12
