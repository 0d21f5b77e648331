"""MEND's network for a leaderboard: trained once, kept in the leaderboard's folder, with the seconds that it took.

The training itself is `train_mend`'s (`editors/mend/training.py`); this file knows when it has been done already, and
where one that was stopped goes on.
"""

import json
import shutil
import time
import warnings
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import lightning as L
import torch
from lightning.pytorch.callbacks import Callback, EarlyStopping, ModelCheckpoint

from lightning_edit.editors.mend.data import MENDLessons
from lightning_edit.editors.mend.training import FILE, MENDTraining, ffn_modules
from lightning_edit.errors import EditError
from lightning_edit.jobs.leaderboard_cells import fingerprint
from lightning_edit.model.language_model import LanguageModel

RECORD, LAST = "training.json", "last.ckpt"
LOSS = "mend/val_loss"
LATER = ("accumulate", "validate_every", "patience", "rate")
"""What plans had not always; settings have it where it is not the default, so that older networks are known again."""


@dataclass(frozen=True)
class MENDPlan:
    """How MEND's network is trained.

    Args:
        steps: Optimizer steps.
        lessons: Requests to learn from.
        validation: Further requests to measure on.
        batch_size: Edits in one step, each in its own copy of the model.
        requests: File of requests with locality probes; the embedded world's, with seeds above 1000, where absent.
        modules: Names of the linear modules that are updated; those of the model's FFNs where absent.
        layers: Blocks that they are in; the last three where absent.
        rank: Rank of the network's maps.
        lr: Learning rate of the network.
        rate_lr: Learning rate of the learned rates.
        seed: Seed of the network and of the order of lessons.
        accumulate: Batches in one optimizer step.
        validate_every: Batches from one measurement to the next. Where given, the network that had the least loss on
            the validation is taken, and a training that was stopped goes on from the last measurement; else the last
            network is taken, and measured once.
        patience: Measurements without a smaller loss after which training ends; as many as there are where absent.
        rate: Size of the learned rates in the beginning.
    """

    steps: int = 20
    lessons: int = 200
    validation: int = 32
    batch_size: int = 8
    requests: str | None = None
    modules: list[str] | None = None
    layers: list[int | str] | None = None
    rank: int = 256
    lr: float = 1e-5
    rate_lr: float = 1e-4
    seed: int = 0
    accumulate: int = 1
    validate_every: int | None = None
    patience: int | None = None
    rate: float = 1e-4

    def __post_init__(self) -> None:
        if self.patience is not None and self.validate_every is None:
            raise EditError(f"found patience={self.patience} and no validate_every; expected both, or no patience.")

    def settings(self, lm: LanguageModel) -> dict[str, Any]:
        """What a network that is trained like this hangs on, as plain values.

        Args:
            lm: The model it is trained for, which says what its modules are called.
        """
        defaults = {field.name: field.default for field in fields(self) if field.name in LATER}
        known = {key: value for key, value in asdict(self).items() if key not in LATER or value != defaults[key]}
        return {**known, "modules": list(self.modules or ffn_modules(lm))}


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


def train_mend(
    plan: MENDPlan, lm: LanguageModel, model: str, dtype: str, device: str | None, folder: Path
) -> TrainedMEND:
    """Train the network, unless the folder holds one of the same plan; go on where such a training was stopped.

    Args:
        plan: How it is trained.
        lm: The model, which is left as it is.
        model: What it was loaded by.
        dtype: Precision of its weights.
        device: Where the network is trained; the first GPU, or else the CPU, where None.
        folder: Where network and record lie.
    """
    settings = {"model": model, "dtype": dtype, **plan.settings(lm)}
    record, checkpoint = folder / RECORD, folder / FILE
    if record.is_file() and checkpoint.is_file():
        known = json.loads(record.read_text(encoding="utf-8"))
        if known["fingerprint"] == fingerprint(settings):
            return TrainedMEND(checkpoint, known["seconds"], known["said"], fresh=False)
    record.unlink(missing_ok=True)  # an interrupted training leaves none
    unfinished = folder / f"unfinished-{fingerprint(settings)}"  # no other plan goes on from there
    stopwatch = Stopwatch()
    with torch.random.fork_rng(), warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*does not have many workers.*")
        warnings.filterwarnings("ignore", message=".*treespec, LeafSpec.*")  # lightning 2.6 on torch 2.13
        warnings.filterwarnings("ignore", message="Checkpoint directory .* exists and is not empty")
        torch.manual_seed(plan.seed)
        trainer = _trainer(plan, device, folder, [stopwatch, *_watching(plan, unfinished)])
        last = unfinished / LAST if (unfinished / LAST).is_file() else None
        network = MENDTraining(lm, dtype, plan.modules, plan.layers, plan.rank, plan.lr, plan.rate_lr, plan.rate)
        lessons = MENDLessons(plan.requests, plan.lessons, plan.validation, plan.batch_size, seed=plan.seed)
        trainer.fit(network, datamodule=lessons, ckpt_path=last)
        (measured,) = trainer.validate(network, datamodule=lessons, verbose=False)
    seconds, said = stopwatch.seconds, float(measured["mend/val_said"])
    content = {"fingerprint": fingerprint(settings), "settings": settings, "seconds": seconds, "said": said}
    record.write_text(json.dumps(content, indent=1) + "\n", encoding="utf-8")
    shutil.rmtree(unfinished, ignore_errors=True)
    return TrainedMEND(checkpoint, seconds, said, fresh=True)


class Stopwatch(Callback):
    """Seconds of a training, all its parts together where it was stopped in between."""

    def __init__(self) -> None:
        self._before, self._begin = 0.0, time.perf_counter()

    @property
    def seconds(self) -> float:
        """Seconds so far."""
        return self._before + time.perf_counter() - self._begin

    def state_dict(self) -> dict[str, Any]:
        """The seconds, for a checkpoint."""
        return {"seconds": self.seconds}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Count on from what a checkpoint says.

        Args:
            state_dict: What `state_dict` gave.
        """
        self._before = state_dict["seconds"]


def _watching(plan: MENDPlan, unfinished: Path) -> list[Callback]:
    """What keeps the best network and the last one, and ends a training that gets no better."""
    if plan.validate_every is None:
        return []
    best = ModelCheckpoint(unfinished, "best", LOSS, save_top_k=1, enable_version_counter=False)
    last = ModelCheckpoint(unfinished, Path(LAST).stem, enable_version_counter=False)  # after the best, which it names
    stop = [] if plan.patience is None else [EarlyStopping(LOSS, patience=plan.patience)]
    return [*stop, best, last]


def _trainer(plan: MENDPlan, device: str | None, folder: Path, callbacks: list[Callback]) -> L.Trainer:
    """A Trainer that leaves nothing but the network."""
    on_gpu = torch.cuda.is_available() if device is None else device.startswith("cuda")
    never = plan.steps * plan.accumulate + 1  # batches that there are not: what is to be measured is so afterwards
    return L.Trainer(
        default_root_dir=folder,
        accelerator="gpu" if on_gpu else "cpu",
        devices=[torch.device(device or "cuda").index or 0] if on_gpu else 1,
        max_steps=plan.steps,
        max_epochs=-1,
        accumulate_grad_batches=plan.accumulate,
        gradient_clip_val=100.0,
        val_check_interval=plan.validate_every or never,
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        callbacks=callbacks,
        logger=False,
        inference_mode=False,  # factors are gradients, when measuring too
        enable_checkpointing=plan.validate_every is not None,
        enable_model_summary=False,
        enable_progress_bar=False,
    )
