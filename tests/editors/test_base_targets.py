"""`targets="base"` where batches are absorbed: targets of the clean model, keys of the edited one."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lightning_edit.algebra import KeyCovariance, SiteLedger
from lightning_edit.editors import ClosedFormEditor
from lightning_edit.errors import StateError
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.targets import Targets, optimize_targets
from tests.editors.conftest import fact, facts, gap, train_a_bit, weights
from tests.reference_rect_prune import everything, naive

Make = Callable[..., LanguageModel]
MakeEditor = Callable[..., ClosedFormEditor]
Moments = Callable[[LanguageModel], dict[int, KeyCovariance]]

QUICK = {"steps": 6, "contexts": []}
ABSORBED: dict[str, tuple[str, dict[str, object]]] = {
    "memit": ("memit", {"aligned": False}),
    "alphaedit": ("alphaedit", {"history": "absorbed", "nullspace_energy": 0.05, "l2": 0.1}),
    "rome": ("rome", {"layers": [1]}),
    "emmet": ("emmet", {}),
    "rect": ("rect", {"aligned": False}),
    "rect, fed back": ("rect", {"history": "absorbed", "deployment": "feedback"}),
    "prune, total": ("prune", {"aligned": False, "deployment": "project_total", "variant": "linear"}),
}


def absorbing(name: str, lm: LanguageModel, make_editor: MakeEditor, **options: object) -> ClosedFormEditor:
    """An editor of the table."""
    kind, own = ABSORBED[name]
    return make_editor(lm, kind, **{**QUICK, **own, **options})


def watched(editor: ClosedFormEditor) -> list[tuple[list[Tensor], Tensor]]:
    """The weights on which an editor's targets are found, and the targets, batch by batch."""
    seen: list[tuple[list[Tensor], Tensor]] = []

    def find(lm: LanguageModel, *rest: object) -> Targets:
        found = optimize_targets(lm, *rest)  # type: ignore[arg-type]
        seen.append((weights(lm, editor), found.z.clone()))
        return found

    editor.find_targets_with(find)
    return seen


@pytest.mark.parametrize("name", ABSORBED)
def test_each_batch_has_the_targets_of_the_clean_model(name: str, make_lm: Make, make_editor: MakeEditor) -> None:
    lm = make_lm(dtype=torch.float32)
    editor = absorbing(name, lm, make_editor, targets="base")
    clean, seen = weights(lm, editor), watched(editor)
    for i in range(3):
        editor.edit(lm, [fact(i)])
    assert not torch.equal(weights(lm, editor)[0], clean[0])
    for i, (carried, z) in enumerate(seen):
        fresh = make_lm(dtype=torch.float32)
        alone = absorbing(name, fresh, make_editor)
        other = watched(alone)
        alone.edit(fresh, [fact(i)])
        assert all(torch.equal(a, b) for a, b in zip(carried, clean, strict=True))
        assert torch.equal(z, other[0][1])


@pytest.mark.parametrize("name", ABSORBED)
def test_live_and_base_differ_from_the_second_batch_on(name: str, make_lm: Make, make_editor: MakeEditor) -> None:
    found = []
    for targets in ("live", "base"):
        lm = make_lm()
        editor = absorbing(name, lm, make_editor, targets=targets)
        after = []
        for i in range(3):
            editor.edit(lm, [fact(i)])
            after.append(weights(lm, editor))
        found.append(after)
    assert gap(found[0][0], found[1][0]) == 0
    assert gap(found[0][2], found[1][2]) > 1e-6


def test_keys_and_what_is_lacking_are_read_on_the_edited_model(
    make_lm: Make, make_editor: MakeEditor, moments: Moments, monkeypatch: pytest.MonkeyPatch
) -> None:
    lm, base = make_lm(), make_lm().projection(1).weight.data.clone()
    editor = make_editor(lm, aligned=False, targets="base", layers=[1], **QUICK)
    batches: list[tuple[Tensor, Tensor]] = []
    append = SiteLedger.append

    def writing_down(ledger: SiteLedger, ids: list[str], keys: Tensor, values: Tensor) -> None:
        batches.append((keys, values))
        append(ledger, ids, keys, values)

    monkeypatch.setattr(SiteLedger, "append", writing_down)
    for i in range(3):
        before = weights(lm, editor)[0]
        seen = watched(editor)
        editor.edit(lm, [fact(i)])
        keys, values = batches[-1]
        state = seen[0][1][0] - (values[:, 0] - before @ keys[:, 0])  # what the target was compared with
        edited = make_lm()
        edited.projection(1).weight.data.copy_(before)
        with edited.borrow():
            reading = make_editor(edited, layers=[1], **QUICK)._estate.open(edited).follow([fact(i)])
            assert gap([keys], [reading.keys(1)]) < 1e-12
            assert gap([state], [reading.states()[:, 0]]) < 1e-9
    assert gap(weights(lm, editor), [naive(base, 5.0 * moments(make_lm())[1].moment, batches, everything)]) < 1e-9


def test_the_clean_model_learns_what_training_has_taught(make_lm: Make, make_editor: MakeEditor) -> None:
    lm = make_lm()
    editor = make_editor(lm, aligned=False, targets="base", **QUICK)
    clean, seen = weights(lm, editor), watched(editor)
    editor.edit(lm, facts(1))
    before = weights(lm, editor)
    train_a_bit(lm)
    drift = [now - old for now, old in zip(weights(lm, editor), before, strict=True)]
    editor.edit(lm, facts(1, 1))
    expected = [old + moved for old, moved in zip(clean, drift, strict=True)]
    assert gap(seen[1][0], expected) < 1e-12
    assert gap(seen[1][0], clean) > 1e-3


def test_the_clean_weights_are_part_of_the_state(make_lm: Make, make_editor: MakeEditor, tmp_path: Path) -> None:
    lm, resumed = make_lm(dtype=torch.float32), make_lm(dtype=torch.float32)
    editor = make_editor(lm, "emmet", targets="base", **QUICK)
    editor.edit(lm, facts(2))
    editor.save(tmp_path / "editor.pt")
    resumed.model.load_state_dict(lm.model.state_dict())
    late = make_editor(resumed, "emmet", targets="base", **QUICK)
    late.load(tmp_path / "editor.pt")
    for model, one in ((lm, editor), (resumed, late)):
        one.edit(model, facts(1, 2))
    assert all(torch.equal(a, b) for a, b in zip(weights(lm, editor), weights(resumed, late), strict=True))
    live = make_editor(lm, "emmet", **QUICK)
    live.edit(lm, facts(1, 3))
    live.save(tmp_path / "live.pt")
    late.load(tmp_path / "live.pt")
    with pytest.raises(StateError, match="did not keep the weights from before its first batch"):
        late.edit(lm, facts(1, 4))
