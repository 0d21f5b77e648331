"""Knowledge editing as an ordinary part of a Lightning training loop.

The names most users need, and nothing else; callbacks are in `lightning_edit.callbacks`, metrics in
`lightning_edit.metrics`. Importing this package imports no torch: each name loads what it needs when it is first used.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lightning_edit.data.load import load_requests as load_requests
    from lightning_edit.data.stream import EditStream as EditStream
    from lightning_edit.editors.registry import get_editor as get_editor
    from lightning_edit.evaluation import evaluate as evaluate
    from lightning_edit.module import EditableModule as EditableModule
    from lightning_edit.probes import Probe as Probe
    from lightning_edit.requests import EditRequest as EditRequest
    from lightning_edit.saved_edits import load_edits as load_edits
    from lightning_edit.saved_edits import save_edits as save_edits

__version__ = "0.1.0"

__all__ = [
    "EditRequest",
    "EditStream",
    "EditableModule",
    "Probe",
    "evaluate",
    "get_editor",
    "load_edits",
    "load_requests",
    "save_edits",
]


def _home(name: str) -> str | None:
    """The module that defines a public name."""
    homes = {
        "EditRequest": "lightning_edit.requests",
        "EditStream": "lightning_edit.data.stream",
        "EditableModule": "lightning_edit.module",
        "Probe": "lightning_edit.probes",
        "evaluate": "lightning_edit.evaluation",
        "get_editor": "lightning_edit.editors.registry",
        "load_edits": "lightning_edit.saved_edits",
        "load_requests": "lightning_edit.data.load",
        "save_edits": "lightning_edit.saved_edits",
    }
    return homes.get(name)


def __getattr__(name: str) -> Any:
    home = _home(name)
    if home is None:
        raise AttributeError(f"module 'lightning_edit' has no attribute {name!r}; it offers {', '.join(__all__)}")
    return getattr(import_module(home), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
