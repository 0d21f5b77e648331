"""What the tests of restrictions share: quick editors, models that edits outgrow, and what every batch asked for."""

import pytest
from torch import Tensor

from lightning_edit.algebra import SiteLedger
from lightning_edit.editors import ClosedFormEditor
from lightning_edit.editors.report import EditReport
from lightning_edit.model.language_model import LanguageModel
from tests.editors.conftest import facts

Batches = list[tuple[Tensor, Tensor]]

QUICK = {"steps": 6, "contexts": []}  # enough for the algebra; nobody has to be convinced here


def base_weights(lm: LanguageModel, layers: list[int]) -> list[Tensor]:
    return [lm.projection(layer).weight.data.clone() for layer in layers]


def edit_in_batches(
    lm: LanguageModel,
    editor: ClosedFormEditor,
    sizes: tuple[int, ...] = (2, 1, 2),
    first: int = 0,
    reports: list[EditReport] | None = None,
) -> Batches:
    """Edit one layer batch by batch, and write down what every batch asked of it, and what the editor reported."""
    batches: Batches = []
    append = SiteLedger.append

    def writing_down(ledger: SiteLedger, ids: list[str], keys: Tensor, values: Tensor) -> None:
        batches.append((keys, values))
        append(ledger, ids, keys, values)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(SiteLedger, "append", writing_down)
        for i, size in enumerate(sizes):
            report = editor.edit(lm, facts(size, first + sum(sizes[:i])))
            if reports is not None:
                reports.append(report)
    assert len(batches) == len(sizes)
    return batches


def small_weight(lm: LanguageModel, layers: tuple[int, ...] = (1,)) -> LanguageModel:
    """A model in whose projections edits are larger than the weights, so that PRUNE has something to clip."""
    for layer in layers:
        lm.projection(layer).weight.data.mul_(0.02)
    return lm
