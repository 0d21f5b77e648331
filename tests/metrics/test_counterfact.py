"""CounterFact's scores against loops over records, and what they do with ties, signs and kinds that were not seen."""

import copy
import pickle
from typing import Any

import pytest
import torch

from lightning_edit.errors import EditError
from lightning_edit.metrics import (
    EfficacyMagnitude,
    EfficacySuccess,
    NeighborhoodMagnitude,
    NeighborhoodSuccess,
    ParaphraseMagnitude,
    ParaphraseSuccess,
    Score,
    harmonic_mean,
    target_magnitude,
    target_success,
)
from tests import reference_metrics as reference

SUCCESS = {"efficacy": EfficacySuccess, "paraphrase": ParaphraseSuccess, "neighborhood": NeighborhoodSuccess}
MAGNITUDE = {"efficacy": EfficacyMagnitude, "paraphrase": ParaphraseMagnitude, "neighborhood": NeighborhoodMagnitude}


def make_records(count: int = 9) -> list[reference.Record]:
    """Records with one prompt, one to three paraphrases and two to five neighbours; some ties among them."""
    generator = torch.Generator().manual_seed(5)

    def draw(prompts: int) -> list[tuple[float, float]]:
        pairs = -(4 * torch.rand(prompts, 2, generator=generator)).round(decimals=1)
        return [(float(new), float(old)) for new, old in pairs]

    return [{"efficacy": draw(1), "paraphrase": draw(1 + i % 3), "neighborhood": draw(2 + i % 4)} for i in range(count)]


def flat(records: list[reference.Record], kind: str) -> tuple[torch.Tensor, torch.Tensor, list[str]]:
    """Both log-probabilities and the record of every prompt of one kind."""
    rows = [(new, old, f"r{i}") for i, record in enumerate(records) for new, old in record[kind]]
    new, old, names = zip(*rows, strict=True)
    return torch.tensor(new), torch.tensor(old), list(names)


@pytest.mark.parametrize("kind", list(SUCCESS))
def test_success_and_magnitude_are_the_published_ones(kind: str) -> None:
    records = make_records()
    new, old, names = flat(records, kind)
    for classes, specification in ((SUCCESS, reference.success), (MAGNITUDE, reference.magnitude)):
        metric = classes[kind]()
        metric.update(new, old, names)
        expected = specification(records, kind)
        assert metric.compute().item() == pytest.approx(expected, abs=1e-6)
        split = classes[kind]()  # in two parts that cut through a record
        for part in (slice(0, 4), slice(4, None)):
            split.update(new[part], old[part], names[part])
        assert split.compute().item() == pytest.approx(expected, abs=1e-6)
        assert pickle.loads(pickle.dumps(split)).compute().item() == pytest.approx(expected, abs=1e-6)
        assert copy.deepcopy(split).compute().item() == pytest.approx(expected, abs=1e-6)


def test_records_weigh_the_same_however_many_prompts_they_have() -> None:
    new, old = torch.tensor([-1.0, -3.0, -3.0, -3.0]), torch.tensor([-2.0, -2.0, -2.0, -2.0])
    by_record, by_prompt = ParaphraseSuccess(), ParaphraseSuccess()
    by_record.update(new, old, ["a", "b", "b", "b"])
    by_prompt.update(new, old)
    assert (by_record.compute().item(), by_prompt.compute().item()) == (0.5, 0.25)


def test_ties_and_unknown_likelihoods_are_no_success_for_either_side() -> None:
    nan = float("nan")
    new, old = torch.tensor([-1.0, nan, -1.0]), torch.tensor([-1.0, -1.0, nan])
    assert not target_success(new, old).any()
    assert not target_success(old, new).any()
    assert target_magnitude(new, old)[1:].isnan().all()


def test_score_is_the_harmonic_mean_of_the_three() -> None:
    records = make_records()
    metric = Score()
    for kind in SUCCESS:
        new, old, names = flat(records, kind)
        metric.update(new, old, [kind] * len(names), names)
    assert reference.score(records) > 0
    assert metric.compute().item() == pytest.approx(reference.score(records), abs=1e-6)
    metric.reset()
    metric.update(torch.tensor([-1.0]), torch.tensor([-2.0]), ["efficacy"])
    assert metric.compute().isnan()  # two kinds are unknown
    assert harmonic_mean(torch.tensor([1.0, 0.0, 1.0])).item() == 0


def test_forward_gives_the_batch_and_keeps_the_rest() -> None:
    metric = EfficacySuccess()
    assert metric(torch.tensor([-1.0]), torch.tensor([-2.0])).item() == 1
    assert metric(torch.tensor([-3.0]), torch.tensor([-2.0])).item() == 0
    assert metric.compute().item() == 0.5


def test_half_precision_leaves_the_numbers_alone() -> None:
    metric = EfficacyMagnitude()
    metric.update(torch.tensor([0.7501]).log(), torch.tensor([0.25]).log())
    metric.to(torch.bfloat16)
    metric.update(torch.tensor([0.7501]).log(), torch.tensor([0.25]).log())
    assert metric.compute().item() == pytest.approx(0.5001, abs=1e-6)


def test_wrong_use_is_named() -> None:
    good = torch.tensor([-1.0])
    with pytest.raises(EditError, match="change the sign"):
        EfficacySuccess().update(torch.tensor([3.2]), good)
    with pytest.raises(EditError, match=r"shapes \(1,\) and \(2,\)"):
        EfficacySuccess().update(good, torch.tensor([-1.0, -2.0]))
    with pytest.raises(EditError, match="1 values and 2 records"):
        EfficacySuccess().update(good, good, ["a", "b"])
    with pytest.raises(EditError, match="'essence'"):
        Score().update(good, good, ["essence"])  # type: ignore[list-item]
    with pytest.raises(EditError, match=r"0\.\.1"):
        harmonic_mean(torch.tensor([0.5, -0.5]))


@pytest.mark.parametrize("make", [EfficacySuccess, NeighborhoodMagnitude, Score])
def test_nothing_seen_is_nan(make: Any) -> None:
    metric, nothing = make(), torch.zeros(0)
    metric.update(nothing, nothing, *([[]] if make is Score else []))
    assert metric.compute().isnan()
