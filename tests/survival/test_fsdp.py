"""A model that is cut over two processes is edited as a whole one is, to 1e-5, and its checkpoints load unsharded."""

from pathlib import Path

import pytest
import torch

from tests.callbacks.training import same, tiny_module
from tests.ranks import run_ranks
from tests.survival.fsdp_run import run


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:.*is experimental")
def test_a_sharded_model_is_edited_as_a_whole_one(tmp_path: Path, trained_backend: str) -> None:
    (tmp_path / "backend.json").write_text(trained_backend)
    ranks = run_ranks("survival/fsdp_run.py", tmp_path, tmp_path / "backend.json")

    first, second = (rank["whole"] for rank in ranks)
    assert first["count"] == 5
    assert first["pieces"] == len(first["weights"])  # every parameter was cut
    for part in ("weights", "editor"):
        assert same(first[part], second[part]), part
    for rank in ranks:  # resumed as if it had never stopped
        assert same(rank["resumed"], rank["whole"])

    alone = run(trained_backend, tmp_path / "alone", 8)
    for name, value in alone["weights"].items():
        assert (first["weights"][name] - value).norm() <= 1e-5 * value.norm(), name

    checkpoint = torch.load(tmp_path / "6.ckpt", weights_only=True)
    module = tiny_module(trained_backend)
    module.load_state_dict(checkpoint["state_dict"])
    assert same(dict(module.state_dict()), first["weights"])
    (state,) = (value for name, value in checkpoint["callbacks"].items() if name.startswith("ContinualEdit"))
    assert same(state["editor"], first["editor"])

    other, parallel, unprepared, asking = ranks[0]["refusals"]
    assert "expected a closed-form editor" in other
    assert "tensor_parallel_size=1" in parallel
    assert "statistics=FILE" in unprepared
    assert "EditMonitor" in asking
    assert ranks[1]["refusals"] == ranks[0]["refusals"]
