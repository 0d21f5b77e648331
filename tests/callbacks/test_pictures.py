"""Pictures reach every logger that can show one, in the way that it takes them."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from lightning.pytorch.loggers import CSVLogger, Logger, WandbLogger
from matplotlib.image import imsave

from lightning_edit.callbacks.pictures import show_pictures

PIXELS = np.array([[[255, 0, 0], [0, 255, 0]], [[0, 0, 255], [10, 20, 30]]], dtype=np.uint8)


class Board:
    """What stands behind TensorBoard's logger, which wants pixels."""

    def __init__(self) -> None:
        self.shown: list[Any] = []

    def add_image(self, tag: str, img_tensor: Any, global_step: int, dataformats: str) -> None:
        self.shown.append((tag, img_tensor, global_step, dataformats))


class Comet:
    """What stands behind Comet's logger, which wants a file and a name."""

    def __init__(self) -> None:
        self.shown: list[Any] = []

    def log_image(self, image_data: str, name: str, step: int) -> None:
        self.shown.append((image_data, name, step))


class Flow:
    """What stands behind MLflow's logger, which wants a file and a folder."""

    def __init__(self) -> None:
        self.shown: list[Any] = []

    def log_artifact(self, run_id: str, local_path: str, artifact_path: str | None) -> None:
        self.shown.append((run_id, local_path, artifact_path))


class Around(Logger):
    """A logger around one of these, with the attributes that Lightning's have."""

    def __init__(self, experiment: Any) -> None:
        super().__init__()
        self.experiment = experiment

    @property
    def name(self) -> str:
        return "around"

    @property
    def version(self) -> str:
        return "0"

    @property
    def run_id(self) -> str:
        return "run7"

    def log_metrics(self, metrics: Any, step: int | None = None) -> None:
        """Not asked."""

    def log_hyperparams(self, params: Any) -> None:
        """Not asked."""


@pytest.fixture
def picture(tmp_path: Path) -> Path:
    path = tmp_path / "layer1.png"
    imsave(path, PIXELS)
    return path


def trainer(*loggers: Logger) -> Any:
    return SimpleNamespace(loggers=list(loggers), global_step=9)


def test_each_logger_gets_the_picture_in_its_own_way(picture: Path, tmp_path: Path) -> None:
    board, comet, flow = Board(), Comet(), Flow()
    plain = CSVLogger(tmp_path)
    show_pictures(trainer(Around(board), plain, Around(comet), Around(flow)), {"geometry/layer1": picture})
    ((tag, pixels, step, order),) = board.shown
    assert (tag, step, order) == ("geometry/layer1", 9, "HWC")
    assert np.array_equal(pixels, PIXELS)
    assert pixels.dtype == np.uint8
    assert comet.shown == [(str(picture), "geometry/layer1", 9)]
    assert flow.shown == [("run7", str(picture), "geometry")]


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::pytest.PytestUnraisableExceptionWarning")
def test_an_offline_run_of_wandb_holds_the_picture(
    picture: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_SILENT", "true")
    monkeypatch.setenv("WANDB_CONSOLE", "off")
    logger = WandbLogger(project="test", save_dir=tmp_path, offline=True)
    show_pictures(trainer(logger), {"geometry/layer1": picture})
    logger.experiment.finish()
    (kept,) = tmp_path.glob("wandb/offline-run-*/files/media/images/geometry/layer1_*.png")
    assert kept.read_bytes() == picture.read_bytes()
