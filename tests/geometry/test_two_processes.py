"""Geometry on two gloo processes: samples cut in two, uneven shares, one process with nothing, and it is one stream."""

from typing import Any

import pytest
import torch

from lightning_edit.geometry import (
    Accumulation,
    FirstOrderError,
    PerturbationNorm,
    RelativeChangeRate,
    RepresentationSpectrum,
    SubspaceStability,
    spectrum,
)
from tests.geometry.synthetic import known, randn
from tests.ranks import in_two_processes

SIGMA = 20 * torch.logspace(0, -4, 6, dtype=torch.float64)
BEFORE = known(60, SIGMA).rows
AFTER = BEFORE + 0.01 * randn(60, 6, seed=3)
RATES = torch.linspace(0.1, 2.4, 24, dtype=torch.float64).reshape(4, 6)


def everything(part: slice) -> dict[str, Any]:
    """Every metric, fed with a part of the samples in two batches."""
    basis = spectrum(BEFORE)
    metrics: dict[str, Any] = {
        "spectrum": RepresentationSpectrum(6),
        "stability": SubspaceStability(basis, sizes=(1, 3)),
        "rates": RelativeChangeRate(basis, "rms"),
        "norms": PerturbationNorm(),
        "first order": FirstOrderError(),
        "growth": Accumulation(directions=6),
    }
    before, after = BEFORE[part], AFTER[part]
    for rows in torch.arange(len(before)).split(max(1, len(before) // 2 + 1)):
        metrics["spectrum"].update(before[rows])
        metrics["stability"].update(after[rows])
        metrics["rates"].update(after[rows], before[rows])
        metrics["norms"].update(after[rows], before[rows])
        metrics["first order"].update(after[rows] - before[rows], 0.9 * (after[rows] - before[rows]) + 1e-3)
    for step, rates in enumerate(RATES, 1):  # every process knows every step
        metrics["growth"].update(step, rates, drift=0.1 * step)
    return metrics


def computed(metrics: dict[str, Any]) -> dict[str, Any]:
    return {name: metric.compute() for name, metric in metrics.items()}


def _work(rank: int) -> dict[str, Any]:
    parts = {"uneven": [slice(0, 13), slice(13, 60)], "one has nothing": [slice(0, 60), slice(0, 0)]}
    found = {}
    for name, shares in parts.items():
        metrics = everything(shares[rank])
        found[name] = computed(metrics)
        if shares[rank].stop:  # local again after the reduction
            assert metrics["spectrum"].spectrum().count == shares[rank].stop - shares[rank].start
    return found


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_two_processes_measure_as_one(tmp_path: Any) -> None:
    ranks = in_two_processes(_work, tmp_path)
    expected = computed(everything(slice(0, 60)))
    assert expected["spectrum"]["samples"] == 60
    assert expected["spectrum"]["condition"].item() == pytest.approx(1e4, rel=1e-3)
    assert expected["first order"]["ratio"].item() == pytest.approx(0.9, abs=0.1)
    for rank, parts in enumerate(ranks):
        for name, found in parts.items():
            for metric, values in found.items():
                for key, value in values.items():
                    wanted = expected[metric][key]
                    torch.testing.assert_close(
                        value, wanted, rtol=1e-7, atol=1e-10, msg=f"{metric}/{key} on rank {rank}, {name}"
                    )
