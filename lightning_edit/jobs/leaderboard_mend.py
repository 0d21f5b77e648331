"""MEND's network for a leaderboard: trained once, kept in the leaderboard's folder, with the seconds that it took.

The training itself is `train_mend`'s (`editors/mend/training.py`); this file knows when it has been done already.
"""

import json
import time
import warnings
from dataclasses import asdict, dataclass, field
from pathlib import Path

import lightning as L
import torch

from lightning_edit.editors.mend.data import MENDLessons
from lightning_edit.editors.mend.training import FILE, MODULES, MENDTraining
from lightning_edit.jobs.leaderboard_cells import fingerprint

RECORD = "training.json"


@dataclass(frozen=True)
class MENDPlan:
    """How MEND's network is trained.

    Args:
        steps: Optimizer steps.
        lessons: Requests to learn from.
        validation: Further requests to measure on.
        batch_size: Edits in one step, each in its own copy of the model.
        requests: File of requests with locality probes; the embedded world's, with seeds above 1000, where absent.
        modules: Names of the linear modules that are updated.
        layers: Blocks that they are in; the last three where absent.
        rank: Rank of the network's maps.
        lr: Learning rate of the network.
        rate_lr: Learning rate of the learned rates.
        seed: Seed of the network and of the order of lessons.
    """

    steps: int = 20
    lessons: int = 200
    validation: int = 32
    batch_size: int = 8
    requests: str | None = None
    modules: list[str] = field(default_factory=lambda: list(MODULES))
    layers: list[int | str] | None = None
    rank: int = 256
    lr: float = 1e-5
    rate_lr: float = 1e-4
    seed: int = 0


@dataclass(frozen=True)
class TrainedMEND:
    """A trained network.

    Args:
        checkpoint: Its file.
        seconds: How long the training took.
        said: Share of the validation's edits that are said after one update.
        fresh: Whether it was trained now.
    """

    checkpoint: Path
    seconds: float
    said: float
    fresh: bool


def train_mend(plan: MENDPlan, model: str, dtype: str, device: str | None, folder: Path) -> TrainedMEND:
    """Train the network, unless the folder holds one of the same plan.

    Args:
        plan: How it is trained.
        model: Hub name or folder of the model; "embedded" is the embedded world's.
        dtype: Precision of its weights.
        device: Where it is trained; the first GPU, or else the CPU, where None.
        folder: Where network and record lie.
    """
    settings = {"model": model, "dtype": dtype, **asdict(plan)}
    record, checkpoint = folder / RECORD, folder / FILE
    if record.is_file() and checkpoint.is_file():
        known = json.loads(record.read_text(encoding="utf-8"))
        if known["fingerprint"] == fingerprint(settings):
            return TrainedMEND(checkpoint, known["seconds"], known["said"], fresh=False)
    record.unlink(missing_ok=True)  # an interrupted training leaves none
    begin = time.perf_counter()
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*treespec, LeafSpec.*")  # lightning 2.6 on torch 2.13
        torch.manual_seed(plan.seed)
        trainer = _trainer(plan, device, folder)
        trainer.fit(_network(plan, model, dtype), datamodule=_lessons(plan))
    seconds, said = time.perf_counter() - begin, float(trainer.callback_metrics["mend/val_said"])
    content = {"fingerprint": fingerprint(settings), "settings": settings, "seconds": seconds, "said": said}
    record.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    return TrainedMEND(checkpoint, seconds, said, fresh=True)


def _trainer(plan: MENDPlan, device: str | None, folder: Path) -> L.Trainer:
    """A Trainer that measures once, at the end, and leaves nothing but the network."""
    on_gpu = torch.cuda.is_available() if device is None else device.startswith("cuda")
    return L.Trainer(
        default_root_dir=folder,
        accelerator="gpu" if on_gpu else "cpu",
        devices=1,
        max_steps=plan.steps,
        max_epochs=-1,
        gradient_clip_val=100.0,
        val_check_interval=plan.steps,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        logger=False,
        enable_checkpointing=False,
        enable_model_summary=False,
        enable_progress_bar=False,
    )


def _network(plan: MENDPlan, model: str, dtype: str) -> MENDTraining:
    return MENDTraining(model, dtype, plan.modules, plan.layers, plan.rank, plan.lr, plan.rate_lr)


def _lessons(plan: MENDPlan) -> MENDLessons:
    return MENDLessons(plan.requests, plan.lessons, plan.validation, plan.batch_size, seed=plan.seed)
