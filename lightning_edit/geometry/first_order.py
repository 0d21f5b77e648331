r"""The first-order prediction of what an edit does to representations, beside what it does.

$$\Delta h = \phi((W + \Delta W) x) - \phi(W x) \approx J_\phi(Wx)\, \Delta W x$$

(*Revisiting*, Eq. 7 and 8.) At the output of a projection without activation the Jacobian is the identity, and there is
nothing to test. There is behind the activation of a gate, an up projection or T5's `wi`, and at every later layer,
where the prediction is a Jacobian-vector product through the network in between. Knows modules by path; refuses to know
who made the edit, and leaves the model as it was.
"""

import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.attention import SDPBackend, sdpa_kernel

from lightning_edit.errors import GeometryError
from lightning_edit.geometry.activations import Point, Pooling, pool, watch
from lightning_edit.model.interception import Intercept


def activation_change(
    activation: Callable[[Tensor], Tensor], weight: Tensor, update: Tensor, inputs: Tensor, bias: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """Measured (Eq. 7) and predicted (Eq. 8) change of one projection's activated output.

    Args:
        activation: φ, elementwise.
        weight: W (d, n).
        update: ΔW (d, n).
        inputs: x (m, n), one sample a row.
        bias: Bias (d,), which the edit leaves alone.

    Returns:
        Two tensors (m, d).
    """
    before = torch.nn.functional.linear(inputs, weight, bias)
    shift = inputs @ update.mT
    value, predicted = _jvp(activation, (before,), (shift,))
    return activation(before + shift) - value, predicted


def network_change(
    model: nn.Module,
    inputs: Mapping[str, Any],
    before: Mapping[str, Tensor],
    after: Mapping[str, Tensor],
    points: Sequence[Point],
    pooling: Pooling = "tokens",
) -> dict[str, tuple[Tensor, Tensor]]:
    """Measured and predicted change at places of a network, for one batch.

    The prediction linearises the whole network in the edited parameters, at the values before. Both sides run with the
    plain attention kernel, the only one that carries derivatives forward.

    Args:
        model: The model, borrowed (see `model.borrowing`); its own values of the edited parameters do not matter.
        inputs: Keyword arguments of one forward pass.
        before: Edited parameters by name, before.
        after: The same, after.
        points: Where to look.
        pooling: Which samples a batch gives.

    Returns:
        For each point two float64 tensors (m, d): measured, predicted.
    """
    known = dict(model.named_parameters())
    wrong = [name for name in before if name not in known or name not in after]
    if wrong or len(before) != len(after) or not before:
        raise GeometryError(
            f"Found edited parameters {sorted(before)} before and {sorted(after)} after; expected the same, at least "
            f"one, all of them parameters of {type(model).__name__}."
        )
    start = {name: value.detach().to(known[name]) for name, value in before.items()}
    tangent = {name: (after[name].detach().double() - before[name].double()).to(known[name]) for name in before}
    names = list(start)

    def run(*values: Tensor) -> tuple[Tensor, ...]:
        with Intercept(model, stop=True, **watch(points)) as seen:
            torch.func.functional_call(model, dict(zip(names, values, strict=True)), kwargs=dict(inputs))
        return tuple(pool(point.read(seen), inputs[point.mask], pooling) for point in points)

    with sdpa_kernel(SDPBackend.MATH):
        clean, predicted = _jvp(run, tuple(start.values()), tuple(tangent.values()))
        edited = run(*(after[name].detach().to(known[name]) for name in names))
    return {
        point.name: (changed.double() - value.double(), slope.double())
        for point, changed, value, slope in zip(points, edited, clean, predicted, strict=True)
    }


def _jvp(function: Callable[..., Any], primals: tuple[Tensor, ...], tangents: tuple[Tensor, ...]) -> tuple[Any, Any]:
    """`torch.func.jvp`, without the deprecation that torch meets in its own files when it is first called."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit.script", category=DeprecationWarning)
        found = torch.func.jvp(function, primals, tangents)
    return found[0], found[1]


def prediction_sums(measured: Tensor, predicted: Tensor) -> Tensor:
    """What a stream keeps of two sides (5,): Σ‖m - p‖², Σ‖m‖², Σ‖p‖², Σ⟨m, p⟩ and the number of samples.

    Args:
        measured: m (s, d).
        predicted: p (s, d).
    """
    if measured.shape != predicted.shape or measured.ndim != 2:
        raise GeometryError(
            f"Found changes of shapes {tuple(measured.shape)} and {tuple(predicted.shape)}; expected the same (m, d)."
        )
    m, p = measured.to(torch.float64), predicted.to(torch.float64)
    sums = [((m - p) ** 2).sum(), (m**2).sum(), (p**2).sum(), (m * p).sum()]
    return torch.stack([*sums, sums[0].new_tensor(float(len(m)))])


def prediction_summary(sums: Tensor) -> dict[str, float]:
    r"""How good the first order is.

    `error` is $\lVert m - p \rVert / \lVert m \rVert$ over all samples, 0 where the first order is exact and 1 where
    predicting no change would do as well; `cosine` is that of both sides; `ratio` is
    $\lVert p \rVert / \lVert m \rVert$. All are nan where nothing changed.

    Args:
        sums: What `prediction_sums` gave, added up.
    """
    wrong, measured, predicted, inner, _ = sums
    return {
        "error": float((wrong / measured).sqrt()),
        "cosine": float(inner / (measured * predicted).sqrt()),
        "ratio": float((predicted / measured).sqrt()),
    }
