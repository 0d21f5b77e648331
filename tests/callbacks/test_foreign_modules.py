"""A LightningModule and a DataModule that know nothing of edits get them by one callback."""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import pytest
import torch
from torch import Tensor
from torch.utils.data import DataLoader

from lightning_edit.callbacks import EditMonitor
from lightning_edit.errors import SiteError, StatisticsError
from lightning_edit.requests import EditRequest
from tests.callbacks.training import LAYERS, editing, fit, make_tokenizer, requests, texts, tiny_module, weights


class Stranger(pl.LightningModule):
    """Somebody's own training code: another name for the model, its own batches and optimizer."""

    def __init__(self, backend: str, mapping: bool = True) -> None:
        super().__init__()
        self.parts = torch.nn.ModuleDict({"lm": tiny_module(backend).model, "extra": torch.nn.Linear(2, 2)})
        self.mapping = mapping

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        ids = batch["input_ids"] if self.mapping else batch[0]
        loss: Tensor = self.parts["lm"](input_ids=ids, labels=ids).loss
        return loss

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.01, momentum=0.9)


class Data(pl.LightningDataModule):
    """Somebody's own data."""

    def __init__(self, backend: str, mapping: bool = True) -> None:
        super().__init__()
        self.backend, self.mapping = backend, mapping

    def train_dataloader(self) -> DataLoader[Any]:
        ids = [torch.tensor(row[:12]) for row in make_tokenizer(self.backend)(texts())["input_ids"]]
        rows: Any = [{"input_ids": row} for row in ids] if self.mapping else [(row,) for row in ids]
        return DataLoader(rows, batch_size=4, shuffle=True)


def foreign(backend: str, edits: list[EditRequest], **options: Any) -> Any:
    return editing(backbone="parts.lm", tokenizer=make_tokenizer(backend), requests=edits, **options)


@pytest.mark.parametrize("own_statistics", [True, False])
def test_edits_by_adding_one_callback(trained_backend: str, statistics: Path, own_statistics: bool) -> None:
    module, edits = Stranger(trained_backend), requests(4)
    source = {"statistics": statistics} if own_statistics else {"statistics_tokens": 300}
    callback, before = foreign(trained_backend, edits, **source), weights(module)
    watch = EditMonitor(max_new_tokens=3)
    fit(module, Data(trained_backend), [callback, watch], max_steps=5)
    assert callback.count == 4
    assert module.editor is callback.editor
    assert [site.layer for site in callback.editor.sites] == LAYERS
    assert all(not torch.equal(before[name], value) for name, value in weights(module).items() if "down_proj" in name)
    assert 0 <= watch.summary()["locality"] <= 1


def test_loaders_given_to_fit_without_a_datamodule(trained_backend: str) -> None:
    callback = foreign(trained_backend, requests(2), statistics_tokens=300)
    trainer_data = Data(trained_backend).train_dataloader()
    fit(Stranger(trained_backend), trainer_data, [callback], max_steps=2)
    assert callback.count == 2


def test_what_is_missing_is_named(trained_backend: str, statistics: Path) -> None:
    def run(callback: Any, module: Any = None) -> None:
        fit(module or Stranger(trained_backend), Data(trained_backend), [callback], max_steps=1)

    with pytest.raises(SiteError, match=r"Stranger has no `language_model`.*Its children: parts"):
        run(editing(statistics, requests=requests(1)))
    with pytest.raises(SiteError, match=r"Stranger has no module 'parts\.llm'"):
        run(editing(statistics, requests=requests(1), backbone="parts.llm"))
    with pytest.raises(SiteError, match="found no tokenizer on Stranger or its DataModule"):
        run(editing(statistics, requests=requests(1), backbone="parts.lm"))
    with pytest.raises(SiteError):
        run(
            editing(statistics, requests=requests(1), backbone="parts.extra", tokenizer=make_tokenizer(trained_backend))
        )


def test_batches_of_another_form_need_a_file_or_a_tracker(trained_backend: str) -> None:
    callback = foreign(trained_backend, requests(2))
    module, data = Stranger(trained_backend, mapping=False), Data(trained_backend, mapping=False)
    with pytest.raises(StatisticsError, match="training batches of list, expected mappings with `input_ids`"):
        fit(module, data, [callback], max_steps=1)
