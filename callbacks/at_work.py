"""Edits at work where nothing is trained: in `trainer.validate`, `test` and `predict`.

Knows whose edits belong into which model. Refuses to know how an editor takes its place (`edit_session.py`), and edits
and repairs nothing: the weights that the Trainer has loaded have the edits already.
"""

from typing import TYPE_CHECKING

from lightning.pytorch.utilities.rank_zero import rank_zero_warn

from lightning_edit.callbacks.edit_callback import edit_callbacks
from lightning_edit.editors.editor import Editor

if TYPE_CHECKING:
    import lightning.pytorch as pl

    from lightning_edit.callbacks.continual_edit import ContinualEdit


def put_to_work(editing: "ContinualEdit", trainer: "pl.Trainer", pl_module: "pl.LightningModule") -> None:
    """Let edits act in the model of a run: those of the last fit in its own, those of a checkpoint where it is loaded.

    A model that was edited by nobody, or by somebody else, is left alone.

    Args:
        editing: The callback that edits.
        trainer: The Trainer.
        pl_module: The module.
    """
    session, editor = editing.session, editing.editor
    active = editor is not None and bool(editor.requests)
    if not (active or session.waits):
        return
    lm = editing.find_language_model(trainer, pl_module)
    if session.waits or session.edited in (None, lm):
        session.put_to_work(trainer, lm)
        show_editor(pl_module, editor)
        for callback in edit_callbacks(trainer):
            callback.on_put_to_work(trainer, pl_module, lm)
    elif editor is not None and editor.acts_on_every_rank and getattr(pl_module, "editor", None) is not editor:
        rank_zero_warn(
            f"The {len(editor.requests)} edits of {type(editor).__name__} are in another model than this run's, "
            "which answers without them. Pass the module that was edited, or a checkpoint: ckpt_path=..."
        )


def show_editor(pl_module: "pl.LightningModule", editor: Editor | None) -> None:
    """Let the module have its editor as `module.editor`, unless that name stands for something of its own.

    Args:
        pl_module: The module.
        editor: The editor; None changes nothing.
    """
    if editor is not None and isinstance(getattr(pl_module, "editor", None), Editor | None):
        pl_module.editor = editor  # type: ignore[assignment]  # a plain object, no submodule
