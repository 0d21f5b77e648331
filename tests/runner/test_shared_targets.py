"""Shared targets: each is found once, on the clean weights, whoever asks for it and whatever the model is by then."""

from pathlib import Path

import pytest
import torch

from lightning_edit import EditableModule, load_requests
from lightning_edit.jobs import shared_targets
from lightning_edit.jobs.compare import compare
from lightning_edit.jobs.shared_targets import SharedTargets
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.model.weights import read_weight, write_weight
from lightning_edit.targets import Column, TargetOptions, TargetPrompt, optimize_targets

OPTIONS = TargetOptions(steps=4)


@pytest.fixture
def lm(model_folder: Path) -> LanguageModel:
    return EditableModule.from_pretrained(str(model_folder)).language_model


@pytest.fixture
def columns(request_file: Path) -> list[Column]:
    requests = load_requests(str(request_file))[:3]
    prompts = [(r.id, [TargetPrompt(r.prompt, r.subject_span or (0, 1), r.target)]) for r in requests]
    return [Column(*part) for part in prompts]


def test_targets_are_those_of_the_clean_model_however_it_has_been_edited(
    lm: LanguageModel, columns: list[Column], monkeypatch: pytest.MonkeyPatch
) -> None:
    clean = read_weight(lm.projection(1)).clone()
    wanted = optimize_targets(lm, columns, 1, OPTIONS)
    moved = clean + 0.5 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    write_weight(lm.projection(1), moved)
    assert not torch.allclose(optimize_targets(lm, columns, 1, OPTIONS).z, wanted.z, atol=1e-3)
    shared = SharedTargets({1: clean})
    found = shared(lm, columns, 1, OPTIONS)
    assert torch.equal(found.z, wanted.z)
    assert torch.equal(found.start, wanted.start)
    assert torch.equal(found.loss, wanted.loss)
    assert found.ids == wanted.ids
    assert torch.equal(read_weight(lm.projection(1)), moved)

    def refuse(*_: object) -> None:
        raise AssertionError("optimised again")

    monkeypatch.setattr(shared_targets, "optimize_targets", refuse)
    again = shared(lm, [columns[2], columns[0]], 1, OPTIONS)
    assert torch.equal(again.z, wanted.z[[2, 0]])
    assert again.ids == [columns[2].id, columns[0].id]
    with pytest.raises(AssertionError, match="optimised again"):
        shared(lm, columns, 1, TargetOptions(steps=3))
    assert torch.equal(read_weight(lm.projection(1)), moved)  # a failure gives the weights back, too


def test_a_target_that_goes_on_from_another_is_found_on_the_model_as_it_is(
    lm: LanguageModel, columns: list[Column]
) -> None:
    clean = read_weight(lm.projection(1)).clone()
    shared = SharedTargets({1: clean})
    first = shared(lm, columns[:1], 1, OPTIONS)
    write_weight(lm.projection(1), 1.5 * clean)
    onward = [Column(columns[0].id, columns[0].prompts, z=first.z[0], center=first.start[0])]
    assert torch.equal(shared(lm, onward, 1, OPTIONS).z, optimize_targets(lm, onward, 1, OPTIONS).z)


def test_editors_of_a_job_share_their_targets(
    model_folder: Path, request_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def count(lm: LanguageModel, columns: list[Column], *rest: object) -> object:
        asked.extend(column.id for column in columns)
        return optimize_targets(lm, columns, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(shared_targets, "optimize_targets", count)
    editors = {"aligned": {}, "naive": {"aligned": False}}
    options = {"layers": [1], "steps": 3}
    where = (str(model_folder), str(request_file))
    compare(tmp_path, editors, options, *where, count=4, steps=2, seeds=[0], measurements=1, shared_targets=True)
    assert len(asked) == len(set(asked)) == 4
