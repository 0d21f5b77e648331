"""`EditGuard`: a transaction around each batch of edits, which is taken back where it costs too much.

Knows when a batch is looked at, and what a checkpoint must hold. Refuses to know what may cost how much
(`guard_setup.py`), how a refused batch is dealt with (`gate.py`) and how anything is measured (`guard_probes.py`).
"""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
from lightning.pytorch.utilities import rank_zero_warn

from lightning_edit.callbacks.commit import build_editor
from lightning_edit.callbacks.edit_callback import EditCallback
from lightning_edit.callbacks.gate import Action, Gate, Refusal, strength_of
from lightning_edit.callbacks.guard_setup import GuardSetup
from lightning_edit.callbacks.logged_limits import LoggedLimits
from lightning_edit.callbacks.scalars import log_scalars
from lightning_edit.callbacks.strategies import on_rank_zero
from lightning_edit.callbacks.watching import find_edited, find_editing
from lightning_edit.editors.editor import Editor
from lightning_edit.editors.report import EditReport
from lightning_edit.errors import StateError, StrategyError
from lightning_edit.evaluation import AnswerOptions
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.requests import EditRequest

VERSION = 2  # 2: the last values of limited metrics


class EditGuard(EditCallback):
    r"""Refuses edits that cost more than a budget; what is refused leaves weights and ledger as they were, bit for bit.

    Before each batch cheap probes are measured, and again with the batch in the weights. The harm of a probe is how
    much worse it got:

    - `locality`: share of answers to locality probes, of this batch and of earlier requests, that changed;
    - `loss`: growth of the mean next-token loss on `texts`, in nats per token;
    - `R_median`: median over the directions of the relative change rate $R_k$ of the batch at the edited layers'
      outputs, mean over the layers (*Revisiting*, Definition 4.4);
    - any name in `measures`: growth of the number that a function of yours gives.

    If a harm exceeds its budget, everything is taken back, and `action` says what is tried next: nothing (`refuse`),
    the two halves of the batch and their halves, down to single requests, which finds the culprits (`halve`), or the
    same batch with a part of its strength (`weaken`). What does not pass then goes to the editor `another`, if there is
    one, under the same budgets. Every request that did not pass as it came is in `refusals`, with the reason.

    Training between edits is not blamed on edits: harms are measured from just before a batch to just after it.
    `limits` look at the run as a whole instead: while a logged metric is above its limit, no batch is tried at all.

    Log keys: `guard/refused`, and for each probe `guard/<probe>`, of the last batch that passed, and
    `guard/spent/<probe>`, of all of them added up.

    Args:
        budgets: Largest harm of one batch, by probe; locality 0.1 where no budget and no limit is given.
        total_budgets: Largest harm of all batches together, by probe.
        action: `refuse`, `halve` or `weaken`.
        strengths: Shares of the way to their targets that `weaken` tries, in this order.
        another: An editor for what does not pass: a name, `{"class_path": ..., "init_args": {...}}`, or an object. One
            that needs key statistics has to be prepared. It must not write the weights that the first editor writes.
        another_options: Its arguments, where it is given by name.
        measures: Functions from the language model to a number of which more is worse, by name, or their import paths.
        limits: Largest values of logged metrics, by log key such as `val_loss`; the last logged value counts.
        locality_budget: Requests whose locality probes are asked.
        locality_each: Probes asked of each.
        max_new_tokens: Longest answer.
        texts: Held-out text for `loss` and `R_median`: a file or a list of documents. Batches of the corpus or the
            training data where None.
        tokens: Tokens of it that are read, about.
        max_length: Tokens of a text that are read.
        batch_size: Prompts or texts in one forward.
        seed: Seed of the choice of probes.
    """

    def __init__(
        self,
        budgets: dict[str, float] | None = None,
        total_budgets: dict[str, float] | None = None,
        action: Action = "halve",
        strengths: list[float] | None = None,
        another: Editor | str | dict[str, Any] | None = None,
        another_options: dict[str, Any] | None = None,
        measures: dict[str, Callable[[Any], float]] | None = None,
        limits: dict[str, float] | None = None,
        locality_budget: int = 32,
        locality_each: int = 2,
        max_new_tokens: int = 24,
        texts: str | Path | list[str] | None = None,
        tokens: int = 4096,
        max_length: int = 128,
        batch_size: int = 32,
        seed: int = 0,
    ) -> None:
        if budgets is None and total_budgets is None and limits is None:
            budgets = {"locality": 0.1}
        options = AnswerOptions(max_new_tokens, batch_size=batch_size)
        asked = (locality_budget, locality_each, options, texts, tokens, max_length, batch_size, seed)
        shares = [0.5, 0.25] if strengths is None else strengths
        self.what = GuardSetup(budgets or {}, total_budgets or {}, action, shares, measures or {}, *asked)
        self.another = build_editor(another, another_options or {})
        self.limits = LoggedLimits(limits or {})
        allowed = (self.what.budgets, self.what.total_budgets)
        self._gate = Gate({}, *allowed, action, shares, self.another, self.limits.exceeded)
        self._probes: dict[str, Any] = {}  # saved states of probes that have not been made yet
        self._loaded: dict[str, Any] | None = None

    # -- what came out ---------------------------------------------------------------------------------------------

    @property
    def refusals(self) -> list[Refusal]:
        """Every request that did not pass as it came, in order, with reason and fate; on rank zero."""
        return list(self._gate.refusals)

    @property
    def spent(self) -> dict[str, float]:
        """Harm of all batches that passed, added up, by probe; on rank zero."""
        return dict(self._gate.spent)

    def summary(self) -> dict[str, float | int | str | bool]:
        """How many requests had which fate, and what was spent, for a table."""
        fates = [entry.fate for entry in self._gate.refusals]
        weakened = sum(fate.startswith("strength") for fate in fates)
        refused = fates.count("refused")
        values = {"refused": refused, "weakened": weakened, "handed_over": len(fates) - refused - weakened}
        return {**values, **{f"spent/{name}": value for name, value in self._gate.spent.items()}}

    # -- the Trainer's hooks ---------------------------------------------------------------------------------------

    def on_fit_start(self, trainer: "pl.Trainer", pl_module: "pl.LightningModule") -> None:
        """Stand at the gate, and bring the other editor to where a checkpoint left it."""
        editing, lm = find_edited(trainer, pl_module, self)
        editing.session.gate = self._gate
        if editing.editor is not None and self.what.action == "weaken":
            strength_of(editing.editor)
        if self.another is not None:
            self._take_up(self.another, editing.editor, lm)
        self._restore(trainer, lm)

    def on_put_to_work(self, trainer: "pl.Trainer", pl_module: "pl.LightningModule", lm: LanguageModel) -> None:
        """Bring the other editor to work too."""
        find_editing(trainer, self).session.gate = self._gate
        self._restore(trainer, lm)
        if self.another is not None and self.another.requests:
            self.another.attach(lm)

    def on_train_start(self, trainer: "pl.Trainer", pl_module: "pl.LightningModule") -> None:
        """Make the probes; what they have to know of the unedited model is read now, or comes from a checkpoint."""
        editing, lm = find_edited(trainer, pl_module, self)
        if self.another is not None and not on_rank_zero(trainer, lambda: self._is_prepared(self.another)):
            raise StrategyError(
                f"the editor for refused requests, {type(self.another).__name__}, has no key statistics; expected a "
                "prepared one: call another.prepare(module, statistics=...) and pass the object."
            )

        def make() -> None:  # nothing is sent to the other ranks: only rank zero stands at the gate
            layers = editing.session.layers or [site.layer for site in lm.sites]
            known = self._gate.probes or self.what.make_probes(trainer, pl_module, lm, layers, self._probes)
            self._gate.probes = known

        on_rank_zero(trainer, make)

    def on_before_edit(
        self, trainer: "pl.Trainer", pl_module: "pl.LightningModule", requests: Sequence[EditRequest]
    ) -> None:
        """Look at what has been logged; on every rank, since reading it may gather."""
        if self.limits.limits:
            self.limits.read(trainer.callback_metrics)

    def on_train_end(self, trainer: "pl.Trainer", pl_module: "pl.LightningModule") -> None:
        """Say which limits stood for nothing."""
        if unseen := self.limits.unseen():
            rank_zero_warn(
                f"EditGuard's limits on {', '.join(unseen)} stood for nothing: before no edit were they logged."
            )

    def on_after_edit(
        self,
        trainer: "pl.Trainer",
        pl_module: "pl.LightningModule",
        requests: Sequence[EditRequest],
        report: EditReport,
    ) -> None:
        """Log what passed and what did not."""
        editing, _ = find_edited(trainer, pl_module, self)

        def numbers() -> dict[str, float]:
            gate = self._gate
            spent = {f"guard/spent/{name}": value for name, value in gate.spent.items()}
            refused = sum(entry.fate == "refused" for entry in gate.refusals)
            return {"guard/refused": refused, **{f"guard/{name}": v for name, v in gate.harms.items()}, **spent}

        if editing.editor is not None:
            log_scalars(trainer, pl_module, {"edit/count": editing.count, **on_rank_zero(trainer, numbers)})

    # -- state -----------------------------------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Any]:
        """Tensors and plain containers: refusals, what was spent, what probes remember, and the other editor."""
        if self._loaded is not None:
            return self._loaded
        probes = {name: probe.state_dict() for name, probe in self._gate.probes.items()}
        return {
            "version": VERSION,
            "gate": self._gate.state_dict(),
            "probes": probes or self._probes,
            "logged": self.limits.state_dict(),
            "another": None if self.another is None else self.another.state_dict(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Keep a saved state until the model is there.

        Args:
            state_dict: What `state_dict` gave.
        """
        if state_dict.get("version") != VERSION:
            raise StateError(
                f"the checkpoint's EditGuard has version {state_dict.get('version')!r}; expected {VERSION}."
            )
        if (state_dict["another"] is None) != (self.another is None):
            raise StateError("the checkpoint has an editor for refused requests or has none; give it as before.")
        self._loaded = state_dict

    def _restore(self, trainer: "pl.Trainer", lm: LanguageModel) -> None:
        """Take up a loaded state, if there is one."""
        state, self._loaded = self._loaded, None
        if state is None:
            return
        self._gate.load_state_dict(state["gate"])
        self._probes = state["probes"]
        self.limits.load_state_dict(state["logged"])
        if self.another is not None and (trainer.is_global_zero or self.another.acts_on_every_rank):
            self.another.load_state_dict(state["another"])
            self.another.attach(lm)

    # -- the other editor ------------------------------------------------------------------------------------------

    def _take_up(self, another: Editor, first: Editor | None, lm: LanguageModel) -> None:
        """Settle the other editor on the model, away from the first one's weights."""
        another.attach(lm)
        if first is None:
            return
        first.attach(lm)
        shared = {id(weight) for weight in first.weights(lm)} & {id(weight) for weight in another.weights(lm)}
        if shared:
            raise StrategyError(
                f"{type(first).__name__} and {type(another).__name__} write {len(shared)} weights both, and each would "
                "take the other's edits for drift; expected different ones. Give the editor for refused requests "
                "other layers, or take a memory."
            )

    @staticmethod
    def _is_prepared(another: Editor | None) -> bool:
        return another is None or another.prepared
