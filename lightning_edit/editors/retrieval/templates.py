"""What a text memory says to a model, and how it reads the reply: plain data, to be replaced as wanted.

There are three sets. `instruct` tells a chat model what to do, `base` shows a plain language model two examples and
lets it go on, `embedded` has the forms that the embedded world's model was taught. This file knows wordings, no model.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from string import Formatter
from types import MappingProxyType
from typing import Any

from lightning_edit.errors import EditError


@dataclass(frozen=True, slots=True)
class PromptTemplates:
    r"""Wordings of one kind of model. Patterns are regular expressions, read without regard to case.

    Args:
        select: Asks which fact fits; with `{facts}` and `{question}`.
        fact: One listed fact, with `{fact}`, or `{bare}` for it without its full stop, and `{number}` if wanted.
        joint: Between two listed facts.
        answer: What stands before the model instead of the prompt; with `{fact}` and `{prompt}`.
        thoughts: The same where the prompt ends in `Thoughts:`, such as the fact for a first thought; None takes
            `answer` there too.
        question: Finds the question in a prompt, as its first group; where it finds none, all of the prompt is asked.
        ends: Texts that end the reply.
        none: Finds a reply that no fact fits.
        number: Finds the number of the chosen fact in a reply, as its first group; None where facts have none.
        demonstration: An example before the prompt, with `{fact}`, `{prompt}` and `{answer}`; for `IKE`.
        lead: What opens the examples.
        by_value: Whether the model replies with the last words of the fact that it means. Where several
            facts have these, the first of them is meant; otherwise none would be.
    """

    select: str
    answer: str
    thoughts: str | None = None
    fact: str = "{number}. {fact}"
    joint: str = "\n"
    question: str = r"(?s).*\b(?:question|q): *(.+?)\s*\b(?:answer|a|thoughts):\s*$"
    ends: tuple[str, ...] = ("\n",)
    none: str = r"^\W*none\b|^\W*no\W*$|\bnone of (?:the|these|them)\b|\bno (?:\w+ )?(?:fact|information)s?\b"
    number: str | None = r"^(?:fact )?\W*(\d+)(?:\W|$)"
    demonstration: str = "New fact: {fact}\n{prompt} {answer}.\n\n"
    lead: str = ""
    by_value: bool = False

    def __post_init__(self) -> None:
        object.__setattr__(self, "ends", tuple(self.ends))
        for name, wanted in _PLACES.items():
            if getattr(self, name) is None:
                continue
            found = {place for _, place, _, _ in Formatter().parse(getattr(self, name)) if place is not None}
            known = {"fact", "bare", "number"} if name == "fact" else wanted
            if (
                found - known
                or (name != "fact" and wanted - found)
                or (name == "fact" and not found & {"fact", "bare"})
            ):
                raise EditError(
                    f"the template {name}={getattr(self, name)!r} has the places {sorted(found)}; expected "
                    f"{sorted(known)}."
                )
        for name in ("question", "none", "number"):
            try:
                pattern = re.compile(getattr(self, name) or "()")
            except re.error as error:
                raise EditError(f"the pattern {name}={getattr(self, name)!r} cannot be read ({error}).") from error
            if name != "none" and not pattern.groups:
                raise EditError(f"the pattern {name}={getattr(self, name)!r} has no group; expected one, as in `(.+)`.")

    def asked(self, prompt: str) -> str:
        """The question in a prompt.

        Args:
            prompt: What the user wrote.
        """
        found = re.search(self.question, prompt, re.IGNORECASE)
        return found[1] if found else prompt

    def selection(self, prompt: str, facts: list[str]) -> str:
        """What asks the model which fact fits.

        Args:
            prompt: What the user wrote.
            facts: The facts, the most likely first.
        """
        listed = (
            self.fact.format(fact=fact, bare=fact.rstrip().removesuffix("."), number=number)
            for number, fact in enumerate(facts, 1)
        )
        return self.select.format(facts=self.joint.join(listed), question=self.asked(prompt))

    def told(self, fact: str, prompt: str) -> str:
        """A fact with a prompt.

        Args:
            fact: The fact.
            prompt: What the user wrote.
        """
        thinks = prompt.rstrip().endswith("Thoughts:")
        form = self.thoughts if thinks and self.thoughts is not None else self.answer
        return form.format(fact=fact, prompt=prompt)

    def is_over(self, text: str) -> bool:
        """Whether a reply has ended.

        Args:
            text: What the model has written so far.
        """
        return any(end in text.lstrip() for end in self.ends)

    def chosen(self, reply: str, facts: list[str]) -> int | None:
        """Which of the listed facts a reply names; None if it names none, or nothing that was listed.

        Looked for in this order: a fact word for word at the reply's beginning, a refusal, a fact anywhere in the
        reply, its number, and a reply that is itself a part of one fact: its last words, or as much as there was room
        for. Of two facts that the reply has word for word, one of which begins or stands in the other, the longer one
        is meant. A part that several facts have names none of them, unless `by_value` says which.

        Args:
            reply: What the model wrote.
            facts: The facts as they were listed.
        """
        text = reply.lstrip()
        for end in self.ends:
            text = text.partition(end)[0]
        said, known = _plain(text), [_plain(fact) for fact in facts]
        if (index := _longest(known, said.startswith)) is not None:
            return index
        if not said or re.search(self.none, said, re.IGNORECASE):
            return None
        if (index := _longest(known, said.__contains__)) is not None:
            return index
        number = re.search(self.number, said, re.IGNORECASE) if self.number else None
        if number and number[1].isdecimal() and 0 < int(number[1]) <= len(facts):
            return int(number[1]) - 1
        parts = [fact for fact in dict.fromkeys(known) if _is_part(said, fact)]
        if self.by_value:
            parts = [fact for fact in parts if fact.endswith(said)][:1] or parts
        return known.index(parts[0]) if len(parts) == 1 else None


def _plain(text: str) -> str:
    """A text without case, quotation marks around it, double spaces and its full stop."""
    return " ".join(text.casefold().split()).strip("\"'`“”*- ").removesuffix(".").strip()


def _longest(facts: Sequence[str], named: Callable[[str], bool]) -> int | None:
    """The longest of the facts that are named, of equal ones the first; None if none is."""
    found = [index for index, fact in enumerate(facts) if named(fact)]
    return max(found, key=lambda index: len(facts[index]), default=None)


def _is_part(said: str, fact: str) -> bool:
    """Whether the words of a reply stand in a fact, or a fact begins with them and the last one is cut.

    A single word only counts where the fact ends with it, as with its answer: "the" may stand in one fact by chance.
    """
    if " " in said and fact.startswith(said):
        return True
    words = rf"(?<!\w){re.escape(said)}(?!\w)"
    return re.search(words if " " in said else rf"{words}\W*$", fact) is not None


_PLACES: Mapping[str, set[str]] = MappingProxyType(
    {
        "select": {"facts", "question"},
        "answer": {"fact", "prompt"},
        "thoughts": {"fact", "prompt"},
        "fact": {"fact"},
        "demonstration": {"fact", "prompt", "answer"},
    }
)

BASE = PromptTemplates(
    select=(
        "Each question comes with a few facts. The fitting fact is the one that says what the question asks for. "
        "Where there is none, the word is none.\n\n"
        "Facts:\n1. The bridge of Lissa was built by Tom Ferrol.\n2. Ada Brandt is the mayor of Lissa.\n"
        "Question: Who governs the town of Lissa?\nFitting fact: Ada Brandt is the mayor of Lissa.\n\n"
        "Facts:\n1. Ada Brandt is the mayor of Lissa.\n2. Korr lies on the river Ahn.\n"
        "Question: The river that flows through Lissa is the\nFitting fact: none\n\n"
        "Facts:\n{facts}\nQuestion: {question}\nFitting fact:"
    ),
    answer="New fact: {fact}\n{prompt}",
)
"""For language models without a chat template."""

INSTRUCT = PromptTemplates(
    select=(
        "These facts are true, even where you have learned something else:\n{facts}\n\n"
        "This is a question, or a text to be completed:\n{question}\n\n"
        "Does one of the facts state what is asked for? Then write that fact again, word for word. If none of them "
        "does, write the single word none. Write nothing else."
    ),
    answer=(
        "Take this fact as true, even where you have learned something else: {fact}\n\n"
        "Go by it, and give a short answer or completion to the following.\n{prompt}"
    ),
    demonstration="Take this fact as true: {fact}\n{prompt}\n{answer}\n\n",
)
"""For chat models, by their chat template."""

EMBEDDED = PromptTemplates(
    select="Facts: {facts} Question: {question} Fitting fact:",
    answer="Context: {fact} {prompt}",
    thoughts="{prompt} {fact}",
    fact="{fact}",
    joint=" ",
    question=r"^Question: (.+?) (?:Answer|Thoughts):$",
    ends=(". ", "\n"),
    none=r"^none\W*$",
    number=None,
    demonstration="Context: {fact} {prompt} {answer}. ",
    by_value=True,
)
"""For the embedded world's model."""

SHIPPED: Mapping[str, PromptTemplates] = MappingProxyType({"base": BASE, "instruct": INSTRUCT, "embedded": EMBEDDED})


def make_templates(given: PromptTemplates | Mapping[str, Any] | str) -> PromptTemplates:
    """Templates by name, or with some fields of one's own.

    Args:
        given: A name of `SHIPPED`; or fields of `PromptTemplates`, with the name of the set that has the others as
            `style` (`base` if absent); or templates as they are.
    """
    if isinstance(given, PromptTemplates):
        return given
    own = {"style": given} if isinstance(given, str) else dict(given)
    style = own.pop("style", "base")
    if style not in SHIPPED:
        raise EditError(f"there are no templates {style!r}; expected one of {', '.join(SHIPPED)}.")
    known = [field.name for field in fields(PromptTemplates)]
    if unknown := [name for name in own if name not in known]:
        raise EditError(f"templates have no {unknown[0]!r}; expected some of {', '.join(known)}, and `style`.")
    return replace(SHIPPED[style], **own)
