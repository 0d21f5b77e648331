"""How `edit_model` leaves its edits behind: merged into a model, beside it, as an adapter, or as a delta.

Knows the names a user types and where the files go. Refuses to know what is in them.
"""

from pathlib import Path
from typing import Literal

from lightning_edit.editors.editor import Editor
from lightning_edit.editors.keeper import Keeper
from lightning_edit.errors import EditError
from lightning_edit.module import EditableModule
from lightning_edit.saved_edits import save_edits

Export = Literal["merged", "editor", "adapter", "delta"]


def export_edits(
    editor: Editor, module: EditableModule, output: Path, how: Export, rank: int | None = None
) -> tuple[dict[str, Path], list[str]]:
    """Write the edits of a model.

    Args:
        editor: The editor.
        module: The edited model, which was loaded from `module.hparams.model`.
        output: Folder that takes the files.
        how: What to write.
        rank: Rank of an adapter at most.

    Returns:
        Files by what they are called in the report, and remarks for it.

    Raises:
        EditError: The editor keeps no ledger to make an adapter or a delta of.
    """
    target = output / "model"
    if how == "editor" or (how == "merged" and not editor.in_weights):
        save_edits(module, target, editor)
        return {"model with its editor": target}, [how_to_load(editor, target)]
    if how == "merged":
        if isinstance(editor, Keeper):
            editor.export_merged(module, target)
        else:
            module.save_pretrained(target)
        return {"edited model": target}, []
    if not isinstance(editor, Keeper):
        raise EditError(
            f"{type(editor).__name__} keeps no ledger, so there is nothing to make a {how} of; expected a closed-form "
            "editor, or export=merged."
        )
    if how == "adapter":
        note = editor.export_adapter(module, output / "adapter", name=str(module.hparams["model"]), rank=rank)
        losses = [f"{site}: {loss['values']:.2g}" for site, loss in note["loss"].items()]
        remark = (
            f"the adapter has ranks {sorted(set(note['ranks'].values()))}; share of the edits' effect at their own "
        )
        return {"adapter": output / "adapter"}, [f"{remark}keys that it lacks: {', '.join(losses)}"]
    path, base = output / "edits.safetensors", None
    if editor.history == "absorbed":  # the ledgers no longer know what the weights were
        base = EditableModule.from_pretrained(module.hparams["model"], dtype=module.hparams["dtype"])
    editor.export_delta(module, path, base)
    return {"delta": path}, []


def how_to_load(editor: Editor, folder: Path) -> str:
    """What brings a model and the editor beside it back.

    Args:
        editor: The editor.
        folder: The model's folder.
    """
    where = "beside the weights" if editor.in_weights else "not in the weights, but beside them"
    return (
        f"what {type(editor).__name__} keeps is {where}: load both with "
        f"`from lightning_edit import load_edits; module = load_edits({str(folder)!r})`"
    )
