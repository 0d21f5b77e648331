"""T5-style models: prompts in the encoder, answers in the decoder, tokens scored where transformers puts labels."""

from typing import Any

import pytest
import torch
from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSeq2SeqLM

from lightning_edit import EditableModule
from lightning_edit.decoding import decode, decode_tokens, sample
from lightning_edit.errors import EditError, RequestError, SiteError
from lightning_edit.evaluation.likelihood import score_continuations
from lightning_edit.model.causal import CausalLayout
from lightning_edit.model.encoding import pad
from lightning_edit.model.generation import generate
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.model.layout import IGNORED
from lightning_edit.model.seq2seq import Seq2SeqLayout, auto_class
from lightning_edit.model.statistics import collect_statistics
from lightning_edit.reasoning.text_likelihood import score_texts
from tests.seq2seq import BLOCKS, END, INNER, PAD, VERSIONS, WIDTH, answer_logits, ending, t5_lm, tiny_t5, tokens

PROMPTS = ["the city of Ann is", "Bob Ray was born in the north of the country, in", "Ida"]
ANSWERS = ["English", "a large city", "known"]


@pytest.fixture(params=list(VERSIONS))
def version(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def lm(trained_backend: str, version: str) -> LanguageModel:
    return t5_lm(trained_backend, version, torch.float64)


def test_the_blocks_of_both_stacks_have_sites_that_are_named_by_their_paths(lm: LanguageModel) -> None:
    paths = [f"{stack}.block.{number}" for stack in ("encoder", "decoder") for number in range(BLOCKS)]
    assert [(site.layer, site.label, site.block) for site in lm.sites] == [(i, p, p) for i, p in enumerate(paths)]
    for site in lm.sites:
        assert site.name == f"{site.block}.layer.{1 if site.stack == 'encoder' else 2}.DenseReluDense.wo"
        assert (site.width, site.inner, site.norm_after, site.parallel) == (WIDTH, INNER, False, False)
    assert lm.num_layers == 2 * BLOCKS
    assert lm.site("decoder.block.1") is lm.site(3)
    assert lm.projection("encoder.block.0") is lm.model.encoder.block[0].layer[1].DenseReluDense.wo
    assert lm.final_norm is lm.model.decoder.final_layer_norm
    with pytest.raises(SiteError, match=r"layer decoder.block.7 has no site.*a path such as decoder.block.1"):
        lm.site("decoder.block.7")


@pytest.mark.parametrize("family", ["mt5", "umt5"])
def test_relatives_of_t5_are_known(family: str, trained_backend: str) -> None:
    lm = LanguageModel(tiny_t5(family=family), ending(trained_backend))
    assert [site.stack for site in lm.sites] == ["encoder"] * BLOCKS + ["decoder"] * BLOCKS
    found = score_continuations(lm, PROMPTS, ANSWERS)
    for prompt, answer, logs in zip(PROMPTS, ANSWERS, found.logs, strict=True):
        expected = answer_logits(lm, prompt, tokens(lm, answer)).double().log_softmax(-1)
        assert torch.allclose(logs, expected[range(len(logs)), tokens(lm, answer)], atol=1e-4)


def test_stacks_of_different_depth(trained_backend: str) -> None:
    lm = t5_lm(trained_backend, num_decoder_layers=3)
    assert [site.block for site in lm.sites[BLOCKS:]] == [f"decoder.block.{number}" for number in range(3)]
    assert len(decode_tokens(lm, PROMPTS, 3)) == 3


def test_a_projection_cannot_be_named(trained_backend: str) -> None:
    with pytest.raises(SiteError, match=r"an encoder and a decoder; expected none"):
        LanguageModel(tiny_t5(), ending(trained_backend), projection="encoder.block.{}.layer.1.DenseReluDense.wo")


def test_each_token_of_an_answer_is_scored_where_the_decoder_was_given_those_before_it(lm: LanguageModel) -> None:
    found = score_continuations(lm, PROMPTS, ANSWERS)
    for prompt, answer, logs, top in zip(PROMPTS, ANSWERS, found.logs, found.likeliest, strict=True):
        ids = tokens(lm, answer)
        logits = answer_logits(lm, prompt, ids)
        assert torch.allclose(logs, logits.log_softmax(-1)[range(len(ids)), ids], atol=1e-9)
        assert top.tolist() == (logits.argmax(-1) == torch.tensor(ids)).tolist()


def test_what_copies_its_input_scores_badly(trained_backend: str) -> None:
    """A decoder that repeats what it was given last would be right at every token if scores were read unshifted."""
    lm = t5_lm(trained_backend)
    with torch.no_grad():
        for block in lm.model.decoder.block:
            for layer, out in ((0, "SelfAttention"), (1, "EncDecAttention")):
                getattr(block.layer[layer], out).o.weight.zero_()
            block.layer[2].DenseReluDense.wo.weight.zero_()
        lm.model.decoder.final_layer_norm.weight.fill_(1.0)
    ids = tokens(lm, ANSWERS[1])
    prompt = torch.tensor([lm.tokenizer(PROMPTS[0])["input_ids"]])
    unshifted = lm.model(input_ids=prompt, decoder_input_ids=torch.tensor([ids])).logits[0].argmax(-1)
    assert unshifted.tolist() == ids
    (top,) = score_continuations(lm, PROMPTS[:1], ANSWERS[1:2]).likeliest
    assert not top.any()


def test_scores_do_not_hang_on_the_batch(lm: LanguageModel) -> None:
    together, alone = score_continuations(lm, PROMPTS, ANSWERS), score_continuations(lm, PROMPTS, ANSWERS, batch_size=1)
    for one, other in zip(together.logs, alone.logs, strict=True):
        assert torch.allclose(one, other, atol=1e-9)


def test_decoding_is_that_of_transformers(lm: LanguageModel) -> None:
    written = decode_tokens(lm, PROMPTS, 7)
    for prompt, ids in zip(PROMPTS, written, strict=True):
        read = torch.tensor([lm.tokenizer(prompt)["input_ids"]])
        output = lm.model.generate(input_ids=read, max_new_tokens=7, do_sample=False, decoder_start_token_id=PAD)
        assert [token for token in output[0, 1:].tolist() if token != END] == ids
    assert written == [decode_tokens(lm, [prompt], 7)[0] for prompt in PROMPTS]
    said = generate(lm, PROMPTS, 7)
    assert [text.strip() for text in said] == decode(lm, PROMPTS, 7, stop=lambda prompt, text: False)
    several = generate(lm, PROMPTS[:1], 4, num_beams=2)
    assert len(several) == 1


def test_rows_leave_the_batch_when_they_are_done(lm: LanguageModel) -> None:
    whole = decode(lm, PROMPTS, 8, stop=lambda prompt, text: False)
    cut = decode(lm, PROMPTS, 8, stop=lambda prompt, text: prompt == PROMPTS[1])
    alone = decode(lm, PROMPTS[1:2], 1, stop=lambda prompt, text: False)
    assert cut == [whole[0], alone[0], whole[2]]


def test_samples_begin_with_their_prompts_and_depend_on_the_seed_alone(lm: LanguageModel) -> None:
    first = sample(lm, PROMPTS, 24, seed=1)
    assert all(text.startswith(prompt) for text, prompt in zip(first, PROMPTS, strict=True))
    assert first == sample(lm, PROMPTS, 24, seed=1, batch_size=1)
    assert first != sample(lm, PROMPTS, 24, seed=2)


def test_the_encoder_reads_the_end_token_and_an_answer_ends_where_it_is_learned(lm: LanguageModel) -> None:
    layout = lm.layout
    assert isinstance(layout, Seq2SeqLayout)
    (pair,) = layout.split(lm, PROMPTS[:1], ANSWERS[:1])
    assert pair.prompt == lm.tokenizer(PROMPTS[0])["input_ids"]
    assert pair.prompt[-1] == END
    assert pair.answer == tokens(lm, ANSWERS[0])
    assert layout.closing(lm) == [END]
    assert layout.size(pair) == max(len(pair.prompt), len(pair.answer))
    with pytest.raises(RequestError, match="found 0 target tokens"):
        score_continuations(lm, ["Ann"], [" "])


def test_the_loss_is_that_of_transformers_labels(lm: LanguageModel) -> None:
    module = EditableModule.from_model(lm.model, lm.tokenizer)
    ids, mask = pad([lm.tokenizer(prompt)["input_ids"] for prompt in PROMPTS], PAD, "right", lm.device)
    said, follows = pad([tokens(lm, answer, end=True) for answer in ANSWERS], PAD, "right", lm.device)
    labels = said.masked_fill(follows == 0, IGNORED)
    expected = lm.model(input_ids=ids, attention_mask=mask, labels=labels).loss
    for given in (labels, said):  # padding among labels is no answer
        found = module._loss({"input_ids": ids, "attention_mask": mask, "labels": given})
        assert torch.allclose(found, expected)


def test_text_without_labels_is_cut_in_the_middle(lm: LanguageModel) -> None:
    ids, mask = pad([[5, 6, 7, 8, 9], [10, 11], [12]], PAD, "left", lm.device)
    rows = lm.layout.training_inputs(lm, {"input_ids": ids, "attention_mask": mask})
    assert rows["input_ids"].tolist() == [[5, 6], [10, PAD], [12, PAD]]
    assert rows["attention_mask"].tolist() == [[1, 1], [1, 0], [1, 0]]
    assert rows["labels"].tolist() == [[7, 8], [11, IGNORED], [IGNORED, IGNORED]]
    assert rows["decoder_input_ids"].tolist() == [[PAD, 7], [PAD, 11], [PAD, PAD]]
    read = lm.layout.text_inputs(lm, {"input_ids": ids[:2], "attention_mask": mask[:2]})
    assert read["decoder_attention_mask"].tolist() == read["attention_mask"].tolist() == [[1, 1], [1, 0]]
    assert lm.model(**read).logits.shape[:2] == (2, 2)


def test_a_decoder_that_has_no_start_is_named(lm: LanguageModel) -> None:
    lm.model.config.decoder_start_token_id = lm.model.generation_config.decoder_start_token_id = None
    assert decode_tokens(lm, PROMPTS[:1], 2) != []  # as T5 does, it starts from the padding token
    lm.model.config.pad_token_id = None
    with pytest.raises(EditError, match="no decoder_start_token_id and no pad_token_id"):
        decode_tokens(lm, PROMPTS[:1], 2)


def test_who_needs_keys_of_subjects_refuses(lm: LanguageModel) -> None:
    for refused in (
        lambda: lm.read_keys(["Ann is"], [(0, 3)], [0]),
        lambda: lm.read_hidden(["Ann is"], [(0, 3)], [0]),
        lambda: collect_statistics(lm, ["Ann is"]),
    ):
        with pytest.raises(SiteError, match="is an encoder-decoder: its encoder looks both ways"):
            refused()
    with pytest.raises(EditError, match="says what follows a prompt; expected a decoder-only model"):
        score_texts(lm, ["Ann is"])


def test_the_class_is_chosen_by_the_configuration(tiny_model: Any, tmp_path: Any) -> None:
    tiny_t5().save_pretrained(tmp_path)
    assert auto_class(str(tmp_path)) is AutoModelForSeq2SeqLM
    assert auto_class(AutoConfig.for_model("gpt2")) is AutoModelForCausalLM
    assert isinstance(LanguageModel.layout, CausalLayout)


def test_the_model_is_left_as_it_was(lm: LanguageModel) -> None:
    lm.model.train()
    grads = [parameter.requires_grad for parameter in lm.model.parameters()]
    state, cache = torch.get_rng_state(), lm.model.config.use_cache
    decode(lm, PROMPTS, 3)
    score_continuations(lm, PROMPTS, ANSWERS)
    assert all(module.training for module in lm.model.modules())
    assert [parameter.requires_grad for parameter in lm.model.parameters()] == grads
    assert torch.equal(torch.get_rng_state(), state)
    assert lm.model.config.use_cache == cache
    assert not any(module._forward_hooks for module in lm.model.modules())


@pytest.mark.parametrize("saved", list(VERSIONS))
def test_a_folder_is_loaded_and_written(saved: str, trained_backend: str, tmp_path: Any) -> None:
    lm = t5_lm(trained_backend, saved)
    module = EditableModule.from_model(lm.model, lm.tokenizer)
    module.save_pretrained(tmp_path / "one")
    again = EditableModule.from_pretrained(tmp_path / "one")
    assert isinstance(again.language_model.layout, Seq2SeqLayout)
    assert again.generate(PROMPTS, 5) == module.generate(PROMPTS, 5)
    for name, value in lm.model.state_dict().items():
        assert torch.equal(again.model.state_dict()[name], value)
    plain = AutoModelForSeq2SeqLM.from_pretrained(tmp_path / "one")
    ids = torch.tensor([lm.tokenizer(PROMPTS[0])["input_ids"]])
    assert torch.equal(plain(input_ids=ids, labels=ids).logits, lm.model(input_ids=ids, labels=ids).logits)


def test_an_adapter_of_the_users_own_is_trained_and_merged(trained_backend: str, tmp_path: Any) -> None:
    lm = t5_lm(trained_backend)
    peft = {"r": 2, "target_modules": ["q", "v"]}
    module = EditableModule.from_model(lm.model, lm.tokenizer, peft=peft)
    assert module.model.peft_config["default"].task_type == "SEQ_2_SEQ_LM"
    assert [site.stack for site in module.language_model.sites] == ["encoder"] * BLOCKS + ["decoder"] * BLOCKS
    ids = torch.tensor([tokens(lm, PROMPTS[1])])
    module._loss({"input_ids": ids, "attention_mask": torch.ones_like(ids)}).backward()
    assert all(p.grad is not None for p in module.model.parameters() if p.requires_grad)
    module.save_pretrained(tmp_path)
    assert EditableModule.from_pretrained(tmp_path).generate(PROMPTS, 4) == module.generate(PROMPTS, 4)
