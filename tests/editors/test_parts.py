"""Editors at the projections onto the inner width: they work there, and keep every promise that they make elsewhere."""

from pathlib import Path
from typing import Any

import pytest
import torch

from lightning_edit.decoding import decode_tokens
from lightning_edit.editors import get_editor
from lightning_edit.editors.editor import Editor
from lightning_edit.editors.forward_editor import ForwardEditor
from lightning_edit.errors import EditError, SiteError, StateError
from lightning_edit.model.ffn_parts import Part, find_part
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.model.weights import read_weight, write_weight
from tests.editors.forward import Make, fact, facts
from tests.editors.gradient import changed, nothing_else_changes, snapshot
from tests.editors.parts import (
    PLACES,
    STRONG,
    Place,
    editor_at,
    likely,
    lm_at,
    module_at,
    path_at,
    prompts,
    told,
    words,
)
from tests.reference_gradient import adam, target_loss

EVERYWHERE = pytest.mark.parametrize("place", PLACES, ids=str)
SOME = pytest.mark.parametrize("place", [PLACES[index] for index in (0, 2, 4, 6)], ids=str)
EVERYONE = pytest.mark.parametrize("name", STRONG)
SILENT = pytest.mark.parametrize("name", ["grace", "wise"])
GPT2, LLAMA_UP, LLAMA_GATE, WI = PLACES[:4]


@EVERYWHERE
@EVERYONE
def test_an_edit_is_at_work_and_is_taken_back_bit_for_bit(
    name: str, place: Place, make_lm: Make, trained_backend: str
) -> None:
    lm = lm_at(place, make_lm, trained_backend)
    clean, before, known = snapshot(lm), likely(lm, prompts()), told(lm, facts(1))
    editor = editor_at(name, place)
    assert editor.attach(lm) == [lm.site(place.layer).layer]
    assert torch.equal(likely(lm, prompts()), before)
    with nothing_else_changes(lm):
        report = editor.edit(lm, facts(1))
    assert float(told(lm, facts(1))) > float(known) + 1
    assert report.losses["r0"] < -float(known) - 1
    assert changed(lm, clean) == ([f"{path_at(place, lm)}.weight"] if name == "ft_m" else [])
    with nothing_else_changes(lm):
        editor.undo(lm, "r0")
    assert changed(lm, clean) == []
    assert torch.equal(likely(lm, prompts()), before)
    editor.detach(lm)
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in lm.model.modules())


@SOME
@SILENT
def test_what_does_not_fire_is_untouched_and_batches_are_answered_as_one_by_one(
    name: str, place: Place, make_lm: Make, trained_backend: str
) -> None:
    lm = lm_at(place, make_lm, trained_backend)
    clean, silence = words(lm), {prompt: likely(lm, [prompt]) for prompt in prompts()}
    editor = editor_at(name, place)
    editor.edit(lm, facts(2))
    fired = [prompt for prompt in prompts() if fires(lm, place, editor, prompt)]
    assert fact(1).prompt in fired  # the one that was learned last
    assert len(fired) < len(prompts())
    for prompt, before in silence.items():
        assert torch.equal(likely(lm, [prompt]), before) == (prompt not in fired)
    together = words(lm)
    assert together != clean
    assert together == [decode_tokens(lm, [prompt], 5)[0] for prompt in prompts()]
    alone = torch.cat([likely(lm, [prompt]) for prompt in prompts()])
    assert torch.allclose(likely(lm, prompts()), alone, rtol=1e-9)


@SOME
@EVERYONE
def test_a_saved_editor_goes_on_bit_for_bit_in_a_fresh_model(
    name: str, place: Place, make_lm: Make, trained_backend: str, tmp_path: Path
) -> None:
    lm, other = (lm_at(place, make_lm, trained_backend, torch.float32) for _ in range(2))
    clean, quick = snapshot(lm), {"steps": 5}
    editor, again = editor_at(name, place, **quick), editor_at(name, place, **quick)
    editor.edit(lm, facts(2))
    editor.save(tmp_path / "editor.pt")
    again.load(tmp_path / "editor.pt")
    other.model.load_state_dict(lm.model.state_dict())
    again.attach(other)
    assert torch.equal(likely(other, prompts()), likely(lm, prompts()))
    for one, model in ((editor, lm), (again, other)):
        one.edit(model, [fact(2)])
    assert torch.equal(likely(other, prompts()), likely(lm, prompts()))
    assert changed(other, lm.model.state_dict()) == []
    again.rollback(other, 3)
    assert changed(other, clean) == []


@EVERYONE
def test_a_state_of_another_part_is_refused(name: str, make_lm: Make) -> None:
    lm = make_lm()
    editor = editor_at(name, LLAMA_UP, steps=2)
    editor.edit(lm, facts(1))
    state, carried = editor.state_dict(), likely(lm, prompts())
    for part in ("gate", "down"):
        with pytest.raises(StateError, match=r"part'?[:=] ?'up'.*part'?[:=] ?'" + part):
            loaded(editor_at(name, LLAMA_UP, steps=2, part=part), state, lm)
    assert torch.equal(likely(lm, prompts()), carried)


@EVERYONE
def test_a_state_that_names_no_part_is_of_the_output_projection(name: str, make_lm: Make) -> None:
    lm = make_lm()
    editor = editor_at(name, LLAMA_UP, steps=2, part="down")
    editor.edit(lm, facts(1))
    state = editor.state_dict()
    (state if name == "ft_m" else state["settings"]).pop("part")
    fresh = loaded(editor_at(name, LLAMA_UP, steps=2, part="down"), state, lm)
    assert [request.id for request in fresh.requests] == ["r0"]
    with pytest.raises(StateError, match="'down'"):
        loaded(editor_at(name, LLAMA_UP, steps=2), state, lm)


@EVERYONE
def test_a_part_that_is_not_there_is_named_before_anything_happens(
    name: str, make_lm: Make, trained_backend: str
) -> None:
    for place, seen in (
        (Place("gpt2", "gate", ""), r"no part 'gate': it has .*c_fc \(up\), .*c_proj \(down\).*'down', 'up'"),
        (Place("t5", "gate", "", "decoder.block.1"), r"of decoder.block.1 has no part 'gate': .*\.wi \(up\)"),
        (Place("phi3", "up", ""), r"gate_up_proj \(no part by itself\), .*Expected part to be one of 'down'\."),
    ):
        lm = lm_at(place, make_lm, trained_backend)
        clean, editor = snapshot(lm), editor_at(name, place)
        with pytest.raises(SiteError, match=seen):
            editor.edit(lm, facts(1))
        assert changed(lm, clean) == []
        assert editor.layers == editor.requests == []
        assert not any(module._forward_hooks for module in lm.model.modules())
    with pytest.raises(EditError, match=r"part='sideways'.*one of 'down', 'up', 'gate'"):
        editor_at(name, LLAMA_UP, part="sideways").attach(make_lm())


@pytest.mark.parametrize("place", [GPT2, LLAMA_GATE], ids=str)
def test_the_steps_of_fine_tuning_are_those_of_the_loops(place: Place, make_lm: Make) -> None:
    lm, other = make_lm(place.family), make_lm(place.family)
    batch, weight = facts(2), module_at(place, other).weight

    def loss(part: list[object]) -> torch.Tensor:
        return sum(target_loss(other, request) for request in part) / len(part)

    expected = adam(weight, loss, [batch] * 3, 0.01)
    expected = expected.T if place.family == "gpt2" else expected
    get_editor("ft_m", layers=[1], part=place.part, lr=0.01, steps=3, stop_loss=0.0).edit(lm, batch)
    assert float((read_weight(module_at(place, lm)) - expected).norm()) <= 1e-7 * float(expected.norm())


@pytest.mark.parametrize("place", [GPT2, LLAMA_GATE], ids=str)
def test_a_value_of_grace_is_what_the_projection_puts_out(place: Place, make_lm: Make) -> None:
    lm = make_lm(place.family)
    editor = editor_at("grace", place, replacement="last", steps=5)
    editor.edit(lm, facts(1))
    (lesson,) = editor.state_dict()["book"]["lessons"].values()
    x, y = heard(lm, place, fact(0).prompt)
    assert torch.equal(y[0, -1], lesson["value"])
    assert torch.equal(x[0, -1], lesson["query"])
    assert (len(lesson["query"]), len(lesson["value"])) == (32, 64)
    assert torch.equal(y[0, :-1], plain(place, lm, x)[0, :-1])


@pytest.mark.parametrize("place", [GPT2, LLAMA_GATE, WI], ids=str)
def test_a_side_memory_is_the_weight_with_its_task_vector(place: Place, make_lm: Make, trained_backend: str) -> None:
    lm, other = (lm_at(place, make_lm, trained_backend) for _ in range(2))
    editor = editor_at("wise", place)
    editor.edit(lm, facts(1))
    (memory,) = editor.side.memories
    assert memory.task.shape == (64, 32)
    weight = read_weight(module_at(place, other))
    write_weight(module_at(place, other), weight + memory.task)
    assert torch.allclose(told(lm, facts(1)), told(other, facts(1)), rtol=1e-9)


@pytest.mark.parametrize("name", ["grace", "wise"])
@pytest.mark.parametrize(("preset", "part"), [("gpt2-xl", "up"), ("gpt-j-6b", "down"), ("llama-2-7b", "down")])
def test_a_preset_names_the_projection_that_is_published(name: str, preset: str, part: Part, make_lm: Make) -> None:
    lm, editor = make_lm("gpt2"), get_editor(name, preset=preset, layer=1)
    editor.attach(lm)
    assert isinstance(editor, ForwardEditor)
    assert editor.settings.part == part
    assert lm.model.get_submodule(find_part(lm, 1, part).path)._forward_hooks
    asked = get_editor(name, preset=preset, layer=1, part="down")
    asked.attach(make_lm("gpt2"))
    assert isinstance(asked, ForwardEditor)
    assert asked.settings.part == "down"


def loaded(editor: Editor, state: dict[str, Any], lm: LanguageModel) -> Editor:
    """An editor with a state, on a model: one that leaves its settings to a preset knows its own part only then."""
    editor.load_state_dict(state)
    editor.attach(lm)
    return editor


def fires(lm: LanguageModel, place: Place, editor: ForwardEditor, prompt: str) -> bool:
    """Whether the editor has chosen to answer a prompt."""
    chosen: list[torch.Tensor] = []
    scope = lm.scope_of(editor.layers[0])
    handle = module_at(place, lm).register_forward_hook(lambda *_: chosen.append(scope.window.recall(editor)))
    likely(lm, [prompt])
    handle.remove()
    return bool((chosen[-1] >= 0).any())


def heard(lm: LanguageModel, place: Place, prompt: str) -> tuple[torch.Tensor, torch.Tensor]:
    """Input and output of the projection, with the editor at work."""
    seen: list[tuple[torch.Tensor, torch.Tensor]] = []
    handle = module_at(place, lm).register_forward_hook(lambda module, args, y: seen.append((args[0], y)))
    with torch.no_grad():
        lm.model(input_ids=lm.encode([prompt]).input_ids)
    handle.remove()
    return seen[0]


def plain(place: Place, lm: LanguageModel, x: torch.Tensor) -> torch.Tensor:
    """What the projection puts out by itself."""
    with torch.no_grad():
        return module_at(place, lm).forward(x)
