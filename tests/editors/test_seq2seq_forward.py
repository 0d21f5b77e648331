"""GRACE and WISE in either stack of T5-style models."""

import pytest
import torch

from lightning_edit.decoding import decode_tokens
from lightning_edit.editors import get_editor
from lightning_edit.editors.examples import example_losses, make_batches, make_examples
from lightning_edit.errors import RequestError
from tests.editors.gradient import changed, nothing_else_changes, snapshot
from tests.editors.seq2seq import PROBE, REQUESTS, request
from tests.seq2seq import t5_lm, tokens

GRACE = {
    "encoder": {"layer": "encoder.block.1", "replacement": "all", "steps": 150, "lr": 1.0, "radius": 0.1},
    "decoder": {"layer": "decoder.block.1", "replacement": "all", "steps": 150, "lr": 1.0, "radius": 0.01},
}


@pytest.mark.parametrize("stack", GRACE)
def test_grace_fires_on_its_prompts_alone_and_keeps_firing_while_the_decoder_writes(
    stack: str, trained_backend: str
) -> None:
    lm = t5_lm(trained_backend)
    one = request(2, target="city")
    others = [PROBE.prompt, REQUESTS[0].prompt, "Ida"]
    before = decode_tokens(lm, others, 8)
    (start,) = make_batches(lm, make_examples(lm, [one]), 1)
    with torch.no_grad():
        (untold,) = example_losses(lm, start)
    editor = get_editor("grace", **GRACE[stack])
    assert editor.attach(lm) == [lm.site(str(GRACE[stack]["layer"])).layer]
    report = editor.edit(lm, [one])
    assert report.losses["r2"] < 0.7 * float(untold)
    with torch.no_grad():
        (now,) = example_losses(lm, start)
        assert now == pytest.approx(report.losses["r2"], abs=1e-4)  # it answers as it was taught
    assert decode_tokens(lm, others, 8) == before  # bit for bit the unedited model
    together = decode_tokens(lm, [one.prompt, *others], 8)
    assert together == [decode_tokens(lm, [one.prompt], 8)[0], *before]
    assert stack == "encoder" or together[0][:1] == tokens(lm, "city")[:1]
    state = editor.state_dict()
    again = get_editor("grace", **GRACE[stack])
    editor.detach(lm)
    assert decode_tokens(lm, [one.prompt], 8) != together[:1]
    again.load_state_dict(state)
    again.attach(lm)
    assert decode_tokens(lm, [one.prompt], 8) == together[:1]
    again.undo(lm, "r2")
    assert decode_tokens(lm, others, 8) == before
    again.detach(lm)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in lm.model.modules())


@pytest.mark.parametrize("stack", ["encoder", "decoder"])
def test_wise_routes_what_it_has_learned_to_its_side_memory(stack: str, trained_backend: str) -> None:
    lm = t5_lm(trained_backend)
    one, others = REQUESTS[2], [PROBE.prompt, "Ida"]
    before = decode_tokens(lm, [one.prompt, *others], 6)
    editor = get_editor("wise", preset="gpt2-xl", layer=f"{stack}.block.1", lr=0.5, steps=60, density=0.9)
    clean = snapshot(lm)
    with nothing_else_changes(lm):
        report = editor.edit(lm, [one])
    assert changed(lm, clean) == []
    (batch,) = make_batches(lm, make_examples(lm, [one]), 1)
    with torch.no_grad():
        (now,) = example_losses(lm, batch)
    editor.detach(lm)
    with torch.no_grad():
        (untold,) = example_losses(lm, batch)
    assert float(now) < float(untold)  # the prompt was routed to the side memory
    assert report.losses["r2"] < float(untold)
    editor.attach(lm)
    together = decode_tokens(lm, [one.prompt, *others], 6)
    assert together == [decode_tokens(lm, [prompt], 6)[0] for prompt in (one.prompt, *others)]
    editor.undo(lm, "r2")
    assert decode_tokens(lm, [one.prompt, *others], 6) == before


def test_grace_in_the_decoder_has_one_token_for_the_prompt(trained_backend: str) -> None:
    lm = t5_lm(trained_backend)
    with pytest.raises(RequestError, match=r"has one token at decoder.block.0"):
        get_editor("grace", layer="decoder.block.0", replacement="prompt").edit(lm, REQUESTS[:1])
