"""A model on this machine that is asked for help, with and without a chat template."""

import copy
import json

import pytest
import torch
from torch import nn
from transformers import BartConfig, BartForConditionalGeneration

from lightning_edit.errors import EditError, SiteError
from lightning_edit.judges import Case, LLMJudge
from lightning_edit.llm.local import LocalModel
from lightning_edit.model.language_model import LanguageModel
from tests.scripted import ScriptedLM
from tests.seq2seq import ending, tiny_t5

TEMPLATE = (
    "{{ eos_token }}{% for m in messages %}<{{ m.role }}>{{ m.content }}{% endfor %}"
    "{% if enable_thinking %}[think]{% endif %}{% if add_generation_prompt %}<assistant>{% endif %}"
)


PROMPTS = ["The capital of the country is", "She works", "What is the language of the people there? It is"]


def generated(model, tokenizer, length, **settings):
    """What transformers' own greedy search writes behind each prompt, one after another."""
    texts = []
    for prompt in PROMPTS:
        ids = torch.tensor([tokenizer(prompt)["input_ids"]])
        (row,) = model.generate(ids, max_new_tokens=length, do_sample=False, pad_token_id=1, **settings)
        new = row[1:] if model.config.is_encoder_decoder else row[ids.shape[1] :]
        texts.append(tokenizer.decode(new, skip_special_tokens=True, clean_up_tokenization_spaces=False).strip())
    return texts


class Codes(nn.Module):
    """A linear map of eight-bit codes with a scale for each row, kept in buffers as some quantisers keep them."""

    def __init__(self, linear):
        super().__init__()
        weight = linear.weight.detach()
        scale = weight.abs().amax(1, keepdim=True) / 127
        self.register_buffer("qweight", (weight / scale).round().to(torch.int8))
        self.register_buffer("scale", scale)

    def forward(self, x):
        return nn.functional.linear(x, self.qweight * self.scale)


def quantised(model):
    for block in model.model.layers:
        for name, linear in list(block.mlp.named_children()):
            if isinstance(linear, nn.Linear):
                setattr(block.mlp, name, Codes(linear))
    return model


def replies(model, prompts):
    found = dict(model.ask(prompts))
    assert sorted(found) == list(range(len(prompts)))
    return [found[index] for index in range(len(prompts))]


def scripted(tokenizer, script, **options):
    lm = ScriptedLM(tokenizer, script, **options)
    lm.model.config._name_or_path = "some/where/judge-7b"
    return lm


def test_a_base_model_replies_with_a_line(tokenizer):
    lm = scripted(tokenizer, {"Is it? Verdict:": " A\nIs it not? Verdict: B", "And this? Verdict:": " B\n"})
    model = LocalModel(lm, max_new_tokens=20, batch_size=1)
    assert [reply.text for reply in replies(model, ["Is it? Verdict:", "And this? Verdict:"])] == ["A", "B"]
    assert model.name == "judge-7b"


def test_a_chat_model_is_asked_by_its_template_and_replies_to_the_end(tokenizer):
    tokenizer.chat_template = TEMPLATE
    asked = "<|endoftext|><system>Be short.<user>Which?<assistant>"
    lm = scripted(tokenizer, {asked: "First line\nSecond line"})
    (reply,) = replies(LocalModel(lm, max_new_tokens=60, system="Be short."), ["Which?"])
    assert reply.text == "First line\nSecond line"
    assert lm.model.fed == [asked]


def test_a_reasoning_model_may_think(tokenizer):
    tokenizer.chat_template = TEMPLATE
    lm = scripted(tokenizer, {"<|endoftext|><user>Which?[think]<assistant>": "Hm.</think>A"})
    assert replies(LocalModel(lm, thinking=True), ["Which?"])[0].text == "Hm.</think>A"


def test_a_prompt_longer_than_the_context_costs_only_itself(tokenizer):
    lm = scripted(tokenizer, {"short": " yes\n"}, context=24)
    first, second = replies(LocalModel(lm, max_new_tokens=8), ["x y z " * 20, "short"])
    assert first.text is None
    assert "expected at most 23 (the context)" in first.fault
    assert second.text == "yes"


def test_without_a_template_there_is_no_system_and_no_thinking(tokenizer):
    for option in ({"system": "Be short."}, {"thinking": True}):
        with pytest.raises(EditError, match="without a chat template"):
            LocalModel(scripted(tokenizer, {}), **option)


def test_a_tiny_model_replies_and_is_left_as_it_was(tiny_lm):
    tiny_lm.model.train()
    before = copy.deepcopy(tiny_lm.model.state_dict())
    state = torch.random.get_rng_state()
    found = replies(LocalModel(tiny_lm, max_new_tokens=4, batch_size=2), ["The city is", "She was", "The"])
    assert all(isinstance(reply.text, str) for reply in found)
    assert tiny_lm.model.training
    assert torch.equal(torch.random.get_rng_state(), state)
    assert all(torch.equal(value, before[name]) for name, value in tiny_lm.model.state_dict().items())


def test_the_identity_knows_the_weights_and_the_settings(tiny_lm, tiny_model, tokenizer):
    model = LocalModel(tiny_lm)
    first = model.identity
    assert model.identity == first
    assert json.loads(first)[0] == "LlamaForCausalLM"
    assert LocalModel(tiny_lm, max_new_tokens=9).identity != first
    assert LocalModel(tiny_lm, until="end").identity != first
    assert LocalModel(tiny_lm, batch_size=3).identity == first
    with torch.no_grad():
        tiny_lm.projection(1).weight.add_(1e-3)
    assert model.identity != first


def replying_from(folder, model, tokenizer):
    """A model that is saved and loaded again, and then replies as it would have."""
    model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    local = LocalModel.from_pretrained(str(folder), max_new_tokens=8, batch_size=2, until="end")
    said = [reply.text for reply in replies(local, PROMPTS)]
    assert said == generated(model, tokenizer, 8)
    assert len(set(said)) > 1
    return local


def test_a_mixture_of_experts_replies_though_it_has_no_sites(tiny_model, tokenizer, tmp_path):
    model = tiny_model("mixtral")
    with pytest.raises(SiteError, match="mixture of experts"):
        LanguageModel(model, tokenizer)
    local = replying_from(tmp_path, model, tokenizer)
    assert local.identity == LocalModel.from_pretrained(str(tmp_path), max_new_tokens=8, until="end").identity
    with pytest.raises(SiteError, match=r"no sites in MixtralForCausalLM.*editable=False"):
        local.lm.projection(0)


def test_a_quantised_model_replies_and_is_known_by_its_codes(tiny_model, tokenizer):
    model = quantised(tiny_model("llama"))
    with pytest.raises(SiteError, match="quantised"):
        LanguageModel(model, tokenizer)
    local = LocalModel(LanguageModel(model, tokenizer, editable=False), max_new_tokens=8, until="end")
    assert [reply.text for reply in replies(local, PROMPTS)] == generated(model, tokenizer, 8)
    before = local.identity
    model.model.layers[1].mlp.down_proj.qweight.add_(1)
    assert local.identity != before


def test_an_encoder_decoder_replies(trained_backend, tmp_path):
    replying_from(tmp_path, tiny_t5(), ending(trained_backend))


def test_an_encoder_decoder_of_another_kind_is_refused_by_name(tokenizer):
    sizes = {"d_model": 16, "encoder_layers": 1, "decoder_layers": 1, "encoder_ffn_dim": 32, "decoder_ffn_dim": 32}
    heads = {"encoder_attention_heads": 2, "decoder_attention_heads": 2}
    model = BartForConditionalGeneration(BartConfig(**sizes, **heads, vocab_size=len(tokenizer)))
    with pytest.raises(SiteError, match=r"not known here \(bart\)"):
        LanguageModel(model, tokenizer, editable=False)


def test_thoughts_whose_end_would_be_dropped_are_refused(tokenizer):
    tokenizer.chat_template = TEMPLATE
    tokenizer.add_special_tokens({"additional_special_tokens": ["</think>"]})
    with pytest.raises(EditError, match="special=False"):
        LocalModel(scripted(tokenizer, {}), thinking=True)
    assert LocalModel(scripted(tokenizer, {})).chat is not None


def test_as_a_judge(tokenizer):
    tokenizer.chat_template = TEMPLATE
    lm = scripted(tokenizer, {}, context=4096)
    judge = LLMJudge(LocalModel(lm, max_new_tokens=8), unjudged="wrong")
    cases = [Case("Where?", "Roma", ("Rome",)), Case("Where?", "Oslo", ("Rome",))]
    judge.judge(cases)
    first, second = lm.model.fed[0], lm.model.fed[1]
    lm.model.learn({first: "A" if "Roma" in first else "B", second: "A" if "Roma" in second else "B"})
    assert judge.judge(cases) == [True, False]
    assert judge.unjudged_count == 2  # before it had learned what to say
