"""Reading preset files: one YAML file a model, with the source of each number.

A sheet holds one section of MEMIT's numbers for each *family* of settings (clamp 0.75 as in the original code, clamp 4
as in EasyEdit's files) and one section for each editor with numbers of its own. That of an encoder-decoder has neither,
since no locate-then-edit method applies to it: its editors' numbers stand in `gradient_presets.yaml`. This file knows
how a sheet is spelled and how its sections are laid over each other; it refuses a field it does not know, so that no
number gets lost.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache
from importlib.resources import files
from typing import Any

import yaml
from transformers import AutoConfig, PretrainedConfig

from lightning_edit.editors.preset import Preset, Shape
from lightning_edit.errors import EditError
from lightning_edit.model.seq2seq import FAMILIES

ASSUMED = "assumed"
"""The source of a section whose numbers nobody publishes for this model; its note says where they are taken from."""

_NUMBERS = ("lr", "clamp", "weight_decay", "kl", "prior_weight", "l2", "nullspace_threshold", "noise", "ridge")
_LISTS = ("contexts", "preserve")
_TEXTS = ("source", "note", "fails", "family")
_HEAD = ("name", "models", "projection", "shape", "config", "family", "families", "editors")
_SHARED = ("l2", "nullspace_threshold")  # numbers of AlphaEdit that other null-space editors use too


@dataclass(frozen=True, slots=True)
class Section:
    """Numbers from one source.

    Args:
        values: Fields of `Preset`.
        source: Repository, commit and file, or `assumed`.
        note: What else there is to know.
        fails: What is reported about this editor on this model, where that is failure.
        family: The family that an editor's section is laid over, where it is not the sheet's.
    """

    values: Mapping[str, Any]
    source: str
    note: str | None = None
    fails: str | None = None
    family: str | None = None


@dataclass(frozen=True, slots=True)
class PresetSheet:
    """All that is published for one model.

    Args:
        name: Name of the preset.
        models: Hub names it is meant for.
        projection: Path of the edited projection, with `{}` for the layer.
        shape: Model width, inner width, number of blocks.
        config: Fields of the model's public config.json that are needed to build it; None for the embedded model.
        family: The family that is published for the model.
        families: MEMIT's numbers by family.
        editors: What an editor has of its own, by the editor's name.
    """

    name: str
    models: tuple[str, ...]
    projection: str
    shape: Shape
    config: Mapping[str, Any] | None
    family: str
    families: Mapping[str, Section]
    editors: Mapping[str, Section]

    @property
    def encoder_decoder(self) -> bool:
        """Whether the model has an encoder beside its decoder; `shape` counts the blocks of both."""
        return self.config is not None and self.config["model_type"] in FAMILIES

    def settings(self, editor: str | None = None, family: str | None = None) -> Preset:
        """The numbers for one editor: the family's, and over them what the editor has of its own.

        Args:
            editor: Name of the editor; one without a section of its own takes MEMIT's numbers.
            family: Name of a family; None takes what is published for this editor on this model.
        """
        if self.encoder_decoder:
            raise EditError(
                f"preset {self.name!r} is of an encoder-decoder, for which no locate-then-edit method publishes "
                "numbers; expected a preset of a decoder-only model. Use ft_m, ft_l, lora, adalora or mend."
            )
        own = self.editors.get((editor or "").lower())
        chosen = family or (own.family if own else None) or self.family
        if chosen not in self.families:
            raise EditError(
                f"preset {self.name!r} has no family {chosen!r}; expected one of {', '.join(self.families)}."
            )
        general, null_space = self.families[chosen], self.editors.get("alphaedit")
        shared = {key: null_space.values[key] for key in _SHARED} if null_space else {}
        remarks = [f"preset {self.name}@{chosen}: {general.note}"] if general.source == ASSUMED else []
        return Preset(
            **{**shared, **general.values, **(own.values if own else {})},
            name=self.name,
            shape=self.shape,
            family=chosen,
            sources=tuple(section.source for section in (general, own) if section),
            remarks=tuple(remarks),
            failing=f"{editor} is reported to fail on {self.name}: {own.fails}" if own and own.fails else None,
        )

    def model_config(self) -> PretrainedConfig:
        """The model's configuration, from the bundled numbers."""
        if self.config is None:
            raise EditError(f"preset {self.name!r} bundles no configuration; expected that of a model's public files.")
        config: PretrainedConfig = AutoConfig.for_model(**self.config)
        return config


@cache
def shipped_presets() -> Mapping[str, PresetSheet]:
    """The presets that come with the package, sorted by name."""
    folder = files("lightning_edit.editors").joinpath("preset_files")
    texts = {file.name: file.read_text("utf-8") for file in folder.iterdir() if file.name.endswith(".yaml")}
    return {sheet.name: sheet for sheet in (read_sheet(text, name) for name, text in sorted(texts.items()))}


def read_sheet(text: str, file: str) -> PresetSheet:
    """Read one preset file.

    Args:
        text: Its content.
        file: Its name, for messages.
    """
    content = yaml.safe_load(text)
    if not isinstance(content, dict) or (unknown := [key for key in content if key not in _HEAD]):
        raise EditError(f"{file}: found {unknown if isinstance(content, dict) else content!r}; expected {_HEAD}.")
    families = {name: _section(body, f"{file}, families.{name}") for name, body in content["families"].items()}
    editors = {name: _section(body, f"{file}, editors.{name}") for name, body in content["editors"].items()}
    without = (content.get("config") or {}).get("model_type") in FAMILIES
    if content["family"] not in families and not without:
        raise EditError(f"{file}: found family {content['family']!r}; expected one of {', '.join(families)}.")
    width, inner, blocks = content["shape"]
    return PresetSheet(
        name=content["name"],
        models=tuple(content["models"]),
        projection=content["projection"],
        shape=(width, inner, blocks),
        config=content.get("config"),
        family=content["family"],
        families=families,
        editors=editors,
    )


def _section(body: Mapping[str, Any], where: str) -> Section:
    """One section, every field checked."""
    texts = {key: str(value) for key, value in body.items() if key in _TEXTS}
    values = {key: _value(key, value, where) for key, value in body.items() if key not in _TEXTS}
    values.pop("fact_token", None)
    if not texts.get("source") or (texts["source"] == ASSUMED and not texts.get("note")):
        raise EditError(f"{where}: found no source; expected one for the numbers, or 'assumed' and a note.")
    return Section(values, **texts)


def _value(key: str, value: Any, where: str) -> Any:
    """A field of a preset, if it is of the right kind."""
    if key == "layers" and isinstance(value, list) and value == sorted(set(value)):
        return tuple(value)
    if key in _LISTS and isinstance(value, list) and all(isinstance(text, str) for text in value):
        return tuple(value)
    number = isinstance(value, int | float) and not isinstance(value, bool)
    kinds = {"steps": number, "mom2_adjustment": isinstance(value, bool), "fact_token": value == "subject_last"}
    if kinds.get(key, key in _NUMBERS and number):
        return float(value) if key in _NUMBERS else value
    raise EditError(
        f"{where}: found {key}: {value!r}; expected layers in ascending order, lists of texts for {', '.join(_LISTS)}, "
        f"a number for steps and for {', '.join(_NUMBERS)} (YAML reads 2e-2 as a text: write 0.02), true or false for "
        "mom2_adjustment, and subject_last for fact_token, the only token whose keys are read here."
    )
