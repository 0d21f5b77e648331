"""What a prior is: a positive semi-definite operator Q on key space that says where an update may go, and how far.

Knows the operations that the ledger needs of Q and how a prior is named and saved. Refuses to know keys, values or
weights. Q is never materialised: it is applied through a square root, Q = Fᵀ F, because a Gram matrix built as
(F K)ᵀ (F K) is positive semi-definite whatever the rounding, where Kᵀ (Q K) is not.
"""

import hashlib
import json
import math
from abc import ABC, abstractmethod
from typing import Any, ClassVar, Self

import torch
from torch import Tensor

from lightning_edit.errors import StatisticsError


class Prior(ABC):
    """A prior Q (n x n, symmetric, positive semi-definite) as an operator on columns.

    A prior is immutable: its moments are frozen at construction. To follow moments that keep growing, make a new prior
    and hand it to `SiteLedger.reprior`.

    Args:
        size: n, the length of a key.
        rank: Dimension of range(Q).
        fingerprint: sha256 over what defines the prior (moments and options), the same on every machine.
    """

    kind: ClassVar[str]

    def __init__(self, size: int, rank: int, fingerprint: str) -> None:
        """Remember what every prior has."""
        self.size = size
        self.rank = rank
        self.fingerprint = fingerprint

    @abstractmethod
    def half(self, columns: Tensor) -> Tensor:
        """F X for a square root Q = Fᵀ F.

        Args:
            columns: X (n, m), float64.
        """

    @abstractmethod
    def lift(self, halves: Tensor) -> Tensor:
        """Apply the other half, Fᵀ Z: `lift` after `half` is Q.

        Args:
            halves: Z (n, m), what `half` gave.
        """

    @property
    def lift_factor(self) -> float | None:
        """The number by which `lift` multiplies, where it does nothing else; then Q K need not be kept beside F K."""
        return None

    @abstractmethod
    def project(self, columns: Tensor) -> Tensor:
        """Orthogonal projection of X onto range(Q).

        Args:
            columns: X (n, m), float64.
        """

    @abstractmethod
    def inverse_apply(self, columns: Tensor) -> Tensor:
        """Q⁻¹ X on range(Q): the pseudo-inverse of Q times X.

        Args:
            columns: X (n, m), float64.
        """

    @abstractmethod
    def precision(self) -> Tensor:
        """A dense positive definite A (n, n) that is Q⁻¹ on range(Q) and leaves range(Q) invariant."""

    @abstractmethod
    def coordinates(self, columns: Tensor) -> Tensor:
        """Bᵀ X for an orthonormal basis B (n, rank) of range(Q); X itself where Q has full rank.

        Args:
            columns: X (n, m), float64.
        """

    @abstractmethod
    def _parts(self) -> dict[str, Any]:
        """The tensors and numbers that make up this prior, by the names of the arguments of `_hold`."""

    @abstractmethod
    def _hold(self, name: str, **parts: Any) -> None:
        """Take over a fingerprint and the parts."""

    def to(self, device: torch.device | str) -> Self:
        """The same prior with its tensors on a device.

        Args:
            device: Where to.
        """
        moved = {name: v.to(device) if torch.is_tensor(v) else v for name, v in self._parts().items()}
        return self._assemble(self.fingerprint, moved)

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain containers from which `prior_from_state` makes the same prior, bit for bit."""
        return {"kind": self.kind, "fingerprint": self.fingerprint, "parts": self._parts()}

    @classmethod
    def from_state(cls, state: dict[str, Any]) -> Self:
        """Rebuild a prior without factoring or decomposing anything.

        Args:
            state: What `state_dict` gave.
        """
        return cls._assemble(state["fingerprint"], state["parts"])

    @classmethod
    def _assemble(cls, name: str, parts: dict[str, Any]) -> Self:
        prior = cls.__new__(cls)
        prior._hold(name, **parts)
        return prior

    def apply(self, columns: Tensor) -> Tensor:
        """Q X.

        Args:
            columns: X (n, m), float64.
        """
        return self.lift(self.half(columns))


def fingerprint(kind: str, options: dict[str, float | None], moment: Tensor) -> str:
    """Name a prior by what defines it: its kind, its options to the last bit, and its moment.

    The factor itself is left out: its last bits depend on the machine that computed it, the definition's do not.

    Args:
        kind: The class of prior.
        options: Its numbers.
        moment: M (n, n).

    Returns:
        sha256 as 64 hexadecimal digits.
    """
    exact = {name: None if value is None else float(value).hex() for name, value in options.items()}
    digest = hashlib.sha256(json.dumps([kind, list(moment.shape), exact], sort_keys=True).encode())
    for rows in moment.detach().cpu().to(torch.float64).contiguous().split(256):
        digest.update(rows.numpy().data)
    return digest.hexdigest()


def checked_moment(moment: Tensor) -> Tensor:
    """A float64, exactly symmetric copy of a second moment.

    Args:
        moment: M (n, n).

    Raises:
        StatisticsError: It is not square, finite, symmetric, or has a negative diagonal.
    """
    if moment.ndim != 2 or moment.shape[0] != moment.shape[1] or moment.shape[0] == 0:
        raise StatisticsError(f"The second moment has shape {tuple(moment.shape)}; expected a square matrix (n, n).")
    exact = moment.detach().to(torch.float64)
    if not bool(torch.isfinite(exact).all()):
        raise StatisticsError("The second moment is not finite; expected finite entries. Collect the statistics again.")
    if float((exact - exact.mT).abs().max()) > 1e-6 * float(exact.abs().max()):
        raise StatisticsError("The second moment is not symmetric; expected the mean of k kᵀ over keys k.")
    if float(exact.diagonal().min()) < 0:
        raise StatisticsError("The second moment has a negative diagonal; expected the mean of k kᵀ over keys k.")
    return (exact + exact.mT) / 2


def checked_number(name: str, value: float, allow_zero: bool = False) -> float:
    """A finite positive number, as a float.

    Args:
        name: What to call it in the message.
        value: The number.
        allow_zero: Whether zero is one of those accepted.

    Raises:
        StatisticsError: It is anything else.
    """
    number = float(value)
    if not math.isfinite(number) or number < 0 or (number == 0 and not allow_zero):
        expected = "a finite number >= 0" if allow_zero else "a finite number > 0"
        raise StatisticsError(f"The prior's {name} is {value}; expected {expected}.")
    return number
