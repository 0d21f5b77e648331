"""Edits as a LoRA adapter: plain PEFT on the base weights gives the edited model."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from lightning_edit.editors import ClosedFormEditor
from lightning_edit.errors import LedgerError
from lightning_edit.model.language_model import LanguageModel
from tests.editors.conftest import facts, train_a_bit

Make = Callable[..., LanguageModel]
MakeEditor = Callable[..., ClosedFormEditor]


@pytest.mark.parametrize("family", ["llama", "gpt2"])
@pytest.mark.parametrize("drift", [None, "adopt", "ignore"])
def test_peft_loads_the_edits(
    family: str, drift: str | None, make_lm: Make, make_editor: MakeEditor, tmp_path: Path
) -> None:
    lm = make_lm(family, torch.float32)
    plain = make_lm(family, torch.float32)
    editor = make_editor(lm, drift=drift or "adopt")
    editor.edit(lm, facts(3))
    if drift:
        train_a_bit(lm)
        editor.edit(lm, facts(1, 3))
        plain.model.load_state_dict(lm.model.state_dict())
    note = editor.export_adapter(lm, tmp_path)
    assert note == json.loads((tmp_path / "edits.json").read_text())
    assert set(note["ranks"].values()) == {4 if drift else 3}
    assert (note["base_file"] is not None) == bool(drift)
    if note["base_file"]:
        plain.model.load_state_dict(load_file(tmp_path / note["base_file"]), strict=False)
    ids = lm.encode([request.prompt for request in facts(3)]).input_ids
    adapted = PeftModel.from_pretrained(plain.model, str(tmp_path))
    with torch.no_grad():
        torch.testing.assert_close(adapted(ids).logits, lm.model(ids).logits, rtol=1e-3, atol=1e-3)


def test_nothing_to_export(make_lm: Make, make_editor: MakeEditor, tmp_path: Path) -> None:
    lm = make_lm()
    editor = make_editor(lm, aligned=False)
    editor.edit(lm, facts(1))
    with pytest.raises(LedgerError, match="no columns"):
        editor.export_adapter(lm, tmp_path)
