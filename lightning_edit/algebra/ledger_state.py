"""A ledger's state on its way into a checkpoint and back.

Knows the layout of the state: tensors and plain containers, which `torch.load(weights_only=True)` reads. Refuses state
of another site, another noise or another prior: it would load without complaint and solve another problem.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from lightning_edit.algebra.gram import GramForm
from lightning_edit.algebra.packing import Kept, Packed
from lightning_edit.algebra.primal import PrimalForm
from lightning_edit.algebra.prior import Prior
from lightning_edit.algebra.priors import prior_from_state
from lightning_edit.algebra.snapshot import Form, Snapshot, Solved
from lightning_edit.algebra.triangles import unpack_triangle
from lightning_edit.errors import StateError

FORMAT = 1


def write_state(kept: Kept, include_prior: bool) -> dict[str, Any]:
    """Tensors and plain containers that `read_state` reads.

    Args:
        kept: The ledger.
        include_prior: Whether the prior's tensors go along, or only its fingerprint.
    """
    return {
        "format": FORMAT,
        "base": kept.base,
        "noise": kept.noise,
        "ids": list(kept.ids),
        "keys": kept.keys,
        "values": kept.values,
        "form": GramForm.kind if isinstance(kept, Packed) else kept.form.kind,
        "factor": {"lower": kept.lower} if isinstance(kept, Packed) else kept.form.state_dict(),
        "fingerprint": kept.prior.fingerprint,
        "prior": kept.prior.state_dict() if include_prior else None,
        "solved": None if isinstance(kept, Packed) or kept.solved is None else _write_solved(kept, kept.solved),
    }


def read_state(state: dict[str, Any], current: Snapshot, prior: Prior | None) -> Snapshot:
    """The ledger that a state describes.

    Args:
        state: What `write_state` gave.
        current: The ledger that will take it over; it says what fits.
        prior: The prior to use when the state has none; the current one when None.

    Raises:
        StateError: The state is damaged, or of another site, noise or prior.
    """
    _check(state, current)
    device = current.base.device
    used = _choose_prior(state, current, prior).to(device)
    base, keys, values = (_own(state[name], device) for name in ("base", "keys", "values"))
    keys, values = keys.double(), values.double()  # a packed ledger keeps them in float32
    try:
        form = _read_form(state, used, keys)
    except (KeyError, RuntimeError) as error:
        raise StateError(f"The saved factor does not fit its {len(state['ids'])} columns ({error}).") from error
    found = Snapshot(base, used, state["noise"], tuple(state["ids"]), keys, values, form)
    return found if state.get("solved") is None else replace(found, solved=_read_solved(state["solved"], found))


def _write_solved(snapshot: Snapshot, solved: Solved) -> dict[str, Any]:
    """A solution under a penalty: it is read back bit for bit, not found anew."""
    return {
        "update": solved.update,
        "gap": solved.gap,
        "steps": solved.steps,
        "current": solved.solves(snapshot),
    }


def _read_solved(state: dict[str, Any], found: Snapshot) -> Solved:
    """A solution under a penalty out of a state; where it is of older columns, the next one starts from it."""
    update = _own(state["update"], found.base.device)
    if update.shape != found.base.shape:
        raise StateError(
            f"The saved solution has shape {tuple(update.shape)}; expected {tuple(found.base.shape)}. "
            "The state is damaged."
        )
    solved = Solved(update, state["gap"], state["steps"])
    return Solved.of(found, update, solved.gap, solved.steps) if state["current"] else solved


def _check(state: dict[str, Any], current: Snapshot) -> None:
    """Raise when a state cannot belong to this ledger."""
    expected = {"format", "base", "noise", "ids", "keys", "values", "form", "factor", "fingerprint", "prior"}
    missing = sorted(expected - set(state))
    if missing or state["format"] != FORMAT:
        raise StateError(
            f"The saved ledger has format {state.get('format')} and lacks {missing or 'nothing'}; "
            f"expected format {FORMAT}. Was it saved by another version?"
        )
    (rows, inner), count = current.base.shape, len(state["ids"])
    for name, shape in (("base", (rows, inner)), ("keys", (inner, count)), ("values", (rows, count))):
        if tuple(state[name].shape) != shape:
            raise StateError(
                f"The saved ledger's {name} has shape {tuple(state[name].shape)}; expected {shape}. "
                "Load the state of the same site of the same model."
            )
    if state["noise"] != current.noise:
        raise StateError(
            f"The ledger was saved with noise {state['noise']:g}; this one has {current.noise:g}. "
            "Use the editor's options of the saved run."
        )


def _choose_prior(state: dict[str, Any], current: Snapshot, prior: Prior | None) -> Prior:
    """The saved prior, or else the given or current one; whichever it is, its fingerprint must be the saved one."""
    offered = prior or (current.prior if state["prior"] is None else None)
    if offered is not None and offered.fingerprint != state["fingerprint"]:
        raise StateError(
            f"The ledger was saved with prior {state['fingerprint'][:16]}; this prior is {offered.fingerprint[:16]}. "
            "Expected the same moments and options: use the statistics file and the editor's options of the saved run."
        )
    if state["prior"] is None:
        assert offered is not None
        return offered
    saved = prior_from_state(state["prior"])
    if saved.fingerprint != state["fingerprint"] or saved.size != current.prior.size:
        raise StateError("The saved prior is not the one that the saved ledger names. The state is damaged.")
    return saved


def _read_form(state: dict[str, Any], prior: Prior, keys: Tensor) -> Form:
    """The factored equations out of a state."""
    if state["form"] == PrimalForm.kind:
        return PrimalForm.from_state(state["factor"], prior, state["noise"], keys)
    if "half" not in state["factor"]:  # packed
        lower = unpack_triangle(state["factor"]["lower"].to(keys.device), len(state["ids"]))
        return GramForm.around(prior, state["noise"], keys, lower)
    form = GramForm.from_state(state["factor"], state["noise"], keys.device)
    if form.half.shape != keys.shape or (form.lifted is not None and form.lifted.shape != keys.shape):
        raise StateError(
            f"The saved factor is of {form.half.shape[1]} columns; expected {keys.shape[1]}. The state is damaged."
        )
    return form


def _own(tensor: Tensor, device: torch.device) -> Tensor:
    """A row-major copy on a device."""
    return tensor.detach().to(device, copy=True, memory_format=torch.contiguous_format)
