"""The gate between due requests and the editor: an edit that costs more than a budget does not pass.

Knows editors by their face, probes by their number, and budgets. Refuses to know the Trainer. The editor promises that
what its guard refuses leaves model and editor as they were, bit for bit; everything here rests on that.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any, Literal

from lightning_edit.callbacks.commit import add_reports
from lightning_edit.callbacks.guard_probes import GuardProbe
from lightning_edit.editors.editor import Editor
from lightning_edit.editors.report import EditRefused, EditReport
from lightning_edit.errors import EditError, RequestError
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.requests import EditRequest

Action = Literal["refuse", "halve", "weaken"]
Refused = tuple[EditRequest, str]  # with the reason
Attempt = tuple[EditReport, list[Refused]]


@dataclass(frozen=True, slots=True)
class Refusal:
    """A request that did not pass as it came.

    Args:
        id: Its id.
        prompt: Its prompt.
        target: Its target.
        edits: Requests handed over before its commit.
        reason: What was exceeded, and by how much.
        fate: What became of it: `refused`, `strength 0.5`, or the name of the editor that took it.
    """

    id: str
    prompt: str
    target: str
    edits: int
    reason: str
    fate: str = "refused"


@dataclass(slots=True)
class Gate:
    """Lets edits pass that stay within their budgets.

    Args:
        probes: What is measured, by name.
        budgets: The largest harm of one batch, by probe.
        total_budgets: The largest harm of all batches that passed, added up, by probe.
        action: What is tried with a batch that costs too much: nothing, its halves, or less strength.
        strengths: Strengths to try, in this order.
        another: An editor for requests that do not pass.
        closed: Says why nothing may pass for now, or None.

    Attributes:
        refusals: Requests that did not pass as they came, in order.
        spent: Harm of all batches that passed, added up, by probe.
        harms: Harm of the batch that passed last, by probe.
        seconds: Time spent beside the edits that passed: on probes, and on what was taken back.
    """

    probes: Mapping[str, GuardProbe]
    budgets: Mapping[str, float]
    total_budgets: Mapping[str, float]
    action: Action = "halve"
    strengths: Sequence[float] = (0.5, 0.25)
    another: Editor | None = None
    closed: Callable[[], str | None] = lambda: None
    refusals: list[Refusal] = field(default_factory=list, init=False)
    spent: dict[str, float] = field(default_factory=dict, init=False)
    harms: dict[str, float] = field(default_factory=dict, init=False)
    seconds: float = field(default=0.0, init=False)
    _measured: dict[str, float] = field(default_factory=dict, init=False)
    _reason: str = field(default="", init=False)

    def edit(
        self, editor: Editor, lm: LanguageModel, batch: Sequence[EditRequest], earlier: Sequence[EditRequest]
    ) -> tuple[EditReport, list[str]]:
        """Edit a batch, as much of it as passes.

        Whatever the editor cannot take at all is said at the first attempt, with everything as it was.

        Args:
            editor: The editor.
            lm: The language model.
            batch: The requests.
            earlier: All requests that were handed over before.

        Returns:
            What was done, and the ids of requests that nothing was done with.
        """
        begin = time.perf_counter()
        for probe in self.probes.values():
            probe.begin(lm, [*earlier, *batch])
        if reason := self.closed():
            report, refused = EditReport(), [(request, reason) for request in batch]
        else:
            report, refused = self._attempt(editor, lm, batch, len(earlier))
        spent = report.seconds.get("total", 0.0)
        fate = "refused"
        if self.another is not None:
            self._give_way(self.another, lm, set(report.ids), batch)
            taken = self._hand_over(self.another, lm, refused)
            report, fate = _joined(report, taken), type(self.another).__name__ if taken.count else fate
            spent += taken.seconds.get("total", 0.0)
        self.refusals += [_entry(request, reason, len(earlier), fate) for request, reason in refused]
        self.seconds += time.perf_counter() - begin - spent
        return report, [request.id for request, _ in refused if fate == "refused"]

    def holds(self) -> list[EditRequest]:
        """Requests that the other editor has."""
        return [] if self.another is None else self.another.requests

    # -- the attempts ----------------------------------------------------------------------------------------------

    def _attempt(self, editor: Editor, lm: LanguageModel, batch: Sequence[EditRequest], edits: int) -> Attempt:
        """A batch, and what is left to try where it costs too much."""
        try:
            return self._pass(editor, lm, batch), []
        except EditRefused:
            refused = [(request, self._reason) for request in batch]
        if self.action == "weaken":
            return self._weaken(editor, lm, refused, edits)
        if self.action == "refuse" or len(batch) == 1:
            return EditReport(), refused
        middle = len(batch) // 2
        first, left = self._attempt(editor, lm, batch[:middle], edits)
        second, right = self._attempt(editor, lm, batch[middle:], edits)
        return _joined(first, second), [*left, *right]

    def _weaken(self, editor: Editor, lm: LanguageModel, refused: list[Refused], edits: int) -> Attempt:
        """A batch with less and less strength."""
        full = strength_of(editor)
        batch = [request for request, _ in refused]
        try:
            for share in self.strengths:
                editor.strength = full * share  # type: ignore[attr-defined]  # it has one, see `strength_of`
                try:
                    report = self._pass(editor, lm, batch)
                except EditRefused:
                    continue
                self.refusals += [_entry(*pair, edits, f"strength {share:g}") for pair in refused]
                return report, []
        finally:
            editor.strength = full  # type: ignore[attr-defined]
        return EditReport(), refused

    def _give_way(self, another: Editor, lm: LanguageModel, passed: set[str], batch: Sequence[EditRequest]) -> None:
        """Take back from the other editor what requests that passed contradict."""
        claimed = {request.conflict_key for request in batch if request.id in passed}
        if outdated := [request.id for request in another.requests if request.conflict_key in claimed]:
            another.undo(lm, outdated)

    def _hand_over(self, another: Editor, lm: LanguageModel, refused: list[Refused]) -> EditReport:
        """Refused requests to the other editor, under the same budgets; where it cannot, its reason is added."""
        if not refused:
            return EditReport()
        try:
            return self._pass(another, lm, [request for request, _ in refused])
        except EditRefused:
            why = self._reason
        except RequestError as error:
            why = str(error)
        name = type(another).__name__
        refused[:] = [(request, f"{reason}; {name}: {why}") for request, reason in refused]
        return EditReport()

    def _pass(self, editor: Editor, lm: LanguageModel, batch: Sequence[EditRequest]) -> EditReport:
        """One attempt; the probes' new standard is the model with the batch, or else nothing has changed."""
        report = editor.edit(lm, batch, guard=lambda _: self._within(lm))
        for name, harm in self._measured.items():
            self.spent[name] = self.spent.get(name, 0.0) + harm
            self.probes[name].accept()
        self.harms = dict(self._measured)
        return report

    def _within(self, lm: LanguageModel) -> bool:
        """Whether the model as it is stays within all budgets; measuring ends with the first that is exceeded."""
        self._measured = {}
        for name, probe in self.probes.items():
            self._measured[name] = harm = probe.harm(lm)
            spent = self.spent.get(name, 0.0) + harm
            for found, allowed, when in (
                (harm, self.budgets.get(name), "in one batch"),
                (spent, self.total_budgets.get(name), "in all"),
            ):
                if allowed is not None and not found <= allowed:  # nan is too much as well
                    self._reason = f"{name}: {probe.says} is {found:.4g} {when}, {allowed:g} are allowed"
                    return False
        return True

    # -- state -----------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Plain containers: what was refused, and what has been spent."""
        return {
            "refusals": [asdict(entry) for entry in self.refusals],
            "spent": dict(self.spent),
            "harms": dict(self.harms),
            "seconds": self.seconds,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Take over a saved state; probes and the other editor have their own.

        Args:
            state: What `state_dict` gave.
        """
        self.refusals = [Refusal(**entry) for entry in state["refusals"]]
        self.spent, self.harms, self.seconds = dict(state["spent"]), dict(state["harms"]), state["seconds"]


def strength_of(editor: Editor) -> float:
    """The share of the way to its target that a request goes.

    Args:
        editor: The editor.

    Raises:
        EditError: It cannot do anything by halves.
    """
    found = getattr(editor, "strength", None)
    if not isinstance(found, int | float):
        raise EditError(
            f"{type(editor).__name__} has no strength to lower; expected an editor with one, such as every closed-form "
            "editor. Use action='halve' or action='refuse'."
        )
    return float(found)


def _entry(request: EditRequest, reason: str, edits: int, fate: str) -> Refusal:
    return Refusal(request.id, request.prompt, request.target, edits, reason, fate)


def _joined(first: EditReport, second: EditReport) -> EditReport:
    """Two reports as one, where both may be of nothing."""
    return add_reports(first, second) if first.count and second.count else first if first.count else second
