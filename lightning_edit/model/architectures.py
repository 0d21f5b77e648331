"""What is special about each architecture family, in one table.

Sites are found in the live model, and bias and transposition are read from the module itself (see `sites.py`). What no
module shows is written here: whether the residual stream moves by exactly what the projection's output moves by, and
whether attention and FFN read the same input. Families that are not in the table are measured (see `measure.py`).
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

Rule = Callable[[Any], bool]  # a question to the model's configuration


def _yes(config: object) -> bool:
    return True


def _no(config: object) -> bool:
    return False


@dataclass(frozen=True, slots=True)
class Architecture:
    """One row of the table.

    Args:
        projection: Path of the FFN's output projection inside a decoder block; the search must arrive here.
        norm_after: Whether a norm or a factor stands between the projection's output and the residual stream. Targets
            are then optimised at the projection's own output, and one layer is edited.
        parallel: Whether attention and FFN run side by side on the block's input.
        note: What else there is to know.
    """

    projection: str
    norm_after: Rule = _no
    parallel: Rule = _no
    note: str = ""


ARCHITECTURES: Mapping[str, Architecture] = MappingProxyType(
    {
        "bloom": Architecture("mlp.dense_4h_to_h", note="bias; the FFN adds the residual itself"),
        "cohere": Architecture("mlp.down_proj", parallel=_yes),
        "cohere2": Architecture("mlp.down_proj", parallel=_yes),
        "falcon": Architecture(
            "mlp.dense_4h_to_h",
            parallel=lambda config: config.parallel_attn or config.new_decoder_architecture,
            note="the block adds the attention's output to the FFN's in place",
        ),
        "gemma": Architecture("mlp.down_proj"),
        "gemma2": Architecture("mlp.down_proj", norm_after=_yes),
        "gemma3_text": Architecture("mlp.down_proj", norm_after=_yes),
        "glm4": Architecture("mlp.down_proj", norm_after=_yes),
        "gpt2": Architecture("mlp.c_proj", note="Conv1D keeps (n, d); bias"),
        "gpt_bigcode": Architecture("mlp.c_proj", note="bias"),
        "gpt_neo": Architecture("mlp.c_proj", note="bias; a plain Linear in spite of the name"),
        "gpt_neox": Architecture(
            "mlp.dense_4h_to_h", parallel=lambda config: config.use_parallel_residual, note="bias"
        ),
        "gptj": Architecture("mlp.fc_out", parallel=_yes, note="bias"),
        "granite": Architecture(
            "mlp.down_proj",
            norm_after=lambda config: config.residual_multiplier != 1.0,
            note="what the FFN writes is scaled by residual_multiplier",
        ),
        "llama": Architecture("mlp.down_proj", note="bias if config.mlp_bias"),
        "mistral": Architecture("mlp.down_proj"),
        "olmo": Architecture("mlp.down_proj"),
        "olmo2": Architecture("mlp.down_proj", norm_after=_yes),
        "olmo3": Architecture("mlp.down_proj", norm_after=_yes),
        "opt": Architecture(
            "fc2",
            norm_after=lambda config: not config.do_layer_norm_before,
            note="bias; the projection lies in the block itself; OPT-350m normalises after the residual sum",
        ),
        "phi": Architecture("mlp.fc2", parallel=_yes, note="bias"),
        "phi3": Architecture("mlp.down_proj", note="gate and up projection fused"),
        "qwen2": Architecture("mlp.down_proj"),
        "qwen3": Architecture("mlp.down_proj"),
        "qwen3_5_text": Architecture("mlp.down_proj", note="linear attention in three of four blocks"),
        "smollm3": Architecture("mlp.down_proj"),
        "stablelm": Architecture("mlp.down_proj", parallel=lambda config: config.use_parallel_residual),
        "starcoder2": Architecture("mlp.c_proj", note="bias"),
    }
)
