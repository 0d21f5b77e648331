"""What a model of the embedded world can reason about, without lm-eval.

Sums and differences written out step by step, two-hop questions that training never asked, multiple choice, and the
perplexity of texts of the world that it has not read. All of it is drawn afresh from a seed. What names a subject that
is to be edited is left out, as the right answer would change with the edit. This file draws and judges; it knows no
Trainer.
"""

import math
import random
from collections.abc import Callable, Collection, Iterator, Sequence
from functools import partial
from itertools import islice
from typing import TypeVar

from lightning_edit.data.world import World
from lightning_edit.data.world.abilities import NEW_TOKENS, final_answer
from lightning_edit.data.world.arithmetic import arithmetic
from lightning_edit.data.world.corpus import Document, documents
from lightning_edit.data.world.documents import Writer
from lightning_edit.data.world.tasks import Task, choice, hop_task, hops, is_held_out
from lightning_edit.decoding import decode
from lightning_edit.errors import EditError
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.reasoning.ranks import Ranks
from lightning_edit.reasoning.scores import TaskScore
from lightning_edit.reasoning.text_likelihood import score_texts

Entry = TypeVar("Entry")

QUESTIONS = 200
"""Questions of a task where no limit is given."""
HELD_OUT = 77_000
"""Seeds of texts from here on are nobody's training."""
PATIENCE = 400
"""How many are drawn for each that is asked, before it is said that there are none."""


def held_out_hop(writer: Writer) -> Task:
    """A two-hop question that training never asked."""
    while True:
        pairs = hops(writer.world, writer.subject()[0])
        held_out = [pair for pair in pairs if is_held_out(pair[0], pair[1].relation)]
        if held_out:
            return hop_task(*writer.rng.choice(held_out), writer.rng)


ABILITIES: dict[str, tuple[str, Callable[[Writer], Task]]] = {
    "world_arithmetic": ("arithmetic", arithmetic),
    "world_two_hop": ("two_hop", held_out_hop),
    "world_multiple_choice": ("multiple_choice", choice),
}
PERPLEXITY = "world_perplexity"
WORLD_TASKS = (*ABILITIES, PERPLEXITY)


class WorldTasks:
    """Tasks of the embedded world, and the questions of each that are asked.

    Args:
        names: Some of `WORLD_TASKS`.
        limit: Questions of each task; 200 where None.
        seed: Seed of the questions.
        avoid: Names that no question and no text may mention, such as the subjects of edits.
        world: The world that the model was trained on.
    """

    def __init__(
        self,
        names: Sequence[str],
        limit: int | None = None,
        seed: int = 0,
        avoid: Collection[str] = (),
        world: World | None = None,
    ) -> None:
        count, world = limit or QUESTIONS, world or World()
        self._questions: dict[str, list[Task]] = {}
        self._texts: list[Document] = []
        for name in names:
            if name == PERPLEXITY:
                prose = (text for text in documents(world, HELD_OUT + seed) if not text.learn_from)
                self._texts = _take(name, prose, count, avoid, lambda document: document.text)
            else:
                writer = Writer(world, random.Random(f"{name}-{world.seed}-{seed}"))
                drawn = _endless(partial(ABILITIES[name][1], writer))
                self._questions[name] = _take(name, drawn, count, avoid, lambda task: task.text)

    def run(self, lm: LanguageModel, ranks: Ranks | None = None, batch_size: int = 64) -> dict[str, TaskScore]:
        """Ask all questions; on several processes each of them calls, and all get the same numbers.

        Args:
            lm: The language model.
            ranks: The processes.
            batch_size: Texts in one forward.
        """
        ranks = ranks or Ranks(alone=True)
        scores = {}
        for name, tasks in self._questions.items():
            length = NEW_TOKENS[ABILITIES[name][0]]
            prompts = [task.prompt for task in tasks]
            texts = ranks.share(prompts, lambda part, length=length: decode(lm, part, length, batch_size))  # type: ignore[misc]
            share = sum(is_right(name, *pair) for pair in zip(tasks, texts, strict=True)) / len(tasks)
            scores[name] = TaskScore(share, "acc", len(tasks), {"acc": share})
        if self._texts:
            scores[PERPLEXITY] = self._perplexity(lm, ranks, batch_size)
        return scores

    def _perplexity(self, lm: LanguageModel, ranks: Ranks, batch_size: int) -> TaskScore:
        """Perplexity over all tokens of all texts."""

        def score(part: Sequence[Document]) -> list[tuple[float, int]]:
            found = score_texts(lm, [document.text for document in part], batch_size=batch_size)
            return [(float(logs.sum()), len(logs)) for logs in found.logs]

        found = ranks.share(self._texts, score)
        value = math.exp(-sum(total for total, _ in found) / sum(count for _, count in found))
        return TaskScore(value, "perplexity", len(self._texts), {"perplexity": value})


def is_right(name: str, task: Task, text: str) -> bool:
    """Whether a continuation answers a question; a choice must name value and letter.

    Args:
        name: The task.
        task: The question.
        text: What the model wrote.
    """
    if name == "world_multiple_choice":
        return text.strip().startswith(task.response.rstrip("."))
    return final_answer(text) == task.answer


def _endless(make: Callable[[], Task]) -> Iterator[Task]:
    while True:
        yield make()


def _take(
    name: str, drawn: Iterator[Entry], count: int, avoid: Collection[str], text: Callable[[Entry], str]
) -> list[Entry]:
    """The first entries that mention none of some names."""
    found: list[Entry] = []
    for entry in islice(drawn, PATIENCE * count):
        if not any(subject in text(entry) for subject in avoid):
            found.append(entry)
            if len(found) == count:
                return found
    if not found:
        raise EditError(
            f"{name}: found nothing that mentions none of the {len(avoid)} subjects of edits, expected {count}. Edit "
            "fewer subjects of the world, or leave this task out."
        )
    return found
