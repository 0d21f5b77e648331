r"""Relative change rates: how much an edit moves each principal direction, beside how much that direction is used.

$$c_k = u_k^\top \Delta h, \qquad R_k = \frac{|c_k|}{\mathrm{RMS}(h_k)} = \frac{\sqrt n\,|c_k|}{\sigma_k}$$

(*Revisiting*, Eq. 9 to 11 and Definition 4.4). The paper writes one c_k; there is one for each sample, and how they
become one number is a choice that goes by name: `mean_abs`, the mean of |c_k|, is what the public code takes; `rms`
is the root of the mean of c_k², the same mean that stands in the denominator (Eq. 10). Directions below the floor of
the spectrum have no rate. Knows changes and a spectrum; refuses to know which edit made them.
"""

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from lightning_edit.errors import GeometryError
from lightning_edit.geometry.root import checked_rows
from lightning_edit.geometry.spectrum import Spectrum

Aggregation = Literal["mean_abs", "rms"]
"""How the components of all samples along one direction become one number."""

TRIM = 0.1
"""Share of rates that the trimmed mean leaves out at each end."""


def components(changes: Tensor, basis: Spectrum) -> Tensor:
    """c_k of each sample along each direction above the floor (m, rank).

    Args:
        changes: Δh (m, d), after minus before, one sample a row.
        basis: Spectrum of the representations before.
    """
    rows = checked_rows(changes, basis.size)
    return rows.to(basis.directions.device, torch.float64) @ basis.basis


def relative_change(changes: Tensor, basis: Spectrum, aggregation: Aggregation = "mean_abs") -> Tensor:
    """R_k of each direction above the floor (rank,), in the order of the singular values.

    Args:
        changes: Δh (m, d), after minus before, one sample a row; not centred.
        basis: Spectrum of the representations before.
        aggregation: `mean_abs` or `rms`.

    Example:
        >>> from lightning_edit.geometry import spectrum
        >>> before = torch.tensor([[2.0, 0.1], [-2.0, 0.1], [2.0, -0.1], [-2.0, -0.1]])
        >>> relative_change(torch.full((4, 2), 0.2), spectrum(before))
        tensor([0.1000, 2.0000], dtype=torch.float64)
    """
    found = components(changes, basis)
    if len(found) == 0:
        raise GeometryError("No change has been seen; expected at least one sample.")
    return rates(found.abs().mean(dim=0), (found**2).mean(dim=0), basis, aggregation)


def rates(mean_abs: Tensor, mean_square: Tensor, basis: Spectrum, aggregation: Aggregation) -> Tensor:
    """R_k (rank,) from what a stream keeps of the components.

    Args:
        mean_abs: Mean of |c_k| over the samples (rank,).
        mean_square: Mean of c_k² (rank,).
        basis: Spectrum of the representations before.
        aggregation: `mean_abs` or `rms`.
    """
    check_aggregation(aggregation)
    return (mean_abs if aggregation == "mean_abs" else mean_square.sqrt()) / basis.scale


def summarise(values: Tensor, trim: float = TRIM) -> dict[str, float]:
    """What is said of the rates of one site: location, tail, and how much of the sum one direction carries.

    `top_share` near 1 says that mean and maximum are about a single direction, usually one at the edge of the floor.

    Args:
        values: R_k (r,), r > 0.
        trim: Share that the trimmed mean leaves out at each end.

    Example:
        >>> found = summarise(torch.tensor([0.5, 1.0, 1.5, 9.0]))
        >>> found["median"], found["mean"], found["share_above_1"], found["top_share"]
        (1.25, 3.0, 0.5, 0.75)
    """
    if values.ndim != 1 or len(values) == 0:
        raise GeometryError(f"Found rates of shape {tuple(values.shape)}; expected at least one, in a vector.")
    if not 0 <= trim < 0.5:
        raise GeometryError(f"Found trim={trim}; expected a share of at least 0 and below 0.5.")
    ordered = values.to(torch.float64).sort().values
    cut = int(trim * len(ordered))
    total = float(ordered.sum())
    return {
        "mean": float(ordered.mean()),
        "median": float(ordered.quantile(0.5)),
        "q90": float(ordered.quantile(0.9)),
        "q95": float(ordered.quantile(0.95)),
        "trimmed_mean": float(ordered[cut : len(ordered) - cut].mean()),
        "max": float(ordered[-1]),
        "min": float(ordered[0]),
        "std": float(ordered.std(unbiased=False)),
        "share_above_1": float((ordered > 1).to(torch.float64).mean()),
        "top_share": float(ordered[-1]) / total if total > 0 else 0.0,
    }


def across_sites(values: Sequence[float], how: Literal["mean", "max", "median"]) -> float:
    """One number of a step from one number of each site (*Revisiting*, Appendix B.6).

    Args:
        values: One summary of each site.
        how: `mean`, `max`, or `median`.
    """
    if not values:
        raise GeometryError("Found no site; expected at least one.")
    known = torch.tensor(list(values), dtype=torch.float64)
    match how:
        case "mean":
            return float(known.mean())
        case "max":
            return float(known.max())
        case "median":
            return float(known.quantile(0.5))
    raise GeometryError(f"Found {how!r}; expected mean, max or median.")


def check_aggregation(name: str) -> None:
    """Refuse an aggregation that does not exist.

    Args:
        name: Its name.
    """
    if name not in get_args(Aggregation):
        raise GeometryError(f"Found aggregation {name!r}; expected one of {', '.join(get_args(Aggregation))}.")
