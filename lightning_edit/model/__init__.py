"""The model layer: where a transformers model keeps its facts, and how to read and write there.

It knows transformers and torch. It knows no Trainer, no editor and no request.
"""

from lightning_edit.model.interception import Intercept
from lightning_edit.model.language_model import Encoded, LanguageModel, as_language_model
from lightning_edit.model.sites import Site, find_sites
from lightning_edit.model.weights import read_weight, write_weight

__all__ = [
    "Encoded",
    "Intercept",
    "LanguageModel",
    "Site",
    "as_language_model",
    "find_sites",
    "read_weight",
    "write_weight",
]
