"""What GRACE and WISE promise alike."""

import random
from collections.abc import Callable
from functools import partial

import pytest

from lightning_edit.editors import get_editor
from lightning_edit.editors.editor import Editor
from lightning_edit.errors import EditError
from lightning_edit.model.generation import generate
from tests.editors.forward import (
    OTHERS,
    Make,
    facts,
    grace,
    prompts_of,
    wise,
)

EDITORS: dict[str, Callable[..., Editor]] = {"grace": partial(grace, replacement="all"), "wise": wise}


@pytest.mark.parametrize("family", ["gpt2", "llama"])
@pytest.mark.parametrize("name", EDITORS)
def test_beams_in_a_batch_write_what_each_writes_alone(name: str, family: str, make_lm: Make) -> None:
    lm = make_lm(family)
    prompts = [*prompts_of(facts(3)), *OTHERS]
    random.Random(1).shuffle(prompts)
    plain = generate(lm, prompts, 5, num_beams=3)
    EDITORS[name](lm).edit(lm, facts(3))
    together = generate(lm, prompts, 5, num_beams=3)
    assert together == [generate(lm, [prompt], 5, num_beams=3)[0] for prompt in prompts]
    moved = [prompt for prompt, text, before in zip(prompts, together, plain, strict=True) if text != before]
    assert moved
    assert not set(moved) & set(OTHERS)


@pytest.mark.parametrize("name", ["grace", "wise"])
def test_a_system_turn_needs_a_chat(name: str, make_lm: Make) -> None:
    lm, options = make_lm(), {"layer": 1, "system": "Be brief."}
    for chat in (None, False):
        made = get_editor(name, **options, chat=chat)
        with pytest.raises(EditError, match=r"system='Be brief.' without a chat"):
            made.attach(lm)
        with pytest.raises(EditError, match="without a chat"):
            made.edit(lm, facts(1))
        assert not lm.projection(1)._forward_hooks
    preset = get_editor("wise", preset="llama-3-8b", layer=1, system="Be brief.")  # of a chat model
    with pytest.raises(EditError, match="without a chat"):
        preset.attach(lm)
    lm.tokenizer.chat_template = "{% for m in messages %}{{ m.content }}{% endfor %}"
    assert preset.attach(lm) == [1]
    assert get_editor(name, **options, chat=True).attach(lm) == [1]
