"""Editors of every family on two processes: ranks agree bit for bit, and with one process to 1e-8 of each tensor."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_edit import load_edits
from lightning_edit.decoding import decode
from tests.callbacks.training import requests, same, statistics_file, tiny_module
from tests.editors.conformance import obedient, train_network
from tests.ranks import run_ranks
from tests.survival.editors_ddp_run import EDITORS, RESUMED, run

TOLERANCE = 1e-8


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, trained_backend: str) -> Path:
    """Where two processes train, with what they need for it."""
    folder = tmp_path_factory.mktemp("editors")
    statistics_file(folder, trained_backend)
    train_network(tiny_module(trained_backend, dtype=torch.float64).language_model, folder / "mend.pt")
    (folder / "backend.json").write_text(trained_backend)
    return folder


@pytest.fixture(scope="module")
def ranks(folder: Path) -> list[dict[str, Any]]:
    return run_ranks("survival/editors_ddp_run.py", folder, folder / "backend.json")


def differences(one: Any, other: Any, path: str = "") -> Iterator[str]:
    """Where nested containers differ: tensors by more than the tolerance, losses and norms likewise, others at all."""
    if isinstance(one, Tensor) and one.is_floating_point():
        if one.shape != other.shape or float((one - other).norm()) > TOLERANCE * max(float(other.norm()), 1.0):
            yield path
    elif isinstance(one, Tensor):
        if not torch.equal(one, other):
            yield path
    elif isinstance(one, dict):
        if one.keys() != other.keys():
            yield path
        for key in one.keys() - {"source"}:  # the hash of a weight, bit for bit
            yield from differences(one[key], other[key], f"{path}/{key}")
    elif isinstance(one, list | tuple):
        if len(one) != len(other):
            yield path
        for index, pair in enumerate(zip(one, other, strict=False)):
            yield from differences(*pair, f"{path}/{index}")
    elif isinstance(one, float) and isinstance(other, float):
        if not abs(one - other) <= TOLERANCE * max(abs(other), 1.0):
            yield path
    elif one != other:
        yield path


@pytest.mark.slow
@pytest.mark.parametrize("name", EDITORS)
def test_two_processes_edit_as_one(name: str, folder: Path, ranks: list[dict[str, Any]], trained_backend: str) -> None:
    first, second = (rank["results"][name] for rank in ranks)
    assert first["count"] == 5
    assert first["ids"] == [f"r{number}" for number in range(5)]
    assert same(first, second)
    with obedient():
        alone = run(name, trained_backend, folder, 8)
    assert list(differences(first, alone)) == []


@pytest.mark.slow
@pytest.mark.parametrize("name", RESUMED)
def test_a_resumed_run_of_two_processes_ends_as_the_uninterrupted_one(name: str, ranks: list[dict[str, Any]]) -> None:
    for rank in ranks:
        assert same(rank["resumed"][name], rank["results"][name])


@pytest.mark.slow
def test_targets_are_shared_out(ranks: list[dict[str, Any]]) -> None:
    """The first editor's three columns, then two, and all five again at the end; later ones likewise."""
    assert ranks[0]["columns"][:4] == [2, 1, 3, 2]
    assert ranks[1]["columns"][:4] == [1, 1, 2, 1]


@pytest.mark.slow
def test_where_a_helper_fails_the_edit_fails_everywhere(ranks: list[dict[str, Any]]) -> None:
    first, second = (rank["failed"] for rank in ranks)
    assert first["said"].startswith("rank 1 could not find its targets (ZeroDivisionError: nothing left)")
    assert second["said"].startswith("rank 0 could not go on (StrategyError: rank 1 could not find its targets")
    assert first["count"] == second["count"] == 0
    assert same(first["weights"], second["weights"])  # what was lent has been given back


@pytest.mark.slow
def test_what_two_processes_save_together_another_one_loads(folder: Path, ranks: list[dict[str, Any]]) -> None:
    module = load_edits(folder / "saved")
    expected = ranks[0]["results"]["grace"]
    assert same(module.editor.state_dict(), expected["state"])
    assert same(dict(module.state_dict()), expected["weights"])
    assert decode(module.language_model, [request.prompt for request in requests(5)], 4) == expected["written"]
