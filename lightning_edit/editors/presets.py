"""Published settings by model, and what to do for a model nobody has published settings for.

Sources: the configuration files of MEMIT (arXiv 2210.07229), AlphaEdit (arXiv 2410.02355) and EasyEdit. This file is a
table and the rule that picks a row; it knows no editor.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from lightning_edit.errors import EditError, SiteError
from lightning_edit.model.language_model import LanguageModel


@dataclass(frozen=True, slots=True)
class Preset:
    """Settings for one model.

    Args:
        name: What the preset is called, and what a model's name is searched for.
        shape: Model width, inner width and number of blocks; matched where no name matches.
        layers: Layers to edit; a stretch of the lower middle where None.
        lr: Learning rate of the targets.
        steps: Passes of the targets at most.
        clamp: Bound on a target's offset, relative to the hidden state.
        weight_decay: Weight decay of the targets.
        prior_weight: MEMIT's lambda; a quarter of the inner width where None.
        l2: AlphaEdit's penalty.
        nullspace_threshold: AlphaEdit's absolute threshold on eigenvalues of the key moment.
    """

    name: str
    shape: tuple[int, int, int] = (0, 0, 0)
    layers: tuple[int, ...] | None = None
    lr: float = 0.5
    steps: int = 25
    clamp: float = 0.75
    weight_decay: float = 0.5
    prior_weight: float | None = 15_000.0
    l2: float = 10.0
    nullspace_threshold: float = 2e-2


_FOUR_TO_EIGHT = (4, 5, 6, 7, 8)
DEFAULT = Preset("default", prior_weight=None)
PRESETS = (
    # the embedded model, tuned on it: its residual stream is long, so offsets grow by larger steps
    Preset("embedded", (192, 2048, 6), (0, 1), lr=1.5, steps=20, clamp=0.9, weight_decay=5.0, prior_weight=1000.0),
    Preset("gpt2-xl", (1600, 6400, 48), (13, 14, 15, 16, 17), steps=20, prior_weight=20_000.0),
    Preset("gpt-j-6b", (4096, 16384, 28), (3, 4, 5, 6, 7, 8)),
    Preset("llama-2-7b", (4096, 11008, 32), _FOUR_TO_EIGHT, clamp=4.0, weight_decay=1e-3),
    Preset("llama-3.1-8b", (4096, 14336, 32), _FOUR_TO_EIGHT, lr=0.1),
    Preset("llama-3-8b", (4096, 14336, 32), _FOUR_TO_EIGHT, lr=0.1),
    Preset("mistral-7b", (4096, 14336, 32), _FOUR_TO_EIGHT, clamp=4.0, weight_decay=1e-3),
    Preset("qwen2.5-7b", (3584, 18944, 28), _FOUR_TO_EIGHT, clamp=4.0, weight_decay=1e-3, l2=1.0),
)


def choose_preset(lm: LanguageModel, wanted: str | None = None) -> Preset:
    """The preset for a model: the one asked for, else by the model's name, else by its shape, else the default.

    Args:
        lm: The language model.
        wanted: Name of a preset.
    """
    by_name = {preset.name: preset for preset in (*PRESETS, DEFAULT)}
    if wanted is not None:
        if wanted not in by_name:
            raise EditError(f"there is no preset {wanted!r}; expected one of {', '.join(by_name)}.")
        return by_name[wanted]
    name = str(lm.model.config._name_or_path or "").lower().replace("meta-", "")
    site = lm.sites[0]
    shape = (site.width, site.inner, lm.num_layers)
    named = [preset for preset in PRESETS if preset.name in name and preset.shape == shape]
    alike = [preset for preset in PRESETS if preset.shape == shape]
    return next(iter(named or alike), DEFAULT)


def choose_layers(lm: LanguageModel, wanted: Sequence[int] | None, preset: Preset) -> tuple[int, ...]:
    """The layers to edit, ascending.

    Where nobody says which, a stretch that begins after a seventh of the blocks and is a sixth of them long, as the
    published settings have it (five of 32), and one layer where a norm follows the FFN.

    Args:
        lm: The language model.
        wanted: Layers that were asked for.
        preset: The model's preset.
    """
    if wanted is None and preset.layers is not None:
        wanted = preset.layers
    if wanted is None:
        first, count = lm.num_layers // 7, min(5, max(1, lm.num_layers // 6))
        wanted = range(first, first + count)
        if lm.site(first).norm_after:
            wanted = [first]
    layers = tuple(sorted({lm.site(layer).layer for layer in wanted}))
    if not layers or len(layers) != len(list(wanted)):
        raise EditError(f"layers={list(wanted)}; expected one or more different layers.")
    if len(layers) > 1 and any(lm.site(layer).norm_after for layer in layers):
        raise SiteError(
            f"layers={list(layers)}: in this model a norm follows the FFN, so a residual cannot be spread over layers; "
            "expected one layer. Pass layers=[one of them]."
        )
    return layers
