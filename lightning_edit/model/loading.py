"""A model and its tokenizer by name, with an error that says what was looked for.

Knows what transformers raises where there is nothing to load. Refuses to know what the model is for.
"""

from typing import Any

import torch
from transformers import AutoTokenizer, PreTrainedTokenizerBase

from lightning_edit.errors import EditError, reason_of
from lightning_edit.model.seq2seq import auto_class


def load_pretrained(name: str, dtype: torch.dtype | str) -> tuple[Any, PreTrainedTokenizerBase]:
    """A language model and its tokenizer.

    Args:
        name: Hub name, or a folder that `save_pretrained` wrote.
        dtype: Precision of the weights; `auto` is that of the checkpoint.

    Raises:
        EditError: There is no such model, or it cannot be read.
    """
    try:
        model = auto_class(name).from_pretrained(name, dtype=dtype)
        return model, AutoTokenizer.from_pretrained(name)
    except (OSError, ValueError) as error:
        raise EditError(
            f"found no model that can be loaded as {name!r} ({reason_of(error)}); expected a folder with a model "
            "and its tokenizer, as save_pretrained writes them, or the name of one on the Hugging Face Hub that you "
            "may read. Correct the name, and unset HF_HUB_OFFLINE where it has to be downloaded."
        ) from error
