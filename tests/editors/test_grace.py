"""GRACE answers out of its codebook where it fires, and leaves everything else alone."""

import random

import pytest
import torch

from lightning_edit.chat import Chat, render
from lightning_edit.errors import EditError, RequestError
from lightning_edit.evaluation.likelihood import score_continuations
from lightning_edit.model.generation import generate
from tests.editors.forward import (
    FAMILIES,
    OTHERS,
    Make,
    fact,
    facts,
    grace,
    logits,
    one_by_one,
    prompts_of,
    says,
    written,
)
from tests.editors.gradient import changed, snapshot


@pytest.mark.parametrize("family", FAMILIES)
def test_teaches_every_architecture_and_leaves_all_else_alone(family: str, make_lm: Make) -> None:
    lm = make_lm(family, torch.float32)
    before, parameters = logits(lm, OTHERS), snapshot(lm)
    known = generate(lm, OTHERS, 6)
    made = grace(lm)
    assert torch.equal(logits(lm, OTHERS), before)
    batch = facts(5)
    assert not any(says(lm, batch))
    report = made.edit(lm, batch)
    assert all(says(lm, batch))
    assert report.ids == [request.id for request in made.requests] == [request.id for request in batch]
    assert report.losses.keys() == set(report.ids)
    assert max(report.losses.values()) < 0.1
    assert (report.count, report.active, report.delta_norm) == (5, 5, 0.0)
    assert set(report.seconds) == {"keys", "values", "total"}
    assert changed(lm, parameters) == []
    assert torch.equal(logits(lm, OTHERS), before)  # bit for bit, where nothing fires
    assert generate(lm, OTHERS, 6) == known
    mixed = logits(lm, [*OTHERS[:1], batch[0].prompt])
    made.detach(lm)
    plain = logits(lm, [*OTHERS[:1], batch[0].prompt])
    assert torch.equal(mixed[0], plain[0])
    assert not torch.equal(mixed[1], plain[1])
    assert not lm.projection(1)._forward_hooks


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("replacement", ["last", "all", "prompt"])
def test_prompts_in_a_batch_are_answered_as_one_by_one(family: str, replacement: str, make_lm: Make) -> None:
    lm = make_lm(family)
    plain = one_by_one(lm, prompts_of(facts(5)) + OTHERS)[0]
    made = grace(lm, replacement=replacement)
    made.edit(lm, facts(5))
    prompts = [*prompts_of(facts(5)), *OTHERS]
    random.Random(0).shuffle(prompts)
    ours, theirs = one_by_one(lm, prompts)
    assert written(lm, prompts) == ours
    assert generate(lm, prompts, 6) == theirs == generate(lm, prompts, 6, use_cache=False)
    if replacement != "prompt":  # which can move a random model only so far
        assert all(says(lm, facts(5)))
    assert ours != plain


@pytest.mark.parametrize("replacement", ["last", "all"])
def test_values_are_found_together_as_one_by_one(replacement: str, make_lm: Make) -> None:
    lm, other = make_lm(), make_lm()
    together, single = grace(lm, replacement=replacement, stop_loss=0.3), grace(other, replacement=replacement)
    single = grace(other, replacement=replacement, stop_loss=0.3, batch_size=1)
    together.edit(lm, facts(4))
    for request in facts(4):
        single.edit(other, [request])
    one, two = together.state_dict()["book"], single.state_dict()["book"]
    assert one["entries"] == two["entries"]
    for name, lesson in one["lessons"].items():
        assert torch.allclose(lesson["value"], two["lessons"][name]["value"], rtol=1e-8, atol=1e-10)


def test_keys_are_read_again_when_training_has_moved_them(make_lm: Make) -> None:
    lm = make_lm(dtype=torch.float32)
    made = grace(lm, replacement="all")
    made.edit(lm, facts(3))
    with torch.no_grad():
        lm.projection(0).weight.mul_(1.3)
    moved = logits(lm, prompts_of(facts(3)))
    made.repair(lm)
    assert torch.equal(logits(lm, prompts_of(facts(3))), moved)  # nothing fires, and nothing is done about it
    made.detach(lm)
    assert torch.equal(logits(lm, prompts_of(facts(3))), moved)
    made.attach(lm)
    made.repair(lm, refresh=True)
    assert not torch.equal(logits(lm, prompts_of(facts(3))), moved)


def test_in_train_mode_the_model_is_trained_as_it_is(make_lm: Make) -> None:
    lm = make_lm(dtype=torch.float32)
    prompt = fact(1).prompt
    lm.model.train()
    before = logits(lm, [prompt])
    made = grace(lm)
    made.edit(lm, facts(2))
    assert torch.equal(logits(lm, [prompt]), before)
    lm.model.eval()
    assert not torch.equal(logits(lm, [prompt]), before)


def test_a_chat_is_taught_as_it_is_asked(make_lm: Make) -> None:
    lm = make_lm()
    lm.tokenizer.chat_template = "{% for m in messages %}<{{ m.role }}> {{ m.content }}\n{% endfor %}<said>"
    made = grace(lm, chat=True, system="Be brief.")
    asked = fact(1, "The")
    assert not score_continuations(lm, [asked.prompt], ["The"], chat=Chat("Be brief.")).exact.all()
    made.edit(lm, [asked])
    assert score_continuations(lm, [asked.prompt], ["The"], chat=Chat("Be brief.")).exact.all()
    rendered = render(lm.tokenizer, [asked.prompt], Chat("Be brief."))
    assert made.state_dict()["book"]["active"]["requests"][0]["signature"] == lm.encode(rendered).input_ids[0].tolist()


def test_bad_options_and_prompts_are_named(make_lm: Make) -> None:
    lm = make_lm()
    for options, match in (
        ({"radius": 0.0}, "radius=0.0"),
        ({"steps": 2.5}, "steps=2.5"),
        ({"replacement": "first"}, "'last', 'prompt', 'all'"),
        ({"preset": "llama-9"}, "no preset 'llama-9'"),
        ({"layer": 9}, "layer 9"),
    ):
        with pytest.raises(EditError, match=match):
            grace(lm, **options)
    with pytest.raises(RequestError, match="has one token"):
        grace(lm, replacement="prompt").edit(lm, [fact(1, prompt="a")])
