"""Bars for those who wait: on a line of their own, in somebody else's display, and below a job's.

Knows clocks, tqdm and rich. Refuses to know what is being done; it hears of it as a `Progress`.
"""

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import rich.progress
from tqdm.auto import tqdm  # type: ignore[import-untyped]

from lightning_edit.model.language_model import LanguageModel, as_language_model
from lightning_edit.progress import Progress, watched

DELAY = 2.0  # seconds before a bar is worth drawing
LOOK = "{desc}: {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt} [{elapsed}]"  # texts differ too much for a time left
LINES = 10  # how often a job says where it is, where nobody sees a bar


class Bar(Progress):
    """A bar that is drawn once the work has taken a while; subclasses draw it.

    Args:
        description: What is being done.
        delay: Seconds before it is drawn.
    """

    def __init__(self, description: str, delay: float = DELAY) -> None:
        self.description, self._delay = description, delay
        self.total = self.count = 0
        self._begin = time.monotonic()
        self._drawn = False

    def more(self, count: int) -> None:
        """More is to be done: the bar gets longer.

        Args:
            count: How much.
        """
        self.total += count
        self._redraw()

    def done(self, count: int = 1) -> None:
        """Some of it is done.

        Args:
            count: How much.
        """
        self.count += count
        self._redraw()

    def close(self) -> None:
        """Take the bar away."""
        if self._drawn:
            self._erase()

    def _redraw(self) -> None:
        if self._drawn or time.monotonic() - self._begin >= self._delay:
            self._drawn = True
            self._draw()

    def _draw(self) -> None:
        raise NotImplementedError

    def _erase(self) -> None:
        raise NotImplementedError


class TqdmBar(Bar):
    """A line of tqdm, below those that are there; in a file, where a bar would be rubbish, there is none."""

    _line: Any = None

    def _draw(self) -> None:
        if self._line is None:
            self._line = tqdm(desc=self.description, leave=False, disable=None, dynamic_ncols=True, bar_format=LOOK)
            if not self._line.disable:
                self._line.start_t -= time.monotonic() - self._begin  # it tells the time since the work began
        self._line.total, self._line.n = self.total, self.count
        if not self._line.disable:
            self._line.update(0)
            self._line.refresh()

    def _erase(self) -> None:
        self._line.close()


class RichBar(Bar):
    """A task in a display of rich that somebody else opens and closes.

    Args:
        description: What is being done.
        display: The display.
        refresh: What makes it draw itself, where it does not do so in a rhythm of its own.
        delay: Seconds before the task is shown.
    """

    def __init__(
        self,
        description: str,
        display: rich.progress.Progress,
        refresh: Callable[[], object] | None = None,
        delay: float = DELAY,
    ) -> None:
        super().__init__(description, delay)
        self._display, self._refresh = display, refresh
        self._task: Any = None

    def _draw(self) -> None:
        if self._task is None:
            self._task = self._display.add_task(self.description, total=self.total)
        self._show(True)

    def _erase(self) -> None:
        self._show(False)  # not removed: Lightning finds its own tasks by their place in the list

    def _show(self, visible: bool) -> None:
        self._display.update(self._task, completed=self.count, total=self.total, visible=visible)
        if self._refresh is not None:
            self._refresh()


@contextmanager
def show_progress(module: object, description: str = "asking the model") -> Iterator[None]:
    """Draw a bar for whatever is done with a model meanwhile: editing, asking, measuring.

    It appears after two seconds and goes when the work is done. In a log file nothing is drawn.

    Args:
        module: An `EditableModule` or a `LanguageModel`.
        description: What stands before the bar.

    Example:
        >>> from lightning_edit.data.world import load_world_model
        >>> from lightning_edit.decoding import decode
        >>> from lightning_edit.model.language_model import LanguageModel
        >>> lm = LanguageModel(*load_world_model())
        >>> with show_progress(lm, "asking"):
        ...     texts = decode(lm, ["The river"], max_new_tokens=2)
    """
    with watched(as_language_model(module), TqdmBar(description)):
        yield


@contextmanager
def job_bar(lm: LanguageModel, description: str, total: int) -> Iterator[Callable[[], None]]:
    """A job's bar, and below it one for what the model is doing; in a log file a line from time to time.

    Args:
        lm: The language model.
        description: What the job does.
        total: In how many parts.

    Yields:
        To be called after each part.
    """
    with rich.progress.Progress(transient=True) as display:
        task, begin = display.add_task(description, total=total), time.monotonic()
        every = max(total // LINES, 1)

        def tick() -> None:
            display.advance(task)
            done = int(display.tasks[0].completed)
            if not display.console.is_terminal and done % every == 0:
                display.console.print(f"{description}: {done} of {total} after {time.monotonic() - begin:.0f} s")

        with watched(lm, RichBar("  on the model", display)):
            yield tick
