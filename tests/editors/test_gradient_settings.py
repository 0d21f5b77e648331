"""Settings of editors that take gradient steps: published numbers arrive, and a preset with a fault is refused."""

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from lightning_edit.editors import get_editor
from lightning_edit.editors.gradient_settings import find_settings, gradient_presets, read_gradient_presets
from lightning_edit.editors.preset_sheet import shipped_presets
from lightning_edit.errors import EditError
from lightning_edit.model.language_model import LanguageModel
from tests.editors.gradient import Make, changed, fact, facts, says_all, snapshot


def test_published_numbers_arrive_and_fit_their_models(make_lm: Make) -> None:
    for editor, entries in gradient_presets().items():
        assert "default" in entries
        for name, settings in entries.items():
            if name not in ("default", "embedded"):
                blocks = shipped_presets()[name].shape[2]
                assert all(isinstance(layer, str) or layer < blocks for layer in settings.layers or ())
                assert "@" in settings.source, (editor, name)
    assert gradient_presets()["ft_l"]["gpt2-xl"].norm_constraint == 5e-4
    assert gradient_presets()["ft_m"]["gpt2-xl"].norm_constraint is None
    assert gradient_presets()["ft_l"]["llama-2-7b"].layers == (21,)
    assert gradient_presets()["ft_l"]["llama-3.2-3b"].layers == (21,)
    lm = make_lm()  # of three blocks, nearest to a model of 28
    assert find_settings(lm, "ft_m").layers == (2,)
    assert find_settings(lm, "ft_l", "Mistral-7B").norm_constraint == 5e-5
    with pytest.raises(EditError, match="ft_l has no preset 'x'; expected one of default"):
        find_settings(lm, "ft_l", "x")
    assert get_editor("ft_l", preset="gpt2-xl").attach(lm) == [0]


@pytest.mark.parametrize(
    ("line", "words"),
    [
        ("{source: here, lr: 5e-4}", "found lr: '5e-4'"),
        ("{source: here, clamp: 1.0}", "found clamp: 1.0"),
        ("{lr: 0.5}", "found no source"),
    ],
)
def test_a_preset_with_a_fault_is_refused(line: str, words: str) -> None:
    with pytest.raises(EditError, match=words):
        read_gradient_presets(f"ft_l:\n  default: {line}\n")
    with pytest.raises(EditError, match=r"ft_l\.mine is no preset"):
        read_gradient_presets("ft_l: {default: {source: here}, mine: {source: here}}")


@pytest.mark.parametrize("name", ["lora", "adalora"])
def test_adapters_reach_both_kinds_of_attention_in_qwen3_5(name: str, tokenizer: PreTrainedTokenizerFast) -> None:
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(shipped_presets()["qwen3.5-9b"].model_config())
    lm, editor = LanguageModel(model, tokenizer), get_editor(name)
    editor.attach(lm)
    found = editor.settings
    assert (found.name, found.lr, found.steps, found.rank, found.alpha) == ("qwen3.5-9b", 5e-3, 60, 8, 32)
    kinds = model.config.layer_types
    assert (kinds.count("linear_attention"), kinds.count("full_attention")) == (24, 8)
    inside = {
        "linear_attention": ["linear_attn.in_proj_qkv"],
        "full_attention": ["self_attn.q_proj", "self_attn.v_proj"],
    }
    expected = [f"model.layers.{layer}.{path}" for layer, kind in enumerate(kinds) for path in inside[kind]]
    assert editor._paths == expected


def test_a_small_qwen3_5_is_taught_in_both_kinds_of_attention(tokenizer: PreTrainedTokenizerFast) -> None:
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "vocab_size": 320, "head_dim": 8}
    heads = {"num_attention_heads": 4, "num_key_value_heads": 2, "linear_num_key_heads": 2, "linear_num_value_heads": 2}
    more = {"linear_key_head_dim": 8, "linear_value_head_dim": 8, "layer_types": ["linear_attention", "full_attention"]}
    config = AutoConfig.for_model("qwen3_5_text", **sizes, **heads, **more, max_position_embeddings=128, pad_token_id=1)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = AutoModelForCausalLM.from_config(config).eval()
    model.get_output_embeddings().weight.data.mul_(5)
    lm, editor = LanguageModel(model, tokenizer), get_editor("lora", lr=0.02, dropout=0.0)
    clean = snapshot(lm)
    editor.edit(lm, facts(1))
    assert editor.settings.modules == ("q_proj", "v_proj", "in_proj_qkv")
    assert list(editor.ranks[0]) == [
        "model.layers.0.linear_attn.in_proj_qkv",
        "model.layers.1.self_attn.q_proj",
        "model.layers.1.self_attn.v_proj",
    ]
    assert says_all(lm, fact(0))
    editor.undo(lm, "r0")
    assert not says_all(lm, fact(0))
    assert changed(lm, clean) == []
