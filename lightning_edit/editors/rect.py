"""RECT (Gu et al., arXiv 2401.04700): keep the entries of an update that change the weight most, zero the others.

    W_t = W_{t-1} + Rp(D_t),    Rp keeps the largest |D| / (|W| + epsilon), a fixed share of all entries

on an update of MEMIT, or of ROME as in the paper. Aligned (Labyrinth, arXiv 2605.26670, Algorithm 1), what Rp leaves
out is fed back: W_t is the exact solution but for the last step's own restriction. Naive, it is lost.
"""

from typing import Any, Literal

from lightning_edit.algebra import Mode, Reference, TopKRelativeChange
from lightning_edit.editors.base import History
from lightning_edit.editors.covariance import CovarianceEditor
from lightning_edit.editors.residual import Sharing
from lightning_edit.errors import EditError

On = Literal["memit", "rome"]


def restricted_history(
    aligned: bool | None, history: History | None, deployment: Mode | None, default: bool = True
) -> dict[str, Any]:
    """The options that `aligned` stands for, where the user has not said otherwise.

    The three rows of the paper's ablation are `aligned=True`, `aligned=True, deployment="none"` and `aligned=False`.

    Args:
        aligned: Keep all active requests and feed errors back; false is the naive sequential mode. None follows the
            history, if there is one.
        history: What the user said.
        deployment: What the user said.
        default: What `aligned` is where nobody has said anything.
    """
    if history == "kept" and aligned is False:
        raise EditError(f"aligned=False and history={history!r} contradict each other; give one of them.")
    chosen = history or ("kept" if (default if aligned is None else aligned) else "absorbed")
    return {"history": chosen, "deployment": deployment or ("none" if chosen == "absorbed" else "feedback")}


class RECT(CovarianceEditor):
    """MEMIT or ROME, keeping only the entries that change most for their size; aligned or naive.

    Args:
        on: The editor whose updates are restricted: `memit`, or `rome` (one layer, values met exactly, the mean of all
            keys).
        aligned: Keep all active requests and feed back what the restriction leaves out; false is the naive sequential
            mode. None follows `history`; without one it is true on MEMIT and false on ROME, which keeps nothing.
        fraction: Share of the entries that is kept. Published code: 0.2 in RECT's own and in aligned RECT, 0.4 in the
            others (`docs/reproducing.md`).
        epsilon: Keeps entries of weight 0 finite.
        reference: Whether a change is relative to the `current` weight or to the `original` one.
        history: Overrides `aligned`: `kept`, `latest` or `absorbed`.
        deployment: How errors are dealt with, see `ClosedFormEditor`; None is `none` where batches are absorbed and
            `feedback` otherwise.
        layers: Layers to edit; None takes the preset's, and on ROME the last of them.
        original_keys: On ROME only, see there.
        mom2_adjustment: On ROME only, see there: None takes the preset's.
        options: See `CovarianceEditor` and `ClosedFormEditor`, and on ROME what `ROME` says of noise 0.
    """

    def __init__(
        self,
        on: On = "memit",
        aligned: bool | None = None,
        fraction: float = 0.2,
        epsilon: float = 1e-8,
        reference: Reference = "current",
        history: History | None = None,
        deployment: Mode | None = None,
        layers: list[int] | None = None,
        original_keys: bool = False,
        mom2_adjustment: bool | None = None,
        **options: Any,
    ) -> None:
        if on not in ("memit", "rome"):
            raise EditError(f"on={on!r}; expected 'memit' or 'rome'.")
        if "restriction" in options:
            raise EditError("RECT is a restriction already; expected no such option. Use MEMIT(restriction=...).")
        if on != "rome" and (original_keys or mom2_adjustment is not None):
            raise EditError(
                f"original_keys={original_keys} and mom2_adjustment={mom2_adjustment} with on={on!r}; expected "
                "on='rome' beside ROME's options."
            )
        self.on = on
        if on == "rome":
            self.noise, self.single, self.settings_of = 0.0, True, "ROME"
            self.places = ("ffn",) if layers is None or len(layers) == 1 else ("block",)
            self.sharing, self.mom2_adjustment = Sharing(original_keys=original_keys), mom2_adjustment
            options = {"prior_weight": 1.0, "bare_weight": None, **options}
        how = restricted_history(aligned, history, deployment, default=on == "memit")
        super().__init__(
            layers=layers,
            restriction=TopKRelativeChange(fraction, epsilon),
            reference=reference,
            **how,
            **options,
        )
