"""Every editor teaches every architecture, one batch after another."""

from collections.abc import Callable

import pytest
import torch

from lightning_edit.editors import ClosedFormEditor, get_editor
from lightning_edit.errors import SiteError, StatisticsError
from lightning_edit.model.language_model import LanguageModel
from tests.editors.conftest import NAMES, STRONG, fact, facts, gap, says, score, weights

Make = Callable[..., LanguageModel]
MakeEditor = Callable[..., ClosedFormEditor]
NULL = {"nullspace_energy": 0.05, "l2": 0.1}
EDITORS = {
    "aligned": ("memit", {}),
    "naive": ("memit", {"aligned": False}),
    "base targets": ("memit", {"targets": "base"}),
    "alphaedit": ("alphaedit", NULL),
    "simplified": ("memorize_latest", {**NULL, "form": "simplified"}),
    "full": ("memorize_latest", {}),
    "projected": ("memorize_latest", {"nullspace_energy": 0.2, "l2": 0.01, "prior_weight": 0.01, "projected": True}),
}


def build(make_editor: MakeEditor, lm: LanguageModel, label: str, **options: object) -> ClosedFormEditor:
    """An editor by its label above."""
    name, declared = EDITORS[label]
    return make_editor(lm, name, **{**declared, **options})


@pytest.mark.parametrize("family", ["gpt2", "gptj", "llama", "mistral", "qwen2", "qwen3"])
def test_teaches_every_architecture(family: str, make_lm: Make, make_editor: MakeEditor) -> None:
    lm = make_lm(family, torch.float32)
    editor = make_editor(lm)
    before = [score(lm, request) for request in facts(4)]
    report = editor.edit(lm, facts(4))
    after = [score(lm, request) for request in facts(4)]
    assert all(new[0] > old[0] + 1 for new, old in zip(after, before, strict=True))
    assert all(right for _, right in after)
    assert report.count == report.active == 4
    assert report.ids == ["r0", "r1", "r2", "r3"]
    assert report.delta_norm > 0
    assert report.drift_norm == 0
    assert set(report.seconds) == {"drift", "targets", "keys", "solve", "write", "total"}
    assert report.to_dict()["losses"].keys() == {"r0", "r1", "r2", "r3"}
    assert [request.id for request in editor.requests] == report.ids


@pytest.mark.parametrize("label", EDITORS)
def test_every_editor_teaches_its_newest_batch(label: str, make_lm: Make, make_editor: MakeEditor) -> None:
    lm = make_lm()
    editor = build(make_editor, lm, label)
    assert editor.aligned == (label in ("aligned", "base targets", "alphaedit"))
    for first in (0, 3):
        batch = facts(3, first)
        assert not all(says(lm, request) for request in batch)
        editor.edit(lm, batch)
        assert all(says(lm, request) for request in batch)
    assert len(editor.requests) == 6
    for site in editor.sites:
        assert len(site.ledger) == {"kept": 6, "latest": 3, "absorbed": 0}[editor.history]


def test_aligned_keeps_what_naive_and_latest_let_go(make_lm: Make, make_editor: MakeEditor) -> None:
    kept = {}
    for label in ("aligned", "naive", "full"):
        lm = make_lm()
        editor = build(make_editor, lm, label, layers=[1], prior_weight=0.5)
        for i in range(8):
            editor.edit(lm, [fact(i)])
        kept[label] = sum(score(lm, request)[0] for request in facts(8))
    assert kept["aligned"] > kept["naive"]
    assert kept["aligned"] > kept["full"]


def test_latest_solves_the_newest_batch_on_the_original_weight(make_lm: Make, make_editor: MakeEditor) -> None:
    lm = make_lm()
    original = make_lm()
    editor = build(make_editor, lm, "full")
    for first in (0, 3):
        editor.edit(lm, facts(3, first))
        assert gap([site.ledger.base for site in editor.sites], weights(original, editor)) == 0
    assert [len(site.ledger) for site in editor.sites] == [3, 3]


def test_null_space_update_leaves_used_directions_alone(
    make_lm: Make, make_editor: MakeEditor, moments: Callable[..., dict]
) -> None:
    lm = make_lm()
    used = moments(lm)
    editor = build(make_editor, lm, "alphaedit", nullspace_energy=0.05)
    before = weights(lm, editor)
    editor.edit(lm, facts(3))
    for site, weight, now in zip(editor.sites, before, weights(lm, editor), strict=True):
        strongest = torch.linalg.eigh(used[site.layer].moment).eigenvectors[:, -5:]
        assert ((now - weight) @ strongest).norm() < 1e-10 * (now - weight).norm()


def test_one_layer_where_a_norm_follows_the_ffn(make_lm: Make, make_editor: MakeEditor) -> None:
    lm = make_lm("olmo2")
    with pytest.raises(SiteError, match="norm follows"):
        make_editor(lm, layers=[0, 1])
    editor = make_editor(lm, layers=[0], clamp=20.0, prior_weight=1e-3, contexts=[])
    before = [score(lm, request)[0] for request in facts(1)]
    editor.edit(lm, facts(1))
    assert all(score(lm, request)[0] > old + 1 for request, old in zip(facts(1), before, strict=True))
    ledger = editor.sites[0].ledger
    reached = torch.stack([column.z for column in editor._estate.book.columns.values()], dim=1)
    torch.testing.assert_close(ledger.solution() @ ledger.keys, reached, rtol=0, atol=1e-2)
    chosen = get_editor("memit")
    with pytest.raises(StatisticsError, match="neither"):
        chosen.prepare(lm)
    assert len(chosen.layers) == 1


def test_requests_about_one_subject_share_a_column(make_lm: Make, make_editor: MakeEditor) -> None:
    lm = make_lm()
    editor = make_editor(lm)
    both = [
        fact(0),
        fact(0, "the", id="other", prompt=f"the mother of {NAMES[0]} is a"),
        fact(0, "known", id="elsewhere", prompt=f"She: {NAMES[0]}"),
    ]
    editor.edit(lm, both)
    assert [site.ledger.ids for site in editor.sites] == [["r0 (+1)", "elsewhere"]] * 2
    assert says(lm, both[0])


def test_a_later_request_joins_an_active_column(make_lm: Make, make_editor: MakeEditor) -> None:
    lm = make_lm()
    editor = make_editor(lm)
    editor.edit(lm, facts(2))
    report = editor.edit(lm, [fact(0, "the", id="other", prompt=f"the mother of {NAMES[0]} is a")])
    assert report.replaced == []
    assert [site.ledger.ids for site in editor.sites] == [["r1", "r0 (+1)"]] * 2
    assert set(report.losses) == {"r0 (+1)"}
    assert all(says(lm, request) for request in facts(2))


def test_a_contradiction_replaces_the_old_request(make_lm: Make, make_editor: MakeEditor) -> None:
    lm = make_lm()
    editor = make_editor(lm)
    editor.edit(lm, facts(3))
    report = editor.edit(lm, [fact(1, "is", id="new")])
    assert report.replaced == ["r1"]
    assert [request.id for request in editor.requests] == ["r0", "r2", "new"]
    assert report.active == 3
    assert says(lm, editor.requests[2])
    assert not says(lm, fact(1))
    assert says(lm, fact(0))


def test_lora_wrapped_models_are_edited_below_the_adapter(make_lm: Make, make_editor: MakeEditor) -> None:
    peft = pytest.importorskip("peft")
    lm = make_lm()
    config = peft.LoraConfig(r=2, target_modules=["down_proj"], init_lora_weights=False)
    wrapped = LanguageModel(peft.get_peft_model(lm.model, config), lm.tokenizer)
    editor = make_editor(wrapped)
    editor.edit(wrapped, facts(3))
    assert all(says(wrapped, request) for request in facts(3))
    state = wrapped.model.model.layers[0].mlp.down_proj.state_dict()
    assert torch.equal(state["base_layer.weight"], editor.sites[0].deployed)


def test_nearly_equal_keys_with_other_targets_are_remarked(make_lm: Make, make_editor: MakeEditor) -> None:
    lm = make_lm(num_hidden_layers=2)
    lm.model.model.layers[0].self_attn.o_proj.weight.data.zero_()  # nothing but the last token counts in block 0
    editor = make_editor(lm, layers=[0], contexts=[])
    report = editor.edit(lm, [fact(0), fact(0, "is", id="b", prompt=f"She is {NAMES[0]}")])
    assert report.notes == ["the keys of 'b' and 'r0' are nearly equal, but not their targets"]
    assert editor.edit(lm, [fact(2)]).notes == []


def test_default_options_choose_layers_and_preset(make_lm: Make, moments: Callable[..., dict]) -> None:
    lm = make_lm()
    editor = get_editor("memit", **{**STRONG, "contexts": 2, "seed": 3})
    editor.prepare(lm, statistics=moments(lm))
    assert editor.layers == [0]
    assert editor.preset is not None
    assert editor.preset.name == "default"
    editor.edit(lm, facts(2))
    assert all(says(lm, request) for request in facts(2))


def test_more_passes_make_up_for_edits_that_get_in_each_others_way(make_lm: Make, make_editor: MakeEditor) -> None:
    scores = {}
    for passes in (1, 3):
        lm = make_lm()
        editor = make_editor(lm, layers=[0], prior_weight=0.01, passes=passes, stale_loss=0.02)
        editor.edit(lm, facts(8))
        scores[passes] = [score(lm, request)[0] for request in facts(8)]
        assert len(editor.sites[0].ledger) == 8
    assert min(scores[3]) > min(scores[1])
    assert sum(scores[3]) > sum(scores[1])
