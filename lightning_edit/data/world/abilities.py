"""What a model of the world can do, each ability as the share of right answers to seeded questions.

The questions are drawn afresh for measuring: their seeds are none of training's, held-out phrasings and held-out hops
are used where they exist.
"""

import random
from collections.abc import Callable

from lightning_edit.data.world.arithmetic import arithmetic
from lightning_edit.data.world.documents import Writer, sentence
from lightning_edit.data.world.facts import (
    Fact,
    World,
    held_out_phrasings,
    held_out_questions,
    seen_phrasings,
)
from lightning_edit.data.world.tasks import (
    Task,
    ask,
    choice,
    event,
    hop_task,
    hops,
    is_held_out,
    nickname,
    reading,
    selection,
    unknown,
)

Decoder = Callable[[list[str], int], list[str]]
"""Prompts and the number of new tokens to their greedy continuations."""


def final_answer(text: str) -> str:
    """The answer in a continuation: the first sentence after the last ``Answer:``, or the first sentence."""
    return text.rsplit("Answer:", 1)[-1].split(".")[0].strip()


def state(fact: Fact, phrasing: str) -> Task:
    """A statement to be completed."""
    prompt = sentence(phrasing, fact.subject, "")[:-2]
    return Task(prompt, f"{fact.value}.", fact.value)


def ability_tasks(world: World, count: int = 200, seed: int = 0) -> dict[str, list[Task]]:
    """Questions for every ability that the model card lists.

    Args:
        world: The world the model was trained on.
        count: Questions per ability.
        seed: Seed of the questions.
    """
    rng = random.Random(f"abilities-{world.seed}-{seed}")
    writer = Writer(world, rng)
    facts = rng.choices(list(world.facts.values()), k=count)
    novel = [fact for fact in facts if fact.relation.novel]
    return {
        "recall": [state(f, rng.choice(seen_phrasings(f))) for f in facts],
        "held_out_phrasing": [state(f, rng.choice(held_out_phrasings(f))) for f in facts],
        "held_out_question": [ask(rng.choice(held_out_questions(f)).format(s=f.subject), f.value) for f in facts],
        "novel_phrasing": [state(f, rng.choice(f.relation.novel)) for f in novel],
        "reading": [reading(writer) for _ in range(count)],
        "selection": [selection(writer) for _ in range(count)],
        "unknown": [unknown(writer) for _ in range(count)],
        "two_hop": [_held_out_hop(writer) for _ in range(count)],
        "nickname": [nickname(writer) for _ in range(count)],
        "multiple_choice": [choice(writer) for _ in range(count)],
        "event": [event(writer) for _ in range(count)],
        "arithmetic": [arithmetic(writer) for _ in range(count)],
    }


def measure_abilities(decode: Decoder, world: World, count: int = 200, seed: int = 0) -> dict[str, float]:
    """Share of right answers for every ability.

    Args:
        decode: Continues prompts greedily.
        world: The world the model was trained on.
        count: Questions per ability.
        seed: Seed of the questions.
    """
    scores = {}
    for name, tasks in ability_tasks(world, count, seed).items():
        texts = decode([task.prompt for task in tasks], NEW_TOKENS.get(name, 12))
        scores[name] = sum(_right(t, text, name) for t, text in zip(tasks, texts, strict=True)) / len(tasks)
    return scores


NEW_TOKENS = {"selection": 40, "two_hop": 56, "nickname": 44, "multiple_choice": 14, "arithmetic": 110}


def _right(task: Task, text: str, ability: str) -> bool:
    """Selection must name the right fact too; a choice must give letter and value."""
    if ability in ("selection", "multiple_choice"):
        return text.strip().startswith(task.response.rstrip("."))
    return final_answer(text) == task.answer


def _held_out_hop(writer: Writer) -> Task:
    while True:
        pairs = [p for p in hops(writer.world, writer.subject()[0]) if is_held_out(p[0], p[1].relation)]
        if pairs:
            return hop_task(*writer.rng.choice(pairs), writer.rng)
