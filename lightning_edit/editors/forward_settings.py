"""Settings of editors that act inside the forward pass: by the model's preset, else the nearest model's.

The numbers stand in `forward_presets.yaml` with their sources, in a file of their own because nothing in them is laid
over MEMIT's. A layer of another model is taken at the same relative depth. This file picks and checks; it knows no
method beyond the names of its numbers.
"""

import logging
from collections.abc import Mapping
from dataclasses import dataclass, fields, replace
from functools import cache
from importlib.resources import files
from typing import Any, Literal, TypeVar, get_args, get_type_hints

import yaml

from lightning_edit.editors.preset_scaling import nearest_sheet, same_depth, shape_of
from lightning_edit.editors.preset_sheet import shipped_presets
from lightning_edit.editors.presets import find_sheet
from lightning_edit.errors import EditError, SiteError
from lightning_edit.model.ffn_parts import Part, find_part
from lightning_edit.model.language_model import LanguageModel

_log = logging.getLogger(__name__)

Replacement = Literal["last", "prompt", "all"]
Start = Literal["cold", "warm"]
Merge = Literal["ties", "dare_ties", "dare_linear", "magnitude", "sign", "linear"]


@dataclass(frozen=True, slots=True)
class ForwardSettings:
    """What every editor of this kind has to know.

    Args:
        name: The preset the numbers were taken from.
        source: Where they come from.
        layer: The block whose FFN projection is replaced.
        part: Which projection: `down` onto the residual stream, or `up` or `gate` onto the inner width.
        lr: Learning rate.
        steps: Gradient steps for one request at most.
        chat: Whether prompts are put through the tokenizer's chat template.
    """

    name: str = "default"
    source: str = ""
    layer: int = -1
    part: Part = "down"
    lr: float = 1.0
    steps: int = 50
    chat: bool = False


@dataclass(frozen=True, slots=True)
class GraceSettings(ForwardSettings):
    """The numbers of GRACE on one model.

    Args:
        radius: Radius of a new entry.
        start: Where a value starts: `cold` at random numbers in [0, 1), `warm` at the output it replaces.
        replacement: Which outputs a value replaces: that of the prompt's `last` token, those of the `prompt` before
            its last token, or `all` of the text.
        stop_loss: A value is found when its request's loss is below this; 0 makes all steps.
    """

    radius: float = 1.0
    start: Start = "cold"
    replacement: Replacement = "last"
    stop_loss: float = 0.0


@dataclass(frozen=True, slots=True)
class WiseSettings(ForwardSettings):
    """The numbers of WISE on one model.

    Args:
        alpha: Bound on the activation difference of an unrelated text.
        beta: The activation difference that an edited prompt shall reach.
        gamma: The margin between the two.
        ratio: Share of the smallest activation difference of a shard's edits from which on a prompt is routed to it.
        density: Share of the side memory's entries that a shard may change.
        norm_constraint: Bound on each entry's change.
        weight_decay: Weight decay of the side memory.
        stop_loss: A request is learned when its loss is at most this and changes little.
        stop_change: What little is, from one step to the next.
        shard_edits: Edits in one shard.
        merge_shards: Shards that are merged into one memory.
        merge: How shards are merged, see `wise/merging.py`.
        kept: Share of entries that a merge keeps of each shard.
        retrieve: Whether several merged memories stand side by side; else there is one, to which new ones are added.
        unrelated: Unrelated texts beside one request.
    """

    alpha: float = 5.0
    beta: float = 20.0
    gamma: float = 10.0
    ratio: float = 0.88
    density: float = 0.2
    norm_constraint: float = 1.0
    weight_decay: float = 1e-5
    stop_loss: float = 0.02
    stop_change: float = 1e-4
    shard_edits: int = 500
    merge_shards: int = 2
    merge: Merge = "ties"
    kept: float = 0.53
    retrieve: bool = True
    unrelated: int = 1


Settings = TypeVar("Settings", bound=ForwardSettings)
KINDS: Mapping[str, type[ForwardSettings]] = {"grace": GraceSettings, "wise": WiseSettings}


def find_settings(
    lm: LanguageModel, editor: str, kind: type[Settings], given: Mapping[str, Any], preset: str | None = None
) -> Settings:
    """The settings of an editor for a model.

    Args:
        lm: The language model.
        editor: Name of the editor in the file of presets.
        kind: Its kind of settings.
        given: What the user said; None leaves a number to the preset.
        preset: Name of a preset; None finds it by the model's name and shape, and else takes the nearest model's.
    """
    known = forward_presets()[editor]
    if preset is not None and preset.lower() not in known:
        raise EditError(f"{editor} has no preset {preset!r}; expected one of {', '.join(known)}.")
    sheet = find_sheet(lm)
    wanted = preset.lower() if preset is not None else sheet.name if sheet is not None else ""
    found: Any = known.get(wanted)
    if found is None:
        near = nearest_sheet(shape_of(lm), lm.model.config.get_text_config().model_type)
        if near.name not in known:
            raise EditError(
                f"nobody publishes settings of {editor} for an encoder-decoder such as {type(lm.model).__name__}; "
                "expected another model's and a layer: preset='gpt2-xl', layer='encoder.block.3'."
            )
        found = known[near.name]
        depth = same_depth(lm, near, found.layer)
        found = replace(found, name="default", layer=depth, part=_part_there(lm, depth, found.part))
        _log.warning(
            "no settings of %s are known for this model; taken are those of %s at layer %d. Options of the editor "
            "override them.",
            *(editor, near.name, depth),
        )
    own = {name: value for name, value in given.items() if value is not None}
    if isinstance(own.get("layer"), str):
        own["layer"] = lm.site(own["layer"]).layer
    settings: Settings = replace(found, **own)
    check_settings(settings, editor)
    find_part(lm, settings.layer, settings.part)
    assert isinstance(settings, kind)
    return settings


def _part_there(lm: LanguageModel, layer: int, part: Part) -> Part:
    """The part, or `down` where the model, which may be of another family, has no such part."""
    try:
        find_part(lm, layer, part)
    except SiteError:
        return "down"
    return part


@cache
def forward_presets() -> Mapping[str, Mapping[str, ForwardSettings]]:
    """Every editor's settings by preset."""
    return read_forward_presets(files("lightning_edit.editors").joinpath("forward_presets.yaml").read_text("utf-8"))


def read_forward_presets(text: str) -> dict[str, dict[str, ForwardSettings]]:
    """Read the file of presets; every field is checked.

    Args:
        text: Its content.
    """
    editors: dict[str, dict[str, ForwardSettings]] = {}
    for editor, entries in yaml.safe_load(text).items():
        editors[editor] = {}
        for name, body in entries.items():
            where = f"{editor}.{name}"
            if name not in shipped_presets():
                raise EditError(f"{where} is no preset; expected one of {', '.join(shipped_presets())}.")
            if unknown := [key for key in body if key not in {field.name for field in fields(KINDS[editor])}]:
                raise EditError(f"{where}: found {unknown}; expected fields of {KINDS[editor].__name__}.")
            if not body.get("source") or "layer" not in body:
                raise EditError(f"{where}: expected the layer, and a source that says where the numbers come from.")
            editors[editor][name] = KINDS[editor](name=name, **body)
            check_settings(editors[editor][name], where)
    return editors


def check_settings(settings: ForwardSettings, where: str) -> None:
    """Refuse values of the wrong kind, and numbers that mean nothing.

    Args:
        settings: The settings.
        where: Where they come from, for messages.
    """
    hints = get_type_hints(type(settings))
    for field in fields(settings):
        value, hint = getattr(settings, field.name), hints[field.name]
        choices = get_args(hint)
        right = value in choices if choices else _is(value, hint)
        if not right:
            expected = f"one of {', '.join(map(repr, choices))}" if choices else f"a value of kind {hint.__name__}"
            raise EditError(
                f"{where}: found {field.name}={value!r}; expected {expected} (in YAML write 0.00001, not 1e-5)."
            )
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if number and (value < 0 or (value == 0 and field.name in _POSITIVE)):
            raise EditError(f"{where}: found {field.name}={value}; expected a number above 0.")
        if number and field.name in ("density", "kept") and value > 1:
            raise EditError(f"{where}: found {field.name}={value}; expected a share, up to 1.")


_POSITIVE = ("lr", "steps", "radius", "density", "kept", "norm_constraint", "shard_edits", "merge_shards", "unrelated")


def _is(value: object, hint: type) -> bool:
    """Whether a value is of a kind; an integer is a float, a truth value is no number."""
    if isinstance(value, bool) or hint is bool:
        return isinstance(value, bool) and hint is bool
    return isinstance(value, int | float) if hint is float else isinstance(value, hint)
