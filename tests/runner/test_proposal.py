"""Proposed layers: those through which the facts of a model pass that was built to keep them in a known place."""

import logging
from collections.abc import Callable
from dataclasses import replace

import pytest
import torch
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from lightning_edit.editors import get_editor
from lightning_edit.errors import EditError, RequestError
from lightning_edit.jobs.locate import known_facts, recovery
from lightning_edit.jobs.proposal import propose_preset, stretch_recovery, with_proposed_layers
from lightning_edit.jobs.tracing import KINDS, subject_scale, trace
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.requests import EditRequest

NAMES = ("Ann Smith", "Ida", "Bob Ray", "Cleo", "Emil", "Fay Wu")
LAYERS = 14


@pytest.fixture
def lm(tiny_model: Callable[..., PreTrainedModel], tokenizer: PreTrainedTokenizerFast) -> LanguageModel:
    """A model whose FFNs write nothing but in blocks 8 and 9, and there much: only those can bring a fact back."""
    model = tiny_model("llama", num_hidden_layers=LAYERS)
    for number, block in enumerate(model.model.layers):
        block.mlp.down_proj.weight.data.mul_(200.0 if number in (8, 9) else 0.0)
    return LanguageModel(model, tokenizer)


def facts_known(lm: LanguageModel) -> list[EditRequest]:
    """Requests whose first token behind the prompt is what the model says, made so by a push on its head."""
    requests = [EditRequest(f"r{i}", f"the mother of {name}", "x", name, old="city") for i, name in enumerate(NAMES)]
    token = lm.tokenizer(" city").input_ids[0]
    states = torch.stack([hidden(lm, request) for request in requests])  # (m, d)
    head = lm.model.get_output_embeddings()
    with torch.no_grad():
        head.weight[token] = 12 * states.mean(0) / states.mean(0).norm() ** 2
    return requests


def hidden(lm: LanguageModel, request: EditRequest) -> Tensor:
    """What the head reads at the end of a prompt (d,)."""
    with torch.no_grad():
        return lm.model.model(lm.encode([request.prompt]).input_ids).last_hidden_state[0, -1]


def test_only_what_is_asked_for_is_traced(lm: LanguageModel) -> None:
    [fact, *_] = known_facts(lm, facts_known(lm))
    scale = subject_scale(lm, [fact])
    full = trace(lm, fact, scale, samples=2, window=2)
    last = fact.subject[1] - 1
    part = trace(lm, fact, scale, samples=2, window=2, kinds=("ffn",), positions=[last])
    assert set(full.restored) == set(KINDS)
    assert set(part.restored) == {"ffn"}
    torch.testing.assert_close(part.restored["ffn"][0], full.restored["ffn"][fact.positions.index(last)])
    assert part.corrupted == full.corrupted


def test_the_recovery_of_stretches_is_that_of_whole_windows(lm: LanguageModel) -> None:
    facts = known_facts(lm, facts_known(lm))
    for length in (1, 2, 3):
        shares = stretch_recovery(lm, facts, length, samples=2)
        assert shares.shape == (LAYERS - length + 1,)
        scale = 3.0 * subject_scale(lm, facts)
        traces = [trace(lm, fact, scale, 2, length, seed=number) for number, fact in enumerate(facts)]
        expected = recovery("ffn", facts, traces)["last_subject"][length // 2 :][: LAYERS - length + 1]
        torch.testing.assert_close(shares, expected)
        inside = [first for first in range(len(shares)) if {8, 9} & set(range(first, first + length))]
        outside = [first for first in range(len(shares)) if first not in inside]
        assert shares[outside].abs().max() < 1e-5


def test_the_layers_that_carry_the_facts_are_proposed(lm: LanguageModel, caplog: pytest.LogCaptureFixture) -> None:
    requests = facts_known(lm)
    with caplog.at_level(logging.WARNING, logger="lightning_edit"):
        proposed = propose_preset(lm, requests, "MEMIT", facts=4, samples=2)
    assert proposed.name == "proposed"
    assert proposed.layers == (8, 9)  # five of 32 are two of 14
    assert proposed.remarks[0].startswith(
        "layers [8, 9] are proposed: 4 facts that the model knows, out of 6 looked at"
    )
    assert proposed.remarks[1].startswith("no preset is known for this llama model")
    assert [record.message for record in caplog.records] == list(proposed.remarks)
    editor = get_editor("memit", preset=proposed)
    assert editor.attach(lm) == [8, 9]
    assert editor.preset is proposed
    assert propose_preset(lm, requests, "ROME", facts=4, samples=2).layers in ((8,), (9,))
    assert propose_preset(lm, requests, family="original", facts=2, samples=1).clamp == 0.75


def test_options_without_layers_get_a_proposal(lm: LanguageModel) -> None:
    requests = facts_known(lm)
    options, said = with_proposed_layers("memit", {"steps": 3, "preset": "@original"}, lm, requests)
    assert options["steps"] == 3
    assert (options["preset"].layers, options["preset"].clamp) == ((8, 9), 0.75)
    assert said is not None
    assert said.startswith("layers [8, 9] are proposed")
    assert get_editor("memit", **options).attach(lm) == [8, 9]
    for name, given in (("memit", {"layers": [1]}), ("memit", {"preset": "gpt2-xl"}), ("ft_l", {}), ("scr", {})):
        assert with_proposed_layers(name, given, lm, requests) == (given, None)
    unknown = [replace(request, old="the") for request in requests]
    assert with_proposed_layers("memit", {}, lm, unknown)[0] == {}
    assert "the model knows none of the 6 facts" in str(with_proposed_layers("memit", {}, lm, unknown)[1])


def test_layers_are_kept_where_tracing_finds_nothing(lm: LanguageModel) -> None:
    requests = facts_known(lm)
    for block in lm.model.model.layers:
        block.mlp.down_proj.weight.data.zero_()
    known = facts_known(lm)
    assert len(known) == len(requests)
    proposed = propose_preset(lm, known, facts=2, samples=1)
    assert proposed.layers == (2, 3)
    assert "layers [2, 3] are kept" in proposed.remarks[0]
    assert "bring back more than" in proposed.remarks[0]


def test_what_cannot_be_traced_is_refused(lm: LanguageModel) -> None:
    requests = [EditRequest("r", "the mother of Ida", "x", "Ida", old="language")]
    with pytest.raises(RequestError, match="knows none of the 1 facts"):
        propose_preset(lm, requests)
    with pytest.raises(EditError, match="facts=0"):
        propose_preset(lm, requests, facts=0)
