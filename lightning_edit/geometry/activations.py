"""Reading the representations that are measured: where, which samples, and in which state of the model.

Knows modules by path, masks and parameters. Refuses to know what is measured. Two states are always read on the very
same batches, one after the other, in one precision and with one padding: a difference between them is the weights' and
nothing else's. Nothing is stored; a batch gives its rows and is forgotten.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from lightning_edit.errors import GeometryError
from lightning_edit.model.interception import Intercept
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.model.sites import Layer, Site
from lightning_edit.model.weights import base_layer

Pooling = Literal["tokens", "last", "mean"]
"""Which samples a text gives: each of its tokens, its last one, or the mean over its tokens. Padding never counts."""

Part = Literal["output", "input", "up"]
State = Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Point:
    """One place in the network.

    Args:
        name: What it is called in metrics and log keys.
        path: Path of a module in the unwrapped transformers model.
        kind: Whether the module's `input` or `output` is meant.
        mask: Which input of the model says where the real tokens are; a T5's decoder has `decoder_attention_mask`.
    """

    name: str
    path: str
    kind: Literal["input", "output"] = "output"
    mask: str = "attention_mask"

    def read(self, seen: Intercept) -> Tensor:
        """What was read there.

        Args:
            seen: A forward pass that was listened to with `watch`.
        """
        value: Tensor = (seen.inputs if self.kind == "input" else seen.outputs)[self.path]
        return value


def ffn_points(lm: LanguageModel, layers: Sequence[Layer], parts: Sequence[Part] = ("output",)) -> list[Point]:
    """Places around the feed-forward blocks of some layers.

    `output` is the output projection's output (`layer3`), `input` its input, behind the activation (`layer3_input`),
    and `up` the outputs of the projections that lead there (`layer3_gate_proj`, `layer3_up_proj`, `layer3_c_fc`, ...).
    Blocks of an encoder-decoder go by their paths: `encoder.block.3`, `decoder.block.3_wi`.

    Args:
        lm: The language model.
        layers: Numbers of the blocks, or their paths.
        parts: Which places.
    """
    points = []
    for layer in layers:
        site = lm.site(layer)
        label, mask = site.label, "decoder_attention_mask" if site.stack == "decoder" else "attention_mask"
        if "output" in parts:
            points.append(Point(label, site.name, mask=mask))
        if "input" in parts:
            points.append(Point(f"{label}_input", site.name, "input", mask))
        if "up" in parts:
            paths = _up_projections(lm, site)
            points += [Point(f"{label}_{path.rsplit('.', 1)[-1]}", path, mask=mask) for path in paths]
    return points


def watch(points: Sequence[Point]) -> dict[str, Any]:
    """Arguments of `Intercept` that read these places.

    Args:
        points: The places.
    """
    return {f"{kind}s": [point.path for point in points if point.kind == kind] for kind in ("input", "output")}


def pool(values: Tensor, mask: Tensor, pooling: Pooling) -> Tensor:
    """Samples of one batch (m, d).

    Args:
        values: Representations (b, t, d), or (b t, d) as some blocks keep them.
        mask: 1 for a real token, 0 for padding (b, t).
        pooling: Which samples.
    """
    real = mask.to(values.device, torch.bool)
    known = values.reshape(*mask.shape, values.shape[-1])
    if pooling == "tokens":
        return known[real]
    if pooling == "last":
        last = real.shape[1] - 1 - real.flip(1).to(torch.int8).argmax(dim=1)
        return known[torch.arange(len(known), device=known.device), last]
    if pooling == "mean":
        weight = real.to(torch.promote_types(known.dtype, torch.float32))
        return (known * weight[..., None]).sum(dim=1) / weight.sum(dim=1, keepdim=True)
    raise GeometryError(f"Found pooling {pooling!r}; expected tokens, last or mean.")


def read_rows(
    model: nn.Module, inputs: Mapping[str, Any], points: Sequence[Point], pooling: Pooling = "tokens"
) -> dict[str, Tensor]:
    """Samples of one batch at each place, by the place's name, in the model's precision.

    Args:
        model: The unwrapped model, borrowed (see `model.borrowing`).
        inputs: Keyword arguments of one forward pass, masks among them.
        points: The places.
        pooling: Which samples.
    """
    with Intercept(model, stop=True, **watch(points)) as seen:
        model(**inputs)
    return {point.name: pool(point.read(seen), inputs[point.mask], pooling) for point in points}


def read_states(
    model: nn.Module,
    inputs: Mapping[str, Any],
    points: Sequence[Point],
    states: Mapping[str, State],
    pooling: Pooling = "tokens",
) -> dict[str, dict[str, Tensor]]:
    """Samples of one batch in several states of the model, by state and place.

    Args:
        model: The unwrapped model, borrowed; afterwards it has its own weights, bit for bit.
        inputs: Keyword arguments of one forward pass.
        points: The places.
        states: Parameters by name for each state; an empty mapping is the model as it is.
        pooling: Which samples.
    """
    found = {}
    for name, state in states.items():
        with swapped(model, state):
            found[name] = read_rows(model, inputs, points, pooling)
    return found


@contextmanager
def swapped(model: nn.Module, state: State) -> Iterator[None]:
    """Other values of some parameters inside; afterwards the old ones, bit for bit.

    Args:
        model: The model.
        state: New values by the parameters' names.
    """
    known = dict(model.named_parameters())
    missing = sorted(set(state) - set(known))
    if missing:
        raise GeometryError(f"{type(model).__name__} has no parameters {missing}; expected names as it lists them.")
    old = {name: known[name].detach().clone() for name in state}
    try:
        with torch.no_grad():
            for name, value in state.items():
                known[name].copy_(value)
        yield
    finally:
        with torch.no_grad():
            for name, value in old.items():
                known[name].copy_(value)


def edited_parameters(lm: LanguageModel, layers: Sequence[Layer], further: Iterable[Tensor] = ()) -> list[str]:
    """Names of the output projections' weights of some layers, as the model lists its parameters.

    Args:
        lm: The language model.
        layers: Numbers of the blocks, or their paths.
        further: Other parameters of the model that are edited, such as those that MEND updates.
    """
    names = {id(parameter): name for name, parameter in lm.model.named_parameters()}
    edited = [names[id(base_layer(lm.projection(layer)).weight)] for layer in layers]
    return list(dict.fromkeys([*edited, *(names[id(parameter)] for parameter in further)]))


def random_state(before: State, after: State, seed: int) -> dict[str, Tensor]:
    """The control of an edit: each parameter before, plus Gaussian noise of the Frobenius norm of its change.

    Args:
        before: Parameters by name, before.
        after: The same, after.
        seed: Seed of the noise.
    """
    generator = torch.Generator().manual_seed(seed)
    control = {}
    for name, value in before.items():
        size = (after[name].double() - value.double()).norm()
        noise = torch.randn(value.shape, generator=generator, dtype=torch.float64).to(value.device)
        control[name] = (value.double() + noise * (size / noise.norm())).to(value.dtype)
    return control


def _up_projections(lm: LanguageModel, site: Site) -> list[str]:
    """Linear modules beside the output projection whose output has the inner width, or twice that where two are fused.

    Attention has none: in a block that keeps both side by side its projections map onto other widths or lie deeper.
    """
    parent = site.name.rpartition(".")[0]
    found = []
    for name, child in lm.model.get_submodule(parent).named_children():
        path = f"{parent}.{name}"
        if path == site.name or not isinstance(base_layer(child), nn.Linear | Conv1D):
            continue
        weight: Any = base_layer(child).weight
        outputs = weight.shape[1] if isinstance(base_layer(child), Conv1D) else weight.shape[0]
        if outputs in (site.inner, 2 * site.inner):
            found.append(path)
    return found
