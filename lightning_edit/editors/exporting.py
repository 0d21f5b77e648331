"""Ways out: the edits as an adapter, as a delta file, or merged into the weights, each with a note of what is in it.

An adapter loads with plain PEFT, a merged model with plain transformers. The note, `edits.json`, says which requests
they carry and how far the model's weights are from the exact ones. Where the weights are sharded every rank has to
call, the first one writes, and all get the note when it is written. This file knows what goes where; how adapters and
delta files are written stands in files of their own.
"""

import json
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

from lightning_edit.editors.adapter import base_weight, export_adapter
from lightning_edit.editors.delta_file import Change, write_delta
from lightning_edit.editors.edited_site import EditedSite
from lightning_edit.editors.first_rank import first_rank_writes
from lightning_edit.editors.low_rank import Factors, update_factors
from lightning_edit.editors.site_state import whole_ledger
from lightning_edit.errors import LedgerError
from lightning_edit.model.identity import source_name
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.model.saving import save_folder
from lightning_edit.model.weights import read_weight

NOTE_FILE = "edits.json"


def describe(lm: LanguageModel, editor: str, sites: Sequence[EditedSite], requests: Sequence[str]) -> dict[str, Any]:
    """What every note says.

    Args:
        lm: The language model that carries the edits.
        editor: Name of the editor.
        sites: The edited sites.
        requests: Ids of the active requests.

    Returns:
        Editor, model and requests; and for each module the norm of what the model carries minus the exact weight: of
        restrictions, rounding, and training since the last edit.
    """
    apart = {lm.site(site.layer).name: site.distance(lm.projection(site.layer)) for site in sites}
    return {"editor": editor, "model": lm.identity, "requests": list(requests), "deployed_minus_exact": apart}


def write_adapter(
    lm: LanguageModel,
    sites: Sequence[EditedSite],
    folder: str | PathLike[str],
    note: dict[str, Any],
    name: str | None = None,
    rank: int | None = None,
) -> dict[str, Any]:
    """Write a PEFT adapter and its note; see `export_adapter`.

    Args:
        lm: The language model that carries the edits.
        sites: The edited sites.
        folder: Where to write.
        note: What `describe` says.
        name: Hub name or folder of the base model.
        rank: Rank of the adapter at most.

    Returns:
        The note.
    """
    with first_rank_writes(lm.model) as writes:
        note = note | export_adapter(lm, sites, folder, name, rank, writes)
        if writes:
            _write_note(folder, note)
    return note


def write_merged(lm: LanguageModel, folder: str | PathLike[str], note: dict[str, Any]) -> dict[str, Any]:
    """Write the model with its edits, a PEFT adapter merged in, and a note.

    Args:
        lm: The language model that carries the edits.
        folder: Where to write.
        note: What `describe` says.

    Returns:
        The note.
    """
    with first_rank_writes(lm.model) as writes:
        write_edited(lm, folder, writes)
        if writes:
            _write_note(folder, note)
    return note


def write_edited(lm: LanguageModel, folder: str | PathLike[str], write: bool = True) -> None:
    """Write a model, known from now on as what it was edited from, so that an editor's state fits it.

    Args:
        lm: The language model.
        folder: Where to write.
        write: Whether this process writes; sharded weights are gathered, so that every rank has to call.
    """
    config, name = lm.model.config, source_name(lm.model)
    before = config.__dict__.get("edited_from")
    config.edited_from = name
    try:
        save_folder(lm.model, lm.tokenizer, Path(folder), write=write)
    finally:
        if before is None:
            del config.edited_from


def find_changes(lm: LanguageModel, sites: Sequence[EditedSite], base: LanguageModel | None = None) -> list[Change]:
    """What became of the edited weights, as the model carries them now.

    Args:
        lm: The language model that carries the edits.
        sites: The edited sites.
        base: A model with the weights that a delta should start from; the ledgers' base weights where None.

    Raises:
        LedgerError: No base is given, and the ledgers have none to start from.
    """
    if base is None and not any(len(site.ledger) for site in sites):
        raise LedgerError(
            "the ledgers hold no columns, so what the weights were is not known here; expected an editor that keeps "
            "its edits and has made some, or the unedited model: export_delta(..., base=model)."
        )
    changes = []
    for site in sites:
        edited = read_weight(lm.projection(site.layer)).clone()
        start = base_weight(site) if base is None else read_weight(base.projection(site.layer))
        start = start.to(edited.device, edited.dtype, copy=True)
        changes.append(Change(lm.site(site.layer).name, start, edited, _factors(site)))
    return changes


def write_difference(
    lm: LanguageModel,
    sites: Sequence[EditedSite],
    path: str | PathLike[str],
    note: dict[str, Any],
    base: LanguageModel | None = None,
) -> dict[str, Any]:
    """Write a delta file, which is its own note; see `write_delta`.

    Args:
        lm: The language model that carries the edits.
        sites: The edited sites.
        path: The file.
        note: What `describe` says.
        base: A model with the weights that the delta starts from.

    Returns:
        The note, with what the file says of itself.
    """
    with first_rank_writes(lm.model) as writes:
        changes = find_changes(lm, sites, base)
        about = write_delta(path, changes, note["requests"], note["model"], writes)
    return note | about


def _factors(site: EditedSite) -> Factors | None:
    """Factors of the exact update, where it has some."""
    return update_factors(whole_ledger(site)) if len(site.ledger) and site.ledger.penalty is None else None


def _write_note(folder: str | PathLike[str], note: dict[str, Any]) -> None:
    """Put the note beside what it is about."""
    (Path(folder) / NOTE_FILE).write_text(json.dumps(note, indent=2) + "\n")
