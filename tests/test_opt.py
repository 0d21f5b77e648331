"""OPT and what is odd about it: an FFN that sees (b t, n), a norm before or behind it, embeddings of another width."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from transformers import PreTrainedModel, PreTrainedTokenizerFast

from lightning_edit.editors import get_editor
from lightning_edit.errors import SiteError
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.model.statistics import collect_statistics
from lightning_edit.targets import TargetOptions, optimize_targets
from tests.conftest import INNER, SENTENCES, WIDTH
from tests.editors.conftest import STRONG, facts, says
from tests.plain_targets import check_against_plain_loop, columns, easy_columns, loud

Build = Callable[..., PreTrainedModel]
BEFORE: dict[str, Any] = {}
BEHIND = {"do_layer_norm_before": False}
NARROW = {**BEHIND, "word_embed_proj_dim": WIDTH // 2}  # as OPT-350m is
VARIANTS = [BEFORE, BEHIND, NARROW]
NAMES = ["before", "behind", "narrow"]


@pytest.fixture(params=VARIANTS, ids=NAMES)
def changes(request: pytest.FixtureRequest) -> dict[str, Any]:
    """Each kind of OPT in turn."""
    return request.param


@pytest.fixture
def lm(changes: dict[str, Any], tiny_model: Build, tokenizer: PreTrainedTokenizerFast) -> LanguageModel:
    """A tiny OPT in float64."""
    return LanguageModel(tiny_model("opt", dtype=torch.float64, **changes), tokenizer)


def test_the_site_says_where_targets_live(lm: LanguageModel, changes: dict[str, Any]) -> None:
    assert [site.norm_after for site in lm.sites] == [changes != BEFORE] * 3
    assert {(site.width, site.inner, site.bias) for site in lm.sites} == {(WIDTH, INNER, True)}


def test_statistics_know_no_padding(lm: LanguageModel) -> None:
    texts = [*SENTENCES, "He was born."]
    together, alone = (collect_statistics(lm, texts, batch_size=size) for size in (len(texts), 1))
    for layer in range(3):
        assert together[layer].count == alone[layer].count
        torch.testing.assert_close(together[layer].moment, alone[layer].moment, rtol=1e-10, atol=1e-12)


@pytest.mark.parametrize("prefix_cache", [True, False])
def test_targets_equal_a_plain_loop_one_by_one(lm: LanguageModel, prefix_cache: bool) -> None:
    options = TargetOptions(steps=6, clamp=0.8, kl=2.0, weight_decay=3.0, batch_size=3, prefix_cache=prefix_cache)
    found = optimize_targets(lm, columns(), 1, options)
    check_against_plain_loop(lm, columns(), 1, options, found, 1e-8)


def test_a_target_put_in_its_place_makes_the_model_say_it(lm: LanguageModel) -> None:
    loud(lm.model)
    options = TargetOptions(steps=60, clamp=6.0, lr=0.2, weight_decay=0.0, kl=0.0)
    asked = easy_columns()
    found = optimize_targets(lm, asked, 1, options)
    place = lm.projection(1) if lm.site(1).norm_after else lm.block(1)
    for i, column in enumerate(asked):
        prompt = column.prompts[0]
        where = lm.subject_positions([prompt.text], [prompt.span])[0]

        def put(module: object, args: object, output: Any, where: int = where, z: torch.Tensor = found.z[i]) -> Any:
            hidden = (output[0] if isinstance(output, tuple) else output).clone()
            hidden.view(-1, WIDTH)[where] = z
            return (hidden, *output[1:]) if isinstance(output, tuple) else hidden

        ids = lm.encode([prompt.text]).input_ids
        token = int(lm.encode([f"{prompt.text} {prompt.target}"]).input_ids[0, ids.shape[1]])
        handle = place.register_forward_hook(put)
        with torch.no_grad():
            assert int(lm.model(input_ids=ids).logits[0, -1].argmax()) == token
        handle.remove()


@pytest.mark.parametrize("name", ["memit", "alphaedit"])
def test_edits_hold_and_are_undone(name: str, lm: LanguageModel) -> None:
    loud(lm.model)
    wanted = facts(4)
    assert not all(says(lm, request) for request in wanted)
    before = {key: value.clone() for key, value in lm.model.state_dict().items()}
    weak = {"prior_weight": 1e-3} if name == "memit" else {"nullspace_energy": 0.5, "l2": 1e-6}
    editor = get_editor(name, layers=[1], **STRONG, **weak)
    editor.prepare(lm, statistics=collect_statistics(lm, SENTENCES * 8, [1]))
    editor.edit(lm, wanted)
    assert [request.id for request in wanted if not says(lm, request)] == []
    editor.undo(lm, [request.id for request in wanted])
    for key, value in lm.model.state_dict().items():
        torch.testing.assert_close(value, before[key], rtol=0, atol=1e-9)


def test_a_norm_behind_the_ffn_forbids_to_spread(lm: LanguageModel, changes: dict[str, Any]) -> None:
    editor = get_editor("memit", layers=[0, 1])
    moments = collect_statistics(lm, SENTENCES * 8, [0, 1])
    if changes == BEFORE:
        editor.prepare(lm, statistics=moments)
    else:
        with pytest.raises(SiteError, match="a norm follows the FFN"):
            editor.prepare(lm, statistics=moments)
