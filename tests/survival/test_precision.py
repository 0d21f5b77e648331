"""Whatever the Trainer's precision, the ledger keeps its own, and rounding on write is made up for."""

from pathlib import Path

import pytest
import torch

from lightning_edit.model.weights import read_weight
from tests.callbacks.training import editing, fit, requests, stream, tiny_module


@pytest.mark.parametrize("precision", ["32-true", "bf16-mixed", "bf16-true"])
def test_the_ledger_keeps_its_precision(precision: str, trained_backend: str, statistics: Path) -> None:
    dtype = torch.bfloat16 if precision == "bf16-true" else torch.float32
    module, callback = tiny_module(trained_backend, dtype), editing(statistics)
    fit(module, stream(trained_backend, requests(6)), [callback], precision=precision, max_steps=7)
    assert callback.editor is not None
    assert callback.count == 6
    for site in callback.editor.sites:
        ledger, weight = site.ledger, read_weight(module.language_model.projection(site.layer))
        assert weight.dtype == site.deployed.dtype == dtype
        assert {ledger.keys.dtype, ledger.values.dtype, ledger.solution().dtype} == {torch.float64}
        assert ledger.base.dtype == torch.float32
        exact = ledger.solution()
        assert torch.equal(weight, exact.to(dtype))  # the nearest number there is, after six edits and seven steps
        wanted = ledger.noise / (ledger.noise + 1e3)
        reached = (exact @ ledger.keys - ledger.values).norm() / ledger.values.norm()
        assert reached < 0.05 + wanted
