"""Folders are whole, whatever the live model's weights are wrapped in."""

import pytest
import torch
from peft import LoraConfig, get_peft_model
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.distributed.tensor import Shard, distribute_tensor
from transformers import AutoModelForCausalLM

from lightning_edit.model.saving import save_folder


def same_weights(folder, model):
    again = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).state_dict()
    return all(torch.equal(again[name], value) for name, value in model.state_dict().items())


def test_sharded_weights_are_gathered(tiny_model, tokenizer, tmp_path):
    model = tiny_model("llama")
    torch.distributed.init_process_group("gloo", init_method=f"file://{tmp_path}/store", rank=0, world_size=1)
    try:
        mesh = init_device_mesh("cpu", (1,))
        for block in model.model.layers:
            weight = distribute_tensor(block.mlp.down_proj.weight.data, mesh, [Shard(0)])
            block.mlp.down_proj.weight = nn.Parameter(weight)
        save_folder(model, tokenizer, tmp_path / "whole")
    finally:
        torch.distributed.destroy_process_group()
    assert same_weights(tmp_path / "whole", tiny_model("llama"))


def test_compiled_models_are_saved_as_what_they_are(tiny_model, tokenizer, tmp_path):
    save_folder(torch.compile(tiny_model("gpt2"), backend="eager"), tokenizer, tmp_path / "plain")
    assert same_weights(tmp_path / "plain", tiny_model("gpt2"))


def test_only_one_process_writes(tiny_model, tokenizer, tmp_path):
    save_folder(tiny_model("gpt2"), tokenizer, tmp_path / "nothing", write=False)
    assert not (tmp_path / "nothing").exists()


@pytest.mark.parametrize("inside", [False, True], ids=["wrapped", "inside its wrapper"])
@pytest.mark.filterwarnings("ignore:Model has `tie_word_embeddings=True`")
def test_an_adapter_on_tied_weights_changes_only_what_it_is_on(tiny_model, tokenizer, tmp_path, inside):
    model = get_peft_model(tiny_model("gpt2"), LoraConfig(r=2, target_modules=["wte"], init_lora_weights=False))
    before = {name: value.clone() for name, value in model.state_dict().items()}
    save_folder(model.get_base_model() if inside else model, tokenizer, tmp_path / "merged")
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    text = torch.arange(12)[None]
    with torch.no_grad():
        says = model.eval()(input_ids=text).logits
        again = AutoModelForCausalLM.from_pretrained(tmp_path / "merged").eval()(input_ids=text).logits
    assert float((again - says).norm() / says.norm()) < 1e-6
