"""One pass for all layers counts every real token once, in a fixed order, and can be interrupted."""

import itertools

import pytest
import torch

from lightning_edit.algebra.statistics_file import load_statistics, save_statistics
from lightning_edit.errors import StatisticsError
from lightning_edit.model import statistics
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.model.statistics import collect_statistics, expected_identity

WORDS = ["The capital", "Ada", "of the country", "was born in Łódź", "\n", "and so on, for a long while"]
CORPUS = [" ".join(WORDS[: 1 + i % 6]) + f" {i}" for i in range(45)] + ["", "   "]


def by_hand(lm, layers, texts, max_length=512):
    """Every text alone; sums in float64, one token at a time."""
    sums = {layer: [0, 0.0, 0.0] for layer in layers}
    for text in texts:
        if not text.strip():
            continue
        ids = lm.tokenizer(text)["input_ids"][:max_length]
        for layer in layers:
            seen = []
            handle = lm.projection(layer).register_forward_pre_hook(
                lambda module, args, seen=seen: seen.append(args[0])
            )
            with torch.no_grad():
                lm.model(input_ids=torch.tensor([ids]))
            handle.remove()
            for key in seen[0].reshape(len(ids), -1).double():
                sums[layer][0] += 1
                sums[layer][1] = sums[layer][1] + key
                sums[layer][2] = sums[layer][2] + torch.outer(key, key)
    return {layer: (count, total / count, second / count) for layer, (count, total, second) in sums.items()}


def assert_equals(moments, expected):
    for layer, (count, mean, second) in expected.items():
        assert moments[layer].count == count
        assert torch.allclose(moments[layer].mean, mean, atol=1e-5)
        assert torch.allclose(moments[layer].moment, second, atol=1e-5)


def equal_bits(one, other):
    return all(
        one[layer].count == other[layer].count
        and torch.equal(one[layer].moment, other[layer].moment)
        and torch.equal(one[layer].mean, other[layer].mean)
        for layer in one
    )


def test_every_family_counts_every_token_once(family_model, tokenizer):
    lm = LanguageModel(family_model, tokenizer)
    moments = collect_statistics(lm, CORPUS[:12], layers=[2, 0], batch_size=4)
    assert list(moments) == [0, 2]
    assert_equals(moments, by_hand(lm, [0, 2], CORPUS[:12]))


def test_all_layers_in_one_forward_a_batch(tiny_lm):
    ran = []
    for layer in range(3):
        tiny_lm.block(layer).register_forward_hook(lambda module, args, output, layer=layer: ran.append(layer))
    moments = collect_statistics(tiny_lm, CORPUS, layers=[0, 1], batch_size=len(CORPUS))
    assert ran == [0]  # the second block ends at its projection
    assert set(moments) == {0, 1}
    assert set(collect_statistics(tiny_lm, CORPUS)) == {0, 1, 2}


def test_batching_changes_nothing_but_rounding(tiny_lm):
    one = collect_statistics(tiny_lm, CORPUS, batch_size=1)
    for batch_size in (3, 16):
        other = collect_statistics(tiny_lm, CORPUS, batch_size=batch_size)
        for layer in one:
            assert one[layer].count == other[layer].count
            assert torch.allclose(one[layer].moment, other[layer].moment, atol=1e-6)


def test_equal_calls_give_equal_bits(tiny_lm):
    assert equal_bits(collect_statistics(tiny_lm, CORPUS), collect_statistics(tiny_lm, iter(CORPUS)))


def test_texts_are_cut_and_counted(tiny_lm):
    assert_equals(collect_statistics(tiny_lm, CORPUS, max_length=5), by_hand(tiny_lm, [0, 1, 2], CORPUS, 5))
    assert collect_statistics(tiny_lm, ["x" * 1000], max_length=4096).tokens == tiny_lm.max_length
    for budget in (1, 17, 100):
        assert collect_statistics(tiny_lm, CORPUS, max_tokens=budget, batch_size=2).tokens == budget


def test_a_budget_ends_an_endless_corpus(tiny_lm):
    assert collect_statistics(tiny_lm, itertools.cycle(CORPUS), max_tokens=2_000).tokens == 2_000


def test_the_model_is_left_alone(tiny_lm):
    tiny_lm.model.train()
    state = torch.get_rng_state()
    with torch.inference_mode():
        moments = collect_statistics(tiny_lm, CORPUS[:4])
    assert all(module.training for module in tiny_lm.model.modules())
    assert torch.equal(state, torch.get_rng_state())
    assert not moments[0].moment.is_inference()


def test_a_corpus_without_tokens_is_named(tiny_lm):
    with pytest.raises(StatisticsError, match="no tokens"):
        collect_statistics(tiny_lm, ["", "  \n"])


def interrupted(texts, after):
    yield from texts[:after]
    raise KeyboardInterrupt


@pytest.mark.parametrize("after", [10, 30, 44])
def test_an_interrupted_pass_goes_on_bit_by_bit(tiny_lm, tmp_path, monkeypatch, after):
    monkeypatch.setattr(statistics, "CHUNK", 2)
    monkeypatch.setattr(statistics, "SAVE_SECONDS", 0.0)
    partial = tmp_path / "new folder" / "partial.pt"
    budget = collect_statistics(tiny_lm, CORPUS).tokens - 3
    options = {"batch_size": 4, "max_tokens": budget, "resume": partial}
    whole = collect_statistics(tiny_lm, CORPUS, batch_size=4, max_tokens=budget)
    with pytest.raises(KeyboardInterrupt):
        collect_statistics(tiny_lm, interrupted(CORPUS, after), **options)
    assert partial.exists()
    seen = []
    tiny_lm.block(0).register_forward_pre_hook(lambda module, args: seen.append(args[0].shape[0]))
    again = collect_statistics(tiny_lm, CORPUS, **options)
    assert sum(seen) < 48 - after // 8 * 8 + 1
    assert equal_bits(again, whole)
    assert again.identity == whole.identity
    assert list(partial.parent.iterdir()) == []


def test_a_partial_file_of_something_else_is_refused(tiny_lm, tiny_model, tokenizer, tmp_path, monkeypatch):
    monkeypatch.setattr(statistics, "CHUNK", 1)
    monkeypatch.setattr(statistics, "SAVE_SECONDS", 0.0)
    partial = tmp_path / "partial.pt"
    with pytest.raises(KeyboardInterrupt):
        collect_statistics(tiny_lm, interrupted(CORPUS, 20), batch_size=4, resume=partial)
    with pytest.raises(StatisticsError, match="same corpus"):
        collect_statistics(tiny_lm, CORPUS[1:], batch_size=4, resume=partial)
    with pytest.raises(StatisticsError, match="batch_size"):
        collect_statistics(tiny_lm, CORPUS, batch_size=5, resume=partial)
    other = LanguageModel(tiny_model("mistral"), tokenizer)
    with pytest.raises(StatisticsError, match="model"):
        collect_statistics(other, CORPUS, batch_size=4, resume=partial)
    assert partial.exists()


def test_progress_is_shown_on_request(tiny_lm, capsys):
    collect_statistics(tiny_lm, CORPUS, max_tokens=50, progress=True)
    assert "50/50" in capsys.readouterr().err
    collect_statistics(tiny_lm, CORPUS, max_tokens=50)
    assert capsys.readouterr().err == ""


def test_the_file_knows_whose_statistics_it_holds(tiny_lm, tiny_model, tokenizer, tmp_path):
    moments = collect_statistics(tiny_lm, CORPUS, layers=[1])
    save_statistics(tmp_path / "keys.safetensors", moments, moments.identity)
    loaded = load_statistics(tmp_path / "keys.safetensors", expected_identity(tiny_lm, [1]))
    assert equal_bits(moments, loaded)
    other = LanguageModel(tiny_model("mistral"), tokenizer)
    with pytest.raises(StatisticsError, match="something else"):
        load_statistics(tmp_path / "keys.safetensors", expected_identity(other, [1]))
    assert collect_statistics(tiny_lm, CORPUS[:9]).identity.corpus != moments.identity.corpus
    assert moments.identity.dtype == "float32"
