"""Where a model keeps what it knows: the FFN's output projection of every block.

Sites are found in the live model by structure: the longest list of blocks in the decoder, and in each block, outside of
attention, the linear map onto the residual stream with the widest input. An encoder-decoder has two such lists, and its
blocks are numbered through, the encoder's first. This file knows how transformers models are built. It refuses mixtures
of experts and encoder-decoders that are not built like T5, and it reads no weights.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from torch import nn
from transformers.pytorch_utils import Conv1D

from lightning_edit.errors import SiteError
from lightning_edit.model.architectures import ARCHITECTURES
from lightning_edit.model.attention import is_attention
from lightning_edit.model.measure import moves_residual
from lightning_edit.model.seq2seq import FAMILIES, is_encoder_decoder
from lightning_edit.model.weights import base_layer, is_transposed, refuse_quantised

Layer = int | str  # number of a block, or its path in the transformers model, such as `decoder.block.3`
Stack = Literal["", "encoder", "decoder"]
OVERRIDE = 'Name it with projection="path.to.blocks.{}.projection", where {} stands for the number of the layer.'


@dataclass(frozen=True, slots=True)
class Site:
    """One FFN output projection.

    Args:
        layer: Number of the block, from 0; where there is an encoder its blocks come first.
        name: Path of the projection in the unwrapped transformers model.
        block: Path of its block, whose output is the residual stream.
        width: Model width d, the size of a value.
        inner: Inner width n, the size of a key.
        transposed: Whether the weight is kept as (n, d), as Conv1D does.
        bias: Whether the projection adds a bias; values are meant before it.
        norm_after: Whether the residual stream moves by something else than the projection's output moves by.
        parallel: Whether attention and FFN run side by side on the block's input.
        stack: Whose block it is, where there are an encoder and a decoder; empty where there is a decoder alone.
    """

    layer: int
    name: str
    block: str
    width: int
    inner: int
    transposed: bool
    bias: bool
    norm_after: bool
    parallel: bool
    stack: Stack = ""

    @property
    def label(self) -> str:
        """What the block is called in tables, figures and log keys: `layer3`, or `decoder.block.3`."""
        return self.block if self.stack else f"layer{self.layer}"


def unwrap(model: Any) -> Any:
    """The transformers model inside `torch.compile`'s and PEFT's wrappers.

    Args:
        model: A transformers model, possibly wrapped.
    """
    while True:
        if hasattr(model, "_orig_mod"):
            model = model._orig_mod
        elif hasattr(model, "get_base_model"):
            adapter = getattr(model, "active_peft_config", None)
            if adapter is not None and adapter.is_prompt_learning:
                raise SiteError(
                    f"the model carries a PEFT adapter of type {adapter.peft_type}, which puts virtual tokens before "
                    "every text; expected an adapter inside the layers, such as LoRA."
                )
            model = model.get_base_model()
        else:
            return model


def find_sites(model: nn.Module, projection: str | None = None) -> list[Site]:
    """Find the FFN output projection of every block.

    Args:
        model: A transformers causal LM or T5-style encoder-decoder, possibly wrapped by PEFT or `torch.compile`.
        projection: Path of the projection with `{}` for the layer's number, for models whose structure does not show
            it, such as `"model.layers.{}.mlp.down_proj"`. Layers without such a module have no site.

    Returns:
        The sites, in the order of layers.
    """
    model = unwrap(model)
    blocks = find_blocks(model, projection)
    if projection is None:
        width = _text_config(model).hidden_size
        names = [f"{block}.{_projection_in(model.get_submodule(block), block, width)}" for block in blocks]
    else:
        names = [projection.format(layer) for layer in range(len(blocks))]
    places = [place for place in zip(range(len(blocks)), names, blocks, strict=True) if _submodule(model, place[1])]
    if not places:
        raise SiteError(f"{type(model).__name__} has no module {names[0]!r} nor any of its kind. {OVERRIDE}")
    norm_after, parallel = _traits(model, *places[0][1:])
    return [
        _site(model, layer, name, block, norm_after, parallel, _stack(model, block)) for layer, name, block in places
    ]


def find_blocks(model: Any, projection: str | None = None) -> list[str]:
    """Paths of the blocks of an unwrapped model, in order; an encoder's come before the decoder's.

    Args:
        model: A transformers causal LM or T5-style encoder-decoder.
        projection: The override of `find_sites`; the blocks are then the modules numbered in it.
    """
    if is_encoder_decoder(model):
        return _encoder_decoder_blocks(model, projection)
    if projection is not None:
        return _numbered(model, projection)
    return _blocks_in(model, model.get_decoder() if hasattr(model, "get_decoder") else model)


def ffn_linears(model: nn.Module, site: Site) -> list[str]:
    """Paths of the linear modules of a site's FFN, in the model's order: those onto its inner width, and the site.

    Args:
        model: The unwrapped transformers model.
        site: The FFN's output projection. A fused projection, as in Phi-3, leads onto a multiple of the inner width.
    """
    sizes = {f"{site.block}.{name}": _size(linear) for name, linear in _linears(model.get_submodule(site.block))}
    inward = {path for path, (out, inner) in sizes.items() if inner == site.width and out % site.inner == 0}
    return [path for path in sizes if path in inward or path == site.name]


def _encoder_decoder_blocks(model: Any, projection: str | None) -> list[str]:
    """Paths of the blocks of both stacks."""
    kind = getattr(model.config, "model_type", "")
    if kind not in FAMILIES:
        raise SiteError(
            f"{type(model).__name__} is an encoder-decoder of a kind that is not known here ({kind or 'unnamed'}); "
            f"expected a decoder-only causal LM, or one of {', '.join(FAMILIES)}. Other encoder-decoders are not "
            "supported."
        )
    if projection is not None:
        raise SiteError(
            f"projection={projection!r} names the blocks of one list, and {type(model).__name__} has an encoder and a "
            "decoder; expected none. Leave it out: their sites are found by structure."
        )
    return [*_blocks_in(model, model.get_encoder()), *_blocks_in(model, model.get_decoder())]


def _blocks_in(model: nn.Module, stack: nn.Module) -> list[str]:
    """Paths of the blocks of one stack."""
    prefix = next(name for name, module in model.named_modules() if module is stack)
    lists = [(name, module) for name, module in stack.named_modules() if isinstance(module, nn.ModuleList)]
    if not lists:
        raise SiteError(f"{type(model).__name__} has no list of decoder blocks. {OVERRIDE}")
    name, blocks = max(lists, key=lambda entry: (-entry[0].count("."), len(entry[1])))
    path = ".".join(part for part in (prefix, name) if part)
    return [f"{path}.{index}" for index in range(len(blocks))]


def _numbered(model: nn.Module, projection: str) -> list[str]:
    """The modules that the override's `{}` counts."""
    if projection.count("{}") != 1:
        raise SiteError(f"projection={projection!r} should have exactly one {{}}. {OVERRIDE}")
    path = projection[: projection.index("{}")].rstrip(".")
    blocks = _submodule(model, path)
    if not isinstance(blocks, nn.ModuleList):
        raise SiteError(
            f"projection={projection!r}: {path!r} is {type(blocks).__name__} in {type(model).__name__}; expected the "
            f"list of decoder blocks of the model without wrappers. {OVERRIDE}"
        )
    return [f"{path}.{index}" for index in range(len(blocks))]


def _projection_in(block: nn.Module, path: str, width: int) -> str:
    """The linear map onto the residual stream with the widest input, outside of attention."""
    experts = next((name for name, module in block.named_modules() if _is_mixture(name, module)), None)
    if experts is not None:
        raise SiteError(
            f"{path}.{experts} is a mixture of experts; expected one dense FFN in every block. Mixtures of experts are "
            "not supported. Layers that are dense can be named with "
            'projection="path.to.blocks.{}.projection", where {} stands for the number of the layer.'
        )
    sizes = {name: _size(linear) for name, linear in _linears(block)}
    onto = {name: inner for name, (out, inner) in sizes.items() if out == width}
    widest = [name for name, inner in onto.items() if inner == max(onto.values())]
    if len(widest) != 1:
        for module in block.modules():
            refuse_quantised(module)
        seen = ", ".join(f"{name} {inner}->{out}" for name, (out, inner) in sizes.items()) or "no linear module"
        raise SiteError(
            f"{path} ({type(block).__name__}) shows {len(widest)} candidates for the FFN's output projection onto "
            f"width {width}; expected one. Outside of attention it has: {seen}. {OVERRIDE}"
        )
    return widest[0]


def _linears(module: nn.Module, prefix: str = "") -> Iterator[tuple[str, nn.Module]]:
    """Linear modules that are no part of attention, by path; PEFT wrappers count as what they wrap."""
    for name, child in module.named_children():
        if is_attention(name, child):
            continue
        if isinstance(base_layer(child), nn.Linear | Conv1D):
            yield prefix + name, child
        else:
            yield from _linears(child, f"{prefix}{name}.")


def _is_mixture(name: str, module: nn.Module) -> bool:
    """Whether a module holds experts; the name of a family, as in Qwen3MoeMLP, says nothing about one layer."""
    return name.split(".")[-1] == "experts" or "experts" in type(module).__name__.lower()


def _size(linear: nn.Module) -> tuple[int, int]:
    """(d, n) of a linear module; a quantised weight has another shape than the map."""
    base: Any = base_layer(linear)
    if is_transposed(linear):
        return base.weight.shape[1], base.weight.shape[0]
    return base.out_features, base.in_features


def _text_config(model: Any) -> Any:
    return model.config.get_text_config()


def _traits(model: nn.Module, projection: str, block: str) -> tuple[bool, bool]:
    """`norm_after` and `parallel`, from the table or measured."""
    config = _text_config(model)
    if is_encoder_decoder(model):
        return False, False  # T5 normalises before its FFN and adds what comes out
    row = ARCHITECTURES.get(config.model_type)
    if row is not None:
        return bool(row.norm_after(config)), bool(row.parallel(config))
    return not moves_residual(model, projection, block), bool(getattr(config, "use_parallel_residual", False))


def _stack(model: Any, block: str) -> Stack:
    """Which of two stacks a block is in."""
    if not is_encoder_decoder(model):
        return ""
    module = model.get_submodule(block)
    return "encoder" if any(part is module for part in model.get_encoder().modules()) else "decoder"


def _site(model: nn.Module, layer: int, name: str, block: str, norm_after: bool, parallel: bool, stack: Stack) -> Site:
    projection = model.get_submodule(name)
    base = base_layer(projection)
    if not isinstance(base, nn.Linear | Conv1D):
        raise SiteError(f"{name} is {type(base).__name__}; expected a linear projection onto the residual stream.")
    width, inner = _size(projection)
    return Site(
        layer=layer,
        name=name,
        block=block,
        width=width,
        inner=inner,
        transposed=is_transposed(projection),
        bias=base.bias is not None,
        norm_after=norm_after,
        parallel=parallel,
        stack=stack,
    )


def _submodule(model: nn.Module, name: str) -> nn.Module | None:
    try:
        return model.get_submodule(name)
    except AttributeError:
        return None
