"""The edits of a model as one safetensors file: what was added to each weight, and for which requests.

Where the model carries a ledger's exact weights the file holds thin factors, otherwise (a restriction, an absorbed
history, drift) the whole difference. It says which weights it belongs on and what they become, so that it is not put
onto another model, nor on the same one twice. This file reads and writes weights; it knows no editor.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from lightning_edit.editors.low_rank import Factors
from lightning_edit.editors.site_backup import fingerprint
from lightning_edit.errors import StateError
from lightning_edit.model.language_model import LanguageModel, as_language_model
from lightning_edit.model.weights import read_weight, write_weight

FORMAT = 1
FIELDS = frozenset({"format", "model", "requests", "sites"})


@dataclass(frozen=True, slots=True)
class Change:
    """What became of one weight.

    Args:
        module: Path of the projection in the unwrapped transformers model.
        base: The weight before (d, n).
        edited: The weight after (d, n), in the same dtype.
        factors: The difference as thin factors, where there are some.
    """

    module: str
    base: Tensor
    edited: Tensor
    factors: Factors | None = None


@dataclass(frozen=True, slots=True)
class DeltaFile:
    """What a delta file holds.

    Args:
        model: Identity of the model that was edited.
        requests: Ids of the requests that are in it.
        sites: For each module, the hashes of the weight it belongs on (`base`), of the edited one (`edited`) and of
            what adding the file to the base gives (`became`).
        deltas: What to add to each weight (d, n), whole or as factors.
    """

    model: str
    requests: list[str]
    sites: dict[str, dict[str, str]]
    deltas: dict[str, Tensor | Factors]

    def delta(self, module: str) -> Tensor:
        """What to add to a weight (d, n), float64.

        Args:
            module: Name of the projection.
        """
        found = self.deltas[module]
        return found.to(torch.float64).product() if isinstance(found, Factors) else found.double()


def write_delta(
    path: str | PathLike[str], changes: Sequence[Change], requests: Sequence[str], model: str, write: bool = True
) -> dict[str, Any]:
    """Write a delta file.

    Whole differences are float32 (float64 where the weights are), factors too unless that is too coarse for them.
    Adding the file gives the edited weights up to the last bit of single entries; exactly, where `became` equals
    `edited`.

    Args:
        path: The file; its folder is made.
        changes: What became of the weights.
        requests: Ids of the requests.
        model: Identity of the model.
        write: Whether this process writes.

    Returns:
        What the file says about itself: format, model, requests, and for each site its hashes.
    """
    tensors: dict[str, Tensor] = {}
    sites: dict[str, dict[str, str]] = {}
    for change in changes:
        dtype = torch.float64 if change.edited.dtype == torch.float64 else torch.float32
        stored = _smallest(change, dtype)
        if isinstance(stored, Factors):
            stored = Factors(stored.left.cpu().contiguous(), stored.right.cpu().contiguous())
            tensors |= {f"{change.module}.left": stored.left, f"{change.module}.right": stored.right}
        else:
            tensors[f"{change.module}.delta"] = stored = stored.cpu().contiguous()
        became = _added(change.base, stored)
        hashes = {"base": change.base, "edited": change.edited, "became": became}
        sites[change.module] = {name: fingerprint(weight) for name, weight in hashes.items()}
    about = {"format": FORMAT, "model": model, "requests": list(requests), "sites": sites}
    if write:
        Path(path).parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, path, {"edits": json.dumps(about)})
    return about


def read_delta(path: str | PathLike[str]) -> DeltaFile:
    """Read a delta file.

    Args:
        path: What `write_delta` wrote.

    Raises:
        StateError: There is no such file, or it is something else.
    """
    if not Path(path).is_file():
        raise StateError(f"there is no file {path}; expected one that editor.export_delta() wrote.")
    try:
        with safe_open(path, framework="pt") as file:
            about = json.loads((file.metadata() or {}).get("edits", "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  # no mapping
    except SafetensorError as error:
        raise StateError(f"{path} is no complete safetensors file ({error}); export the delta again.") from error
    if set(about) != FIELDS or about["format"] != FORMAT:
        raise StateError(f"{path} says nothing of edits of format {FORMAT}; expected what editor.export_delta() wrote.")
    deltas: dict[str, Tensor | Factors] = {}
    for module in about["sites"]:
        dense = tensors.get(f"{module}.delta")
        deltas[module] = dense if dense is not None else Factors(*(tensors[f"{module}.{s}"] for s in ("left", "right")))
    return DeltaFile(about["model"], about["requests"], about["sites"], deltas)


def apply_delta(module: object, path: str | PathLike[str], check: bool = True) -> list[str]:
    """Add a delta file to the weights of a model.

    Args:
        module: An `EditableModule` or `LanguageModel` with the weights that the edits were made on.
        path: What `editor.export_delta` wrote.
        check: Refuse other weights than those; without, the delta is added to whatever is there.

    Returns:
        Ids of the requests that are in it.

    Raises:
        StateError: The model has other weights, or carries the delta already.
    """
    return _move(as_language_model(module), path, 1, check)


def remove_delta(module: object, path: str | PathLike[str], check: bool = True) -> list[str]:
    """Take a delta file out of the weights of a model again, up to the rounding of single entries.

    Args:
        module: An `EditableModule` or `LanguageModel` that carries the edits.
        path: What `editor.export_delta` wrote.
        check: Refuse other weights than the edited ones; without, the delta is subtracted from whatever is there.

    Returns:
        Ids of the requests that were in it.

    Raises:
        StateError: The model has other weights than the edited ones.
    """
    return _move(as_language_model(module), path, -1, check)


def _move(lm: LanguageModel, path: str | PathLike[str], sign: int, check: bool) -> list[str]:
    """Add or subtract a file; all weights are looked at before the first is written."""
    file = read_delta(path)
    moved: list[tuple[nn.Module, Tensor]] = []
    for name, hashes in file.sites.items():
        try:
            projection: nn.Module = lm.model.get_submodule(name)
        except AttributeError as error:
            raise StateError(f"the model has no module {name!r}, which {path} belongs on; expected one.") from error
        weight = read_weight(projection)
        delta = file.delta(name).to(weight.device)
        if delta.shape != weight.shape:
            raise StateError(
                f"{path} changes {name} by {tuple(delta.shape)}, and the weight is {tuple(weight.shape)}; expected the "
                "model that was edited."
            )
        if check:
            _check_weight(name, fingerprint(weight), hashes, sign)
        moved.append((projection, weight.double() + sign * delta))
    for projection, value in moved:
        write_weight(projection, value)
    return file.requests


def _check_weight(name: str, found: str, hashes: Mapping[str, str], sign: int) -> None:
    """Refuse a weight that the delta does not belong on (or in)."""
    if found in ((hashes["base"],) if sign > 0 else (hashes["edited"], hashes["became"])):
        return
    if sign > 0 and found in hashes.values():
        raise StateError(f"the weight of {name} carries these edits already; expected the one from before them.")
    wanted = "the weight that was edited" if sign > 0 else "the edited weight"
    raise StateError(
        f"the weight of {name} is not {wanted} (sha256 {found[:12]}; expected "
        f"{hashes['base' if sign > 0 else 'edited'][:12]}). Load the same checkpoint in the same precision, or pass "
        "check=False to change it all the same."
    )


def _smallest(change: Change, dtype: torch.dtype) -> Tensor | Factors:
    """The difference as factors if they give it and are smaller, whole otherwise."""
    if change.factors is not None:
        size = torch.maximum(change.base.double().abs(), change.edited.double().abs())
        # an entry may be one place off in its last bit, where the factors' rounding tips it over
        slack = 2 * torch.finfo(change.edited.dtype).eps * size.clamp_min(float(size.mean()))
        for precision in (dtype, torch.float64):  # the second where large factors cancel
            stored = change.factors.to(precision)
            off = (_added(change.base, stored).double() - change.edited.double()).abs()
            if stored.nbytes < change.base.numel() * dtype.itemsize and bool((off <= slack).all()):
                return stored
    return (change.edited.double() - change.base.double()).to(dtype)


def _added(base: Tensor, stored: Tensor | Factors) -> Tensor:
    """The weight with the delta, as a parameter of its dtype takes it."""
    delta = stored.to(torch.float64).product() if isinstance(stored, Factors) else stored.double()
    return (base.double() + delta.to(base.device)).to(base.dtype)
