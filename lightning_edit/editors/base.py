"""The closed-form editor: everything that MEMIT, AlphaEdit and their relatives do to a model.

A method is a declaration (prior, noise, history, restriction, how targets are found and shared out over layers); see
`memit.py` for one, and the attributes at the head of `ClosedFormEditor` for what can be declared. An editor works on
any `EditableModule` or `LanguageModel`, with or without a Trainer, and owns the ledgers. This file is what can be
declared, and the edit; undo and repairs stand in `upkeep.py`, the order of an edit in `operation.py`, its steps in
`sweep.py`.
"""

from collections.abc import Iterable
from dataclasses import replace
from typing import Any, Literal, get_args

from lightning_edit.algebra import Deployment, Mode, Penalty, Reference, Restriction, identity
from lightning_edit.editors.edited_site import Drift
from lightning_edit.editors.estate import Declaration
from lightning_edit.editors.exclusions import check_exact_values, check_penalty
from lightning_edit.editors.presets import Preset
from lightning_edit.editors.report import EditReport, Guard
from lightning_edit.editors.residual import Sharing
from lightning_edit.editors.upkeep import Upkeep
from lightning_edit.errors import EditError
from lightning_edit.model.language_model import as_language_model
from lightning_edit.requests import EditRequest, check_batch
from lightning_edit.targets import TargetOptions
from lightning_edit.targets.columns import Place

History = Literal["kept", "latest", "absorbed"]
TargetModel = Literal["live", "base"]
Conflicts = Literal["resolve", "append"]
SameSubject = Literal["in_turn", "together"]


class ClosedFormEditor(Upkeep):
    """Edits FFN projections in closed form, many requests at once, and keeps account of them.

    With base weight W_b, active keys K and values V, prior Q and noise s, each edited layer carries
    `S = W_b + (V - W_b K)(s I + K'QK)^-1 K'Q`.

    Args:
        layers: Decoder blocks to edit; None takes the preset's, or a stretch of the lower middle.
        history: `kept` solves for all active requests, `latest` for the newest batch on the original weight,
            `absorbed` for the newest batch on whatever the last one left.
        drift: What becomes of weight changes between two edits: `adopt` keeps them except on edited keys, `restore`
            cancels them, `ignore` never notices.
        targets: Read targets on the `live` model with its edits, or on the `base`, the weights before any edit (with
            what training has taught them since, where drift is adopted). With `base` every change rebuilds the whole
            active set, so that the order of edits does not matter. Where batches are absorbed there is no such set:
            then targets alone are read on the base, and keys and what is lacking on the edited model, as published
            code with a cache of targets does; the order matters as it does with live ones.
        contexts: Texts put before prompts: a list, a number to sample from the model, or None for a fixed list.
        bare_weight: Weight of the bare prompt's key against the mean over contexts; None is the mean over all texts.
        lr: Learning rate of the targets; None takes the preset's, as for the next four.
        steps: Passes of the targets at most.
        clamp: Bound on a target's offset, relative to the hidden state.
        weight_decay: Weight decay of the targets.
        kl: Weight of the divergence at "<subject> is a".
        preserve: Texts with `{}` in the subject's place, such as `"{} was born in"`, whose continuation should stay as
            it is: a value that is written for one relation of a subject moves its other relations too. A text that
            says what the request's own prompt says is left out, request by request. None takes the preset's, which is
            nothing for published models.
        preserve_weight: Weight of the mean divergence at their ends.
        stop_loss: A target is found when its loss is below this.
        batch_size: Targets optimised in one graph.
        passes: How often the targets of a batch are optimised: after the first pass, those that the batch's other
            edits got in the way of are optimised again with all edits in place. Only with live targets.
        stale_loss: A target is optimised again when -log p of what it has to say, on the edited model and at the bare
            prompts, is this much above the loss with which it was found.
        seed: Seed of sampled contexts.
        preset: Name of a preset, with a family of settings behind an `@` if wanted (`llama-3-8b@easyedit`), or a
            `Preset`; None matches the model's name, then its shape, then takes the nearest, scaled. See `presets.py`.
        restriction: What stands between the exact update and the deployed one; None deploys the update as it is.
        deployment: How a restriction is applied: `feedback` (each step makes up for what earlier ones left out),
            `flush` (again, until that stops helping), `project_total` (to the whole update since the original weight)
            or `none` (nothing is made up for; with noise 0 only where batches are absorbed).
        reference: What a restricted change is relative to: the `current` weight, to which it is added, or the
            `original` one.
        flush_steps: Steps of a flush at most.
        restrict_after: How many requests have to have been applied before the restriction is; the published PRUNE
            restricts once, after the last.
        unrestricted_sweep: Read upper layers with the unrestricted updates in the lower ones, as the published code
            of aligned RECT and PRUNE does: a model that is never deployed.
        penalty: A convex function of the update that the exact weight minimises besides, such as `L1Penalty`; see
            `lightning_edit/algebra/penalties.py`. Needs a noise, a prior of full rank and a `deployment` that looks at
            the whole update.
        conflicts: What becomes of an older request that a new one contradicts: `resolve` replaces it (Labyrinth, Prop.
            3.5), `append` solves for both, as published code does; not with noise 0 where history is kept.
        same_subject: Requests of one batch about one subject whose keys differ, as in "The mother of X" and "The job of
            X": `in_turn` finds each one's target and writes it on a model that carries the one before, `together`
            solves for all of them at once, as published code does. Such keys are nearly parallel, and a joint solution
            pulls their values apart with an update that no other wording meets. Targets on the base are solved for
            together.
        compact: Between edits, keep only keys and values (in float32) and the factor of each layer, a third to a
            quarter of its memory; the next edit has to make the rest again.
    """

    noise: float = 1.0  # s; 0 meets values exactly
    confined: bool = False  # whether the prior confines the update to a null space
    single: bool = False  # edit one layer unless the user names several
    places: tuple[Place, ...] = ("block",)  # where vectors are free; the first one is the target
    nll_after: float | None = None  # weight of the likelihood once targets are said, see `TargetOptions`
    sharing: Sharing = Sharing()  # how layers share out what targets lack
    settings_of: str | None = None  # the editor whose numbers a preset gives; None is the shipped class itself

    def __init__(
        self,
        layers: list[int] | None = None,
        history: History = "kept",
        drift: Drift = "adopt",
        targets: TargetModel = "live",
        contexts: list[str] | int | None = None,
        bare_weight: float | None = 0.5,
        lr: float | None = None,
        steps: int | None = None,
        clamp: float | None = None,
        weight_decay: float | None = None,
        kl: float | None = None,
        preserve: list[str] | None = None,
        preserve_weight: float = 1.0,
        stop_loss: float = 0.05,
        batch_size: int = 16,
        passes: int = 1,
        stale_loss: float = 0.5,
        seed: int = 0,
        preset: str | Preset | None = None,
        restriction: Restriction | None = None,
        deployment: Mode = "feedback",
        reference: Reference = "current",
        flush_steps: int = 32,
        restrict_after: int = 0,
        unrestricted_sweep: bool = False,
        penalty: Penalty | None = None,
        conflicts: Conflicts = "resolve",
        same_subject: SameSubject = "in_turn",
        compact: bool = False,
    ) -> None:
        _check_choice("history", history, History)
        _check_choice("conflicts", conflicts, Conflicts)
        _check_choice("same_subject", same_subject, SameSubject)
        _check_choice("drift", drift, Drift)
        _check_choice("targets", targets, TargetModel)
        _check_choice("deployment", deployment, Mode)
        _check_choice("reference", reference, Reference)
        if bare_weight is not None and not 0 < bare_weight <= 1:
            raise EditError(f"bare_weight={bare_weight}; expected a share of the key, above 0 and up to 1.")
        for text in preserve or ():
            if text.count("{}") != 1:
                raise EditError(f"preserve holds {text!r}; expected `{{}}` once in it, in the subject's place.")
        if passes < 1 or (passes > 1 and targets == "base"):
            raise EditError(f"passes={passes} with targets={targets!r}; expected at least 1, and no more on the base.")
        check_penalty(penalty, self.noise, self.confined, deployment)
        check_exact_values(self.noise, history, deployment, conflicts, passes)
        self.drift: Drift = drift
        self.targets: TargetModel = targets
        self.conflicts: Conflicts = conflicts
        self.same_subject: SameSubject = same_subject
        self.passes, self.stale_loss, self.unrestricted_sweep = passes, stale_loss, unrestricted_sweep
        given = {"lr": lr, "steps": steps, "clamp": clamp, "weight_decay": weight_decay, "kl": kl}
        self._given: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        self._target_options = TargetOptions(
            **self._given,
            preserve=preserve_weight,
            stop_loss=stop_loss,
            batch_size=batch_size,
            places=self.places,
            nll_after=self.nll_after,
        )
        super().__init__(
            Declaration(
                name=type(self).__name__,
                settings_of=self.settings_of or _shipped_name(type(self)),
                make_noise=self.make_noise,
                history=history,
                make_prior=self.make_prior,
                layers=None if layers is None else tuple(layers),
                contexts=tuple(contexts) if isinstance(contexts, list | tuple) else contexts,
                single=self.single,
                place=self.places[0],
                bare_weight=bare_weight,
                seed=seed,
                preserve=None if preserve is None else tuple(preserve),
                preset=preset,
                deployment=Deployment(deployment, restriction or identity, reference, flush_steps, restrict_after),
                penalty=penalty,
                compact=compact,
                from_base=targets == "base",
            )
        )

    def make_noise(self, preset: Preset) -> float:
        """The method's noise s.

        Args:
            preset: Settings of the model, for what the user left open.
        """
        return self.noise

    def edit(self, module: object, requests: Iterable[EditRequest], guard: Guard | None = None) -> EditReport:
        """Teach the model some requests, or leave everything as it was.

        A request that contradicts an active one replaces it.

        Args:
            module: An `EditableModule` or `LanguageModel`.
            requests: The requests, each with a subject.
            guard: Called with the report when the weights are written; if it does not say true, all is taken back.
        """
        lm, batch, active = as_language_model(module), list(requests), self._estate.book.active
        report = EditReport("edit", len(batch), [request.id for request in batch], len(active.requests))
        if not batch:
            return report
        check_batch(batch)
        reader = self._estate.open(lm)
        reader.check(batch)
        resolve = self.conflicts == "resolve"
        goal = active.added(batch, reader.signatures(batch), hold_old=self.history == "kept", resolve=resolve)
        in_turn = self.same_subject == "in_turn" and self.targets == "live"
        report.replaced = [key for key in goal.shelf if key not in active.shelf]
        with self._operation(reader, report, guard, goal.applied) as operation:
            for number, step in enumerate(goal.steps(report.ids) if in_turn else [goal]):
                operation.move(step, only_new=self.history == "latest" and number == 0)
            for _ in range(self.passes - 1):
                if not operation.polish(self.stale_loss):
                    break
            if self.history == "absorbed":
                operation.settle()
        report.notes += self._estate.remarks
        self._estate.remarks = []
        return report

    def _options(self) -> TargetOptions:
        """How targets are optimised: as the user said, else as the preset says."""
        assert self.preset is not None  # attached
        of_preset = {name: getattr(self.preset, name) for name in ("lr", "steps", "clamp", "weight_decay", "kl")}
        return replace(self._target_options, **{**of_preset, **self._given})


def _shipped_name(kind: type) -> str:
    """The name of the shipped editor that a class is or extends."""
    names = [ancestor.__name__ for ancestor in kind.__mro__ if ancestor.__module__.startswith("lightning_edit.")]
    return names[0]


def _check_choice(name: str, value: object, kind: object) -> None:
    """Refuse a value that is not one of a literal's."""
    if value not in get_args(kind):
        raise EditError(f"{name}={value!r}; expected one of {', '.join(map(repr, get_args(kind)))}.")
