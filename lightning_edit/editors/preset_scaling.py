"""Settings for a model that nobody has published any for: the nearest model's, scaled by shape.

Layers keep their place relative to the model's depth. The weight of MEMIT's prior grows with the inner width n: for
keys like those of ordinary text `k' M^-1 k` is about n, and `k' M^-1 k / lambda` says how much an edit counts against
the prior. Everything else is taken over as it is. This file knows shapes; it runs no model.
"""

from dataclasses import replace
from math import log

from lightning_edit.editors.preset import Preset, Shape
from lightning_edit.editors.preset_sheet import PresetSheet, shipped_presets
from lightning_edit.errors import SiteError
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.model.seq2seq import FAMILIES
from lightning_edit.model.sites import Layer

DEFAULT = "default"
"""Name of the preset of a model that has none."""


def shape_of(lm: LanguageModel) -> Shape:
    """Model width, inner width and number of blocks.

    Args:
        lm: The language model.
    """
    return lm.sites[0].width, lm.sites[0].inner, lm.num_layers


def nearest_sheet(shape: Shape, model_type: str) -> PresetSheet:
    """The preset of the nearest model: of the same architecture if there is one, then by the logarithms of the shape.

    An encoder-decoder's is one of an encoder-decoder, and a decoder's one of a decoder.

    Args:
        shape: Model width, inner width, number of blocks.
        model_type: Architecture, as transformers calls it.
    """
    separate = model_type in FAMILIES
    known = [sheet for sheet in shipped_presets().values() if sheet.encoder_decoder == separate]
    public = [(sheet, sheet.config) for sheet in known if sheet.config is not None]
    alike = [sheet for sheet, config in public if config["model_type"] == model_type]
    return min(alike or [sheet for sheet, _ in public], key=lambda sheet: distance(shape, sheet.shape))


def same_depth(lm: LanguageModel, near: PresetSheet, layer: Layer) -> int:
    """The block at the same relative depth as one of another model; in the same stack where it is named by its path.

    Args:
        lm: The language model.
        near: The other model's preset.
        layer: The other model's block; a path ends with its number in its stack, and stacks are equally deep.
    """
    if isinstance(layer, int):
        return lm.site(round(layer * (lm.num_layers - 1) / max(1, near.shape[2] - 1))).layer
    stack, _, number = layer.rpartition(".")
    own = [site.layer for site in lm.sites if site.block.rpartition(".")[0] == stack]
    if not own:
        raise SiteError(f"the preset {near.name} names {layer}, and this model has no {stack}; name layers yourself.")
    return own[round(int(number) * (len(own) - 1) / max(1, near.shape[2] // 2 - 1))]


def distance(one: Shape, other: Shape) -> float:
    """How different two shapes are: |log(d/d')| + |log(n/n')| + |log(L/L')|.

    Args:
        one: Model width, inner width, number of blocks.
        other: The same of another model.
    """
    return sum(abs(log(a / b)) for a, b in zip(one, other, strict=True))


def scaled_preset(lm: LanguageModel, editor: str | None = None, family: str | None = None) -> Preset:
    """The nearest model's settings, scaled to this one.

    Args:
        lm: The language model.
        editor: Name of the editor.
        family: Name of a family of settings; None takes the nearest model's.
    """
    shape, kind = shape_of(lm), lm.model.config.get_text_config().model_type
    near = nearest_sheet(shape, kind).settings(editor, family)
    weight = None if near.prior_weight is None else near.prior_weight * shape[1] / near.shape[1]
    scaled = replace(near, name=DEFAULT, shape=shape, layers=scaled_layers(lm, near), prior_weight=weight, failing=None)
    scaled = replace(scaled, mom2_adjustment=True)  # no number that scales: nobody has switched it off for this model
    return replace(scaled, remarks=(_of_settings(scaled, near, kind), _of_layers(scaled)))


def scaled_layers(lm: LanguageModel, near: Preset) -> tuple[int, ...]:
    """A preset's layers at the same relative depth; one of them where a norm follows the FFN.

    Args:
        lm: The language model.
        near: Settings of another model.
    """
    old = near.layers or (0,)
    share = lm.num_layers / near.shape[2]
    sites = [site.layer for site in lm.sites]
    first = min(range(len(sites)), key=lambda i: abs(sites[i] - round(old[0] * share)))
    count = 1 if lm.site(sites[first]).norm_after else max(1, round(len(old) * share))
    return tuple(sites[first : first + count])


def _of_settings(scaled: Preset, near: Preset, kind: str) -> str:
    """What was assumed of the settings."""
    width, inner, blocks = scaled.shape
    prior = "" if scaled.prior_weight is None else f", prior weight {scaled.prior_weight:g} (scaled by inner width)"
    failing = f" Beware: {near.failing}" if near.failing else ""
    return (
        f"no preset is known for this {kind} model (width {width}, inner width {inner}, {blocks} blocks). Assumed are "
        f"the settings of the nearest one, {near.name}@{near.family}: lr {scaled.lr:g}, steps {scaled.steps}, clamp "
        f"{scaled.clamp:g}, weight decay {scaled.weight_decay:g}{prior}. Options of the editor override them.{failing}"
    )


def _of_layers(scaled: Preset) -> str:
    """What was assumed of the layers."""
    return (
        f"layers {list(scaled.layers or ())} are assumed, at the depth of the nearest preset's. "
        "lightning_edit.jobs.proposal.propose_preset(module, requests) finds layers by causal tracing."
    )
