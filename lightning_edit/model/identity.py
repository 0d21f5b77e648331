"""Which model this is, as a hash that statistics and saved state can be checked against.

A model keeps its identity when it is trained, edited, cast or wrapped; this file refuses to look at weights.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import PurePath
from typing import Any

from lightning_edit.model.sites import Site

VOLATILE = (  # what loading, saving and casting change without changing the model; the class and the name count apart
    "architectures",
    "transformers_version",
    "dtype",
    "torch_dtype",
    "use_cache",
    "_name_or_path",
    "_attn_implementation",
    "edited_from",
)


def model_identity(model: Any, sites: Sequence[Site]) -> str:
    """A stable hash of class, configuration, sites and name (of a folder, its last part).

    Args:
        model: The unwrapped transformers model.
        sites: Its sites.
    """
    config = {key: value for key, value in model.config.to_dict().items() if key not in VOLATILE}
    facts = {
        "class": type(model).__name__,
        "name": source_name(model),
        "config": config,
        "sites": [(site.name, site.width, site.inner) for site in sites],
    }
    return hashlib.sha256(json.dumps(facts, sort_keys=True, default=str).encode()).hexdigest()[:32]


def source_name(model: Any) -> str:
    """The name a model goes by: what it was edited from if it was saved with edits, else the last part of its own.

    Args:
        model: The unwrapped transformers model.
    """
    edited_from: str | None = getattr(model.config, "edited_from", None)
    return PurePath(model.config._name_or_path or "").name if edited_from is None else edited_from
