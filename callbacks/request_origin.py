"""Where a run's requests come from: those that were given to `ContinualEdit`, else those of the DataModule."""

from typing import TYPE_CHECKING, Any

from lightning_edit.data.load import OnBad
from lightning_edit.data.source import Limit, RequestSource, request_source
from lightning_edit.errors import RequestError
from lightning_edit.model.language_model import LanguageModel

if TYPE_CHECKING:
    import lightning.pytorch as pl


class RequestOrigin:
    """Finds the requests of a run. Those that were given become one source, whose cursor stays for the next fit."""

    def __init__(self) -> None:
        self._own: RequestSource | None = None

    def find(self, trainer: "pl.Trainer", lm: LanguageModel, given: Any, on_bad: OnBad) -> RequestSource:
        """The requests of this run.

        Args:
            trainer: The Trainer; its DataModule may hold them.
            lm: The language model, which says how long a text may be.
            given: What was given: a path, list, queue or other iterable, or None.
            on_bad: What to do with one that cannot be used: `raise`, or `skip` and report.

        Raises:
            RequestError: If there are none.
        """
        if given is not None:
            self._own = self._own or request_source(given, on_bad, Limit(lm.tokenizer, lm.max_length))
            return self._own
        found = getattr(getattr(trainer, "datamodule", None), "request_source", None)
        if not isinstance(found, RequestSource):
            raise RequestError(
                "ContinualEdit found no edit requests; expected some in ContinualEdit(requests=...), or an EditStream "
                "as the DataModule of trainer.fit. Pass a path, a list, a queue or another iterable."
            )
        return found
