"""A folder with a model and its editor: what brings edits back to work in another process, wherever they are.

Editors inside the forward pass, adapters beside the model, text memories and ledgers are no part of the weights. They
stand beside them in two files: `editor.json` says which editor it is and holds its state but for the tensors, which are
in `editor.safetensors`. Reading them executes nothing. This file knows the two files; the state is the editor's.
"""

import hashlib
import json
import os
from collections.abc import Callable
from os import PathLike
from pathlib import Path
from typing import Any

from safetensors.torch import load_file, save_file
from torch.distributed.tensor import DTensor

from lightning_edit.editors.description import describe_editor, editor_path, make_editor
from lightning_edit.editors.editor import Editor
from lightning_edit.editors.exporting import write_edited
from lightning_edit.editors.first_rank import first_rank_writes
from lightning_edit.editors.plain import Writer, read_tree
from lightning_edit.editors.site_backup import fingerprint
from lightning_edit.errors import EditError, StateError
from lightning_edit.model.language_model import LanguageModel, as_language_model
from lightning_edit.module import EditableModule

VERSION = 1
EDITOR_FILE, TENSOR_FILE = "editor.json", "editor.safetensors"


def save_edits(module: object, folder: str | PathLike[str], editor: Editor | None = None) -> None:
    """Write a model and its editor, so that `load_edits` brings both back.

    The weights are written without what the editor puts around the model, a PEFT adapter of the user's merged in. Under
    a distributed strategy every rank has to call, and the first one writes; the processes of a sharded model go on when
    it is written.

    Args:
        module: An `EditableModule` or `LanguageModel`.
        folder: Where to write; it is made.
        editor: The editor at work on it; the module's own where None.

    Example:
        >>> from lightning_edit import EditableModule, get_editor, load_edits, save_edits
        >>> module = EditableModule("embedded")
        >>> editor = get_editor("scr")
        >>> editor.edit(module, requests)  # doctest: +SKIP
        >>> save_edits(module, "edited/", editor)  # doctest: +SKIP
        >>> load_edits("edited/").generate("The mayor of Korr is")  # doctest: +SKIP
    """
    lm = as_language_model(module)
    editor = editor or getattr(module, "editor", None)
    if not isinstance(editor, Editor):
        raise EditError("the module has no editor whose edits could be saved; expected one. Pass it as editor=...")
    with first_rank_writes(lm.model) as writes:
        editor.detach(lm)
        try:
            write_edited(lm, folder, writes)
        finally:
            editor.attach(lm)
    marks, state = _fingerprints(editor, lm), editor.state_dict()  # both are gathered where the model is sharded
    with first_rank_writes(lm.model) as writes:
        if writes:
            _write(Path(folder), lm, editor, marks, state)


def load_edits(
    folder: str | PathLike[str],
    module: EditableModule | None = None,
    editor: Editor | None = None,
    **options: Any,
) -> EditableModule:
    """Load what `save_edits` wrote: a module that answers with its edits, with its editor as `module.editor`.

    The editor goes on bit for bit: further edits, `undo`, training with `ContinualEdit(editor=module.editor)`.

    Args:
        folder: What `save_edits` wrote.
        module: The model, where it is in memory already, with the folder's weights.
        editor: An editor made with the saved one's class and options, where these are no plain values; else it is made
            here.
        options: Arguments of `EditableModule.from_pretrained`; `dtype` is that of the saved weights unless given.

    Raises:
        StateError: The folder holds no editor, or it does not fit module or editor.
    """
    document, state = _read(Path(folder))
    described = document["editor"]
    if editor is not None and editor_path(editor) != described["editor"]:
        raise StateError(
            f"the folder holds the edits of {described['editor']!r}, the editor is {editor_path(editor)!r}; expected "
            "the same class. Leave editor out, or make one like it."
        )
    given = module is not None
    module = module or _aligned(EditableModule.from_pretrained(Path(folder), **{"dtype": document["dtype"], **options}))
    editor = editor or make_editor(described)
    editor.load_state_dict(state)
    editor.attach(module)
    if given and _fingerprints(editor, module.language_model) != document["weights"]:
        editor.detach(module)
        raise StateError(
            "the module's weights are not those of the saved edits; expected the folder's own, in the precision "
            f"{document['dtype']}. Leave module out, so that they are loaded."
        )
    module.editor = editor
    return module


def _write(folder: Path, lm: LanguageModel, editor: Editor, marks: list[str], state: dict[str, Any]) -> None:
    """Write the editor's two files; each is whole or not there, and the first names the second by its hash."""
    writer = Writer()
    document = writer.tree(
        {
            "version": VERSION,
            "editor": describe_editor(editor),
            "model": lm.identity,
            "dtype": str(lm.dtype).removeprefix("torch."),
            "requests": [request.id for request in editor.requests],
            "weights": marks,
            "state": state,
        }
    )
    _replace(folder / TENSOR_FILE, lambda path: save_file(writer.tensors, path, {"format": "pt"}))
    document["sha256"] = hashlib.sha256((folder / TENSOR_FILE).read_bytes()).hexdigest()
    _replace(folder / EDITOR_FILE, lambda path: path.write_text(json.dumps(document, indent=1) + "\n", "utf-8"))


def _replace(path: Path, write: Callable[[Path], Any]) -> None:
    """Write beside a file, then take its place."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        write(temporary)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def _read(folder: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """What `_write` wrote, and the state in it."""
    path, other = folder / EDITOR_FILE, folder / TENSOR_FILE
    if not (path.is_file() and other.is_file()):
        raise StateError(
            f"{folder} holds no {EDITOR_FILE} with {TENSOR_FILE}; expected a folder that save_edits wrote. A folder of "
            "save_pretrained has the edits in its weights or not at all: EditableModule.from_pretrained loads it."
        )
    document: dict[str, Any] = json.loads(path.read_text("utf-8"))
    if document.get("version") != VERSION:
        raise StateError(
            f"{path} has version {document.get('version')!r}; expected {VERSION}. Use the release of lightning_edit "
            "that wrote it."
        )
    if hashlib.sha256(other.read_bytes()).hexdigest() != document["sha256"]:
        raise StateError(f"{other} is not the file that {path} was written with; expected both from one save_edits.")
    tensors = {name: tensor.clone() for name, tensor in load_file(other).items()}  # see `_aligned`
    whole: dict[str, Any] = read_tree({name: part for name, part in document.items() if name != "sha256"}, tensors)
    return whole, whole.pop("state")


def _aligned(module: EditableModule) -> EditableModule:
    """The module with weights in memory of its own: in a mapped file they lie where products round in another way."""
    for parameter in module.parameters():
        parameter.data = parameter.data.clone()
    return module


def _fingerprints(editor: Editor, lm: LanguageModel) -> list[str]:
    """Hashes of the parameters that the editor writes."""
    weights = (value.detach() for value in editor.weights(lm))
    return [fingerprint(value.full_tensor() if isinstance(value, DTensor) else value) for value in weights]
