"""Sequences of edits: the linear law, coherence, and rank correlation with its p-values."""

import math

import pytest
import torch

from lightning_edit.errors import GeometryError
from lightning_edit.geometry import (
    Accumulation,
    AmplificationCorrelation,
    coherence,
    components,
    correlate,
    linear_law,
    spearman,
    spectrum,
)
from lightning_edit.geometry.correlation import incomplete_beta, ranks
from tests.geometry import reference_geometry as reference
from tests.geometry.synthetic import known, randn

SIGMA = 20 * torch.logspace(0, -2, 6, dtype=torch.float64)

# Table 2 and Table 25 of Revisiting: rho and p-value of nine steps
PAPER = [(-0.2034, 0.5996), (0.6360, 0.0656), (-0.7679, 0.0157), (-0.4238, 0.2557), (0.0339, 0.9310), (-0.8617, 0.0028)]


def walk(steps: int, coherent: bool) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Components of the total after each step, and the sum of what each step did."""
    basis = spectrum(known(400, SIGMA).rows)
    total, spent = torch.zeros(400, 6, dtype=torch.float64), torch.zeros(6, dtype=torch.float64)
    rates = []
    for step in range(steps):
        push = 0.1 * randn(400, 6, seed=0 if coherent else 100 + step)
        total = total + push
        spent = spent + components(push, basis).abs().mean(dim=0)
        rates.append(components(total, basis).abs().mean(dim=0) / basis.scale)
    return torch.stack(rates), components(total, basis).abs().mean(dim=0), spent


def test_pushes_that_agree_follow_the_linear_law_exactly() -> None:
    rates, total, spent = walk(16, coherent=True)
    law = linear_law(range(1, 17), rates)
    assert torch.allclose(law.ratio, torch.ones(16, 6, dtype=torch.float64))
    assert torch.allclose(law.exponent, torch.ones(6, dtype=torch.float64))
    assert torch.allclose(coherence(total, spent), torch.ones(6, dtype=torch.float64))
    assert law.summary() == pytest.approx({"law_ratio": 1, "growth_exponent": 1})


def test_pushes_that_know_nothing_of_each_other_grow_with_the_root() -> None:
    rates, total, spent = walk(16, coherent=False)
    law = linear_law(range(1, 17), rates)
    assert torch.allclose(law.exponent, torch.full((6,), 0.5, dtype=torch.float64), atol=0.06)
    assert torch.allclose(coherence(total, spent), torch.full((6,), 0.25, dtype=torch.float64), atol=0.03)
    assert law.summary()["law_ratio"] == pytest.approx(0.25, abs=0.03)


def test_the_law_starts_at_the_first_measured_step_and_tells_directions_apart() -> None:
    rates = torch.tensor([[2.0, 1.0, 0.0], [10.0, 1.0, 1.0]])
    law = linear_law([10, 50], rates)
    assert law.ratio[-1, :2].tolist() == [1.0, pytest.approx(0.2)]
    assert law.exponent[:2].tolist() == [pytest.approx(1), 0.0]
    assert law.exponent[2].isnan()  # it was at 0: no power starts there
    with pytest.raises(GeometryError, match="at least two steps"):
        linear_law([1], rates[:1])
    with pytest.raises(GeometryError, match="ascending"):
        linear_law([2, 1], rates)
    with pytest.raises(GeometryError, match="expected the same"):
        coherence(rates[0], rates)


def test_the_accumulation_metric_keeps_the_last_of_a_step_and_the_drift() -> None:
    metric = Accumulation(directions=2)
    metric.update(4, torch.tensor([4.0, 2.0]), drift=0.3)
    metric.update(1, torch.tensor([9.0, 9.0]))
    metric.update(1, torch.tensor([1.0, 1.0]))  # measured again
    found = {name: value.item() for name, value in metric.compute().items()}
    assert found == pytest.approx({"law_ratio": 0.75, "growth_exponent": 0.75, "basis_drift": 0.3})
    with pytest.raises(GeometryError, match=r"expected \(2,\)"):
        metric.update(5, torch.ones(3))
    with pytest.raises(GeometryError, match="No step"):
        Accumulation(directions=2).law()


@pytest.mark.parametrize(("rho", "p_value"), PAPER)
def test_p_values_are_those_of_the_papers_tables(rho: float, p_value: float) -> None:
    degrees = 7
    ours = incomplete_beta(degrees / 2, 0.5, 1 - rho**2)
    assert ours == pytest.approx(p_value, abs=2e-4)  # the tables round rho
    assert ours == pytest.approx(
        reference.student_two_sided(rho * math.sqrt(degrees / (1 - rho**2)), degrees), abs=1e-10
    )


@pytest.mark.parametrize("seed", range(6))
def test_correlation_agrees_with_the_reference_ties_included(seed: int) -> None:
    x = randn(11, seed=seed).tolist()
    y = [round(value, 0) for value in (randn(11, seed=seed + 50) + 0.5 * torch.tensor(x)).tolist()]  # many ties
    found = spearman(x, y)
    assert ranks(y).tolist() == reference.ranks(y)
    assert found.rho == pytest.approx(reference.spearman(x, y), abs=1e-12)
    t = found.rho * math.sqrt(9 / (1 - found.rho**2))
    assert found.p_value == pytest.approx(reference.student_two_sided(t, 9), abs=1e-9)


@pytest.mark.parametrize(("a", "b", "x", "expected"), [(1, 1, 0.3, 0.3), (2, 1, 0.5, 0.25), (0.5, 0.5, 0.5, 0.5)])
def test_the_incomplete_beta_function_where_it_is_known(a: float, b: float, x: float, expected: float) -> None:
    assert incomplete_beta(a, b, x) == pytest.approx(expected, abs=1e-12)
    assert incomplete_beta(a, b, x) + incomplete_beta(b, a, 1 - x) == pytest.approx(1, abs=1e-12)


def test_edges_of_the_correlation() -> None:
    up = spearman([1, 2, 3, 4], [10, 20, 40, 80])
    assert (up.rho, up.p_value, up.stars) == (1, 0, "***")
    assert spearman([1, 2, 3], [3, 2, 1]).rho == -1
    assert math.isnan(spearman([1, 2, 3], [5, 5, 5]).rho)
    assert spearman([1, 2, 3], [5, 5, 5]).stars == ""
    assert math.isnan(spearman([1, 2], [2, 1]).p_value)
    assert spearman([], []).count == 0
    with pytest.raises(GeometryError, match="expected pairs"):
        spearman([1], [])
    with pytest.raises(GeometryError, match="Leave those steps out"):
        spearman([1, math.nan], [1, 2])
    assert correlate([1, 2, 3], {"locality": [3, 2, 1]})["locality"].rho == -1


def test_steps_are_correlated_for_every_summary_and_every_way_to_join_layers() -> None:
    metric = AmplificationCorrelation(["locality", "reliability"])
    locality = [0.9, 0.8, 0.85, 0.5, 0.4, 0.1]
    for step in reversed(range(6)):  # the order of arrival does not matter
        layers = [torch.linspace(0.1, 1 + step, 20), torch.linspace(0.1, 1 + step**2, 20)]
        metric.update(step, layers, {"locality": locality[step], "reliability": 1.0, "unused": 0.0})
    found = metric.correlations()
    assert len(found) == 4 * 3
    for by_metric in found.values():
        assert by_metric["locality"].rho == pytest.approx(reference.spearman(range(6), locality))
        assert math.isnan(by_metric["reliability"].rho)
    assert metric.compute()["q95_max/locality"].item() == pytest.approx(found["q95_max"]["locality"].rho)
    assert metric.compute()["q95_max/locality/p_value"].item() == pytest.approx(found["q95_max"]["locality"].p_value)
    with pytest.raises(GeometryError, match="no value of \\['reliability'\\]"):
        metric.update(9, [torch.ones(3)], {"locality": 1.0})
