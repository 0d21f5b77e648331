"""The trained model that ships with the package.

Weights are kept in bfloat16 to stay small and loaded in the precision that is asked for.
"""

from importlib import resources
from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedModel, PreTrainedTokenizerBase


def world_model_folder() -> Path:
    """The folder of the embedded model: a plain transformers checkpoint with its tokenizer."""
    return Path(str(resources.files("lightning_edit.data.world") / "model"))


def load_world_model(
    dtype: torch.dtype = torch.float32, folder: Path | None = None
) -> tuple[PreTrainedModel, PreTrainedTokenizerBase]:
    """Load the embedded model and its tokenizer.

    Args:
        dtype: Precision of the loaded weights.
        folder: Another folder of the same make, for example one that was just trained.
    """
    folder = folder or world_model_folder()
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=dtype)
    return model, AutoTokenizer.from_pretrained(folder)


def save_world_model(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, folder: Path) -> int:
    """Save a model as it ships, in bfloat16; returns the size of the folder in bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: value.to(torch.bfloat16) for name, value in model.state_dict().items()}
    model.save_pretrained(folder, state_dict=weights)
    config = folder / "config.json"
    config.write_text(config.read_text().replace('"float32"', '"bfloat16"'))
    tokenizer.save_pretrained(folder)
    return sum(file.stat().st_size for file in folder.iterdir())
