"""Representations whose spectrum, mean and principal directions are chosen."""

from dataclasses import dataclass

import torch
from torch import Tensor


def randn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def orthonormal(rows: int, columns: int, seed: int = 0) -> Tensor:
    return torch.linalg.qr(randn(rows, columns, seed=seed)).Q


@dataclass
class Known:
    rows: Tensor  # (n, d)
    sigma: Tensor  # (d,)
    directions: Tensor  # (d, d)
    mean: Tensor  # (d,)


def known(n: int, sigma: Tensor, mean: float = 3.0, seed: int = 0) -> Known:
    """n samples whose centred matrix has exactly these singular values."""
    d = len(sigma)
    directions = orthonormal(d, d, seed=seed + 1)
    noise = randn(n, d, seed=seed + 2)
    samples = torch.linalg.qr(noise - noise.mean(dim=0)).Q  # orthonormal columns, each orthogonal to the ones
    centre = mean * randn(d, seed=seed + 3)
    return Known((samples * sigma) @ directions.T + centre, sigma, directions, centre)
