r"""Fine-tuning of one FFN projection: FT-L and FT-M.

    W <- argmin over W of  -1/T sum_t log p(y_t | x, y_<t),    optionally with |W - W_0| <= eps in every entry

FT-L is the constrained fine-tuning of the ROME paper (Meng et al., arXiv 2202.05262, section 3.4 and appendix E), FT-M
the masked loss on target tokens (Zhang et al., arXiv 2401.01286, section 5). By default both learn what the papers
write, the likelihood of the target; the loss that the public code has for FT-L is another one, and stands behind its
name: `objective="bag_of_tokens"`. The bound is one of all steps of a commit, around the weight that the commit found.
"""

from collections.abc import Callable, Sequence
from typing import Any, get_args

from torch import Tensor

from lightning_edit.editors.commits import Commit, Tensors
from lightning_edit.editors.descent import descend, masters
from lightning_edit.editors.examples import Objective, make_examples
from lightning_edit.editors.gradient import GradientEditor
from lightning_edit.editors.gradient_settings import GradientSettings
from lightning_edit.editors.matrices import copies, distance, matrix, put, take_back
from lightning_edit.errors import EditError, StateError
from lightning_edit.model.ffn_parts import Part, find_part
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.model.sites import Layer
from lightning_edit.requests import EditRequest


class FineTuning(GradientEditor):
    """Adam on FFN projections, on the loss of a commit's requests.

    A request below `stop_loss` gives no gradient until it is above again, and a commit is done with the first pass in
    which none was above. For every commit that can be taken back a copy of the edited matrices is kept, in their own
    precision (one more copy where training moved them between commits).

    Args:
        layers: Blocks whose FFN projection is trained, by number or by path such as `decoder.block.3`; None takes the
            preset's, as for all that follows up to `norm_constraint`.
        lr: Learning rate of Adam.
        steps: Passes over a commit's requests at most.
        batch_size: Requests in one step.
        weight_decay: Adam's weight decay.
        stop_loss: A request is learned when its loss is below this.
        norm_constraint: Bound on the change of each entry of a matrix in one commit; `inf` for none.
        objective: What is learned: the `target` token by token, or the published code's `bag_of_tokens`.
        include_bos: With `bag_of_tokens`: special tokens before a text are targets too, as in the published code on
            Llama's tokenizers.
        preset: Name of a model whose published settings to take.
        undo_depth: How many of the last commits can be taken back; all if None.
        part: Which projection of the FFN: `down` onto the residual stream, as published, or `up` or `gate` onto the
            inner width; see `find_part`.
    """

    settings_of = "ft_m"

    def __init__(
        self,
        layers: list[Layer] | None = None,
        lr: float | None = None,
        steps: int | None = None,
        batch_size: int | None = None,
        weight_decay: float | None = None,
        stop_loss: float | None = None,
        norm_constraint: float | None = None,
        objective: Objective = "target",
        include_bos: bool = False,
        preset: str | None = None,
        undo_depth: int | None = 16,
        part: Part = "down",
    ) -> None:
        if part not in get_args(Part):
            raise EditError(f"part={part!r}; expected one of {', '.join(map(repr, get_args(Part)))}.")
        if objective not in get_args(Objective):
            raise EditError(f"objective={objective!r}; expected one of {', '.join(map(repr, get_args(Objective)))}.")
        if include_bos and objective == "target":
            raise EditError("include_bos=True is a trait of objective='bag_of_tokens'; expected both or neither.")
        if norm_constraint is not None and not norm_constraint > 0:
            raise EditError(f"norm_constraint={norm_constraint}; expected a bound above 0, or inf for none.")
        self.objective, self.include_bos, self.part = objective, include_bos, part
        given = {"layers": layers, "lr": lr, "steps": steps, "batch_size": batch_size, "weight_decay": weight_decay}
        super().__init__({**given, "stop_loss": stop_loss, "norm_constraint": norm_constraint}, preset, undo_depth)

    def weights(self, lm: LanguageModel) -> list[Tensor]:
        """The trained matrices, lowest layer first.

        Args:
            lm: The language model.
        """
        return list(self._parameters(lm).values())

    def _settle(self, lm: LanguageModel, settings: GradientSettings) -> list[int]:
        wanted = settings.layers or ()
        layers = sorted({lm.site(layer).layer for layer in wanted})
        if not layers or len(layers) != len(wanted):
            raise EditError(f"layers={list(wanted)}; expected one or more different layers.")
        self._matrices(lm, layers)  # refuses what cannot be written
        return layers

    def _parameters(self, lm: LanguageModel) -> dict[str, Tensor]:
        """The trained matrices by path."""
        return self._matrices(lm, self._layers)

    def _matrices(self, lm: LanguageModel, layers: Sequence[int]) -> dict[str, Tensor]:
        """The matrices of some layers by path."""
        paths = [find_part(lm, layer, self.part).path for layer in layers]
        return {path: matrix(lm.model.get_submodule(path), path) for path in paths}

    def _learn(self, lm: LanguageModel, batch: Sequence[EditRequest]) -> dict[str, float]:
        assert self.settings is not None  # settled
        chosen, live = self.settings, list(self._parameters(lm).values())
        examples = make_examples(lm, batch, self.objective, self.include_bos)
        stepped = masters(live)
        after_step = None if chosen.norm_constraint is None else _constraint(stepped, chosen.norm_constraint)
        for parameter in live:
            parameter.requires_grad_(True)
        return descend(lm, examples, live, stepped, chosen.descent, after_step)

    def _capture(self, lm: LanguageModel) -> Tensors:
        return copies(self._parameters(lm))

    def _install(self, lm: LanguageModel, captured: Tensors) -> None:
        put(self._parameters(lm), captured)

    def _unlearn(self, lm: LanguageModel, gone: Sequence[Commit]) -> list[str]:
        return take_back(self._parameters(lm), gone)

    def _norm(self, before: Tensors, after: Tensors) -> float:
        return distance(before, after)

    def _extra_state(self) -> dict[str, Any]:
        return {"part": self.part}

    def _check_extra(self, state: dict[str, Any]) -> None:
        saved = state.get("part", "down")  # the only one, before there was a choice
        if saved != self.part:
            raise StateError(
                f"the state is of an editor with part={saved!r}; this one has part={self.part!r}. Load it with the "
                "editor and options it was saved with."
            )


def _constraint(stepped: Sequence[Tensor], bound: float) -> Callable[[int], None]:
    """Keeps every entry of some matrices within a bound of what it is now."""
    starts = [weight.detach().clone() for weight in stepped]

    def project(step: int) -> None:
        for weight, start in zip(stepped, starts, strict=True):
            weight.copy_(weight.clamp(start - bound, start + bound))

    return project


class FTL(FineTuning):
    """FT-L: fine-tuning under a bound on each entry's change; the preset's where none is given.

    Args:
        options: See `FineTuning`. The published loss is `objective="bag_of_tokens"`.
    """

    settings_of = "ft_l"

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)


class FTM(FineTuning):
    """FT-M: fine-tuning on the likelihood of the target's tokens, without a bound unless one is given.

    Args:
        options: See `FineTuning`.
    """

    settings_of = "ft_m"

    def __init__(self, **options: Any) -> None:
        if options.get("objective", "target") != "target":
            raise EditError(
                f"objective={options['objective']!r} is none of FT-M, which learns the target token by token; expected "
                "'target'. Use ft_l for the published code's bag of tokens."
            )
        super().__init__(**options)
