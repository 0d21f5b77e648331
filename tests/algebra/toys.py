"""Small problems with a chosen conditioning, and the dense matrices that the reference needs for each prior."""

from dataclasses import dataclass

import torch

from lightning_edit.algebra import CovariancePrior, NullSpacePrior, Prior, ProjectedPrior, RidgePrior


@dataclass
class Toy:
    base: torch.Tensor  # (d, n)
    moment: torch.Tensor  # (n, n)
    keys: torch.Tensor  # (n, N)
    values: torch.Tensor  # (d, N)

    @property
    def ids(self) -> list[str]:
        return [f"c{i}" for i in range(self.keys.shape[1])]

    def part(self, indices: list[int]) -> tuple[list[str], torch.Tensor, torch.Tensor]:
        return [f"c{i}" for i in indices], self.keys[:, indices], self.values[:, indices]


def make_toy(d: int = 20, n: int = 60, count: int = 24, cond: float = 1e4, seed: int = 0) -> Toy:
    """Keys that follow the moment, with a floor, as keys of real text do."""
    generator = torch.Generator().manual_seed(seed)

    def randn(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    rotation = torch.linalg.qr(randn(n, n)).Q
    spectrum = torch.logspace(0, -float(torch.log10(torch.tensor(cond, dtype=torch.float64))), n, dtype=torch.float64)
    moment = (rotation * spectrum) @ rotation.T
    base = randn(d, n) / n**0.5
    keys = (rotation * spectrum.sqrt()) @ rotation.T @ randn(n, count) + 0.05 * randn(n, count)
    return Toy(base, (moment + moment.T) / 2, keys, base @ keys + randn(d, count))


def null_basis(moment: torch.Tensor, threshold: float) -> torch.Tensor:
    values, vectors = torch.linalg.eigh(moment)
    return vectors[:, values < threshold]


def make_prior(kind: str, moment: torch.Tensor) -> tuple[Prior, torch.Tensor, torch.Tensor | None]:
    """The prior, its dense penalty Q⁻¹ and, where it is singular, a basis of its range."""
    eye = torch.eye(len(moment), dtype=torch.float64)
    if kind == "covariance":
        return CovariancePrior(moment, 15.0), 15.0 * moment, None
    if kind == "ridge":
        return RidgePrior(moment, 3.0, 0.1), 3.0 * moment + 0.1 * eye, None
    basis = null_basis(moment, 0.02)
    if kind == "null_space":
        return NullSpacePrior(moment, threshold=0.02, l2=10.0), 10.0 * eye, basis
    if kind == "projected":
        return ProjectedPrior(moment, 15.0, threshold=0.02, l2=0.5), 15.0 * moment + 0.5 * eye, basis
    raise ValueError(kind)


KINDS = ["covariance", "ridge", "null_space", "projected"]


def dense(prior: Prior) -> torch.Tensor:
    """Q as a matrix."""
    return prior.apply(torch.eye(prior.size, dtype=torch.float64))
