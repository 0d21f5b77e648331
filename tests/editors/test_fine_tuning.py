"""FT-L and FT-M learn what they say, nothing else moves, and whole commits are taken back bit for bit."""

from pathlib import Path

import pytest
import torch
from tokenizers.processors import TemplateProcessing
from torch import Tensor
from transformers import PreTrainedTokenizerFast

from lightning_edit.editors import EditRefused, get_editor
from lightning_edit.editors.editor import Editor
from lightning_edit.errors import EditError, RequestError, SiteError, StateError
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.model.weights import base_layer
from tests.editors.gradient import (
    FAMILIES,
    Make,
    changed,
    fact,
    facts,
    nothing_else_changes,
    reloaded,
    says_all,
    snapshot,
)
from tests.reference_gradient import adam, bag_loss, target_loss

QUICK = {"layers": [1], "lr": 0.02, "steps": 60}


def parameter(lm: LanguageModel) -> Tensor:
    return base_layer(lm.projection(1)).weight


def weight(lm: LanguageModel) -> Tensor:
    return parameter(lm).detach()


def tuned(lm: LanguageModel, name: str = "ft_m", **options: object) -> Editor:
    editor = get_editor(name, **{**QUICK, **options})
    editor.attach(lm)
    return editor


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("objective", ["target", "bag_of_tokens"])
def test_steps_are_those_of_the_loops(family: str, objective: str, make_lm: Make) -> None:
    lm, other = make_lm(family), make_lm(family)
    batch = facts(3)  # of different lengths, in batches of two and one
    loss = target_loss if objective == "target" else bag_loss
    passes = [batch[:2], batch[2:]] * 3
    expected = adam(parameter(other), lambda part: sum(loss(other, r) for r in part) / len(part), passes, 0.01)
    options = {"steps": 3, "batch_size": 2, "stop_loss": 0.0, "norm_constraint": float("inf")}
    editor = get_editor("ft_l", layers=[1], lr=0.01, objective=objective, **options)
    report = editor.edit(lm, batch)
    assert float((weight(lm) - expected).norm()) <= 1e-7 * float(expected.norm())  # Adam makes rounding larger
    for request in batch:
        assert report.losses[request.id] == pytest.approx(loss(lm, request).item(), abs=1e-6)


def test_leading_special_tokens_are_targets_only_where_that_is_asked_for(
    make_lm: Make, tokenizer: PreTrainedTokenizerFast
) -> None:
    special = [("<|endoftext|>", 0)]
    tokenizer.backend_tokenizer.post_processor = TemplateProcessing("<|endoftext|> $A", special_tokens=special)
    for options, more in (({}, []), ({"include_bos": True}, [0])):
        lm, other = make_lm(), make_lm()
        one = [fact(1)]
        expected = adam(parameter(other), lambda part: bag_loss(other, part[0], more), [one], 0.01)  # noqa: B023
        editor = get_editor("ft_l", layers=[1], lr=0.01, steps=1, objective="bag_of_tokens", **options)
        editor.edit(lm, one)
        assert float((weight(lm) - expected).norm()) <= 1e-9 * float(expected.norm())


@pytest.mark.parametrize("family", FAMILIES)
def test_every_architecture_learns_all_tokens_and_nothing_else_moves(family: str, make_lm: Make) -> None:
    lm, batch = make_lm(family, dtype=torch.float32), facts(2)
    before = snapshot(lm)
    editor = tuned(lm, norm_constraint=0.3)
    assert editor.layers == [1]
    assert changed(lm, before) == []
    with nothing_else_changes(lm):
        report = editor.edit(lm, batch)
    assert changed(lm, before) == [_name(lm)]
    assert all(says_all(lm, request) for request in batch)
    assert max(report.losses.values()) < 0.1
    assert report.delta_norm == pytest.approx(float((weight(lm) - before[_name(lm)]).norm()), rel=1e-5)
    assert float((weight(lm) - before[_name(lm)]).abs().max()) <= 0.3 + 1e-6
    assert [r.id for r in editor.requests] == ["r0", "r1"]
    assert (report.count, report.active, report.ids) == (2, 2, ["r0", "r1"])
    with nothing_else_changes(lm):
        assert editor.rollback(lm, 2).ids == ["r0", "r1"]
    assert changed(lm, before) == []


def _name(lm: LanguageModel) -> str:
    return f"{lm.site(1).name}.weight"


def test_no_entry_moves_further_than_the_bound(make_lm: Make) -> None:
    lm = make_lm()
    before = weight(lm).clone()
    tuned(lm, "ft_l", norm_constraint=1e-3, steps=5, stop_loss=0.0).edit(lm, facts(2))
    way = (weight(lm) - before).abs()
    assert float(way.max()) <= 1e-3 + 1e-12
    assert float((way > 1e-3 - 1e-9).double().mean()) > 0.5  # it binds


def test_a_request_that_is_known_gives_no_gradient(make_lm: Make) -> None:
    lm = make_lm()
    editor = tuned(lm)
    editor.edit(lm, [fact(0)])
    before = snapshot(lm)
    report = editor.edit(lm, [fact(0, id="again")])
    assert changed(lm, before) == []
    assert report.delta_norm == 0
    assert report.losses["again"] < 0.01
    assert report.replaced == ["r0"]


def test_the_tokenizers_own_padding_side_is_of_no_effect(make_lm: Make) -> None:
    weights = []
    for side in ("left", "right"):
        lm = make_lm()
        lm.tokenizer.padding_side = side
        tuned(lm, steps=3).edit(lm, facts(3))
        assert lm.tokenizer.padding_side == side
        weights.append(weight(lm).clone())
    assert torch.equal(*weights)


def test_a_model_in_bfloat16_is_stepped_on_in_float32(make_lm: Make) -> None:
    lm = make_lm(dtype=torch.bfloat16)
    before = snapshot(lm)
    editor = tuned(lm, lr=1e-4, steps=40, stop_loss=0.0)  # a step is less than half a unit in the last place
    report = editor.edit(lm, facts(1))
    assert weight(lm).dtype == torch.bfloat16
    assert report.delta_norm > 0
    editor.undo(lm, "r0")
    assert changed(lm, before) == []


def test_what_fails_or_is_refused_leaves_all_as_it_was(make_lm: Make) -> None:
    lm = make_lm()
    editor = tuned(lm)
    editor.edit(lm, [fact(0)])
    before, requests = snapshot(lm), editor.requests
    seen: list[float] = []

    def guard(report: object) -> bool:
        seen.append(float((weight(lm) - before[_name(lm)]).norm()))
        return False

    with nothing_else_changes(lm), pytest.raises(EditRefused, match="the guard refused this edit of 2 requests"):
        editor.edit(lm, facts(2, 1), guard=guard)
    with pytest.raises(EditRefused, match="undo of 1 requests"):
        editor.undo(lm, "r0", guard=guard)
    assert min(seen) > 0  # the model carried it
    with pytest.raises(ZeroDivisionError):
        editor.edit(lm, facts(2, 1), guard=lambda report: 1 // 0 > 0)
    with pytest.raises(EditError, match="is not finite; expected a finite one"):
        get_editor("ft_m", layers=[1], lr=1e300).edit(lm, facts(2, 1))
    assert changed(lm, before) == []
    assert editor.requests == requests


def test_whole_commits_are_taken_back_and_parts_are_not(make_lm: Make) -> None:
    lm = make_lm()
    editor = tuned(lm, steps=4)
    states = [snapshot(lm)]
    for batch in ([fact(0), fact(1)], [fact(2)], [fact(3, prompt=fact(2).prompt, target="English")]):
        editor.edit(lm, batch)
        states.append(snapshot(lm))
    assert [r.id for r in editor.requests] == ["r0", "r1", "r3"]
    with pytest.raises(EditError, match=r"\['r0'\] and \['r1'\] were learned in one commit"):
        editor.undo(lm, ["r0"])
    with pytest.raises(EditError, match=r"expected \['r3'\] to be undone too"):
        editor.undo(lm, ["r0", "r1"])
    with pytest.raises(EditError, match="'r2' is not at work"):
        editor.undo(lm, ["r2"])
    with pytest.raises(EditError, match=r"expected one of \[0, 1, 2, 4\]"):
        editor.rollback(lm, 3)
    with pytest.raises(RequestError, match="'r2' has been applied already"):
        editor.edit(lm, [fact(2)])
    assert changed(lm, states[3]) == []
    report = editor.undo(lm, "r3")
    assert (report.ids, report.restored, report.active) == (["r3"], ["r2"], 3)
    assert changed(lm, states[2]) == []
    assert editor.undo(lm, []).count == 0
    assert editor.undo(lm, ["r1", "r2", "r0"]).ids == ["r0", "r1", "r2"]
    assert changed(lm, states[0]) == []
    assert editor.requests == []
    editor.edit(lm, [fact(0), fact(1)])
    assert changed(lm, states[1]) == []


def test_older_commits_are_forgotten(make_lm: Make) -> None:
    lm = make_lm()
    editor = tuned(lm, steps=2, undo_depth=2)
    states = []
    for number in range(4):
        states.append(snapshot(lm))
        editor.edit(lm, [fact(number)])
    now = snapshot(lm)
    with pytest.raises(EditError, match="is kept for the last 2 only"):
        editor.rollback(lm, 3)
    assert changed(lm, now) == []
    kept = {
        t.data_ptr() for e in editor.state_dict()["commits"] for p in ("before", "after") for t in (e[p] or {}).values()
    }
    assert len(kept) == 3  # commits share what lies between them
    editor.rollback(lm, 2)
    assert changed(lm, states[2]) == []
    assert [r.id for r in editor.requests] == ["r0", "r1"]


def test_what_training_did_since_remains(make_lm: Make) -> None:
    lm = make_lm()
    editor = tuned(lm, steps=3)
    start = weight(lm).clone()
    editor.edit(lm, [fact(0)])
    training = 0.01 * torch.randn_like(start)
    weight(lm).add_(training)
    assert editor.edit(lm, [fact(1)]).drift_norm == pytest.approx(float(training.norm()))
    weight(lm).add_(training)
    report = editor.undo(lm, ["r0", "r1"])
    assert "training's remain" in report.notes[0]
    torch.testing.assert_close(weight(lm), start + 2 * training, rtol=0, atol=1e-14)


def test_another_editor_goes_on_bit_for_bit(make_lm: Make, tmp_path: Path) -> None:
    lm = make_lm()
    start = snapshot(lm)
    editor = tuned(lm, steps=3)
    editor.edit(lm, facts(2))
    other = make_lm()
    other.model.load_state_dict(lm.model.state_dict())
    fresh = reloaded(editor, get_editor("ft_m", **{**QUICK, "steps": 3}), str(tmp_path / "ft.pt"))
    assert fresh.requests == editor.requests
    for each, model in ((editor, lm), (fresh, other)):
        each.edit(model, [fact(2)])
    assert changed(other, snapshot(lm)) == []
    fresh.rollback(other, 3)
    assert changed(other, start) == []
    with pytest.raises(StateError, match="expected 1 and 'ft_l'"):
        get_editor("ft_l").load_state_dict(editor.state_dict())
    with pytest.raises(StateError, match="expected the same architecture"):
        fresh.attach(make_lm("gpt2"))


def test_what_cannot_be_learned_is_said(make_lm: Make) -> None:
    lm = make_lm()
    with pytest.raises(RequestError, match=r"has \d+ tokens; expected at most 128"):
        tuned(lm).edit(lm, [fact(0, prompt="a b " * 100)])
    with pytest.raises(EditError, match="is none of FT-M"):
        get_editor("ft_m", objective="bag_of_tokens")
    with pytest.raises(EditError, match="expected one of 'target', 'bag_of_tokens'"):
        get_editor("ft_l", objective="last")
    with pytest.raises(EditError, match="norm_constraint=0"):
        get_editor("ft_l", norm_constraint=0.0)
    with pytest.raises(SiteError, match="layer 9 has no site"):
        get_editor("ft_l", layers=[9]).attach(lm)
    with pytest.raises(EditError, match="found lr=-1"):
        get_editor("ft_l", layers=[0], lr=-1).edit(lm, facts(1))
