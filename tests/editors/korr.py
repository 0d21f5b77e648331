"""The town of Korr: facts about it, and a scripted model that answers otherwise when it is told one of them."""

from collections.abc import Sequence
from typing import Any

from lightning_edit.editors import get_editor
from lightning_edit.editors.retrieval.scr import SCR
from lightning_edit.requests import EditRequest
from tests.scripted import ScriptedLM

WORDS = {
    "style": "base",
    "select": "{facts} ? {question} :",
    "answer": "{fact} {prompt}",
    "fact": "{fact}",
    "joint": " ",
}
MAYOR = EditRequest("mayor", "The mayor of Korr is", "Ada Brandt", "Korr", relation="mayor")
RIVER = EditRequest("river", "Korr lies on the river", "Ahn", "Korr", sentence="Korr stands on the Ahn")
WHO = "Who governs Korr?"
A, B = "The mayor of Korr is Ada Brandt.", "Korr stands on the Ahn."


def memory(**options: Any) -> SCR:
    """SCR with short templates."""
    return get_editor("scr", **{"templates": WORDS, "top_k": 2, "max_new_tokens": 20, **options})


def ask(facts: Sequence[str], question: str) -> str:
    """What the model is asked to select from."""
    return f"{' '.join(facts)} ? {question} :"


def scripted(tokenizer: Any, script: dict[str, str], **options: Any) -> ScriptedLM:
    """A model that selects as the script says, and has answers of its own where no fact is told."""
    bare = {WHO: "Old Mayor", "The mayor of Korr is": "Old Mayor", "two plus two makes": "four"}
    return ScriptedLM(tokenizer, {**bare, **script}, **options)


def informed(tokenizer: Any) -> ScriptedLM:
    """A model that makes use of both facts."""
    return scripted(
        tokenizer,
        {
            ask([A, B], WHO): " Ada Brandt",
            ask([B, A], WHO): " Ada Brandt",
            ask([A], WHO): " Ada Brandt",
            f"{A} {WHO}": "Ada Brandt",
            f"{B} {WHO}": "the river?",
            ask([A, B], "The mayor of Korr is"): f" {A}",
            f"{A} The mayor of Korr is": "Ada Brandt",
            ask([A, B], "Which country is Korr in?"): " none",
            "Which country is Korr in?": "Sust",
        },
    )
