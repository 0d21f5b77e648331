"""Targets that are read once on the clean model, and shared by all editors of a job.

The public implementations can keep the targets of a whole dataset in a cache, found on the unedited model; an edit then
only reads keys and solves. Here the cache is an object that lives as long as a job. It knows columns and clean weights.
Refuses to know editors: whoever asks for a column gets the same target.
"""

from collections.abc import Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace

import torch
from torch import Tensor

from lightning_edit.model.language_model import LanguageModel
from lightning_edit.model.weights import read_weight, write_weight
from lightning_edit.targets import Column, TargetOptions, Targets, optimize_targets

Found = tuple[Tensor, Tensor, Tensor, Tensor]  # z (d,), start (d,), loss (), steps ()


class SharedTargets:
    """Stands for `optimize_targets`: a column is optimised the first time it is asked for, on the clean weights.

    Targets that begin at an older one (those that are optimised again) are left to `optimize_targets`, on the model as
    it is. The model is left as it was found.

    Args:
        clean: The clean weights (d, n) by layer, for all layers that any editor has written to by then.
    """

    def __init__(self, clean: Mapping[int, Tensor]) -> None:
        self._clean = clean
        self._found: dict[Hashable, Found] = {}

    def __call__(
        self, lm: LanguageModel, columns: Sequence[Column], layer: int, options: TargetOptions | None = None
    ) -> Targets:
        """Targets of some columns, in their order.

        Args:
            lm: The language model.
            columns: What should be said.
            layer: The block that takes the offset.
            options: How to optimise.
        """
        if not columns or any(column.z is not None for column in columns):
            return optimize_targets(lm, columns, layer, options)
        names = [_name(column, layer, options or TargetOptions()) for column in columns]
        missing = {name: column for name, column in zip(names, columns, strict=True) if name not in self._found}
        if missing:
            with self._clean_weights(lm):
                new = optimize_targets(lm, list(missing.values()), layer, options)
            parts = zip(new.z.unbind(), new.start.unbind(), new.loss.unbind(), new.steps.unbind(), strict=True)
            self._found |= zip(missing, parts, strict=True)
        z, start, loss, steps = (torch.stack(part) for part in zip(*(self._found[name] for name in names), strict=True))
        return Targets(z, start, loss, steps, [column.id for column in columns])

    @contextmanager
    def _clean_weights(self, lm: LanguageModel) -> Iterator[None]:
        """The clean weights in the model, and those that were there again afterwards."""
        modules = {layer: lm.projection(layer) for layer in self._clean}
        found = {layer: read_weight(module).clone() for layer, module in modules.items()}
        try:
            for layer, module in modules.items():
                write_weight(module, self._clean[layer])
            yield
        finally:
            for layer, module in modules.items():
                write_weight(module, found[layer])


def _name(column: Column, layer: int, options: TargetOptions) -> Hashable:
    """All that decides a target, its column's name and the number of columns in a graph aside."""
    texts = (tuple(column.prompts), column.kl_prompt, tuple(column.preserved))
    return texts, layer, replace(options, batch_size=1)
