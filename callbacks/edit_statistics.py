"""How the editor of a run gets its key statistics, and what of them a checkpoint has to hold.

Knows files, moments and the tracker among the callbacks. Refuses to know what an editor makes of them.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from lightning_edit.algebra.moments import KeyCovariance
from lightning_edit.callbacks.edit_callback import find_callback
from lightning_edit.callbacks.key_covariance_tracker import KeyCovarianceTracker
from lightning_edit.callbacks.strategies import is_sharded, on_rank_zero, share_moments, with_model
from lightning_edit.editors.editor import Editor
from lightning_edit.model.language_model import LanguageModel

if TYPE_CHECKING:
    import lightning.pytorch as pl


class EditStatistics:
    """The key statistics of one editor, on all ranks at once; every rank calls every method in the same order.

    Args:
        editor: The editor, or None, which needs none.
    """

    def __init__(self, editor: Editor | None) -> None:
        self.editor = editor
        self._moments: Mapping[int, KeyCovariance] = {}  # those that are in no file, and in no ledger yet

    def are_there(self, trainer: "pl.Trainer") -> bool:
        """Whether the editor has its statistics.

        Args:
            trainer: The Trainer.
        """
        editor = self.editor
        return editor is None or on_rank_zero(trainer, lambda: editor.prepared)

    def give(self, trainer: "pl.Trainer", lm: LanguageModel, statistics: Any) -> None:
        """Give the editor its statistics.

        Args:
            trainer: The Trainer.
            lm: The language model.
            statistics: A file, or moments by layer; what rank zero has counts.
        """
        editor = self.editor
        if editor is not None:
            if is_sharded(trainer) and isinstance(statistics, Mapping):
                share_moments(trainer, statistics)
            with_model(trainer, lambda: editor.prepare(lm, statistics=statistics))
            self._moments = statistics if isinstance(statistics, Mapping) else {}

    def ask_tracker(self, trainer: "pl.Trainer", lm: LanguageModel) -> bool:
        """Take the tracker's statistics, if it has seen enough; whether the editor has what it needs.

        Args:
            trainer: The Trainer.
            lm: The language model.
        """
        if self.are_there(trainer):
            return True
        tracker = find_callback(trainer, KeyCovarianceTracker)
        if tracker is None or not on_rank_zero(trainer, tracker.is_ready):
            return False
        self.give(trainer, lm, tracker.freeze())
        return True

    def spend(self) -> None:
        """An edit was made: what came of the statistics is in the ledgers now, and so in the editor's state."""
        self._moments = {}

    def state_dict(self) -> dict[int, Any]:
        """Moments that were collected from the training data and have not been used yet, by layer."""
        return {layer: moment.state_dict() for layer, moment in self._moments.items()}

    def load_state_dict(self, lm: LanguageModel, states: Mapping[int, Any]) -> None:
        """Give the editor what another one was given and had not used.

        Args:
            lm: The language model.
            states: What `state_dict` gave.
        """
        if self.editor is None or not states:
            return
        self._moments = {layer: KeyCovariance(state["size"]) for layer, state in states.items()}
        for layer, moment in self._moments.items():
            moment.load_state_dict(states[layer])
        self.editor.prepare(lm, statistics=self._moments)
