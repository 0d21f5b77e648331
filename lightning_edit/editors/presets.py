"""Which settings a model gets: published ones by name or shape, else the nearest model's, scaled.

The numbers stand in `preset_files`, one YAML file a model, with their sources. This file is the rule that picks.
"""

import logging
import warnings
from collections.abc import Sequence

from lightning_edit.editors.preset import Preset, PresetWarning
from lightning_edit.editors.preset_scaling import DEFAULT, scaled_preset, shape_of
from lightning_edit.editors.preset_sheet import PresetSheet, shipped_presets
from lightning_edit.errors import EditError, SiteError
from lightning_edit.model.language_model import LanguageModel

__all__ = ["Preset", "PresetWarning", "announce", "choose_layers", "choose_preset", "find_sheet"]

_log = logging.getLogger(__name__)


def choose_preset(lm: LanguageModel, wanted: str | Preset | None = None, editor: str | None = None) -> Preset:
    """The preset for a model: the one asked for, else by the model's name, else by its shape, else the nearest, scaled.

    Args:
        lm: The language model.
        wanted: Name of a preset, with the family of settings behind an `@` where another than the published one is
            wanted: `llama-3-8b@easyedit`, or `@easyedit` for whatever model it is. A `Preset` is taken as it is.
        editor: Name of the editor, for the numbers it has of its own.
    """
    if isinstance(wanted, Preset):
        return wanted
    name, _, family = (wanted or "").lower().partition("@")
    sheets = shipped_presets()
    if name not in ("", DEFAULT, *sheets):
        raise EditError(
            f"there is no preset {name!r}; expected one of {', '.join([*sheets, DEFAULT])}, with a family behind it "
            "(@original, @easyedit) or without."
        )
    sheet = sheets.get(name) if name else find_sheet(lm)
    if sheet is None:
        return scaled_preset(lm, editor, family or None)
    return sheet.settings(editor, family or None)


def find_sheet(lm: LanguageModel) -> PresetSheet | None:
    """The preset that is meant for a model: one of its shape, by name if possible, else the most similar one.

    Args:
        lm: The language model.
    """
    name = str(lm.model.config._name_or_path or "").lower().replace("meta-", "")
    alike = [sheet for sheet in shipped_presets().values() if sheet.shape == shape_of(lm)]
    named = [sheet for sheet in alike if sheet.name in name]
    if named:
        return max(named, key=lambda sheet: len(sheet.name))
    config = lm.model.config.get_text_config().to_dict()

    def likeness(sheet: PresetSheet) -> tuple[int, int]:
        """Equal fields of the configuration; among equals the shorter name, a base model's."""
        return sum(config.get(key) == value for key, value in (sheet.config or {}).items()), -len(sheet.name)

    alike = [sheet for sheet in alike if sheet.config is None or sheet.config["model_type"] == config["model_type"]]
    return max(alike, key=likeness, default=None)


def announce(preset: Preset, handed_over: bool = False) -> list[str]:
    """Say what was assumed, and warn of what is reported to fail.

    Args:
        preset: The preset that was chosen.
        handed_over: Whether the user made it: then what it assumes has been said already.

    Returns:
        What belongs into the report of the next edit.
    """
    for remark in () if handed_over else preset.remarks:
        _log.warning(remark)
    if preset.failing is None:
        return []
    warnings.warn(preset.failing, PresetWarning, stacklevel=2)
    return [preset.failing]


def choose_layers(lm: LanguageModel, wanted: Sequence[int] | None, preset: Preset) -> tuple[int, ...]:
    """The layers to edit, ascending.

    Where neither user nor preset says which, a stretch that begins after a seventh of the blocks and is a sixth of them
    long, as the published settings have it (five of 32), and one layer where a norm follows the FFN.

    Args:
        lm: The language model.
        wanted: Layers that were asked for.
        preset: The model's preset.
    """
    if wanted is None and preset.layers is not None:
        wanted = preset.layers
    if wanted is None:
        first, count = lm.num_layers // 7, min(5, max(1, lm.num_layers // 6))
        wanted = range(first, first + count)
        if lm.site(first).norm_after:
            wanted = [first]
    layers = tuple(sorted({lm.site(layer).layer for layer in wanted}))
    if not layers or len(layers) != len(list(wanted)):
        raise EditError(f"layers={list(wanted)}; expected one or more different layers.")
    if len(layers) > 1 and any(lm.site(layer).norm_after for layer in layers):
        raise SiteError(
            f"layers={list(layers)}: in this model a norm follows the FFN, so a residual cannot be spread over layers; "
            "expected one layer. Pass layers=[one of them]."
        )
    return layers
