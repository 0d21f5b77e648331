"""Edits without a Trainer, on a model that is cut over the processes there are, and on a whole one; and its folders."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.distributed.device_mesh import DeviceMesh
from torch.distributed.fsdp import fully_shard
from torch.distributed.tensor import DTensor, Shard, distribute_tensor
from transformers import AutoConfig, AutoModelForCausalLM

from lightning_edit.algebra.gram import GramForm
from lightning_edit.editors import ClosedFormEditor, get_editor
from lightning_edit.editors.site_state import whole_ledger
from lightning_edit.errors import LedgerError, StateError
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.model.rows import Rows
from lightning_edit.model.saving import save_folder
from lightning_edit.model.statistics import collect_statistics
from lightning_edit.model.weights import read_weight, write_weight
from lightning_edit.module import EditableModule
from lightning_edit.saved_edits import save_edits
from tests.callbacks.training import LAYERS, QUICK, make_tokenizer, requests, texts, tiny_module
from tests.conftest import CONFIGS

SCENES: dict[str, tuple[str, str, dict[str, Any]]] = {
    "memit": ("llama", "memit", {}),
    "alphaedit": ("llama", "alphaedit", {"drift": "ignore", "prior_weight": None}),
    "absorbed": ("llama", "memit", {"history": "absorbed", "deployment": "none"}),
    "rect": ("llama", "rect", {}),
    "conv1d": ("gpt2", "memit", {"compact": True}),
}
FEW = {**QUICK, "steps": 2}
ADAPTER = {"r": 2, "target_modules": ["down_proj", "q_proj"]}


def cut_over(mesh: DeviceMesh, lm: LanguageModel, by_blocks: bool = True) -> None:
    """Cut a model into pieces, block by block or at once; what is cut at once stays gathered after a forward."""
    for module in (*(lm.block(layer) for layer in range(lm.num_layers) if by_blocks), lm.model):
        fully_shard(module, mesh=mesh)


def make_module(backend: str, family: str, adapter: dict[str, Any] | None = None) -> EditableModule:
    """A small random module, always the same."""
    if family == "llama" and adapter is None:
        return tiny_module(backend)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = tiny_module(backend).model
        if family != "llama":
            model = AutoModelForCausalLM.from_config(AutoConfig.for_model(family, **CONFIGS[family]))
        module = EditableModule.from_model(model, make_tokenizer(backend), peft=adapter)
        for parameter in module.parameters():
            if adapter is not None and parameter.requires_grad:  # a fresh adapter does nothing
                parameter.data += 0.05 * torch.randn_like(parameter)
    return module


def play(backend: str, scene: str, mesh: DeviceMesh | None = None) -> dict[str, Any]:
    """Edit twice, take one request back, let the weights move, and repair; what there is in the end."""
    family, name, options = SCENES[scene]
    lm = make_module(backend, family).language_model
    statistics = collect_statistics(lm, texts(20), LAYERS)
    if mesh is not None:
        cut_over(mesh, lm, by_blocks=scene != "alphaedit")
    given = {key: value for key, value in {**FEW, **options}.items() if value is not None}
    editor = get_editor(name, **given)
    assert isinstance(editor, ClosedFormEditor)
    editor.prepare(lm, statistics=statistics)
    with counted() as solved:
        first = editor.edit(lm, requests(3))
        editor.edit(lm, requests(2, start=3))
        if editor.history == "kept":
            editor.undo(lm, ["r1"])
        edited = weights(lm)
        move(lm)
        last = editor.repair(lm)
    return {
        "weights": weights(lm),
        "edited": edited,
        "state": editor.state_dict(),
        "exact": {layer: exact for layer, exact in zip(LAYERS, map(exactly, editor.sites), strict=True)},
        "norms": [first.delta_norm, first.pending_norm, last.drift_norm, last.pending_norm],
        "solved": sorted(solved),
        "held": [(len(site.ledger.base), len(site.ledger.values), len(site.deployed)) for site in editor.sites],
    }


def exactly(site: Any) -> Tensor:
    """The exact weight of a site, all rows."""
    return whole_ledger(site).solution()


def weights(lm: LanguageModel) -> dict[int, Tensor]:
    """The edited weights, whole."""
    return {layer: read_weight(lm.projection(layer)).clone() for layer in LAYERS}


def move(lm: LanguageModel) -> None:
    """Move the edited weights, as training would."""
    generator = torch.Generator().manual_seed(1)
    for layer in LAYERS:
        weight = read_weight(lm.projection(layer)).clone()
        write_weight(lm.projection(layer), weight + 1e-3 * torch.randn(weight.shape, generator=generator))


@contextmanager
def counted() -> Iterator[set[int]]:
    """How many rows the products of d x N and N x n have that are made inside."""
    seen: set[int] = set()
    solve = GramForm.correction

    def spy(form: GramForm, rows: Tensor) -> Tensor:
        seen.add(len(rows))
        return solve(form, rows)

    with mock.patch.object(GramForm, "correction", spy):
        yield seen


def edited(lm: LanguageModel, mesh: DeviceMesh | None, count: int) -> ClosedFormEditor:
    """An editor that has made some edits in a model, which is cut over a mesh if there is one."""
    statistics = collect_statistics(lm, texts(20), LAYERS)
    if mesh is not None:
        cut_over(mesh, lm)
    editor = get_editor("memit", **FEW)
    assert isinstance(editor, ClosedFormEditor)
    editor.prepare(lm, statistics=statistics)
    editor.edit(lm, requests(count))
    return editor


def adapted(backend: str, folder: Path, mesh: DeviceMesh | None = None) -> dict[str, Any]:
    """Edit under a PEFT adapter and save, whatever the model is cut into; what it says, and whether it is as before."""
    module = make_module(backend, "llama", ADAPTER)
    lm = module.language_model
    editor = edited(lm, mesh, 2)
    before = whole(lm.model)
    editor.export_merged(lm, folder / "exported")
    save_folder(module.model, module.tokenizer, folder / "saved", write=mesh is None or mesh.get_local_rank() == 0)
    after = whole(lm.model)
    with torch.no_grad():
        says = lm.model.eval()(input_ids=torch.arange(12)[None]).logits
    same = before.keys() == after.keys() and all(torch.equal(after[name], value) for name, value in before.items())
    return {"logits": says, "untouched": same, "names": sorted(before)}


def exported(backend: str, folder: Path, mesh: DeviceMesh | None = None) -> dict[str, Any]:
    """Export on every process to the same place, writing slowly; who wrote, what was there then, and what was said."""
    lm = make_module(backend, "llama").language_model
    editor = edited(lm, mesh, 3)
    wrote: list[str] = []

    def slowly(tensors: dict[str, Tensor], path: Path, metadata: dict[str, str]) -> None:
        time.sleep(0.5)
        wrote.append("editor" if "editor" in Path(path).name else Path(path).name)  # written beside its place
        save_file(tensors, path, metadata)

    adapter, delta = folder / "adapter", folder / "edits.safetensors"
    with mock.patch.multiple("lightning_edit.editors.adapter", save_file=slowly):
        notes = [editor.export_adapter(lm, adapter, name="tiny")]
        there = [sorted(path.name for path in adapter.iterdir())]
    with mock.patch.multiple("lightning_edit.editors.delta_file", save_file=slowly):
        notes.append(editor.export_delta(lm, delta))
        there.append([delta.name] if delta.is_file() else [])
    with mock.patch.multiple("lightning_edit.saved_edits", save_file=slowly):
        save_edits(lm, folder / "module", editor)
        there.append(sorted(path.name for path in (folder / "module").iterdir() if "editor" in path.name))
    (folder / "taken").touch()
    try:
        editor.export_adapter(lm, folder / "taken")
    except (FileExistsError, StateError) as error:
        return {"wrote": wrote, "there": there, "notes": notes, "said": f"{type(error).__name__}: {error}"}
    raise AssertionError("a file was taken for a folder")


def whole(model: nn.Module) -> dict[str, Tensor]:
    """A model's weights, put together."""
    state = model.state_dict()
    return {n: v.full_tensor() if isinstance(v, DTensor) else v.clone() for n, v in state.items()}


def shares(mesh: DeviceMesh) -> dict[str, Any]:
    """What `Rows` makes of seven rows over two processes, and of an action that fails on the last one alone."""
    linear = nn.Linear(5, 7, bias=False)
    matrix = torch.arange(35.0).view(7, 5)
    linear.weight = nn.Parameter(distribute_tensor(matrix.clone(), mesh, [Shard(0)]))
    rows = Rows.of(linear)
    own = rows.read(linear).clone()
    found: dict[str, Any] = {"own": own, "gathered": rows.gather(own), "norm": rows.norm(own)}
    found["agreed"] = [rows.all(True), rows.all(rows.start == 0)]
    rows.write(linear, own + 1)
    found["written"] = read_weight(linear)

    def fail_behind() -> None:
        if rows.start:
            raise ZeroDivisionError("no rows like these")

    try:
        rows.together(fail_behind)
    except (LedgerError, ZeroDivisionError) as error:
        found["said"] = f"{type(error).__name__}: {error}"
    return found
