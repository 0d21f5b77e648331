"""In-context editing: the fact that is nearest to a prompt is put before it, whether it fits or not.

`ICE` is that and nothing else. `IKE` (Zheng et al., 2023, arXiv 2305.12740) also shows how a fact is to be used: by
examples in which the answer copies the fact, follows from it in other words, or stays what it was. Neither asks the
model which fact fits, so both disturb prompts that no edit is about; `scr.py` is the remedy.
"""

import json
from collections.abc import Mapping, Sequence
from copy import copy
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lightning_edit.chat import Chat
from lightning_edit.editors.retrieval.retriever import Retriever
from lightning_edit.editors.retrieval.sentences import sentence_of
from lightning_edit.editors.retrieval.templates import PromptTemplates
from lightning_edit.editors.retrieval.text_memory import TextMemory
from lightning_edit.errors import EditError, RequestError
from lightning_edit.fields import Source
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.requests import EditRequest

KINDS = ("copy", "update", "update", "update", "retain", "retain", "retain", "retain")
"""Kinds of examples in the order of their nearness, over and over: one to three to four, as IKE has them."""


class ICE(TextMemory):
    """Edits by remembering sentences, and puts the nearest before every prompt.

    Args:
        top_k: Sentences that are put before a prompt, the nearest last.
        retriever: See `SCR`.
        templates: See `SCR`.
        max_new_tokens: Tokens of the model's context that are left free for what it writes.
    """

    def __init__(
        self,
        top_k: int = 1,
        retriever: str | dict[str, Any] | Retriever = "bm25",
        templates: str | dict[str, Any] | PromptTemplates = "auto",
        max_new_tokens: int = 50,
    ) -> None:
        super().__init__(top_k, retriever, templates, max_new_tokens)

    def tell(self, lm: LanguageModel, prompts: Sequence[str], chat: Chat | None) -> list[str]:
        """Each prompt behind the facts that are nearest to it, as many as there is room for.

        Args:
            lm: The language model, bare.
            prompts: Different prompts.
            chat: How they will be put through the chat template; None for bare text.
        """
        words = self.templates_for(lm, chat)
        questions = [words.asked(prompt) for prompt in prompts]
        told = []
        for prompt, question, facts in zip(prompts, questions, self.look_up(questions), strict=True):
            texts = (self._behind(facts[:count], prompt, words) for count in range(len(facts), 0, -1))
            text = next((text for text in texts if self.fits(lm, text, chat)), None)
            told.append(prompt if text is None else self.show(lm, text, question, words, chat))
        return told

    def show(self, lm: LanguageModel, text: str, question: str, words: PromptTemplates, chat: Chat | None) -> str:
        """What is put before fact and prompt; here nothing.

        Args:
            lm: The language model, bare.
            text: Fact and prompt.
            question: The question in the prompt.
            words: The wordings.
            chat: How the text will be put through the chat template.
        """
        return text

    def _behind(self, facts: Sequence[str], prompt: str, words: PromptTemplates) -> str:
        return words.told(" ".join(reversed(facts)), prompt)


@dataclass(frozen=True, slots=True)
class Example:
    """A fact, and prompts with the answers they get when it is told.

    Args:
        fact: The fact.
        uses: Prompt and answer by kind: `copy`, `update` and `retain`.
    """

    fact: str
    uses: Mapping[str, tuple[str, str]]

    @classmethod
    def of(cls, request: EditRequest) -> "Example":
        """The example that a request with its probes gives.

        Args:
            request: A request that is not going to be an edit.
        """
        uses = {"copy": (request.prompt, request.target)}
        if request.paraphrases:
            uses["update"] = request.paraphrases[0], request.target
        probes = [probe for kind in request.locality.values() for probe in kind if probe.answers]
        if probes:
            uses["retain"] = probes[0].prompt, probes[0].answers[0]
        return cls(sentence_of(request), uses)


class IKE(ICE):
    """In-context knowledge editing: the nearest fact, behind examples of what to make of a fact.

    Examples are those whose facts are nearest to the question, the nearest last; the first copies its fact, the next
    three apply it to another wording, the next four leave an unrelated answer alone, and so on.

    Args:
        demonstrations: Requests that are no edits, with paraphrases and locality probes: a file of them in the
            package's own format (one JSON object a line), a list of records, or of `EditRequest`.
        examples: How many of them are shown; fewer where there is no room.
        options: See `ICE`.
    """

    def __init__(
        self,
        demonstrations: str | list[dict[str, Any]] | list[EditRequest],
        examples: int = 16,
        **options: Any,
    ) -> None:
        super().__init__(**options)
        self.examples = examples
        self.demonstrations = {example.fact: example for example in map(Example.of, _requests(demonstrations))}
        if examples < 1 or not self.demonstrations:
            raise EditError(
                f"found {len(self.demonstrations)} demonstrations and examples={examples}; expected at least one of "
                "each. The editor without any is `ice`."
            )
        self._facts = list(self.demonstrations)
        self._nearest = copy(self.retriever)  # its texts are others

    def show(self, lm: LanguageModel, text: str, question: str, words: PromptTemplates, chat: Chat | None) -> str:
        """Examples before fact and prompt, the nearest last.

        Args:
            lm: The language model, bare.
            text: Fact and prompt.
            question: The question in the prompt.
            words: The wordings.
            chat: How the text will be put through the chat template.
        """
        found = self._nearest.search(self._facts, [question], self.examples)[0]
        shown = [self._shown(self._facts[index], KINDS[place % len(KINDS)], words) for place, index in enumerate(found)]
        for count in range(len(shown), 0, -1):
            full = "".join([words.lead, *reversed(shown[:count]), text])
            if self.fits(lm, full, chat):
                return full
        return text

    def _shown(self, fact: str, kind: str, words: PromptTemplates) -> str:
        """One example; of the kind, or the nearest to it that the request allows."""
        uses = self.demonstrations[fact].uses
        prompt, answer = uses.get(kind) or uses.get("update") or uses["copy"]
        return words.demonstration.format(fact=fact, prompt=prompt, answer=answer)


def _requests(given: str | Path | Sequence[Mapping[str, Any] | EditRequest]) -> list[EditRequest]:
    """Requests from a file or from records."""
    if not isinstance(given, str | Path):
        return [one if isinstance(one, EditRequest) else EditRequest.from_dict(one) for one in given]
    try:
        lines = [line for line in enumerate(Path(given).read_text("utf-8").splitlines(), 1) if line[1].strip()]
        return [EditRequest.from_dict(json.loads(line), Source(str(given), number)) for number, line in lines]
    except (OSError, ValueError) as error:
        raise RequestError(
            f"cannot read demonstrations from {given} ({error}); expected a file with one request a line."
        ) from error
