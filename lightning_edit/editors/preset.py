"""What a preset is: the numbers that one editor uses on one model, and what a person should know about them.

Plain data. Where the numbers come from stands in `preset_files`, how they are read in `preset_sheet.py`, and which
preset a model gets in `presets.py`.
"""

from dataclasses import dataclass

Shape = tuple[int, int, int]  # model width d, inner width n, number of blocks


class PresetWarning(UserWarning):
    """A preset was chosen that others report to fail."""


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
        kl: Weight of the divergence at "<subject> is a".
        mom2_adjustment: Whether ROME divides by the key moment; without, keys are used as they are.
        noise: EMMET's lambda, added to the Gram matrix of a batch; the editor's own where None.
        contexts: Texts before prompts; a fixed list where None.
        preserve: Texts about a subject, `{}`, whose continuation targets should leave as it is.
        ridge: EMMET's penalty on the norm of the update, added to the key moment.
        family: The family of settings it was taken from.
        sources: Where the numbers come from.
        remarks: What was assumed.
        failing: What others report about the editor on this model, where they report failure.
    """

    name: str
    shape: Shape = (0, 0, 0)
    layers: tuple[int, ...] | None = None
    lr: float = 0.5
    steps: int = 25
    clamp: float = 0.75
    weight_decay: float = 0.5
    prior_weight: float | None = 15_000.0
    l2: float = 10.0
    nullspace_threshold: float = 2e-2
    kl: float = 0.0625
    mom2_adjustment: bool = True
    noise: float | None = None
    ridge: float = 0.0
    contexts: tuple[str, ...] | None = None
    preserve: tuple[str, ...] = ()
    family: str = ""
    sources: tuple[str, ...] = ()
    remarks: tuple[str, ...] = ()
    failing: str | None = None
