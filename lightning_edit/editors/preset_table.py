"""The tables of `docs/presets.md`, made from the preset files so that they can not go stale.

`python -m lightning_edit.editors.preset_table docs/presets.md` writes them anew, between the two marks.
"""

import sys
from collections.abc import Iterable, Sequence
from pathlib import Path

from lightning_edit.editors.preset import Preset
from lightning_edit.editors.preset_sheet import ASSUMED, PresetSheet, shipped_presets
from lightning_edit.errors import EditError

BEGIN, END = "<!-- tables: begin -->\n", "<!-- tables: end -->\n"

_MODELS = ("preset", "meant for", "d / n / blocks", "published family")
_FAMILIES = ("preset", "layers", "lr", "steps", "clamp", "weight decay", "KL", "prior weight", "source")
_EDITORS = ("preset", "editor", "layers", "lr", "steps", "clamp", "weight decay", "KL", "of its own", "source")
_TEXTS = ("contexts", "preserve")  # which only the embedded preset has
_NAMES = {"alphaedit": "AlphaEdit"}  # the others are spelled in capitals


def preset_tables() -> str:
    """Three tables: the models, MEMIT's numbers by family, and what other editors have of their own."""
    sheets = shipped_presets().values()
    parts = [
        "### Models",
        _table(_MODELS, map(_model_row, sheets)),
        "### MEMIT's numbers, by family",
        _table(_FAMILIES, (row for sheet in sheets for row in _family_rows(sheet))),
        "### Editors with numbers of their own",
        _table(_EDITORS, (row for sheet in sheets for row in _editor_rows(sheet))),
    ]
    return "\n\n".join(parts) + "\n"


def _model_row(sheet: PresetSheet) -> Sequence[str]:
    shape = " / ".join(map(str, sheet.shape))
    return f"`{sheet.name}`", ", ".join(sheet.models), shape, f"`{sheet.family}`"


def _family_rows(sheet: PresetSheet) -> Iterable[Sequence[str]]:
    for family, section in sheet.families.items():
        preset = sheet.settings(None, family)
        weight = "" if preset.prior_weight is None else f"{preset.prior_weight:g}"
        texts = [f"{key}: {_shown(section.values[key])}" for key in _TEXTS if key in section.values]
        source = "; ".join([_source(section.source, section.note), *texts])
        yield f"`{sheet.name}@{family}`", *_targets(preset), weight, source


def _editor_rows(sheet: PresetSheet) -> Iterable[Sequence[str]]:
    for name, section in sheet.editors.items():
        preset = sheet.settings(name)
        skipped = ("layers", "lr", "steps", "clamp", "weight_decay", "kl")
        own = [f"{key} {_shown(value)}" for key, value in section.values.items() if key not in skipped]
        own += [f"family `{section.family}`"] if section.family else []
        own += [f"**fails**: {section.fails}"] if section.fails else []
        editor = _NAMES.get(name, name.upper())
        yield f"`{sheet.name}`", editor, *_targets(preset), "; ".join(own), _source(section.source, section.note)


def _targets(preset: Preset) -> Sequence[str]:
    """Layers, lr, steps, clamp, weight decay, KL."""
    layers = preset.layers or ()
    stretch = str(layers[0]) if len(layers) == 1 else f"{layers[0]}-{layers[-1]}" if layers else ""
    numbers = (preset.lr, preset.steps, preset.clamp, preset.weight_decay, preset.kl)
    return stretch, *(f"{number:g}" for number in numbers)


def _shown(value: object) -> str:
    if isinstance(value, tuple):
        return ", ".join(f'"{text}"' for text in value)
    return str(value).lower() if isinstance(value, bool) else f"{value:g}"


def _source(source: str, note: str | None) -> str:
    return f"{'*assumed*' if source == ASSUMED else source}{f' ({note})' if note else ''}"


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def write_tables(page: Path) -> None:
    """Put the tables between the marks of a page.

    Args:
        page: The page.
    """
    before, begin, rest = page.read_text("utf-8").partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise EditError(f"{page} has no {BEGIN.strip()} and {END.strip()}; expected both, to put the tables between.")
    page.write_text(f"{before}{BEGIN}\n{preset_tables()}\n{END}{after}", "utf-8")


if __name__ == "__main__":
    write_tables(Path(sys.argv[1]))
