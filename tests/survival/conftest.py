"""Fixtures of the tests of survival."""

from pathlib import Path

import pytest

from tests.callbacks.training import statistics_file


@pytest.fixture(scope="session")
def statistics(tmp_path_factory: pytest.TempPathFactory, trained_backend: str) -> Path:
    """Key statistics of the tiny module."""
    return statistics_file(tmp_path_factory.mktemp("statistics"), trained_backend)
