"""One face for all tasks: names in, numbers out.

Knows which tasks lm-eval runs and which the embedded world brings along, and that a model that is borrowed for this is
given back as it was. Refuses to know when to measure.
"""

import importlib.util
from collections.abc import Collection, Sequence
from contextlib import nullcontext
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from lightning_edit.bars import show_progress
from lightning_edit.chat import Chat
from lightning_edit.errors import EditError
from lightning_edit.model.language_model import LanguageModel, as_language_model
from lightning_edit.reasoning.ranks import Ranks
from lightning_edit.reasoning.scores import TaskScore
from lightning_edit.reasoning.undisturbed import seeded
from lightning_edit.reasoning.world import WORLD_TASKS, WorldTasks

if TYPE_CHECKING:
    from lightning_edit.reasoning.harness import Harness


def shipped_tasks() -> list[str]:
    """Names of all tasks that need nothing but their data."""
    files = (Path(__file__).parent / "tasks").glob("[!_]*.yaml")
    return [*sorted(path.stem for path in files), *WORLD_TASKS]


class Benchmark:
    """Reasoning and general ability, asked of a model as it is now.

    Questions are read when the first model is asked, and stay the same. During a run parameters, modes, caches, padding
    and random numbers are borrowed and given back. An editor that acts while the model answers is at work.

    Args:
        tasks: Names of tasks: shipped ones (`shipped_tasks()`), registered ones of lm-eval, or your own.
        limit: Questions asked of each task; None for all, of the world's tasks 200.
        seed: Seed of their choice.
        data_dir: Folder of local data, see `docs/reasoning.md`; None reads the Hugging Face Hub.
        num_fewshot: Worked examples before each question, drawn from the other ones; None for what the task says.
        max_new_tokens: Longest answer where a task of lm-eval allows a longer one; None lets each have its way. With
            `reasoning` as many tokens again are for the thoughts, 8,192 where it is None.
        batch_size: Texts in one forward.
        chat: Ask through the tokenizer's chat template; the world's tasks never do.
        system: What the system says first in a chat.
        reasoning: Whether the model thinks first, so that its answer is what follows `</think>`.
        include_path: Folder with further task files of lm-eval.
        avoid: Subjects of edits: the world's tasks mention none of them.

    Example:
        >>> from lightning_edit.data.world import load_world_model
        >>> from lightning_edit.model.language_model import LanguageModel
        >>> lm = LanguageModel(*load_world_model())
        >>> Benchmark(["world_arithmetic"], limit=4).run(lm)["world_arithmetic"].count
        4
    """

    def __init__(
        self,
        tasks: Sequence[str],
        limit: int | None = 100,
        seed: int = 0,
        data_dir: str | Path | None = None,
        num_fewshot: int | None = None,
        max_new_tokens: int | None = 1024,
        batch_size: int = 16,
        chat: bool = False,
        system: str | None = None,
        reasoning: bool = False,
        include_path: str | Path | None = None,
        avoid: Collection[str] = (),
    ) -> None:
        if isinstance(tasks, str) or not tasks or len(set(tasks)) < len(tasks):
            raise EditError(f"found tasks={tasks!r}, expected a list of different names, such as {shipped_tasks()[:3]}")
        for name, value in {"limit": limit, "max_new_tokens": max_new_tokens, "batch_size": batch_size}.items():
            if value is not None and value < 1:
                raise EditError(f"found {name}={value}, expected at least 1")
        if system is not None and not chat:
            raise EditError("found a system turn without a chat, expected chat=True beside it; set it, or leave both.")
        self.tasks = list(tasks)
        self.limit, self.seed = limit, seed
        self.avoid = sorted(avoid)
        self._world = [name for name in tasks if name in WORLD_TASKS]
        self._harnessed = [name for name in tasks if name not in WORLD_TASKS]
        self._data = {"data_dir": data_dir, "num_fewshot": num_fewshot, "include_path": include_path}
        self._max_new_tokens, self._batch_size = max_new_tokens, batch_size
        self._chat = Chat(system, reasoning) if chat else None
        self._reasoning = reasoning
        self._world_tasks: WorldTasks | None = None
        self._harness: Harness | None = None
        if self._harnessed and importlib.util.find_spec("lm_eval") is None:
            raise EditError(
                f"{', '.join(self._harnessed)} need lm-evaluation-harness, which is not installed; expected it. "
                'pip install "lightning-edit[eval]", or take tasks of the embedded world: ' + ", ".join(WORLD_TASKS)
            )

    def prepare(self) -> None:
        """Read the questions, if that has not been done."""
        if self._world and self._world_tasks is None:
            self._world_tasks = WorldTasks(self._world, self.limit, self.seed, self.avoid)
        if self._harnessed and self._harness is None:
            from lightning_edit.reasoning.harness import Harness

            self._harness = Harness(self._harnessed, self.limit, self.seed, **self._data)  # type: ignore[arg-type]

    def run(self, module: object, ranks: Ranks | None = None, progress: bool = False) -> dict[str, TaskScore]:
        """The number of each task, in the order in which they were named.

        Args:
            module: An `EditableModule` or a `LanguageModel`.
            ranks: Several processes share the questions: each of them calls, and all get the same numbers. Alone where
                None.
            progress: Whether to draw a progress bar; in a Trainer `ReasoningBenchmark` does.
        """
        lm, ranks = as_language_model(module), ranks or Ranks(alone=True)
        scores: dict[str, TaskScore] = {}
        bar = show_progress(lm, "asking " + ", ".join(self.tasks)) if progress and ranks.rank == 0 else nullcontext()
        with lm.borrow(), seeded(self.seed), bar:
            ranks.all(self.prepare)
            if self._world_tasks is not None:
                scores |= self._world_tasks.run(lm, ranks, self._batch_size)
            if self._harness is not None:
                scores |= self._ask_harness(self._harness, lm, ranks)
        return {name: replace(scores[name], protocol=self.protocol(name)) for name in self.tasks}

    def protocol(self, name: str) -> str:
        """How a task's questions are put, in words that can stand beside its number.

        Args:
            name: Name of the task.
        """
        if name in WORLD_TASKS:
            return "bare"
        return ("chat" if self._chat else "bare") + (", thoughts" if self._reasoning else "")

    def _ask_harness(self, harness: "Harness", lm: LanguageModel, ranks: Ranks) -> dict[str, TaskScore]:
        from lightning_edit.reasoning.harness_model import HarnessModel

        how = (self._batch_size, self._max_new_tokens, self._chat, self._reasoning)
        return harness.run(HarnessModel(lm, *how, ranks=ranks))
