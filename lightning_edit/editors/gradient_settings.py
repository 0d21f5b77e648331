"""Settings of editors that take gradient steps: by the model's preset, else the nearest model's, at the same depth.

The numbers stand in `gradient_presets.yaml` with their sources. They have a file of their own because nothing in them
is laid over MEMIT's numbers: a learning rate of targets is none of weights. This file picks and checks; it knows no
method.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cache
from importlib.resources import files
from typing import Any, Self

import yaml

from lightning_edit.editors.descent import DescentOptions
from lightning_edit.editors.preset_scaling import nearest_sheet, same_depth, shape_of
from lightning_edit.editors.preset_sheet import shipped_presets
from lightning_edit.editors.presets import find_sheet
from lightning_edit.errors import EditError
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.model.sites import Layer

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class GradientSettings:
    """The numbers that one editor uses on one model.

    Args:
        name: The preset they were taken from.
        source: Where they come from.
        layers: Blocks to work on, by number or path; None leaves it to the editor.
        modules: Names of the linear modules that get an adapter; None takes what PEFT lists for the architecture.
        lr: Learning rate.
        steps: Passes over the requests of a commit at most.
        batch_size: Requests in one step.
        weight_decay: Adam's weight decay.
        stop_loss: A request is learned when its loss is below this; None makes all passes.
        norm_constraint: Bound on each entry's change in one commit; None is no bound.
        rank: Rank of an adapter, for AdaLoRA on average.
        init_rank: Rank AdaLoRA begins with.
        alpha: Scale of an adapter times its rank, for AdaLoRA times the rank it begins with.
        dropout: Dropout on an adapter's input while it learns.
    """

    name: str = "default"
    source: str = ""
    layers: tuple[Layer, ...] | None = None
    modules: tuple[str, ...] | None = None
    lr: float = 5e-4
    steps: int = 25
    batch_size: int = 16
    weight_decay: float = 0.0
    stop_loss: float | None = None
    norm_constraint: float | None = None
    rank: int = 8
    init_rank: int = 12
    alpha: int = 32
    dropout: float = 0.1

    @property
    def descent(self) -> DescentOptions:
        """How to descend."""
        return DescentOptions(self.lr, self.steps, self.weight_decay, self.stop_loss, self.batch_size)

    def with_given(self, given: Mapping[str, Any]) -> Self:
        """These settings, with what the user gave in their place.

        Args:
            given: Values by field.
        """
        lists = {key: tuple(value) for key, value in given.items() if isinstance(value, list | tuple)}
        return replace(self, **{**given, **lists})


def find_settings(lm: LanguageModel, editor: str, preset: str | None = None) -> GradientSettings:
    """The settings of an editor for a model.

    Args:
        lm: The language model.
        editor: Name of the editor.
        preset: Name of a preset; None finds it by the model's name and shape, and else takes the nearest model's, with
            its layers at the same relative depth.
    """
    known = gradient_presets()[editor]
    if preset is not None and preset.lower() not in known:
        raise EditError(f"{editor} has no preset {preset!r}; expected one of {', '.join(known)}.")
    sheet = find_sheet(lm)
    name = preset.lower() if preset is not None else sheet.name if sheet is not None else "default"
    if name in known and name != "default":
        return known[name]
    near = nearest_sheet(shape_of(lm), lm.model.config.get_text_config().model_type)
    found = known.get(near.name, known["default"])
    layers = found.layers
    if layers is not None:
        layers = tuple(sorted({same_depth(lm, near, layer) for layer in layers}))
    return replace(found, layers=layers)


@cache
def gradient_presets() -> Mapping[str, Mapping[str, GradientSettings]]:
    """Every editor's settings by preset; `default` is for models that nobody publishes any for."""
    text = files("lightning_edit.editors").joinpath("gradient_presets.yaml").read_text("utf-8")
    return read_gradient_presets(text)


def read_gradient_presets(text: str) -> dict[str, dict[str, GradientSettings]]:
    """Read the file of presets; every field is checked, and each entry is laid over its editor's `default`.

    Args:
        text: Its content.
    """
    editors: dict[str, dict[str, GradientSettings]] = {}
    for editor, entries in yaml.safe_load(text).items():
        default = _settings(GradientSettings(), entries["default"], f"{editor}.default")
        editors[editor] = {"default": default}
        for name, body in entries.items():
            if name not in ("default", *shipped_presets()):
                raise EditError(f"{editor}.{name} is no preset; expected default or one of {list(shipped_presets())}.")
            base = replace(default, name=name)
            editors[editor][name] = _settings(base, body, f"{editor}.{name}")
    return editors


def _settings(base: GradientSettings, body: Mapping[str, Any], where: str) -> GradientSettings:
    """One entry over its editor's defaults."""
    kinds: dict[str, Any] = {"layers": list, "modules": list, "source": str, "steps": int, "batch_size": int}
    kinds |= {"alpha": int, "rank": int, "init_rank": int}
    for key, value in body.items():
        kind = kinds.get(key, int | float)
        known = key in {field.name for field in fields(GradientSettings)} - {"name"}
        if not known or not isinstance(value, kind) or isinstance(value, bool):
            raise EditError(
                f"{where}: found {key}: {value!r}; expected a field of GradientSettings with a value of its kind "
                "(YAML reads 5e-4 as a text: write 0.0005)."
            )
    if not body.get("source"):
        raise EditError(f"{where}: found no source; expected where the numbers come from.")
    return base.with_given(body)
