"""The language model inside a LightningModule, ours or anybody's.

Knows `EditableModule`'s `language_model`, a dotted path to a transformers model, and the usual places of a tokenizer.
Refuses to know what is done with the model.
"""

from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from torch import nn
from transformers import AutoTokenizer

from lightning_edit.errors import SiteError
from lightning_edit.model.language_model import LanguageModel, as_language_model
from lightning_edit.model.sites import unwrap


def resolve_language_model(
    trainer: "pl.Trainer",
    pl_module: "pl.LightningModule",
    backbone: str | None = None,
    tokenizer: Any = None,
    projection: str | None = None,
    before: LanguageModel | None = None,
) -> LanguageModel:
    """Find the language model and its tokenizer.

    Args:
        trainer: The Trainer; its DataModule may hold the tokenizer.
        pl_module: The module.
        backbone: Dotted path of the transformers model in the module; None where the module has a `language_model`.
        tokenizer: The tokenizer, or its name or folder; None looks at the module and the DataModule.
        projection: Override of the site search, see `LanguageModel`.
        before: What was found earlier. Where it is the same transformers model it is found again, with all that an
            editor has put around it.
    """
    if backbone is None:
        if hasattr(pl_module, "language_model"):
            return as_language_model(pl_module)
        names = ", ".join(name for name, _ in pl_module.named_children()) or "none"
        raise SiteError(
            f"{type(pl_module).__name__} has no `language_model`; expected an EditableModule, or "
            f'ContinualEdit(backbone="...") with the path of the transformers model. Its children: {names}.'
        )
    try:
        model = pl_module.get_submodule(backbone)
    except AttributeError as error:
        raise SiteError(
            f"{type(pl_module).__name__} has no module {backbone!r} ({error}); expected the dotted path of the "
            "transformers model, as `named_modules()` lists it."
        ) from error
    if before is not None and before.model is unwrap(model):
        return before
    return LanguageModel(model, _tokenizer(trainer, pl_module, model, tokenizer), projection)


def _tokenizer(trainer: "pl.Trainer", pl_module: "pl.LightningModule", model: nn.Module, given: Any) -> Any:
    """The tokenizer that was given, or the one that the module or the DataModule uses."""
    if isinstance(given, str | Path):
        return AutoTokenizer.from_pretrained(given)
    datamodule = getattr(trainer, "datamodule", None)
    places = (given, *(getattr(owner, "tokenizer", None) for owner in (pl_module, datamodule)))
    found = next((place for place in places if callable(place)), None)
    if found is None:
        raise SiteError(
            f"found no tokenizer on {type(pl_module).__name__} or its DataModule; expected the one that "
            f"{type(model).__name__} was trained with. Pass ContinualEdit(tokenizer=...), by name or as an object."
        )
    return found
