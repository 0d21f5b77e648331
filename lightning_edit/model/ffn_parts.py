r"""The linear modules of a block's feed-forward network, by the part that they play.

    y = W_down act(W_up x)                 GPT-2's c_proj and c_fc, T5's wo and wi
    y = W_down (act(W_gate x) * W_up x)    Llama's down_proj, gate_proj and up_proj, T5 v1.1's wo, wi_0 and wi_1

`down` is the site itself, onto the residual stream; the two others lead onto the inner width. Which of two is the gate
no shape tells, so it is known by name. This file finds modules; it reads no weights.
"""

from dataclasses import dataclass
from typing import Any, Literal

from lightning_edit.errors import SiteError
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.model.sites import Layer, ffn_linears
from lightning_edit.model.weights import base_layer, is_transposed

Part = Literal["down", "up", "gate"]
GATES = ("gate_proj", "wi_0")
"""Names of modules whose output goes through the activation and is then multiplied with another's."""


@dataclass(frozen=True, slots=True)
class FFNPart:
    """One linear module of a feed-forward network.

    Args:
        path: Its path in the unwrapped transformers model.
        inputs: Length of its input: the inner width n for `down`, else the model width d.
        outputs: Length of its output: the model width d for `down`, else the inner width n.
    """

    path: str
    inputs: int
    outputs: int


def find_part(lm: LanguageModel, layer: Layer, part: Part = "down") -> FFNPart:
    """A linear module of a block's feed-forward network.

    Args:
        lm: The language model.
        layer: Number of the block, or its path.
        part: Which one.

    Raises:
        SiteError: The block has no such module: no gate in GPT-2, nothing but `down` where gate and up are fused.
    """
    site = lm.site(layer)
    inward = [path for path in ffn_linears(lm.model, site) if path != site.name]
    parts = {"down": FFNPart(site.name, site.inner, site.width)}
    if all(_outputs(lm, path) == site.inner for path in inward):
        parts |= {name: FFNPart(path, site.width, site.inner) for name, path in _named(inward).items()}
    if part not in parts:
        known = {found.path: name for name, found in parts.items()}
        seen = ", ".join(f"{path} ({known.get(path, 'no part by itself')})" for path in [*inward, site.name])
        raise SiteError(
            f"the feed-forward network of {site.label} has no part {part!r}: it has {seen}. Expected part to be one of "
            f"{', '.join(map(repr, parts))}."
        )
    return parts[part]


def _named(inward: list[str]) -> dict[Part, str]:
    """The parts that the modules onto the inner width play; nothing where that is not known."""
    gates = [path for path in inward if path.rsplit(".", 1)[-1] in GATES]
    others = [path for path in inward if path not in gates]
    if len(others) != 1 or len(gates) > 1:
        return {}
    parts: dict[Part, str] = {"up": others[0]}
    if gates:
        parts["gate"] = gates[0]
    return parts


def _outputs(lm: LanguageModel, path: str) -> int:
    """Length of a linear module's output."""
    module: Any = base_layer(lm.model.get_submodule(path))
    return int(module.nf if is_transposed(module) else module.out_features)
