"""MEND's network for a leaderboard: trained for any family, as published where a plan says so, and resumed."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from lightning_edit.editors.mend.training import MENDTraining
from lightning_edit.errors import EditError
from lightning_edit.jobs.leaderboard_mend import MENDPlan, TrainedMEND, train_mend
from lightning_edit.jobs.stage import load_model
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.runner.recipe import load_recipe

SMALL: dict[str, Any] = {"lessons": 3, "validation": 1, "batch_size": 1, "rank": 4, "lr": 1e-3}
LOOP: dict[str, Any] = {"steps": 4, "accumulate": 3, "validate_every": 3}  # 12 batches, a measurement after each step


@pytest.fixture
def lm(model_folder: Path) -> LanguageModel:
    return load_model(str(model_folder), "float32", "cpu")


class Watch:
    """What a training does, and what it would measure."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, losses: list[float]) -> None:
        self.losses, self.stop_at = losses, -1
        self.batches = 0
        self.scales: list[Tensor] = []  # of the first transform, at each measurement of a fit
        train = MENDTraining.training_step

        def training_step(module: MENDTraining, batch: Any, batch_idx: int) -> Tensor:
            if self.batches == self.stop_at:
                raise RuntimeError("the power has failed")
            self.batches += 1
            return train(module, batch, batch_idx)

        def validation_step(module: MENDTraining, batch: Any, batch_idx: int) -> None:
            if module.trainer.state.fn == "fit":
                self.scales.append(module.network.rates.detach().clone())
                module.log("mend/val_loss", self.losses[len(self.scales) - 1], batch_size=1)
            module.log("mend/val_said", float(module.network.rates.sum()), batch_size=1)

        monkeypatch.setattr(MENDTraining, "training_step", training_step)
        monkeypatch.setattr(MENDTraining, "validation_step", validation_step)


def train(plan: MENDPlan, lm: LanguageModel, folder: Path) -> TrainedMEND:
    return train_mend(plan, lm, "tiny", "float32", "cpu", folder)


def rates_of(folder: Path) -> Tensor:
    return torch.load(folder / "mend.pt", weights_only=True)["network"]["tensors"]["rates"]


def test_the_best_network_on_the_validation_is_taken(
    lm: LanguageModel, request_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = Watch(monkeypatch, [3.0, 1.0, 2.0, 4.0])
    trained = train(MENDPlan(requests=str(request_file), **SMALL, **LOOP), lm, tmp_path)
    assert (watch.batches, len(watch.scales)) == (12, 4)
    assert not torch.equal(watch.scales[1], watch.scales[3])
    assert torch.equal(rates_of(tmp_path), watch.scales[1])
    assert trained.said == pytest.approx(float(watch.scales[1].sum()))  # what is reported is the taken one's
    assert {path.name for path in tmp_path.iterdir()} == {"mend.pt", "training.json"}


def test_training_ends_where_it_gets_no_better(
    lm: LanguageModel, request_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = Watch(monkeypatch, [1.0, 2.0, 3.0, 4.0])
    train(MENDPlan(requests=str(request_file), **SMALL, **LOOP, patience=2), lm, tmp_path)
    assert (watch.batches, len(watch.scales)) == (9, 3)
    assert torch.equal(rates_of(tmp_path), watch.scales[0])
    with pytest.raises(EditError, match="found patience=2 and no validate_every"):
        MENDPlan(patience=2)


def test_a_stopped_training_goes_on_and_another_plan_starts_afresh(
    lm: LanguageModel, request_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = Watch(monkeypatch, [1.0, 2.0, 3.0, 4.0])
    plan = MENDPlan(requests=str(request_file), **SMALL, **LOOP)
    watch.stop_at = 7  # one batch after the second measurement
    with pytest.raises(RuntimeError, match="the power has failed"):
        train(plan, lm, tmp_path)
    assert not (tmp_path / "training.json").exists()
    watch.stop_at, watch.batches = -1, 0
    trained = train(plan, lm, tmp_path)
    assert (watch.batches, len(watch.scales)) == (6, 4)  # from the second of four measurements
    assert torch.equal(rates_of(tmp_path), watch.scales[0])  # the best is of the first part
    assert trained.fresh
    assert not train(plan, lm, tmp_path).fresh
    watch.batches, watch.losses = 0, 12 * [1.0]
    assert train(MENDPlan(requests=str(request_file), **SMALL, **LOOP, rate_lr=1e-3), lm, tmp_path).fresh
    assert watch.batches == 12


def test_seconds_of_all_parts_are_told(
    lm: LanguageModel, request_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    watch = Watch(monkeypatch, 4 * [1.0])
    plan = MENDPlan(requests=str(request_file), **SMALL, **LOOP)
    watch.stop_at = 6
    with pytest.raises(RuntimeError, match="the power has failed"):
        train(plan, lm, tmp_path)
    (last,) = tmp_path.glob("unfinished-*/last.ckpt")
    content = torch.load(last, weights_only=False)
    content["callbacks"]["Stopwatch"]["seconds"] += 1000.0
    torch.save(content, last)
    watch.stop_at = -1
    assert train(plan, lm, tmp_path).seconds > 1000


def test_without_measurements_in_between_the_last_network_is_measured(
    lm: LanguageModel, request_file: Path, tmp_path: Path
) -> None:
    before = {name: value.clone() for name, value in lm.model.state_dict().items()}
    trained = train(MENDPlan(requests=str(request_file), steps=2, **SMALL), lm, tmp_path)
    assert 0 <= trained.said <= 1
    assert all(torch.equal(value, before[name]) for name, value in lm.model.state_dict().items())
    record = json.loads((tmp_path / "training.json").read_text())
    assert record["settings"]["modules"] == ["gate_proj", "up_proj", "down_proj"]


def test_what_a_network_hangs_on_names_the_loop_only_where_it_is_another(lm: LanguageModel) -> None:
    plain = MENDPlan().settings(lm)
    assert plain == {
        **{"steps": 20, "lessons": 200, "validation": 32, "batch_size": 8, "requests": None, "layers": None},
        **{"modules": ["gate_proj", "up_proj", "down_proj"], "rank": 256, "lr": 1e-5, "rate_lr": 1e-4, "seed": 0},
    }
    assert MENDPlan(modules=["gate_proj", "up_proj", "down_proj"]).settings(lm) == plain
    assert MENDPlan(accumulate=10, rate=1e-5).settings(lm) == {**plain, "accumulate": 10, "rate": 1e-5}


@pytest.mark.parametrize("name", ["leaderboard_paper", "leaderboard", "fairness"])
def test_the_papers_plan_is_the_published_loop(name: str) -> None:
    recipe = load_recipe(name)
    arguments = recipe.arguments if name == "leaderboard_paper" else recipe.as_published().arguments
    plan = MENDPlan(**arguments["mend"])
    assert (plan.steps * plan.accumulate, plan.accumulate, plan.batch_size) == (100_000, 10, 1)
    assert (plan.validation, plan.validate_every, plan.patience) == (500, 1000, 20)
    assert (plan.lr, plan.rate_lr, plan.rank) == (1e-6, 1e-4, 1920)
    assert plan.modules is None
