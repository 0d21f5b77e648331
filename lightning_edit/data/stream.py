"""`EditStream`: what a model trains on and the edits it will be asked for, in one LightningDataModule.

Knows how training batches and requests are made from files. Refuses to know when an edit is due: `ContinualEdit` takes
requests from `request_source` at its own pace, and saves how far it got.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Any, Literal

import lightning.pytorch as pl
from torch import Tensor
from transformers import AutoTokenizer

from lightning_edit.data.rows import RowLoader
from lightning_edit.data.source import Limit, RequestSource, request_source
from lightning_edit.data.text import read_texts, token_rows
from lightning_edit.errors import EditError


class EditStream(pl.LightningDataModule):
    """Training batches of a causal language model, and a stream of edit requests.

    A checkpoint written in the middle of an epoch goes on with the next batch; the place in the stream of requests is
    saved by `ContinualEdit` together with the edits. Under DDP every process takes its share of one global order, so
    `batch_size` rows on each of R processes are the batches of one process with R times as many.

    Args:
        requests: Edit requests: a path (JSON lines may be appended to the file while training runs), a list, a queue,
            or any other iterable of `EditRequest`s or dicts. None where the edits come from elsewhere, or not at all.
        train: Text to train on: a `.jsonl` file with the field `text`, a text file with documents separated by blank
            lines, or a list of documents.
        val: Text to validate on, in the same forms; with it there is a `val_dataloader`.
        corpus: Text that the model knows already, in the same forms. Key statistics are read from it where no file and
            no tracker gives them: an editor protects what the statistics describe. The training text where None.
        tokenizer: A tokenizer, or its name or folder. None takes the module's own.
        max_length: Tokens in a row; at most what the model takes.
        batch_size: Rows in a batch, on each process.
        pack: Whether documents share rows; else each starts its own, padded.
        seed: Seed of the order of rows.
        on_bad: What to do with a bad request: `raise`, or `skip` and report.

    Example:
        >>> stream = EditStream(train=["A first document.", "A second one."], max_length=16, batch_size=1)
        >>> stream.request_source is None
        True
    """

    def __init__(
        self,
        requests: Any = None,
        train: str | Path | list[str] | None = None,
        val: str | Path | list[str] | None = None,
        corpus: str | Path | list[str] | None = None,
        tokenizer: Any = None,
        max_length: int = 512,
        batch_size: int = 8,
        pack: bool = True,
        seed: int = 0,
        on_bad: Literal["raise", "skip"] = "raise",
    ) -> None:
        super().__init__()
        self.requests = requests
        self.train = train
        self.val = val
        self.corpus = corpus
        self.tokenizer = tokenizer
        self.max_length = max_length
        self.batch_size = batch_size
        self.pack = pack
        self.seed = seed
        self.on_bad: Literal["raise", "skip"] = on_bad
        self._source: RequestSource | None = None
        self._rows: dict[str, dict[str, Tensor]] = {}
        if val is not None:  # Lightning looks whether there is such a method, and complains of one that gives nothing
            self.__dict__["val_dataloader"] = self._validation_batches

    @property
    def request_source(self) -> RequestSource | None:
        """The stream of requests with its cursor, made when it is first asked for; None without requests."""
        if self._source is None and self.requests is not None:
            tokens = self._context() if callable(self.tokenizer) else None
            limit = None if tokens is None else Limit(self.tokenizer, tokens)
            self._source = request_source(self.requests, self.on_bad, limit)
        return self._source

    def setup(self, stage: str | None = None) -> None:
        """Find the tokenizer and turn texts into rows.

        Args:
            stage: What the Trainer is about to do.
        """
        self.tokenizer = self._resolve_tokenizer()
        for name in ("train", "val", "corpus"):
            if getattr(self, name) is not None and name not in self._rows:
                self._rows[name] = self._read(getattr(self, name))

    def train_dataloader(self) -> RowLoader:
        """Batches of `input_ids`, `attention_mask` and `labels`, in an order of their own in every epoch."""
        if "train" not in self._rows:
            raise EditError(
                "EditStream(train=None) has no text to train on; expected a file or a list of documents. To edit "
                "without training, call editor.edit(module, requests)."
            )
        return self._loader("train", seed=self.seed)

    def statistics_dataloader(self) -> RowLoader:
        """Batches of the text that key statistics are read from."""
        return self._loader("corpus", seed=self.seed) if self.corpus is not None else self.train_dataloader()

    def _validation_batches(self) -> RowLoader:
        """Batches of the validation text, in the order of the text."""
        return self._loader("val", seed=None, drop_last=False)

    def _loader(self, name: str, seed: int | None, drop_last: bool = True) -> RowLoader:
        rank, world = (self.trainer.global_rank, self.trainer.world_size) if self.trainer else (0, 1)
        return RowLoader(self._rows[name], self.batch_size, seed, rank, world, drop_last)

    def _read(self, source: str | Path | Iterable[str]) -> dict[str, Tensor]:
        """Rows of one corpus."""
        length = min(self.max_length, self._context() or self.max_length)
        rows = token_rows(read_texts(source), self.tokenizer, length, self.pack)
        lm = getattr(self._module(), "language_model", None)
        return rows if lm is None else lm.layout.training_rows(lm, rows)

    def _resolve_tokenizer(self) -> Any:
        """The tokenizer that was given, or the module's."""
        if isinstance(self.tokenizer, str | Path):
            return AutoTokenizer.from_pretrained(self.tokenizer)
        if self.tokenizer is not None:
            return self.tokenizer
        module = self._module()
        owner = getattr(module, "language_model", None) or module
        found = getattr(owner, "tokenizer", None)
        if found is None:
            name = type(module).__name__ if module is not None else "no module"
            raise EditError(
                f"EditStream(tokenizer=None) looked for a tokenizer on {name} and found none; expected one. Pass "
                "tokenizer=, by name or as an object."
            )
        return found

    def _context(self) -> int | None:
        """Tokens that the module's language model takes, where it can be asked."""
        return getattr(getattr(self._module(), "language_model", None), "max_length", None)

    def _module(self) -> Any:
        """The module that will be trained, where there is one."""
        return self.trainer.lightning_module if self.trainer is not None else None
