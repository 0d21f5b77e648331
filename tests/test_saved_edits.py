"""Folders of a model with its editor: what is in them, what does not fit, and states as JSON and tensors."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from lightning_edit import EditableModule, load_edits, save_edits
from lightning_edit.algebra import identity
from lightning_edit.callbacks import ContinualEdit
from lightning_edit.editors import get_editor
from lightning_edit.editors.description import describe_editor, given_options, make_editor
from lightning_edit.editors.fine_tuning import FTM
from lightning_edit.editors.hybrid import Hybrid
from lightning_edit.editors.plain import Writer, read_tree
from lightning_edit.editors.retrieval.bm25 import BM25
from lightning_edit.errors import EditError, StateError
from lightning_edit.model.weights import read_weight
from lightning_edit.requests import EditRequest
from tests.callbacks.training import QUICK, fit, requests, statistics_file, stream, tiny_module
from tests.editors.gradient import facts

TUNED = {"layers": [1], "lr": 0.02, "steps": 3}


@pytest.fixture
def module(tiny_model: Callable[..., PreTrainedModel], tokenizer: PreTrainedTokenizerFast) -> EditableModule:
    return EditableModule.from_model(tiny_model("llama", dtype=torch.float64), tokenizer)


def as_text(value: Any) -> tuple[Any, dict[str, Tensor]]:
    writer = Writer()
    return json.loads(json.dumps(writer.tree(value), allow_nan=False)), writer.tensors


def test_trees_hold_what_states_hold() -> None:
    shared = torch.arange(6.0).view(2, 3)
    value = {
        "none": None,
        "pair": (1, 2.5, [True, "text"]),
        "numbers": {3: float("inf"), (1, 2): float("-inf")},
        "tensors": [shared, shared.T, shared, shared[0], torch.zeros(0), torch.tensor(3), torch.ones(2).bfloat16()],
        "__kind__": "a word of ours",
    }
    tree, tensors = as_text(value)
    found = read_tree(tree, tensors)
    assert str(found) == str(value)
    assert list(found) == list(value)
    first, _, again, *_ = found["tensors"]
    assert first is again  # what shares memory is kept once
    assert len(tensors) == 6
    assert all(tensor.is_contiguous() for tensor in tensors.values())
    assert read_tree(*as_text(float("nan"))) != read_tree(*as_text(float("nan")))
    with pytest.raises(StateError, match="found set in a state"):
        as_text({"x": {1}})
    with pytest.raises(StateError, match="expected a tensor that is there"):
        read_tree(tree, {})


def test_an_editor_is_described_as_it_was_made() -> None:
    both = get_editor("hybrid", editor=get_editor("ft_m", **TUNED), memory={"editor": "ice", "top_k": 2})
    described = json.loads(json.dumps(describe_editor(both)))
    again = make_editor(described)
    assert isinstance(again, Hybrid)
    assert given_options(again.editor) == TUNED
    assert again.memory.top_k == 2
    assert describe_editor(again) == described
    ike = get_editor("ike", demonstrations=[EditRequest("d", "The sea is", "blue")], examples=2)
    assert describe_editor(make_editor(describe_editor(ike))) == describe_editor(ike)
    mine = f"{__name__}.Mine"
    assert describe_editor(get_editor(mine, spice=2)) == {"editor": mine, "options": {"spice": 2}, "unwritable": []}
    own = get_editor("memit", restriction=identity, layers=(1, 2))
    assert describe_editor(own) == {"editor": "memit", "options": {"layers": [1, 2]}, "unwritable": ["restriction"]}
    with pytest.raises(StateError, match=r"was made with restriction.*Pass it as editor="):
        make_editor(describe_editor(own))
    assert describe_editor(get_editor("hybrid", editor=own))["unwritable"] == ["editor"]


class Mine(FTM):
    """A user's own editor."""

    def __init__(self, spice: int) -> None:
        super().__init__(**TUNED)


def test_the_folder_is_plain_and_the_module_is_left_as_it_was(module: EditableModule, tmp_path: Path) -> None:
    editor = get_editor("lora", lr=0.01, steps=3, rank=2)
    editor.edit(module, facts(2))
    hooks = [len(part._forward_hooks) for part in module.model.modules()]
    with pytest.raises(EditError, match="has no editor whose edits could be saved"):
        save_edits(module, tmp_path)
    module.editor = editor
    save_edits(module, tmp_path / "a")
    assert [len(part._forward_hooks) for part in module.model.modules()] == hooks
    assert not hasattr(module.model.config, "edited_from")
    document = json.loads((tmp_path / "a" / "editor.json").read_text())
    assert document["editor"] == {"editor": "lora", "options": {"lr": 0.01, "steps": 3, "rank": 2}, "unwritable": []}
    assert (document["requests"], document["dtype"]) == (["r0", "r1"], "float64")
    assert sorted(path.name for path in (tmp_path / "a").glob("*edit*")) == ["editor.json", "editor.safetensors"]
    loaded = load_edits(tmp_path / "a", lr=0.5)
    assert loaded.model.dtype == torch.float64
    assert loaded.hparams["lr"] == 0.5
    loaded.editor.rollback(loaded, 2)
    save_edits(loaded, tmp_path / "a")  # over the old one
    assert load_edits(tmp_path / "a").editor.requests == []


def test_what_does_not_fit_is_said(module: EditableModule, tmp_path: Path) -> None:
    editor = get_editor("ft_m", **TUNED)
    editor.edit(module, facts(2))
    save_edits(module, tmp_path, editor)
    assert load_edits(tmp_path, module).editor.requests == facts(2)
    module.language_model.projection(1).weight.data.mul_(1.5)
    with pytest.raises(StateError, match="weights are not those of the saved edits"):
        load_edits(tmp_path, module)
    with pytest.raises(StateError, match="the edits of 'ft_m', the editor is 'ft_l'"):
        load_edits(tmp_path, editor=get_editor("ft_l"))
    given = get_editor("ft_m", **TUNED)
    assert load_edits(tmp_path, editor=given).editor is given
    (tmp_path / "editor.safetensors").write_bytes((tmp_path / "model.safetensors").read_bytes())
    with pytest.raises(StateError, match="is not the file that"):
        load_edits(tmp_path)
    document = json.loads((tmp_path / "editor.json").read_text())
    (tmp_path / "editor.json").write_text(json.dumps({**document, "version": 9}))
    with pytest.raises(StateError, match="has version 9"):
        load_edits(tmp_path)
    (tmp_path / "editor.safetensors").unlink()
    with pytest.raises(StateError, match=r"holds no editor\.json with editor\.safetensors"):
        load_edits(tmp_path)


def test_an_option_that_no_file_holds_is_asked_for(module: EditableModule, tmp_path: Path) -> None:
    options: dict[str, Any] = {"retriever": BM25(), "max_new_tokens": 8}
    editor = get_editor("ice", **options)
    editor.edit(module, facts(2))
    save_edits(module, tmp_path, editor)
    with pytest.raises(StateError, match="'ice' was made with retriever"):
        load_edits(tmp_path)
    loaded = load_edits(tmp_path, editor=get_editor("ice", **options))
    prompt = facts(1)[0].prompt
    assert loaded.language_model.recall([prompt]) == module.language_model.recall([prompt]) != [prompt]


def test_a_folder_without_the_edits_comes_with_a_warning(module: EditableModule, tmp_path: Path) -> None:
    module.editor = get_editor("ice", max_new_tokens=8)
    module.save_pretrained(tmp_path)  # there are none yet
    module.editor.edit(module, facts(1))
    with pytest.warns(UserWarning, match="lacks the edits of ICE"):
        module.save_pretrained(tmp_path)


def test_training_goes_on_with_a_loaded_editor(trained_backend: str, tmp_path: Path) -> None:
    """Also where no request comes any more: edits that were brought along are repaired like others."""
    module = tiny_module(trained_backend)
    editor = get_editor("memit", **QUICK)
    editor.prepare(module, statistics=statistics_file(tmp_path, trained_backend))
    editor.edit(module, requests(2))
    save_edits(module, tmp_path / "edited", editor)
    loaded = load_edits(tmp_path / "edited", lr=1e-3)
    fit(loaded, stream(trained_backend), [ContinualEdit(loaded.editor, every_n_steps=2, requests=[])], max_steps=2)
    (site, *_) = loaded.editor.sites
    weight = read_weight(loaded.language_model.projection(site.layer))
    assert not torch.equal(weight, read_weight(module.language_model.projection(site.layer)))  # trained
    assert torch.equal(weight, site.deployed)  # and repaired since
    assert site.distance(loaded.language_model.projection(site.layer)) < 1e-5
