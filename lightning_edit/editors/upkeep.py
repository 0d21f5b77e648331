"""What a closed-form editor does after an edit: take back, repair, rebuild, and solve again with another prior.

Each is one all-or-nothing operation on the editor's estate, as an edit is. This file knows which operation is asked
for; what an editor is stands in `base.py`, the order of an operation in `operation.py`.
"""

from abc import abstractmethod
from collections.abc import Iterable, Iterator
from contextlib import contextmanager

from lightning_edit.editors.active import ActiveSet
from lightning_edit.editors.edited_site import Drift
from lightning_edit.editors.keeper import Keeper, file_of
from lightning_edit.editors.operation import Operation
from lightning_edit.editors.preparation import StatisticsSource
from lightning_edit.editors.reading import Reader
from lightning_edit.editors.report import EditReport, Guard
from lightning_edit.editors.residual import Sharing
from lightning_edit.editors.sweep import Sweep
from lightning_edit.model.language_model import LanguageModel, as_language_model
from lightning_edit.targets import TargetOptimizer, TargetOptions, optimize_targets


class Upkeep(Keeper):
    """Changes of what is at work that bring no new requests; see `ClosedFormEditor` for the attributes.

    Args:
        declaration: What the editor is.
    """

    drift: Drift
    stale_loss: float
    unrestricted_sweep: bool
    sharing: Sharing = Sharing()  # how layers share out what targets lack
    strength: float = 1.0  # share of the way to its target that a request goes; an `EditGuard` may lower it

    _optimizer: TargetOptimizer | None = None  # what finds targets; None is `optimize_targets`

    def find_targets_with(self, optimizer: TargetOptimizer | None) -> bool:
        """Let something else find the targets of edits.

        Args:
            optimizer: What stands for `optimize_targets`; None for that one.
        """
        self._optimizer = optimizer
        return True

    @abstractmethod
    def _options(self) -> TargetOptions:
        """How targets are optimised."""

    def undo(self, module: object, ids: Iterable[str] | str, guard: Guard | None = None) -> EditReport:
        """Take requests back; what they had replaced is at work again.

        The exact weights become what they would be had the requests never been applied. A restricted weight does not:
        it keeps what the restriction has left out, of the last step with `feedback`, and of all steps, without bound,
        where the deployment is `none`. Where no request is left in the ledgers, the base weights are written.

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

    def repair(self, module: object, refresh: bool = False, guard: Guard | None = None) -> EditReport:
        """Deal with drift, and deploy the exact weights again.

        Args:
            module: An `EditableModule` or `LanguageModel`.
            refresh: Also read all keys again (they go stale when lower layers change), and optimise again the targets
                of requests that are not met any more (see `stale_loss`).
            guard: As for `edit`.
        """
        return self._maintain(module, "repair", guard, refresh)

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
        self._estate.priors, self._estate.statistics = priors, file_of(statistics)
        return report

    @contextmanager
    def _operation(
        self, reader: Reader, report: EditReport, guard: Guard | None, applied: int | None = None
    ) -> Iterator[Operation]:
        """An all-or-nothing change; the book is turned over when it has succeeded."""
        number = self._estate.book.active.applied if applied is None else applied
        for site in self._estate.sites:
            site.restricted = number >= site.deployment.after
        find = self._optimizer or optimize_targets
        sweep = Sweep(reader, self._estate.sites, self._options(), report, self.sharing, find)
        from_base, absorbs = self._estate.declaration.from_base, self._estate.declaration.history == "absorbed"
        operation = Operation(
            sweep, self._estate.book, from_base, from_base and not absorbs, self.unrestricted_sweep, self.strength
        )
        with operation.run(self.drift, guard):
            yield operation
        self._estate.book = operation.book

    def _take_back(self, lm: LanguageModel, goal: ActiveSet, guard: Guard | None) -> EditReport:
        """Go to an earlier active set."""
        active = self._estate.book.active
        gone = [key for key in active.requests if key not in goal.requests]
        report = EditReport("undo", len(gone), gone, len(goal.requests))
        report.restored = [key for key in goal.requests if key not in active.requests]
        if gone:
            with self._operation(self._estate.open(lm), report, guard) as operation:
                operation.move(goal)
                operation.go_home()
        return report

    def _maintain(self, module: object, kind: str, guard: Guard | None, refresh: bool = False) -> EditReport:
        """Repair or rebuild."""
        report = EditReport(kind, active=len(self.requests))
        if not self._estate.book.active.applied:
            return report
        with self._operation(self._estate.open(as_language_model(module)), report, guard) as operation:
            if kind == "rebuild":
                operation.rebuild()
            elif refresh:
                operation.refresh(self.stale_loss)
        return report
