"""Presets of encoder-decoders: T5-3B's published numbers, and what another T5 gets of them."""

import pytest
import torch
from transformers import AutoModelForSeq2SeqLM

from lightning_edit.editors.forward_settings import find_settings as find_forward_settings
from lightning_edit.editors.forward_settings import forward_presets
from lightning_edit.editors.gradient_settings import find_settings
from lightning_edit.editors.preset_scaling import nearest_sheet
from lightning_edit.editors.preset_sheet import read_sheet, shipped_presets
from lightning_edit.editors.presets import choose_preset, find_sheet
from lightning_edit.errors import EditError
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.model.sites import find_sites
from tests.seq2seq import ending, t5_lm


@pytest.fixture(scope="module")
def t5_3b(trained_backend: str) -> LanguageModel:
    """T5-3B without memory for its weights."""
    with torch.device("meta"):
        model = AutoModelForSeq2SeqLM.from_config(shipped_presets()["t5-3b"].model_config())
    return LanguageModel(model, ending(trained_backend))


def test_the_bundled_configuration_is_that_of_t5_3b(t5_3b: LanguageModel) -> None:
    sheet = shipped_presets()["t5-3b"]
    assert round(sum(parameter.numel() for parameter in t5_3b.model.parameters()) / 1e6) == 2852  # as its card says
    sites = find_sites(t5_3b.model)
    assert sheet.shape == (sites[0].width, sites[0].inner, len(sites)) == (1024, 16384, 48)
    assert t5_3b.site("decoder.block.21").name == sheet.projection.format(21)
    assert find_sheet(t5_3b) is sheet
    assert sheet.encoder_decoder
    with pytest.raises(EditError, match="is of an encoder-decoder, for which no locate-then-edit method"):
        sheet.settings("MEMIT")


@pytest.mark.parametrize("name", ["ft_l", "ft_m"])
def test_published_numbers_of_t5_3b_arrive(name: str, t5_3b: LanguageModel) -> None:
    found = find_settings(t5_3b, name)
    assert found.name == "t5-3b"
    assert (found.lr, found.steps, found.batch_size, found.norm_constraint) == (5e-4, 50, 1, None)
    assert [t5_3b.site(layer).layer for layer in found.layers or ()] == [24, 45]
    assert find_forward_settings(t5_3b, "grace", type(forward_presets()["grace"]["t5-3b"]), {}).layer == 13


def test_another_t5_gets_them_at_the_same_depth_of_the_same_stack(trained_backend: str) -> None:
    lm = t5_lm(trained_backend, num_layers=6, num_decoder_layers=3)
    found = find_settings(lm, "ft_m")
    assert [lm.site(layer).block for layer in found.layers or ()] == ["decoder.block.0", "decoder.block.2"]
    assert nearest_sheet((512, 2048, 12), "mt5").name == "t5-3b"
    assert nearest_sheet((1024, 16384, 48), "gpt2").name != "t5-3b"
    with pytest.raises(EditError, match="is of an encoder-decoder"):
        choose_preset(lm)
    assert read_sheet(SHEET, "toy.yaml").families == {}


SHEET = """
name: toy
models: [toy]
projection: decoder.block.{}.layer.2.DenseReluDense.wo
shape: [8, 16, 4]
config: {model_type: t5}
family: none
families: {}
editors: {}
"""
