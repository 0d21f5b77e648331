"""lm-evaluation-harness, run on the live model inside of whatever is going on.

Tasks are read once; each run asks the same questions. Importing this file imports lm-eval. It knows no Trainer.
"""

import logging
import random
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import lm_eval.api.task
from lm_eval.evaluator import evaluate
from lm_eval.tasks import TaskManager

from lightning_edit.errors import EditError
from lightning_edit.reasoning.harness_model import HarnessModel
from lightning_edit.reasoning.scores import TaskScore
from lightning_edit.reasoning.world import WORLD_TASKS

TASKS = Path(__file__).parent / "tasks"


class Harness:
    """Some tasks of lm-eval, and the questions of each that are asked.

    Args:
        names: Names of tasks, the shipped ones, those in `include_path`, or those that lm-eval registers.
        limit: Questions asked of each task; None for all.
        seed: Seed of their choice, and of the choice of shots.
        data_dir: Folder of local data; None reads the Hub.
        num_fewshot: Worked examples before each question; None for what the task says, which is none.
        include_path: Folder with further task files.
    """

    def __init__(
        self,
        names: Sequence[str],
        limit: int | None = None,
        seed: int = 0,
        data_dir: str | Path | None = None,
        num_fewshot: int | None = None,
        include_path: str | Path | None = None,
    ) -> None:
        self.seed = seed
        with _quiet():
            loaded = _manager(names, data_dir, include_path).load(list(names))
        if loaded["groups"]:
            raise EditError(
                f"found the groups {sorted(loaded['groups'])} among the tasks, expected tasks; name what is in them."
            )
        self._tasks: dict[str, Any] = loaded["tasks"]
        self._sizes: dict[str, int] = {}
        self._samples: dict[str, list[int]] = {}  # of tasks of which not everything is asked
        for name, task in self._tasks.items():
            if num_fewshot is not None or task.config.num_fewshot is None:
                task.set_config(key="num_fewshot", value=num_fewshot or 0)
            size = self._sizes[name] = len(task.eval_docs)
            if limit is not None and limit < size:
                self._choose(name, draw(name, size, limit, seed))

    def _choose(self, name: str, chosen: list[int]) -> None:
        """Ask some of a task's questions; lm-eval walks through all of them for its `samples`, so cut where we can."""
        task = self._tasks[name]
        split = task.config.test_split or task.config.validation_split
        if task.config.process_docs is None:
            task.dataset[split] = task.dataset[split].select(chosen)
            self._sizes[name] = len(chosen)
        else:
            self._samples[name] = chosen

    def count(self, name: str) -> int:
        """How many questions of a task are asked.

        Args:
            name: The task.
        """
        return len(self._samples.get(name, range(self._sizes[name])))

    def run(self, model: HarnessModel) -> dict[str, TaskScore]:
        """Ask all questions; on several processes each of them calls, and all get the numbers of the first.

        Args:
            model: The model.
        """
        for task in self._tasks.values():
            task.set_fewshot_seed(seed=self.seed)

        def measure() -> dict[str, TaskScore]:
            found = evaluate(
                lm=model,
                task_dict={"tasks": self._tasks, "groups": {}, "group_map": {}},
                samples=self._samples,
                bootstrap_iters=0,
                log_samples=False,
            )
            return {name: self._score(name, found["results"][name]) for name in self._tasks}

        with _quiet():
            return model.ranks.first(measure)

    def _score(self, name: str, found: dict[str, Any]) -> TaskScore:
        """The task's first metric behind its first filter, and all of them."""
        metrics = {key: value for key, value in found.items() if "," in key and "_stderr" not in key}
        numbers = {key.removesuffix(",none"): float(value) for key, value in metrics.items()}
        main = next(iter(numbers), None)
        if main is None:
            raise EditError(f"task {name} gave no number but {sorted(found)}; expected a metric in its metric_list.")
        return TaskScore(numbers[main], main, self.count(name), numbers)


def draw(name: str, size: int, limit: int, seed: int) -> list[int]:
    """Which questions of a task are asked, in order; of two limits the larger one asks what the smaller one asks, too.

    Args:
        name: The task.
        size: Number of its questions.
        limit: How many are asked.
        seed: Seed of the choice.
    """
    order = list(range(size))
    random.Random(f"reasoning-{name}-{seed}").shuffle(order)
    return sorted(order[:limit])


def _manager(names: Sequence[str], data_dir: str | Path | None, include_path: str | Path | None) -> TaskManager:
    """Who knows the tasks; lm-eval's own are looked up only if somebody asks for one, since that takes long."""
    folders = [str(TASKS), *([] if include_path is None else [str(include_path)])]
    options: dict[str, Any] = {
        "include_path": folders,
        "metadata": {} if data_dir is None else {"data_dir": str(data_dir)},
    }
    manager = TaskManager(include_defaults=False, **options)
    if any(name not in manager.task_index for name in names):
        manager = TaskManager(include_defaults=True, **options)
    unknown = [name for name in names if name not in manager.task_index]
    if unknown:
        shipped = ", ".join(sorted(path.stem for path in TASKS.glob("[!_]*.yaml")))
        raise EditError(
            f"found the tasks {unknown}, which nobody knows; expected some of {shipped}, {', '.join(WORLD_TASKS)}, one "
            "that lm-eval registers, or one of your own in include_path=."
        )
    return manager


@contextmanager
def _quiet() -> Iterator[None]:
    """Without lm-eval's remarks and its progress bars, which know nothing of those that are there."""
    logger, bars = logging.getLogger("lm_eval"), lm_eval.api.task.tqdm
    level = logger.level
    logger.setLevel(logging.ERROR)
    lm_eval.api.task.tqdm = _no_bar
    try:
        yield
    finally:
        logger.setLevel(level)
        lm_eval.api.task.tqdm = bars


def _no_bar(entries: Iterable[Any], **_: Any) -> Iterable[Any]:
    return entries
