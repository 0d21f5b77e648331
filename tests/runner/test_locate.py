"""Causal tracing: against a plain loop, at the points where the answer is known, and as a recipe."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from lightning_edit.cli import main
from lightning_edit.errors import RequestError
from lightning_edit.jobs.locate import known_facts, recovery
from lightning_edit.jobs.tracing import KINDS, Fact, Trace, module_name, read_fact, subject_scale, trace
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.module import EditableModule
from lightning_edit.requests import EditRequest

FACT = Fact((5, 9, 11, 13, 7), subject=(1, 3), answer=20)


@pytest.fixture
def lm(family_model: PreTrainedModel, tokenizer: PreTrainedTokenizerFast) -> LanguageModel:
    return LanguageModel(family_model.double(), tokenizer)


def probability(lm: LanguageModel, noise: Tensor, hook_on: str | None = None, hook: Callable | None = None) -> float:
    """Probability of the answer, with hooks put in place by hand."""
    embedding = lm.model.get_input_embeddings()
    handles = [embedding.register_forward_hook(lambda module, args, out: out + noise)]
    if hook_on is not None:
        handles.append(lm.model.get_submodule(hook_on).register_forward_hook(hook))
    with torch.no_grad():
        logits = lm.model(input_ids=torch.tensor([FACT.tokens]), use_cache=False).logits[0]
    for handle in handles:
        handle.remove()
    return float(logits[-1].softmax(-1)[FACT.answer])


def states(lm: LanguageModel, name: str) -> Tensor:
    """Output of a module in the clean run (t, d)."""
    found = {}

    def keep(module: torch.nn.Module, args: tuple, out: Tensor | tuple) -> None:
        found["value"] = (out[0] if isinstance(out, tuple) else out).reshape(len(FACT.tokens), -1).clone()

    probability(lm, torch.zeros(()), name, keep)
    return found["value"]


@pytest.mark.parametrize("kind", KINDS)
def test_tracing_equals_a_plain_loop_in_every_family(lm: LanguageModel, kind: str) -> None:
    scale, samples, seed, width = 0.5, 2, 3, lm.model.get_input_embeddings().weight.shape[1]
    found = trace(lm, FACT, scale, samples, batch_size=3, seed=seed)
    draw = torch.randn(samples, 2, width, generator=torch.Generator().manual_seed(seed)).double()
    noises = torch.zeros(samples, len(FACT.tokens), width, dtype=torch.float64)
    noises[:, 1:3] = scale * draw
    assert found.clean == pytest.approx(probability(lm, torch.zeros(())), abs=1e-6)
    assert found.corrupted == pytest.approx(sum(probability(lm, noise) for noise in noises) / samples, abs=1e-6)
    for layer, position in [(0, 2), (lm.num_layers - 1, 4), (1, 1)]:
        name = module_name(lm, kind, layer)
        clean = states(lm, name)

        def put_back(module: torch.nn.Module, args: tuple, out: Tensor | tuple) -> Tensor | tuple:
            value = (out[0] if isinstance(out, tuple) else out).clone()
            value.view(len(FACT.tokens), -1)[position] = clean[position]  # noqa: B023
            return (value, *out[1:]) if isinstance(out, tuple) else value

        wanted = sum(probability(lm, noise, name, put_back) for noise in noises) / samples
        assert float(found.restored[kind][position - 1, layer]) == pytest.approx(wanted, abs=1e-6)


def test_the_last_state_decides_and_no_noise_loses_nothing(tiny_lm: LanguageModel) -> None:
    found = trace(tiny_lm, FACT, scale=1.0)
    assert abs(found.clean - found.corrupted) > 1e-5
    assert float(found.restored["hidden"][-1, -1]) == pytest.approx(found.clean, rel=1e-4)
    quiet = trace(tiny_lm, FACT, scale=0.0)
    for values in quiet.restored.values():
        assert torch.allclose(values, torch.full_like(values, quiet.clean), rtol=1e-4)


def test_a_window_puts_back_several_layers_but_one_hidden_state(tiny_lm: LanguageModel) -> None:
    narrow, wide = trace(tiny_lm, FACT, 1.0), trace(tiny_lm, FACT, 1.0, window=3)
    assert torch.equal(narrow.restored["hidden"], wide.restored["hidden"])
    assert not torch.allclose(narrow.restored["ffn"], wide.restored["ffn"], rtol=1e-3)


def test_tokens_are_sorted_into_places() -> None:
    fact = Fact((0,) * 9, subject=(2, 6), answer=9)
    places = [fact.place(position) for position in fact.positions]
    assert places == ["first_subject", *["middle_subject"] * 2, "last_subject", *["further"] * 2, "last"]
    assert Fact((0,) * 3, subject=(1, 2), answer=3).place(1) == "last_subject"


def test_a_request_becomes_tokens(tiny_lm: LanguageModel) -> None:
    request = EditRequest("a", "The capital of the country is", "large", "the country")
    fact = read_fact(tiny_lm, request, "large")
    decode = tiny_lm.tokenizer.decode
    assert decode(list(fact.tokens[slice(*fact.subject)])).strip() == "the country"
    assert decode(list(fact.tokens)) == "The capital of the country is"
    assert "large".startswith(decode([fact.answer]).strip())
    with pytest.raises(RequestError, match="has no subject"):
        read_fact(tiny_lm, EditRequest("b", "The capital is", "large"), "large")


def test_recovery_is_the_share_of_what_was_lost() -> None:
    fact = Fact((0, 1, 2), subject=(0, 1), answer=3)
    restored = {"ffn": torch.tensor([[0.5, 0.1], [0.1, 0.1], [0.1, 0.9]])}
    shares = recovery("ffn", [fact, fact], [Trace(0.9, 0.1, restored), Trace(0.5, 0.1, restored)])
    assert list(shares) == ["last_subject", "further", "last"]
    assert shares["last_subject"].tolist() == pytest.approx([2 * 0.4 / 1.2, 0.0])
    assert float(shares["last"][1]) == pytest.approx(2 * 0.8 / 1.2)


def test_only_known_facts_are_traced(model_folder: Path, known_requests: list[EditRequest]) -> None:
    lm = EditableModule(str(model_folder)).language_model
    unknown = EditRequest("x", "the mother of Cleo", "city", "Cleo")
    assert len(known_facts(lm, [*known_requests, unknown])) == len(known_requests)
    with pytest.raises(RequestError, match="knows none of the 1 facts"):
        known_facts(lm, [unknown])


def test_the_recipe_runs_on_any_model_and_requests(model_folder: Path, request_file: Path, tmp_path: Path) -> None:
    arguments = ["--model", str(model_folder), "--requests", str(request_file), "--samples=2"]
    assert main(["run", "locate", "--output", str(tmp_path), *arguments]) == 0
    summary = json.loads((tmp_path / "summary.json").read_text())
    assert [row["run"] for row in summary["rows"]] == list(KINDS)
    for row in summary["rows"]:
        assert row["facts"] == 4
        assert row["clean"] > 0.5
        assert row["corrupted"] < row["clean"]
        assert row["best_recovery"] == max(value for key, value in row.items() if "/layer_" in key)
        assert 0 <= row["last_subject_layer"] < 3
    hidden = summary["rows"][0]
    assert hidden["last_subject/layer_2"] == pytest.approx(1.0, abs=1e-3)  # the state that decides the answer
    report = (tmp_path / "report.md").read_text()
    assert "![locate](locate.png)" in report
    assert "4 of 4 facts are known to the model" in report


def test_noise_is_measured_on_the_subjects(tiny_lm: LanguageModel) -> None:
    weight = tiny_lm.model.get_input_embeddings().weight.detach()
    assert subject_scale(tiny_lm, [FACT]) == pytest.approx(float(weight[[9, 11]].std()), rel=1e-5)
