"""One editor's targets for another one.

Targets that are read on the base weights depend on the model, the requests and the options of their search, and on
nothing that a prior or a solver does. Editors that differ in those can therefore solve for the very same targets: what
is found once is exact for all of them, and what then differs between them is the solution alone.
"""

from dataclasses import replace
from typing import Any

from lightning_edit.editors.base import ClosedFormEditor
from lightning_edit.errors import EditError
from lightning_edit.model.language_model import LanguageModel, as_language_model


def hand_over_targets(finder: ClosedFormEditor, taker: ClosedFormEditor, module: object) -> int:
    """Let an editor use the targets that another one has found; those it lacks it will look for itself.

    Args:
        finder: An editor with `targets="base"` that has edited.
        taker: An editor with `targets="base"`, prepared, that would search in the same way.
        module: The model of both.

    Returns:
        How many there are.

    Raises:
        EditError: Their targets would not be the same.
    """
    lm = as_language_model(module)
    found = [_way(editor, lm) for editor in (finder, taker)]
    if odd := [name for name, value in found[0].items() if value != found[1][name]]:
        values = "; ".join(f"{name}: {found[0][name]} and {found[1][name]}" for name in odd)
        raise EditError(f"targets of one editor would not be those of the other ({values}); expected equal settings.")
    if finder.targets != "base":
        raise EditError(f"found targets={finder.targets!r}; expected 'base': live targets depend on earlier edits.")
    columns = finder._estate.book.columns
    book = taker._estate.book
    known = {group: replace(column, pairs=None) for group, column in columns.items()}  # without another's keys
    taker._estate.book = replace(book, archive={**book.archive, **known})
    return len(known)


def _way(editor: ClosedFormEditor, lm: LanguageModel) -> dict[str, Any]:
    """All that a search for targets depends on."""
    reader = editor._estate.attach(lm)
    return {
        "targets": editor.targets,
        "layer": reader.target_layer,
        "place": reader.place,
        "contexts": reader.contexts,
        "preserve": reader.preserve,
        "options": editor._options(),
    }
