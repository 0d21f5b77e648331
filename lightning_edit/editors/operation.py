"""One all-or-nothing change of what a model knows.

An operation starts from the model as it is found, decides what drift means, brings the ledgers from one active set to
another and reports. Whatever goes wrong on the way, weights, ledgers and book end as they were, bit for bit. This file
is the order of things; how each is done stands in the files it calls.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

from torch import Tensor

from lightning_edit.editors.active import ActiveColumn, ActiveSet
from lightning_edit.editors.book import Book, Group
from lightning_edit.editors.edited_site import Drift
from lightning_edit.editors.report import EditRefused, EditReport, Guard
from lightning_edit.editors.sweep import Placing, Sweep
from lightning_edit.requests import EditRequest


@dataclass(slots=True)
class Operation:
    """A change in progress.

    Args:
        sweep: The edited layers.
        book: What is at work; the operation's result when it is over.
        from_base: Whether targets are read on the weights before any edit.
        rebuilds: Whether every change rebuilds the whole active set from the base.
        unrestricted: Whether upper layers are read with the unrestricted weights in the lower ones, as they always are
            in a rebuild.
        strength: Share of the way to its target that a request goes.
    """

    sweep: Sweep
    book: Book
    from_base: bool = False
    rebuilds: bool = False
    unrestricted: bool = False
    strength: float = 1.0

    @property
    def report(self) -> EditReport:
        """Where everything is written down."""
        return self.sweep.report

    @contextmanager
    def run(self, policy: Drift, guard: Guard | None = None) -> Iterator[None]:
        """Everything inside happens, or nothing does.

        Args:
            policy: What drift since the last deployment is.
            guard: Looks at the report in the end and may refuse.
        """
        modules = [(site, self.sweep.projection(site)) for site in self.sweep.sites]
        with self.report.timed("total"), self.sweep.reader.lm.borrow():
            backups = [(site, module, site.backup(module)) for site, module in modules]
            try:
                self._take_a_stand(policy)
                yield
                self._measure([backup.weight for _, _, backup in backups])
                if guard is not None and not guard(self.report):
                    raise EditRefused(
                        f"the guard refused this {self.report.kind} of {self.report.count} requests; "
                        "weights and ledger are as before."
                    )
            except BaseException:
                for site, module, backup in backups:
                    site.restore(module, backup)
                raise

    def move(self, goal: ActiveSet, only_new: bool = False) -> None:
        """Bring the ledgers to another active set.

        Args:
            goal: The requests that shall be at work.
            only_new: Leave what goes in place until the new columns have been read, then keep nothing else.
        """
        groups = goal.groups()
        columns = {} if only_new else self._retire(set(groups))
        archive = {group: column for group, column in self.book.archive.items() if goal.knows(group)}
        self.book = Book(goal, columns, archive)
        returning = [archive[group] for group in groups if group not in columns and group in archive]
        if self.from_base:
            self.sweep.enter_base(hold=self.rebuilds)
        fresh = self._optimize([group for group in groups if group not in columns and group not in archive])
        if self.from_base and not self.rebuilds:
            self.sweep.leave_base()
        everything = {**columns, **{c.requests: replace(c, pairs=None) for c in (*returning, *fresh)}}
        if self.rebuilds:
            self._spread([everything[group] for group in groups], "set")
        else:
            self.sweep.put_back([column for column in returning if column.pairs])
            self._spread([c for c in returning if not c.pairs] + fresh, "set" if only_new else "append")
        self.book = replace(self.book, columns={group: everything[group] for group in groups})
        self._note_near([column.id for column in fresh])

    def polish(self, stale_loss: float) -> bool:
        """Optimise again, on the model with all edits in place, the columns that these edits got in the way of.

        Args:
            stale_loss: How much worse than when its target was found a column may be met.

        Returns:
            Whether there was anything to do.
        """
        new = [group for group, column in self.book.columns.items() if column.id in self.report.losses]
        if not (stale := self._stale(new, stale_loss)):
            return False
        self._spread(self._optimize(stale, again=True), "replace")
        return True

    def rebuild(self) -> None:
        """Make the one-time edit of the whole active set: from the base weights and the stored targets, upwards."""
        self.sweep.enter_base()
        self._spread(list(self.book.columns.values()), "set")
        archive = {group: replace(column, pairs=None) for group, column in self.book.archive.items()}
        self.book = replace(self.book, archive=archive)

    def refresh(self, stale_loss: float) -> None:
        """Rebuild, then optimise again the targets whose requests are not met any more, each from where it was.

        Args:
            stale_loss: How much worse than when its target was found a column may be met.
        """
        self.rebuild()
        if stale := self._stale(list(self.book.columns), stale_loss):
            if self.from_base:
                self.sweep.enter_base()
            self._optimize(stale, again=True)
            self.rebuild()

    def go_home(self) -> None:
        """Where no column is left, write the base weights, bit for bit: there is no update left to restrict."""
        if not self.book.columns:
            self.sweep.deploy_exactly()

    def settle(self) -> None:
        """Absorb the columns into the base and forget them."""
        for site in self.sweep.sites:
            site.absorb(self.sweep.projection(site))
        self.book = Book(self.book.active.let_go())

    def _take_a_stand(self, policy: Drift) -> None:
        """Adopt, restore or ignore what moved the weights."""
        squares = 0.0
        with self.report.timed("drift"):
            for site in self.sweep.sites:
                norm, outdated = site.begin(self.sweep.projection(site), policy)
                squares += norm**2
                if outdated:
                    site.deploy(self.sweep.projection(site))
        self.report.drift_norm = squares**0.5

    def _retire(self, wanted: set[Group]) -> dict[Group, ActiveColumn]:
        """Take out the columns that nobody wants any more, put them by, and return the others."""
        gone = [column for group, column in self.book.columns.items() if group not in wanted]
        if gone:
            pairs = self.sweep.take_out(gone, deploy=not self.rebuilds)
            put_by = {c.requests: replace(c, pairs=pair) for c, pair in zip(gone, pairs, strict=True)}
            self.book = replace(self.book, archive={**self.book.archive, **put_by})
        return {group: column for group, column in self.book.columns.items() if group in wanted}

    def _optimize(self, groups: Sequence[Group], again: bool = False) -> list[ActiveColumn]:
        """Columns with optimised targets, new ones or known ones from where they are."""
        if not groups:
            return []
        old = [self.book.columns[group] for group in groups] if again else []
        found = self.sweep.targets([self._requests(group) for group in groups], old)
        centers = [column.center for column in old] or found.start.clone().unbind()
        if self.strength != 1:
            found = self.sweep.weakened([self._requests(group) for group in groups], found, centers, self.strength)
        parts = zip(groups, found.z.clone().unbind(), centers, found.loss.tolist(), strict=True)
        columns = [ActiveColumn(*part) for part in parts]
        if again:
            self.book = replace(self.book, columns={**self.book.columns, **{c.requests: c for c in columns}})
        self.report.losses |= {column.id: column.loss for column in columns}
        return columns

    def _stale(self, groups: Sequence[Group], bound: float) -> list[Group]:
        """Columns that the edited model meets worse than their targets did when they were found."""
        losses = self.sweep.losses([self._requests(group) for group in groups])
        found = zip(groups, losses, strict=True)
        return [group for group, loss in found if loss > self.book.columns[group].loss + bound]

    def _spread(self, columns: Sequence[ActiveColumn], how: Placing) -> None:
        """Put columns into ledgers and weights."""
        if self.unrestricted:
            self.sweep.hold()
        self.sweep.spread(columns, [self._requests(column.requests)[0] for column in columns], how)
        self.sweep.release()

    def _requests(self, group: Group) -> list[EditRequest]:
        """The requests of a column."""
        return [self.book.active.requests[key].request for key in group]

    def _note_near(self, ids: Sequence[str]) -> None:
        """Remark on new keys that can hardly be told from others though something else is wanted there."""
        by_id = {column.id: column for column in self.book.columns.values()}
        for new, other in self.sweep.near(ids) if ids else []:
            wanted = [{r.target for r in self._requests(by_id[name].requests)} for name in (new, other)]
            if wanted[0] != wanted[1]:
                self.report.notes.append(f"the keys of {new!r} and {other!r} are nearly equal, but not their targets")

    def _measure(self, before: Sequence[Tensor]) -> None:
        """Norms of what changed and of what is still owed."""
        delta = pending = 0.0
        for site, weight in zip(self.sweep.sites, before, strict=True):
            delta += site.moved(self.sweep.projection(site), weight) ** 2
            pending += site.pending**2
        self.report.delta_norm, self.report.pending_norm = delta**0.5, pending**0.5
        self.report.active = len(self.book.active.requests)
