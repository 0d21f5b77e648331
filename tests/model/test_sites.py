"""Sites are found by structure, and the table of architectures agrees with what the live model does."""

import pytest
import torch
from peft import LoraConfig, PromptTuningConfig, get_peft_model
from torch import nn
from transformers import AutoConfig, AutoModelForCausalLM, BartConfig, BartForConditionalGeneration

from lightning_edit.errors import SiteError
from lightning_edit.model.architectures import ARCHITECTURES
from lightning_edit.model.measure import moves_residual
from lightning_edit.model.sites import find_blocks, find_sites, unwrap
from tests.conftest import CONFIGS, INNER, LAYERS, WIDTH

COMMON = CONFIGS["llama"]
UNGROUPED = CONFIGS["gpt_neox"]
MORE = {  # architectures of the table that have no family fixture
    "bloom": {"vocab_size": 320, "hidden_size": WIDTH, "n_layer": LAYERS, "n_head": 4, "initializer_range": 0.1},
    "cohere": COMMON,
    "cohere2": {**COMMON, "head_dim": 8},
    "falcon": {key: value for key, value in UNGROUPED.items() if key != "intermediate_size"},
    "glm4": {**COMMON, "head_dim": 8},
    "gpt_bigcode": CONFIGS["gpt2"],
    "gpt_neo": {**UNGROUPED, "num_layers": LAYERS, "num_heads": 4, "attention_types": [[["global"], LAYERS]]},
    "granite": {**COMMON, "residual_multiplier": 0.5},
    "olmo": COMMON,
    "olmo3": COMMON,
    "qwen3_5_text": {**COMMON, "head_dim": 8, "layer_types": ["full_attention"] * LAYERS},
    "smollm3": COMMON,
    "stablelm": {**COMMON, "use_parallel_residual": True},
    "starcoder2": COMMON,
}
VARIANTS = [
    *((name, {}) for name in ARCHITECTURES),
    ("opt", {"do_layer_norm_before": False}),
    ("granite", {"residual_multiplier": 1.0}),
    ("gpt_neox", {"use_parallel_residual": False}),
    ("falcon", {"parallel_attn": False}),
    ("falcon", {"new_decoder_architecture": True}),
    ("stablelm", {"use_parallel_residual": False}),
    ("llama", {"mlp_bias": True}),
]


def build(name, changes):
    torch.manual_seed(0)
    config = AutoConfig.for_model(name, **{**CONFIGS.get(name, MORE.get(name, {})), **changes})
    model = AutoModelForCausalLM.from_config(config).eval()
    for parameter in model.parameters():
        if parameter.dim() == 1:
            parameter.data.add_(0.1 * torch.randn_like(parameter))
    return model


def ffn_reads_attention(model, site):
    """Whether what attention says reaches the FFN of the same block: the meaning of `parallel`, measured."""
    block = model.get_submodule(site.block)
    attention = next(child for child in block.children() if "attention" in type(child).__name__.lower())
    keys, noise = [], torch.randn(WIDTH, generator=torch.Generator().manual_seed(1))
    reader = model.get_submodule(site.name).register_forward_pre_hook(lambda module, args: keys.append(args[0]))
    ids = torch.arange(2, 7).unsqueeze(0)
    model(input_ids=ids)
    changer = attention.register_forward_hook(lambda module, args, output: (output[0] + noise, *output[1:]))
    model(input_ids=ids)
    reader.remove()
    changer.remove()
    return not torch.allclose(keys[0], keys[1], atol=1e-4)


@pytest.mark.parametrize(("name", "changes"), VARIANTS)
@torch.no_grad()
def test_every_row_of_the_table_is_what_the_live_model_does(name, changes):
    model = build(name, changes)
    sites = find_sites(model)
    assert [site.layer for site in sites] == list(range(LAYERS))
    for site in sites:
        row = ARCHITECTURES[name]
        assert site.name == f"{site.block}.{row.projection}"
        projection = model.get_submodule(site.name)
        keys = {}
        handle = projection.register_forward_pre_hook(lambda module, args, keys=keys: keys.update(key=args[0]))
        model(input_ids=torch.arange(2, 7).unsqueeze(0))
        handle.remove()
        assert keys["key"].shape[-1] == site.inner
        weight = projection.weight.T if site.transposed else projection.weight
        assert weight.shape == (site.width, site.inner) == (WIDTH, site.inner)
        value = projection(keys["key"])
        expected = keys["key"] @ weight.T + (projection.bias if site.bias else 0.0)
        assert torch.allclose(value, expected, atol=1e-5)
        assert site.bias == (projection.bias is not None)
        assert moves_residual(model, site.name, site.block) is not site.norm_after
        assert ffn_reads_attention(model, site) is not site.parallel


def test_every_family_of_the_promise_is_in_the_table(family, family_model):
    assert family in ARCHITECTURES
    sites = find_sites(family_model)
    assert len(sites) == LAYERS
    assert all((site.width, site.inner) == (WIDTH, INNER) for site in sites)
    assert [site.transposed for site in sites] == [family == "gpt2"] * LAYERS


@pytest.mark.parametrize(("name", "norm_after"), [("helium", False), ("exaone4", True)])
def test_a_family_outside_the_table_is_measured(name, norm_after):
    assert name not in ARCHITECTURES
    config = {**COMMON, "head_dim": 8}
    model = build(name, config)
    before = [parameter.clone() for parameter in model.parameters()]
    state = torch.get_rng_state()
    assert [site.norm_after for site in find_sites(model)] == [norm_after] * LAYERS
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True))


def test_measuring_needs_weights():
    with torch.device("meta"):
        model = AutoModelForCausalLM.from_config(AutoConfig.for_model("helium", **COMMON, head_dim=8))
    with pytest.raises(SiteError, match="not in the table"):
        find_sites(model)


def test_peft_is_looked_through(family, tiny_model):
    plain = find_sites(tiny_model(family))
    names = [plain[0].name.rsplit(".", 1)[-1]]
    fan = family == "gpt2"
    wrapped = get_peft_model(
        tiny_model(family), LoraConfig(task_type="CAUSAL_LM", r=2, target_modules=names, fan_in_fan_out=fan)
    )
    assert find_sites(wrapped) == plain
    assert hasattr(unwrap(wrapped).get_submodule(plain[0].name), "base_layer")


def test_compiled_models_are_looked_through(tiny_model):
    model = tiny_model("llama")
    assert find_sites(torch.compile(model, backend="eager")) == find_sites(model)


def test_prompt_tuning_is_refused(tiny_model):
    model = get_peft_model(tiny_model("llama"), PromptTuningConfig(task_type="CAUSAL_LM", num_virtual_tokens=2))
    with pytest.raises(SiteError, match="virtual tokens"):
        find_sites(model)


def test_mixtures_of_experts_are_refused(tiny_model):
    with pytest.raises(SiteError, match=r"mixture of experts.*not supported"):
        find_sites(tiny_model("mixtral"))


def test_the_dense_layers_of_a_mixture_can_be_named():
    changes = {**COMMON, "mlp_only_layers": [0, 2], "num_experts": 4, "moe_intermediate_size": 16}
    model = build("qwen3_moe", {**changes, "head_dim": 8})
    with pytest.raises(SiteError, match=r"model\.layers\.1\.mlp.* is a mixture of experts"):
        find_sites(model)
    assert [site.layer for site in find_sites(model, "model.layers.{}.mlp.down_proj")] == [0, 2]


def test_encoder_decoders_of_other_kinds_are_refused():
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    model = BartForConditionalGeneration(BartConfig(**sizes, **heads, vocab_size=50))
    with pytest.raises(SiteError, match=r"encoder-decoder of a kind that is not known here \(bart\).*not supported"):
        find_sites(model)


def test_the_override_names_what_structure_does_not_show(tiny_model):
    model = tiny_model("llama")
    usual = find_sites(model)
    for block in model.model.layers:  # a second map of the same shape: which is the FFN's?
        block.extra = nn.Linear(INNER, WIDTH)
    with pytest.raises(SiteError, match=r"2 candidates.*mlp\.down_proj 64->32.*extra 64->32.*projection="):
        find_sites(model)
    assert find_sites(model, "model.layers.{}.mlp.down_proj") == usual
    del model.model.layers[1].extra
    extra = find_sites(model, "model.layers.{}.extra")
    assert [site.layer for site in extra] == [0, 2]
    assert all(site.bias for site in extra)
    assert len(find_blocks(model, "model.layers.{}.extra")) == LAYERS


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("model.layers.0.mlp.down_proj", "exactly one {}"),
        ("model.blocks.{}.mlp.down_proj", "list of decoder blocks"),
        ("model.layers.{}.mlp.nothing", "has no module"),
        ("model.layers.{}.mlp.act_fn", "linear projection"),
    ],
)
def test_a_wrong_override_says_what_is_wrong(tiny_model, pattern, message):
    with pytest.raises(SiteError, match=message):
        find_sites(tiny_model("llama"), pattern)


def test_a_model_without_blocks_is_refused():
    model = nn.Sequential(nn.Linear(2, 2))
    with pytest.raises(SiteError, match="no list of decoder blocks"):
        find_blocks(model)
