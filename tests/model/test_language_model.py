"""Tokens are found by offsets, and what is read does not depend on how it is batched."""

import copy

import pytest
import torch
from peft import LoraConfig, get_peft_model
from tokenizers import processors
from transformers import AutoModelForCausalLM, AutoTokenizer

from lightning_edit.errors import EditError, RequestError, SiteError
from lightning_edit.model.language_model import LanguageModel, as_language_model

TEXTS = [
    "The mother tongue of Danielle Darrieux is",
    "Ada was born in",
    "What is the capital of the country where the river Łódź flows?",
    "Ada works for the company that was founded by 東京 in",
    "A",
]
SUBJECTS = ["Danielle Darrieux", "Ada", "Łódź", "東京", "A"]
SPANS = [
    (text.index(subject), text.index(subject) + len(subject)) for text, subject in zip(TEXTS, SUBJECTS, strict=True)
]


def with_bos(tokenizer):
    """The same tokenizer, now putting a token in front of every text and one behind it."""
    marked = copy.deepcopy(tokenizer)
    marked.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single="<|endoftext|> $A <|endoftext|>", special_tokens=[("<|endoftext|>", 0)]
    )
    return marked


@pytest.fixture
def family_lm(family_model, tokenizer):
    return LanguageModel(family_model, tokenizer)


def one_by_one(lm, kind, layers, texts=TEXTS, spans=SPANS):
    """Each text alone and whole, every module's full input or output, the token found by decoding."""
    rows = {layer: [] for layer in layers}
    for text, (_, end) in zip(texts, spans, strict=True):
        ids = lm.tokenizer(text)["input_ids"]
        ids = ids[:-1] if ids[-1] == 0 else ids
        shortest = next(i for i in range(1, len(ids) + 1) if covers(lm, ids[:i], text[:end]))
        seen = {}
        handles = [spy(lm, kind, layer, seen) for layer in layers]
        with torch.no_grad():
            lm.model(input_ids=torch.tensor([ids]))
        for handle in handles:
            handle.remove()
        for layer in layers:
            value = seen[layer][0] if isinstance(seen[layer], tuple) else seen[layer]
            rows[layer].append(value.reshape(len(ids), -1)[shortest - 1])
    return {layer: torch.stack(values) for layer, values in rows.items()}


def spy(lm, kind, layer, seen):
    if kind == "keys":
        return lm.projection(layer).register_forward_pre_hook(lambda module, args: seen.update({layer: args[0]}))
    return lm.block(layer).register_forward_hook(lambda module, args, output: seen.update({layer: output}))


def covers(lm, ids, beginning):
    decoded = lm.tokenizer.decode(ids, skip_special_tokens=True, clean_up_tokenization_spaces=False)
    return decoded.startswith(beginning)


def test_keys_and_hidden_states_in_every_family(family_lm):
    layers = [0, 2]
    for kind, read in [("keys", family_lm.read_keys), ("hidden", family_lm.read_hidden)]:
        expected = one_by_one(family_lm, kind, layers)
        for batch_size in (1, 2, 5):
            got = read(TEXTS, SPANS, layers, batch_size=batch_size)
            assert list(got) == layers
            for layer in layers:
                assert got[layer].dtype == torch.float32
                assert torch.allclose(got[layer], expected[layer], atol=1e-5), (kind, layer, batch_size)


def test_reading_is_the_same_with_a_bos(tiny_model, tokenizer):
    lm = LanguageModel(tiny_model("gpt2"), with_bos(tokenizer))
    assert lm.subject_positions(["Ada is"], [(0, 3)])[0] == 1 + lm.tokenizer("Ada")["input_ids"][1:-1].__len__() - 1
    expected = one_by_one(lm, "keys", [1])
    assert torch.allclose(lm.read_keys(TEXTS, SPANS, [1])[1], expected[1], atol=1e-5)
    without = LanguageModel(lm.model, tokenizer).read_keys(TEXTS, SPANS, [1])[1]
    assert not torch.allclose(without, expected[1], atol=1e-3)


def test_the_subject_ends_at_its_last_token(tiny_lm, tokenizer):
    for lm in (tiny_lm, LanguageModel(tiny_lm.model, with_bos(tokenizer))):
        positions = lm.subject_positions(TEXTS, SPANS)
        for text, (_, end), position in zip(TEXTS, SPANS, positions, strict=True):
            ids = lm.encode([text]).input_ids[0].tolist()
            assert covers(lm, ids[: position + 1], text[:end])
            assert not covers(lm, ids[:position], text[:end])


def test_a_token_that_reaches_beyond_the_subject_counts(tiny_lm):
    text = "the country"
    ids = tiny_lm.tokenizer(text, return_offsets_mapping=True)
    start, end = ids["offset_mapping"][-1]
    assert end - start > 1, "the tokenizer should have merged something here"
    assert tiny_lm.subject_positions([text], [(0, start + 1)]) == [len(ids["input_ids"]) - 1]


@pytest.mark.parametrize("span", [(3, 3), (-1, 2), (0, 99), (5, 2)])
def test_a_span_outside_the_text_is_named(tiny_lm, span):
    with pytest.raises(RequestError, match="does not lie in the text"):
        tiny_lm.subject_positions(["Ada is"], [span])


def test_a_subject_that_the_tokenizer_drops_is_named(tiny_model, tokenizer):
    from tokenizers import normalizers

    tokenizer.backend_tokenizer.normalizer = normalizers.Replace("#", "")
    lm = LanguageModel(tiny_model("llama"), tokenizer)
    with pytest.raises(RequestError, match="no token covers the subject '#'"):
        lm.subject_positions(["a # b"], [(2, 3)])
    assert lm.subject_positions(["ab# c"], [(0, 3)]) == lm.subject_positions(["ab c"], [(0, 2)])


def test_the_forward_stops_behind_the_deepest_layer(tiny_lm):
    ran = []
    for layer in range(3):
        tiny_lm.block(layer).register_forward_hook(lambda module, args, output, layer=layer: ran.append(layer))
    tiny_lm.read_keys(TEXTS[:1], SPANS[:1], [1])
    assert ran == [0]
    tiny_lm.read_hidden(TEXTS[:1], SPANS[:1], [1])
    assert ran == [0, 0, 1]


def test_tokens_behind_the_subject_are_never_run(tiny_lm):
    widths = []
    tiny_lm.block(0).register_forward_pre_hook(lambda module, args: widths.append(args[0].shape[1]))
    tiny_lm.read_keys(["Ada" + " and so on" * 10], [(0, 3)], [0])
    assert widths == [len(tiny_lm.tokenizer("Ada")["input_ids"])]


def test_equal_beginnings_share_one_key(tiny_lm):
    rows = []
    tiny_lm.block(0).register_forward_pre_hook(lambda module, args: rows.append(args[0].shape[0]))
    keys = tiny_lm.read_keys(["Ada is", "Bob is", "Ada was born in"], [(0, 3)] * 3, [1])[1]
    assert sum(rows) == 2
    assert torch.equal(keys[0], keys[2])
    assert not torch.equal(keys[0], keys[1])


def test_nothing_is_read_from_nothing(tiny_lm):
    assert tiny_lm.read_keys([], [], [1])[1].shape == (0, 64)
    assert tiny_lm.read_hidden([], [], [1])[1].shape == (0, 32)
    assert tiny_lm.read_keys(TEXTS, SPANS, []) == {}


def test_a_subject_behind_the_context_is_named(tiny_lm):
    text = "x" * 500 + " Ada"
    with pytest.raises(RequestError, match="the model takes 128"):
        tiny_lm.read_keys([text], [(501, 504)], [0])


def test_float64_models_are_read_in_float64(tiny_model, tokenizer):
    lm = LanguageModel(tiny_model("llama", dtype=torch.float64), tokenizer)
    assert lm.read_keys(TEXTS, SPANS, [0])[0].dtype == torch.float64
    assert lm.dtype == torch.float64
    low = LanguageModel(tiny_model("llama", dtype=torch.bfloat16), tokenizer)
    assert low.read_hidden(TEXTS, SPANS, [0])[0].dtype == torch.float32


@pytest.mark.parametrize("side", ["left", "right"])
def test_encode_pads_and_leaves_the_tokenizer_alone(tiny_lm, side):
    tiny_lm.tokenizer.padding_side = "left"
    tiny_lm.tokenizer.backend_tokenizer.enable_padding(length=7, pad_id=3)
    tiny_lm.tokenizer.backend_tokenizer.enable_truncation(2)
    before = tiny_lm.tokenizer.backend_tokenizer.to_str()
    encoded = tiny_lm.encode(TEXTS, padding_side=side)
    assert tiny_lm.tokenizer.backend_tokenizer.to_str() == before
    assert tiny_lm.tokenizer.padding_side == "left"
    for index, text in enumerate(TEXTS):
        ids = encoded.input_ids[index][encoded.attention_mask[index].bool()].tolist()
        assert tiny_lm.tokenizer.decode(ids, clean_up_tokenization_spaces=False) == text
        assert len(ids) == len(encoded.offsets[index])
        mask = encoded.attention_mask[index].tolist()
        assert mask == sorted(mask, reverse=side == "right")
        positions = encoded.position_ids[index][encoded.attention_mask[index].bool()].tolist()
        assert positions == list(range(len(ids)))
    assert (encoded.input_ids[encoded.attention_mask == 0] == 1).all()
    assert tiny_lm.encode(TEXTS, max_length=3).input_ids.shape == (5, 3)


def test_an_end_that_the_tokenizer_appends_is_left_out(tiny_model, tokenizer):
    lm = LanguageModel(tiny_model("llama"), with_bos(tokenizer))
    ids = lm.encode(["Ada"]).input_ids[0].tolist()
    assert ids == [0, *tokenizer("Ada")["input_ids"]]
    assert lm.encode([""]).input_ids.tolist() == [[0]]
    assert lm.encode(["Ada<|endoftext|>"]).input_ids[0].tolist() == [*ids, 0]


def test_a_tokenizer_without_padding_token(tiny_model, tokenizer):
    tokenizer.pad_token = None
    lm = LanguageModel(tiny_model("gpt2"), tokenizer)
    encoded = lm.encode(["Ada", "Ada is the one"])
    assert encoded.input_ids[0][encoded.attention_mask[0] == 0].unique().tolist() == [0]
    assert torch.allclose(lm.read_keys(TEXTS, SPANS, [0])[0], one_by_one(lm, "keys", [0])[0], atol=1e-5)
    assert tokenizer.pad_token is None


def test_a_text_without_tokens_is_named(tiny_lm):
    with pytest.raises(RequestError, match="text 1 of 2, '', has no tokens"):
        tiny_lm.encode(["Ada", ""])


def test_a_slow_tokenizer_is_refused(tiny_model):
    from transformers import ByT5Tokenizer

    lm = LanguageModel(tiny_model("llama"), ByT5Tokenizer())
    with pytest.raises(EditError, match="fast tokenizer"):
        lm.encode(["Ada"])


def test_the_parts_of_every_family(family_lm):
    lm = family_lm
    assert lm.num_layers == 3
    assert lm.max_length == 128
    assert lm.device == torch.device("cpu")
    ids = lm.encode(["The capital of"])
    seen = {}
    lm.final_norm.register_forward_hook(lambda module, args, output: seen.update(norm=output))
    with torch.no_grad():
        logits = lm.model(input_ids=ids.input_ids).logits
        assert torch.allclose(lm.head(seen["norm"]), logits, atol=1e-5)
    with pytest.raises(SiteError, match=r"layer 3 has no site; expected one of \[0, 1, 2\]"):
        lm.site(3)


def test_identity_tells_models_apart_but_not_their_edited_selves(tiny_model, tokenizer, tmp_path):
    lm = LanguageModel(tiny_model("llama"), tokenizer)
    edited = tiny_model("llama")
    edited.model.layers[0].mlp.down_proj.weight.data.zero_()
    edited.config.use_cache = False
    assert LanguageModel(edited.to(torch.bfloat16), tokenizer).identity == lm.identity
    wrapped = get_peft_model(tiny_model("llama"), LoraConfig(task_type="CAUSAL_LM", target_modules=["down_proj"]))
    assert LanguageModel(wrapped, tokenizer).identity == lm.identity
    others = [tiny_model("mistral"), tiny_model("llama", intermediate_size=48), tiny_model("llama", rms_norm_eps=1e-5)]
    for folder in ("one", "two"):
        lm.model.save_pretrained(tmp_path / folder)
        others.append(AutoModelForCausalLM.from_pretrained(tmp_path / folder))
    assert LanguageModel(lm.model, tokenizer).identity == lm.identity
    identities = [lm.identity, *(LanguageModel(other, tokenizer).identity for other in others)]
    assert len(set(identities)) == len(identities)
    again = AutoModelForCausalLM.from_pretrained(tmp_path / "two", dtype=torch.bfloat16)
    assert LanguageModel(again, tokenizer).identity == identities[-1]


def test_as_language_model(tiny_lm):
    class Module:
        language_model = tiny_lm

    assert as_language_model(tiny_lm) is tiny_lm
    assert as_language_model(Module()) is tiny_lm
    with pytest.raises(SiteError, match=r"LanguageModel\(model, tokenizer\)"):
        as_language_model(tiny_lm.model)


@pytest.mark.parametrize("name", ["tiny1m", "stories260K"])
def test_real_models(shared_data, name):
    folder = shared_data / "lm" / name
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32)
    lm = LanguageModel(model, AutoTokenizer.from_pretrained(folder))
    layers = [0, lm.num_layers - 1]
    expected = one_by_one(lm, "keys", layers, TEXTS[:2], SPANS[:2])
    got = lm.read_keys(TEXTS[:2], SPANS[:2], layers)
    for layer in layers:
        scale = expected[layer].norm()
        assert (got[layer] - expected[layer]).norm() < 1e-5 * scale
