"""Sums and differences below one hundred, digit by digit, as small stories.

The steps are written out, so the model can learn a procedure instead of a table. This file knows numbers and names.
"""

from lightning_edit.data.world.documents import Writer
from lightning_edit.data.world.tasks import Task, think


def add_steps(a: int, b: int) -> str:
    """``38 + 25``: the digits from the right with the carry, then the sum."""
    ones = a % 10 + b % 10
    carry = ones // 10
    tens = f"{a // 10} + {b // 10}" + (" + 1" if carry else "") + f" = {a // 10 + b // 10 + carry}."
    return f"{a} + {b}: {a % 10} + {b % 10} = {ones}. {tens} So {a} + {b} = {a + b}."


def subtract_steps(a: int, b: int) -> str:
    """``63 - 25`` with ``a >= b``: the digits from the right with the borrow, then the difference."""
    borrow = a % 10 < b % 10
    ones = f"{a % 10 + 10 * borrow} - {b % 10} = {a % 10 + 10 * borrow - b % 10}."
    tens = f"{a // 10} - {b // 10}" + (" - 1" if borrow else "") + f" = {a // 10 - b // 10 - borrow}."
    return f"{a} - {b}: {ones} {tens} So {a} - {b} = {a - b}."


def arithmetic(writer: Writer) -> Task:
    """One or two steps of adding and taking away, told about somebody's belongings."""
    rng, name = writer.rng, writer.subject("person")[0]
    thing = rng.choice(writer.world.values["product"])
    total = rng.randint(1, 89)
    text, steps = f"{name} has {total} {thing}.", []
    for _ in range(rng.randint(1, 2)):
        if rng.random() < 0.5 and total < 95:
            amount = rng.randint(1, 99 - total)
            text += f" {name} buys {amount} more."
            steps.append(add_steps(total, amount))
            total += amount
        else:
            amount = rng.randint(0, total)
            text += f" {name} gives away {amount}."
            steps.append(subtract_steps(total, amount))
            total -= amount
    return think(f"{text} How many {thing} are left?", " ".join(steps), str(total))
