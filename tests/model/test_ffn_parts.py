"""The parts of a feed-forward network are what their names say, in every architecture."""

from collections.abc import Callable

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from lightning_edit.editors.wise.routing import activation_of
from lightning_edit.errors import SiteError
from lightning_edit.model.ffn_parts import FFNPart, find_part
from lightning_edit.model.language_model import LanguageModel
from tests.seq2seq import INNER, VERSIONS, WIDTH, t5_lm

GATED = ["llama", "mistral", "qwen2", "qwen3", "gemma", "olmo2"]
PLAIN = ["gpt2", "gptj", "gpt_neox", "phi"]
Make = Callable[[str], LanguageModel]


@pytest.fixture
def make(tiny_model: Callable[..., PreTrainedModel], tokenizer: PreTrainedTokenizerFast, trained_backend: str) -> Make:
    def build(family: str) -> LanguageModel:
        if family in VERSIONS:
            return t5_lm(trained_backend, family)
        return LanguageModel(tiny_model(family), tokenizer)

    return build


@pytest.mark.parametrize("family", [*GATED, *PLAIN, *VERSIONS])
def test_the_network_is_put_together_of_its_parts(family: str, make: Make) -> None:
    lm = make(family)
    activation = activation_of(lm.model)
    for site in lm.sites:
        down = find_part(lm, site.layer)
        assert down == FFNPart(site.name, site.inner, site.width)
        up = find_part(lm, site.block, "up")
        assert (up.inputs, up.outputs) == (WIDTH, INNER)
        x = torch.randn(2, 3, up.inputs)
        with torch.no_grad():
            hidden = lm.model.get_submodule(up.path)(x)
            if family in GATED or family == "t5 v1.1":
                gate = find_part(lm, site.layer, "gate")
                assert (gate.inputs, gate.outputs) == (up.inputs, up.outputs)
                hidden = activation(lm.model.get_submodule(gate.path)(x)) * hidden
            else:
                hidden = activation(hidden)
            expected = lm.model.get_submodule(site.name.rpartition(".")[0])(x)
            assert torch.allclose(lm.model.get_submodule(down.path)(hidden), expected, atol=1e-6)


def test_a_block_that_keeps_its_network_in_itself_has_parts_too(make: Make) -> None:
    lm = make("opt")
    assert find_part(lm, 2, "up") == FFNPart("model.decoder.layers.2.fc1", WIDTH, INNER)


@pytest.mark.parametrize(
    ("family", "part", "seen"),
    [
        (
            "gpt2",
            "gate",
            r"layer1 has no part 'gate': it has transformer.h.1.mlp.c_fc \(up\).* of 'down', 'up'\.",
        ),
        (
            "phi3",
            "up",
            r"it has model.layers.1.mlp.gate_up_proj \(no part by itself\).* to be one of 'down'\.",
        ),
        ("llama", "sideways", r"no part 'sideways'.*Expected part to be one of 'down', 'up', 'gate'"),
    ],
)
def test_a_part_that_is_not_there_is_named(family: str, part: str, seen: str, make: Make) -> None:
    with pytest.raises(SiteError, match=seen):
        find_part(make(family), 1, part)


def test_which_of_two_unknown_modules_is_the_gate_is_not_guessed(make: Make) -> None:
    lm = make("llama")
    network = lm.model.model.layers[1].mlp
    network.w1, network.w2 = network.gate_proj, network.up_proj
    del network.gate_proj, network.up_proj
    with pytest.raises(SiteError, match=r"w1 \(no part by itself\), .*w2 \(no part by itself\).*one of 'down'"):
        find_part(lm, 1, "up")
