"""`latent_shift`: the numbers by hand, the picture's axes, and a small run."""

from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_edit.errors import RequestError
from lightning_edit.jobs.latent_shift import latent_shift, principal_axes, shifts, unrelated
from lightning_edit.requests import EditRequest
from tests.runner.test_compare import STRONG


def test_numbers_are_in_radii_of_the_clean_cloud() -> None:
    before = torch.tensor([[1.0, 0.0], [-1.0, 0.0], [0.0, 1.0], [0.0, -1.0]], dtype=torch.float64)  # radius 1
    moved = before + torch.tensor([3.0, 4.0])
    assert shifts(before, moved)["shift"] == pytest.approx(5.0)
    assert shifts(before, moved)["displacement"] == pytest.approx(5.0)
    turned = shifts(before, -before)  # the centre stays, every point goes
    assert turned == {"shift": 0.0, "displacement": pytest.approx(2.0), "cosine": pytest.approx(-1.0)}
    assert shifts(before, before) == {"shift": 0.0, "displacement": 0.0, "cosine": pytest.approx(1.0)}


def test_axes_are_the_widest_directions_of_all_clouds_together() -> None:
    generator = torch.Generator().manual_seed(0)
    narrow = 0.1 * torch.randn(50, 5, generator=generator, dtype=torch.float64)
    wide = narrow.clone()
    wide[:, 3] += 10.0  # apart along one direction, and spread along another
    wide[:, 1] *= 20.0
    axes = principal_axes([narrow, wide])
    assert axes.shape == (5, 2)
    assert abs(float(axes[3, 0])) > 0.99
    assert abs(float(axes[1, 1])) > 0.99
    torch.testing.assert_close(axes.T @ axes, torch.eye(2, dtype=torch.float64))


def test_a_run_measures_and_draws(two_seeds: dict[str, Any], tmp_path: Path) -> None:
    strong, again = latent_shift(
        tmp_path,
        {"strong": STRONG, "again": STRONG},
        **two_seeds,
        measurements=2,
        kind="neighbour",
    )
    assert strong.row["displacement"] > 0.01
    assert strong.row["displacement"] == again.row["displacement"]  # each from the clean model
    assert strong.curves["edit/shift"].steps == [2, 4]
    assert {"shift_std", "cosine", "reliability"} <= set(strong.row)
    assert strong.files["projection"].stat().st_size > 10_000


def test_an_absent_kind_is_named(known_requests: list[EditRequest]) -> None:
    with pytest.raises(RequestError, match="no locality probes of kind 'near'; the requests have none"):
        unrelated(known_requests, "near", 10)
