"""The closed-form editor: everything that MEMIT, AlphaEdit and their relatives share.

A method is a declaration (prior, noise, history, restriction, how targets are found); see `memit.py` for one. An editor
works on any `EditableModule` or `LanguageModel`, with or without a Trainer, and owns the ledgers. This file is the
public face; the order of an edit stands in `operation.py`, its steps in `sweep.py`.
"""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import replace
from os import PathLike
from typing import Any, ClassVar, Literal, get_args

from lightning_edit.algebra import KeyCovariance, Mode, Prior, Restriction, identity
from lightning_edit.editors.active import ActiveSet
from lightning_edit.editors.adapter import export_adapter
from lightning_edit.editors.edited_site import Drift, EditedSite
from lightning_edit.editors.estate import Declaration, Estate
from lightning_edit.editors.operation import Guard, Operation
from lightning_edit.editors.preparation import StatisticsSource, find_statistics
from lightning_edit.editors.presets import Preset
from lightning_edit.editors.reading import Reader
from lightning_edit.editors.report import EditReport
from lightning_edit.editors.storage import load_state, save_state
from lightning_edit.editors.sweep import Sweep
from lightning_edit.errors import EditError, StateError
from lightning_edit.model.language_model import LanguageModel, as_language_model
from lightning_edit.requests import EditRequest, check_batch
from lightning_edit.targets import TargetOptions

History = Literal["kept", "latest", "absorbed"]
TargetModel = Literal["live", "base"]


class ClosedFormEditor(ABC):
    """Edits FFN projections in closed form, many requests at once, and keeps account of them.

    With base weight W_b, active keys K and values V, prior Q and noise s, each edited layer carries
    `S = W_b + (V - W_b K)(s I + K'QK)^-1 K'Q`.

    Args:
        layers: Decoder blocks to edit; None takes the preset's, or a stretch of the lower middle.
        history: `kept` solves for all active requests, `latest` for the newest batch on the original weight,
            `absorbed` for the newest batch on whatever the last one left.
        drift: What becomes of weight changes between two edits: `adopt` keeps them except on edited keys, `restore`
            cancels them, `ignore` never notices.
        targets: Read targets on the `live` model with its edits, or on the `base`; with `base` every change rebuilds
            the whole active set, so that the order of edits does not matter.
        contexts: Texts put before prompts: a list, a number to sample from the model, or None for a fixed list.
        bare_weight: Weight of the bare prompt's key against the mean over contexts.
        lr: Learning rate of the targets; None takes the preset's, as for the next three.
        steps: Passes of the targets at most.
        clamp: Bound on a target's offset, relative to the hidden state.
        weight_decay: Weight decay of the targets.
        kl: Weight of the divergence at "<subject> is a".
        stop_loss: A target is found when its loss is below this.
        batch_size: Targets optimised in one graph.
        seed: Seed of sampled contexts.
        preset: Name of a row in `presets.py`; None matches the model's name, then its shape.
        restriction: What stands between the exact update and the deployed one; None deploys the update as it is.
        deployment: How a restriction is applied: `feedback`, `project_total` or `none`.
    """

    noise: ClassVar[float] = 1.0

    def __init__(
        self,
        layers: list[int] | None = None,
        history: History = "kept",
        drift: Drift = "adopt",
        targets: TargetModel = "live",
        contexts: list[str] | int | None = None,
        bare_weight: float = 0.5,
        lr: float | None = None,
        steps: int | None = None,
        clamp: float | None = None,
        weight_decay: float | None = None,
        kl: float = 0.0625,
        stop_loss: float = 0.05,
        batch_size: int = 16,
        seed: int = 0,
        preset: str | None = None,
        restriction: Restriction | None = None,
        deployment: Mode = "feedback",
    ) -> None:
        _check_choice("history", history, History)
        _check_choice("drift", drift, Drift)
        _check_choice("targets", targets, TargetModel)
        _check_choice("deployment", deployment, Mode)
        if not 0 < bare_weight <= 1:
            raise EditError(f"bare_weight={bare_weight}; expected a share of the key, above 0 and up to 1.")
        self.history, self.drift, self.targets = history, drift, targets
        given = {"lr": lr, "steps": steps, "clamp": clamp, "weight_decay": weight_decay}
        self._given: dict[str, Any] = {name: value for name, value in given.items() if value is not None}
        self._target_options = TargetOptions(**self._given, kl=kl, stop_loss=stop_loss, batch_size=batch_size)
        self._estate = Estate(
            Declaration(
                name=type(self).__name__,
                noise=self.noise,
                history=history,
                make_prior=self.make_prior,
                layers=None if layers is None else tuple(layers),
                contexts=tuple(contexts) if isinstance(contexts, list | tuple) else contexts,
                bare_weight=bare_weight,
                seed=seed,
                preset=preset,
                restriction=restriction or identity,
                deployment=deployment,
            )
        )

    @abstractmethod
    def make_prior(self, statistics: KeyCovariance, preset: Preset) -> Prior:
        """The method's prior at one layer: where an update may go, and at what price.

        Args:
            statistics: Key moments of the layer.
            preset: Settings of the model, for what the user left open.
        """

    @property
    def prepared(self) -> bool:
        """Whether the editor has what it needs to edit."""
        return self._estate.prepared

    @property
    def aligned(self) -> bool:
        """Whether all active requests stay in the solution, so that sequential edits equal the one-time edit."""
        return self.history == "kept"

    @property
    def requests(self) -> list[EditRequest]:
        """Requests at work, in the order they were applied."""
        return [entry.request for entry in self._estate.book.active.requests.values()]

    @property
    def layers(self) -> list[int]:
        """The edited layers; empty before the editor has met a model."""
        return list(self._estate.layers)

    @property
    def sites(self) -> list[EditedSite]:
        """The edited sites with their ledgers, lowest layer first; empty before the first edit."""
        return list(self._estate.sites)

    @property
    def preset(self) -> Preset | None:
        """The model's preset; None before the editor has met a model."""
        return self._estate.preset

    def attach(self, module: object) -> list[int]:
        """Settle on a model, and on the layers to edit in it. Nothing in the model changes.

        Args:
            module: An `EditableModule` or `LanguageModel`.

        Returns:
            The layers, whose key statistics `prepare` needs.
        """
        self._estate.attach(as_language_model(module))
        return self.layers

    def prepare(
        self,
        module: object,
        statistics: StatisticsSource | None = None,
        corpus: Iterable[str] | None = None,
        max_tokens: int | None = None,
    ) -> None:
        """Make the priors, from key statistics or from a corpus. Nothing in the model changes.

        Args:
            module: An `EditableModule` or `LanguageModel`.
            statistics: A statistics file, or moments by layer.
            corpus: Texts to collect them from.
            max_tokens: Read this much of the corpus at most.
        """
        priors = self._priors(as_language_model(module), statistics, corpus, max_tokens)
        for site in self._estate.sites:
            if site.ledger.prior.fingerprint != priors[site.layer].fingerprint:
                raise StateError(
                    f"the edits of layer {site.layer} were made with other key statistics; expected the same ones. "
                    "Call reprior() to solve all active edits again with the new ones."
                )
        self._estate.priors, self._estate.statistics = priors, _file(statistics)

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
        goal = active.added(batch, reader.signatures(batch), hold_old=self.history == "kept")
        report.replaced = [key for key in goal.shelf if key not in active.shelf]
        with self._operation(reader, report, guard) as operation:
            operation.move(goal, only_new=self.history == "latest")
            if self.history == "absorbed":
                operation.settle()
        return report

    def undo(self, module: object, ids: Iterable[str] | str, guard: Guard | None = None) -> EditReport:
        """Take requests back, as if they had never been applied; what they had replaced is at work again.

        Args:
            module: An `EditableModule` or `LanguageModel`.
            ids: Ids of active requests.
            guard: As for `edit`.
        """
        names = [ids] if isinstance(ids, str) else list(ids)
        return self._take_back(as_language_model(module), self._estate.book.active.removed(names), guard)

    def rollback(self, module: object, count: int, guard: Guard | None = None) -> EditReport:
        """Take back the requests that were applied last.

        Args:
            module: An `EditableModule` or `LanguageModel`.
            count: How many.
            guard: As for `edit`.
        """
        return self._take_back(as_language_model(module), self._estate.book.active.rolled_back(count), guard)

    def repair(
        self, module: object, refresh: bool = False, stale_loss: float = 1.0, guard: Guard | None = None
    ) -> EditReport:
        """Deal with drift, and deploy the exact weights again.

        Args:
            module: An `EditableModule` or `LanguageModel`.
            refresh: Also read all keys again (they go stale when lower layers change), and optimise again the targets
                of requests that are not met any more.
            stale_loss: A request is not met when its loss is above this.
            guard: As for `edit`.
        """
        return self._maintain(module, "repair", guard, stale_loss if refresh else None)

    def rebuild(self, module: object, guard: Guard | None = None) -> EditReport:
        """Make the one-time edit of all active requests from the base weights and the stored targets.

        Args:
            module: An `EditableModule` or `LanguageModel`.
            guard: As for `edit`.
        """
        return self._maintain(module, "rebuild", guard)

    def reprior(
        self,
        module: object,
        statistics: StatisticsSource | None = None,
        corpus: Iterable[str] | None = None,
        max_tokens: int | None = None,
    ) -> EditReport:
        """Change the key statistics and solve all active requests again.

        Args:
            module: An `EditableModule` or `LanguageModel`.
            statistics: As for `prepare`.
            corpus: As for `prepare`.
            max_tokens: As for `prepare`.
        """
        lm, report = as_language_model(module), EditReport("reprior")
        reader = self._estate.open(lm)
        priors = self._priors(lm, statistics, corpus, max_tokens)
        with self._operation(reader, report, None) as operation:
            for site in self._estate.sites:
                site.ledger.reprior(priors[site.layer])
            operation.sweep.deploy()
        self._estate.priors, self._estate.statistics = priors, _file(statistics)
        return report

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain containers with which another editor goes on bit for bit."""
        return self._estate.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where another editor stood; the model's weights have to come from the same moment.

        Args:
            state: What `state_dict` gave.
        """
        self._estate.load_state_dict(state)

    def save(self, path: str | PathLike[str]) -> None:
        """Write the state to a file, atomically.

        Args:
            path: The file.
        """
        save_state(path, self.state_dict())

    def load(self, path: str | PathLike[str]) -> None:
        """Read the state from a file.

        Args:
            path: What `save` wrote.
        """
        self.load_state_dict(load_state(path))

    def export_adapter(self, module: object, folder: str | PathLike[str], name: str | None = None) -> dict[str, Any]:
        """Write the edits as a LoRA adapter that plain PEFT loads; see `adapter.py`.

        Args:
            module: An `EditableModule` or `LanguageModel` that carries the edits.
            folder: Where to write.
            name: Hub name or folder of the base model, for the adapter's configuration.
        """
        lm = as_language_model(module)
        self._estate.open(lm)
        return export_adapter(lm, self.sites, folder, name)

    def _priors(
        self,
        lm: LanguageModel,
        statistics: StatisticsSource | None,
        corpus: Iterable[str] | None,
        max_tokens: int | None,
    ) -> dict[int, Prior]:
        """A prior for every edited layer."""
        self._estate.attach(lm)
        moments = find_statistics(lm, self.layers, statistics, corpus, max_tokens)
        assert self.preset is not None  # attached
        return {layer: self.make_prior(moments[layer], self.preset) for layer in self.layers}

    @contextmanager
    def _operation(self, reader: Reader, report: EditReport, guard: Guard | None) -> Iterator[Operation]:
        """An all-or-nothing change; the book is turned over when it has succeeded."""
        sweep = Sweep(reader, self._estate.sites, self._options(), report)
        operation = Operation(sweep, self._estate.book, self.targets == "base")
        with operation.run(self.drift, guard):
            yield operation
        self._estate.book = operation.book

    def _options(self) -> TargetOptions:
        """How targets are optimised: as the user said, else as the preset says."""
        assert self.preset is not None  # attached
        of_preset = {name: getattr(self.preset, name) for name in ("lr", "steps", "clamp", "weight_decay")}
        return replace(self._target_options, **{**of_preset, **self._given})

    def _take_back(self, lm: LanguageModel, goal: ActiveSet, guard: Guard | None) -> EditReport:
        """Go to an earlier active set."""
        active = self._estate.book.active
        gone = [key for key in active.requests if key not in goal.requests]
        report = EditReport("undo", len(gone), gone, len(goal.requests))
        report.restored = [key for key in goal.requests if key not in active.requests]
        if gone:
            with self._operation(self._estate.open(lm), report, guard) as operation:
                operation.move(goal)
        return report

    def _maintain(self, module: object, kind: str, guard: Guard | None, stale_loss: float | None = None) -> EditReport:
        """Repair or rebuild."""
        report = EditReport(kind, active=len(self.requests))
        if not self._estate.book.active.applied:
            return report
        with self._operation(self._estate.open(as_language_model(module)), report, guard) as operation:
            if kind == "rebuild":
                operation.rebuild()
            elif stale_loss is not None:
                operation.refresh(stale_loss)
        return report


def _check_choice(name: str, value: object, kind: object) -> None:
    """Refuse a value that is not one of a literal's."""
    if value not in get_args(kind):
        raise EditError(f"{name}={value!r}; expected one of {', '.join(map(repr, get_args(kind)))}.")


def _file(statistics: StatisticsSource | None) -> str | None:
    """Path of a statistics file, if that is where they came from."""
    return None if statistics is None or isinstance(statistics, Mapping) else str(statistics)
