"""Editors on T5-style models: what they teach is said, what they take back is gone, and who cannot apply says so."""

from typing import Any

import pytest
import torch

from lightning_edit.decoding import decode
from lightning_edit.editors import get_editor
from lightning_edit.editors.examples import example_losses, make_batches, make_examples
from lightning_edit.errors import EditError, SiteError
from lightning_edit.evaluation import Evaluator
from tests.editors.gradient import changed, nothing_else_changes, snapshot
from tests.editors.seq2seq import BOTH, PROBE, REQUESTS, says
from tests.seq2seq import END, t5_lm, tokens

STRONG: dict[str, dict[str, Any]] = {
    "ft_m": {"lr": 5e-3, "steps": 60},
    "ft_l": {"lr": 5e-3, "steps": 60, "layers": ["encoder.block.1", "decoder.block.1"]},
    "lora": {"lr": 2e-2, "steps": 60, "dropout": 0.0},
    "adalora": {"lr": 2e-2, "steps": 60, "dropout": 0.0},
}


@pytest.mark.parametrize("version", BOTH)
@pytest.mark.parametrize("name", STRONG)
def test_edits_are_said_whole_and_end_and_are_taken_back(name: str, version: str, trained_backend: str) -> None:
    lm = t5_lm(trained_backend, version)
    clean, editor = snapshot(lm), get_editor(name, **STRONG[name])
    before = decode(lm, [PROBE.prompt], 6)
    with nothing_else_changes(lm):
        report = editor.edit(lm, REQUESTS[:1])
        editor.edit(lm, REQUESTS[1:2])
    assert says(lm, REQUESTS[1])
    assert report.losses["r0"] < 0.5
    own = editor.layers or [site.layer for site in lm.sites]
    stacks = {lm.site(layer).stack for layer in own}
    assert stacks == ({"decoder"} if name == "ft_m" else {"encoder", "decoder"})
    editor.rollback(lm, 1)
    assert says(lm, REQUESTS[0])
    editor.rollback(lm, 1)
    assert changed(lm, clean) == []
    assert decode(lm, [PROBE.prompt], 6) == before


def test_the_loss_is_that_of_labels_closed_by_an_end_token(trained_backend: str) -> None:
    lm = t5_lm(trained_backend, dtype=torch.float64)
    examples = make_examples(lm, REQUESTS)
    (batch,) = make_batches(lm, examples, 3)
    with torch.no_grad():
        found = example_losses(lm, batch)
        for one, loss in zip(REQUESTS, found, strict=True):
            ids = torch.tensor([lm.tokenizer(one.prompt)["input_ids"]])
            labels = torch.tensor([tokens(lm, one.target, end=True)])
            assert torch.allclose(loss, lm.model(input_ids=ids, labels=labels).loss, atol=1e-12)
    assert [example.labels[-1] for example in examples] == [END] * 3


def test_a_bag_of_tokens_is_scored_at_the_start_token(trained_backend: str) -> None:
    lm = t5_lm(trained_backend, dtype=torch.float64)
    (example,) = make_examples(lm, REQUESTS[1:2], "bag_of_tokens")
    assert example.given == ()
    assert example.labels == tuple(tokens(lm, REQUESTS[1].target))
    with torch.no_grad():
        (loss,) = example_losses(lm, make_batches(lm, [example], 1)[0])
        ids = torch.tensor([list(example.prompt)])
        logits = lm.model(input_ids=ids, decoder_input_ids=torch.tensor([[1]])).logits[0, 0]
    assert torch.allclose(loss, -logits.log_softmax(-1)[list(example.labels)].mean(), atol=1e-12)


def test_evaluation_decodes_and_forces(trained_backend: str) -> None:
    lm = t5_lm(trained_backend)
    for way in ("greedy", "teacher_forced"):
        evaluator = Evaluator(None, decode=way)
        baseline = evaluator.measure_baseline(lm, REQUESTS)
        editor = get_editor("lora", **STRONG["lora"])
        assert evaluator.evaluate(lm, REQUESTS, baseline)["reliability"] == 0
        editor.edit(lm, REQUESTS[:1])
        scores = evaluator.evaluate(lm, REQUESTS[:1], baseline)
        assert scores["reliability"] == 1
        assert {"generalization", "locality"} <= set(scores)
        editor.detach(lm)


@pytest.mark.parametrize("name", ["scr", "ice"])
def test_text_memories_stand_before_the_encoder(name: str, trained_backend: str) -> None:
    lm = t5_lm(trained_backend)
    editor = get_editor(name)
    plain = lm.recall([REQUESTS[0].prompt])
    before = decode(lm, [REQUESTS[0].prompt, "Ida"], 5)
    editor.edit(lm, REQUESTS[:1])
    told = lm.recall([REQUESTS[0].prompt])
    if name == "ice":
        assert told != plain
        assert REQUESTS[0].target in told[0]
    assert len(decode(lm, [REQUESTS[0].prompt], 5)) == 1
    editor.undo(lm, "r0")
    assert decode(lm, [REQUESTS[0].prompt, "Ida"], 5) == before


LOCATED = ["memit", "alphaedit", "memorize_latest", "rome", "emmet", "pmet", "rect", "prune", "l1", "sensitivity_aware"]


@pytest.mark.parametrize("name", LOCATED)
def test_editors_at_the_subjects_token_refuse(name: str, trained_backend: str) -> None:
    lm = t5_lm(trained_backend)
    clean, editor = snapshot(lm), get_editor(name)
    with pytest.raises(SiteError, match=r"T5ForConditionalGeneration is an encoder-decoder: .* needs a decoder-only"):
        editor.attach(lm)
    with pytest.raises(SiteError, match=r"Expected, on this one, an editor without keys of subjects: ft_l"):
        editor.prepare(lm, corpus=["Ann is here."])
    assert changed(lm, clean) == []


def test_who_has_no_published_settings_asks_for_them(trained_backend: str) -> None:
    with pytest.raises(EditError, match=r"nobody publishes settings of wise for an encoder-decoder.*layer='encoder"):
        get_editor("wise").attach(t5_lm(trained_backend))
