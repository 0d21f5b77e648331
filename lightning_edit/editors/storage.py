"""State on disk: one file of tensors and plain containers; a process that is killed leaves the old one whole."""

import os
import pickle
from os import PathLike
from pathlib import Path
from typing import Any

import torch

from lightning_edit.errors import StateError


def save_state(path: str | PathLike[str], state: dict[str, Any]) -> None:
    """Write a state beside the file, flush it to disk, then rename it.

    Args:
        path: The file; its folder is made.
        state: Tensors and plain containers.
    """
    target = Path(path)
    target.parent.mkdir(parents=True, exist_ok=True)
    temporary = target.with_name(f".{target.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            torch.save(state, file)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, target)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def load_state(path: str | PathLike[str]) -> dict[str, Any]:
    """Read a state; nothing in the file is executed.

    Args:
        path: What `save_state` wrote.
    """
    if not Path(path).is_file():
        raise StateError(f"there is no file {path}; expected one that an editor's save() wrote.")
    try:
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except (RuntimeError, EOFError, ValueError, pickle.UnpicklingError) as error:
        raise StateError(f"{path} is no complete saved editor ({error}). Save it again.") from error
    return state
