"""A model that is cut over two processes is edited as a whole one is, and what is saved of it loads unsharded.

Against one process: to 1e-5 of the norm where it is trained too, to 1e-6 where it is edited alone.
"""

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModelForCausalLM

from lightning_edit.editors import ClosedFormEditor, get_editor
from tests.callbacks.training import QUICK, same, tiny_module
from tests.ranks import run_ranks
from tests.survival.fsdp_edits import LAYERS, SCENES, adapted, exported, play, weights
from tests.survival.fsdp_run import run

pytestmark = [pytest.mark.slow, pytest.mark.filterwarnings("ignore:.*is experimental")]
ROWS = 32  # of every edited weight
APART = ("memit", "alphaedit", "absorbed", "conv1d")  # nothing asks for all rows at once


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where the ranks leave what they make."""
    return tmp_path_factory.mktemp("fsdp")


@pytest.fixture(scope="module")
def ranks(folder: Path, trained_backend: str) -> list[dict[str, Any]]:
    """What two processes ended with."""
    (folder / "backend.json").write_text(trained_backend)
    return run_ranks("survival/fsdp_run.py", folder, folder / "backend.json")


def test_a_sharded_model_is_trained_and_edited_as_a_whole_one(
    ranks: list[dict[str, Any]], folder: Path, trained_backend: str
) -> None:
    first, second = (rank["whole"] for rank in ranks)
    assert first["count"] == 5
    assert first["pieces"] == len(first["weights"])  # every parameter was cut
    for part in ("weights", "editor"):
        assert same(first[part], second[part]), part
    for rank in ranks:  # resumed as if it had never stopped
        assert same(rank["resumed"], rank["whole"])

    alone = run(trained_backend, folder / "alone", 8)
    for name, value in alone["weights"].items():
        assert (first["weights"][name] - value).norm() <= 1e-5 * value.norm(), name

    checkpoint = torch.load(folder / "6.ckpt", weights_only=True)
    module = tiny_module(trained_backend)
    module.load_state_dict(checkpoint["state_dict"])
    assert same(dict(module.state_dict()), first["weights"])
    (state,) = (value for name, value in checkpoint["callbacks"].items() if name.startswith("ContinualEdit"))
    assert same(state["editor"], first["editor"])
    assert [len(site["deployed"]) for site in state["editor"]["sites"].values()] == [ROWS] * len(LAYERS)


@pytest.mark.parametrize("scene", SCENES)
def test_every_rank_solves_its_own_rows(ranks: list[dict[str, Any]], trained_backend: str, scene: str) -> None:
    found, alone = [rank["scenes"][scene] for rank in ranks], play(trained_backend, scene)
    for part in ("weights", "edited", "exact"):
        for layer in LAYERS:
            value = alone[part][layer]
            assert same(found[0][part][layer], found[1][part][layer])
            assert (found[0][part][layer] - value).norm() <= 1e-6 * value.norm(), (part, layer)
    assert same(found[0]["state"], found[1]["state"])
    assert found[0]["norms"] == found[1]["norms"]
    assert found[0]["norms"] == pytest.approx(alone["norms"], rel=1e-3, abs=1e-6)
    for rank in found:
        own = ROWS // 2 if scene in APART else ROWS
        assert max(rank["solved"]) == own
        assert rank["held"] == [(own, own, own)] * len(LAYERS)
    assert max(alone["solved"]) == ROWS


def test_one_process_goes_on_where_two_have_stopped(ranks: list[dict[str, Any]], trained_backend: str) -> None:
    scene = ranks[0]["scenes"]["memit"]
    lm, editor = tiny_module(trained_backend).language_model, get_editor("memit", **QUICK)
    assert isinstance(editor, ClosedFormEditor)
    editor.load_state_dict(scene["state"])
    editor.reinstate(lm)
    assert same(weights(lm), scene["weights"])
    editor.undo(lm, [request.id for request in editor.requests])
    for layer, weight in weights(lm).items():
        base = scene["state"]["sites"][str(layer)]["ledger"]["base"]
        assert (weight - base).norm() <= 1e-6 * base.norm()


def test_rows_are_shared_out_as_fsdp_cuts_them(ranks: list[dict[str, Any]]) -> None:
    whole = torch.arange(35.0).view(7, 5)
    first, second = (rank["shares"] for rank in ranks)
    assert torch.equal(first["own"], whole[:4])
    assert torch.equal(second["own"], whole[4:])
    for found in (first, second):
        assert torch.equal(found["gathered"], whole)
        assert found["norm"] == pytest.approx(float(whole.norm()))
        assert found["agreed"] == [True, False]
        assert torch.equal(found["written"], whole + 1)
    assert second["said"] == "ZeroDivisionError: no rows like these"
    assert first["said"].startswith("LedgerError: another process could not solve its rows")


def test_an_adapter_on_a_sharded_model_is_merged_into_the_folder(
    ranks: list[dict[str, Any]], folder: Path, trained_backend: str, tmp_path: Path
) -> None:
    found, alone = ranks[0]["adapted"], adapted(trained_backend, tmp_path)
    assert any("lora_A" in key for key in found["names"])
    assert [rank["adapted"]["untouched"] for rank in ranks] == [True, True]
    assert (found["logits"] - alone["logits"]).norm() <= 1e-5 * alone["logits"].norm()
    for name in ("exported", "saved"):
        merged = AutoModelForCausalLM.from_pretrained(folder / name)
        assert not any("lora" in key for key in merged.state_dict())
        with torch.no_grad():
            says = merged.eval()(input_ids=torch.arange(12)[None]).logits
        assert (says - found["logits"]).norm() <= 1e-5 * says.norm()


def test_one_rank_exports_and_the_others_wait(
    ranks: list[dict[str, Any]], folder: Path, trained_backend: str, tmp_path: Path
) -> None:
    first, second = (rank["exported"] for rank in ranks)
    alone = exported(trained_backend, tmp_path)
    assert first["wrote"] == alone["wrote"] == ["adapter_model.safetensors", "edits.safetensors", "editor"]
    assert second["wrote"] == []
    assert first["there"] == second["there"] == alone["there"]
    assert first["there"][-1] == ["editor.json", "editor.safetensors"]
    assert first["notes"] == second["notes"]
    for note, other in zip(first["notes"], alone["notes"], strict=True):
        assert note["requests"] == other["requests"] == [f"r{i}" for i in range(3)]
    for name in ("adapter/adapter_model.safetensors", "edits.safetensors"):
        found, wanted = load_file(folder / name), load_file(tmp_path / name)
        assert found.keys() == wanted.keys()
        for left, right in ((name, name.replace("lora_B", "lora_A").replace(".left", ".right")) for name in wanted):
            if left != right:  # an update's two factors
                update, expected = (_product(tensors[left], tensors[right]) for tensors in (found, wanted))
                assert (update - expected).norm() <= 1e-5 * expected.norm()
    assert [one["said"][:15] for one in (first, alone)] == ["FileExistsError"] * 2
    assert second["said"].startswith('StateError: found processes that could not write ({0: "FileExistsError')


def _product(left: torch.Tensor, right: torch.Tensor) -> torch.Tensor:
    """A Bᵀ, or lora_B lora_A."""
    return left.double() @ (right if len(right) == left.shape[1] else right.T).double()


def test_what_cannot_work_is_refused_on_every_rank(ranks: list[dict[str, Any]]) -> None:
    other, parallel, unprepared, asking = ranks[0]["refusals"]
    assert "expected a closed-form editor" in other
    assert "tensor_parallel_size=1" in parallel
    assert "statistics=FILE" in unprepared
    assert "EditMonitor" in asking
    assert ranks[1]["refusals"] == ranks[0]["refusals"]
