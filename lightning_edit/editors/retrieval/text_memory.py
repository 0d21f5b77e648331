"""An editor whose edits are sentences: the model stays as it is and is told, when it is asked, what it should know.

`TextMemory` is what stands as `LanguageModel.memory`, and says what the model is given instead of a prompt; what it
holds stands in `sentences.py`. What is told with which prompt is for its subclasses to say (`scr.py`, `ike.py`).
"""

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

from lightning_edit.chat import Chat, render
from lightning_edit.editors.preset_sheet import shipped_presets
from lightning_edit.editors.presets import find_sheet
from lightning_edit.editors.retrieval.retriever import Retriever, make_retriever
from lightning_edit.editors.retrieval.sentences import SentenceMemory, sentence_of
from lightning_edit.editors.retrieval.templates import SHIPPED, PromptTemplates, make_templates
from lightning_edit.errors import EditError, RequestError
from lightning_edit.model.encoding import tokenize
from lightning_edit.model.language_model import LanguageModel, as_language_model
from lightning_edit.requests import EditRequest, check_batch

AUTO = "auto"


class TextMemory(SentenceMemory):
    """Keeps the sentences of requests, and says what the model is given instead of a prompt.

    Args:
        top_k: Sentences that are looked up for a prompt.
        retriever: How they are found, see `make_retriever`.
        templates: The wordings, see `make_templates`; `auto` takes `instruct` for prompts that go through a chat
            template, `embedded` for the embedded world's model, and else `base`.
        reserve: Tokens of the model's context that are left free for what it writes; where a prompt and what is to be
            told do not fit beside them, less is told, or nothing.
    """

    def __init__(
        self,
        top_k: int,
        retriever: Retriever | Mapping[str, Any] | str,
        templates: PromptTemplates | Mapping[str, Any] | str,
        reserve: int,
    ) -> None:
        if top_k < 1 or reserve < 1:
            raise EditError(f"top_k={top_k} with {reserve} tokens to write; expected at least 1 of both.")
        super().__init__(make_retriever(retriever))
        self.top_k, self.reserve = top_k, reserve
        self.templates = None if templates == AUTO else make_templates(templates)

    # -- what the model is given -----------------------------------------------------------------------------------

    @abstractmethod
    def tell(self, lm: LanguageModel, prompts: Sequence[str], chat: Chat | None) -> list[str]:
        """What the model is given instead of some prompts, when there is something in the memory.

        Args:
            lm: The language model, bare.
            prompts: Different prompts.
            chat: How they will be put through the chat template; None for bare text.
        """

    def rewrite(self, lm: LanguageModel, prompts: Sequence[str], chat: Chat | None) -> list[str]:
        """What the model is given instead of some prompts; see `PromptMemory`.

        Args:
            lm: The language model, bare.
            prompts: Different prompts.
            chat: How they will be put through the chat template; None for bare text.
        """
        return self.tell(lm, prompts, chat) if self._texts and prompts else list(prompts)

    def look_up(self, questions: Sequence[str]) -> list[list[str]]:
        """For each question the sentences that may have to do with it, the best first.

        Args:
            questions: The questions.
        """
        found = self.retriever.search(self._texts, questions, self.top_k)
        return [[self._texts[index] for index in row] for row in found]

    def templates_for(self, lm: LanguageModel, chat: Chat | None) -> PromptTemplates:
        """The wordings for a model.

        Args:
            lm: The language model.
            chat: How it is asked.
        """
        if self.templates is not None:
            return self.templates
        if chat is not None:
            return SHIPPED["instruct"]
        embedded = bool(lm.sites) and find_sheet(lm) is shipped_presets()["embedded"]
        return SHIPPED["embedded" if embedded else "base"]

    def fits(self, lm: LanguageModel, text: str, chat: Chat | None) -> bool:
        """Whether the model can read a text and still has room to write.

        Args:
            lm: The language model.
            text: The text.
            chat: How it will be put through the chat template.
        """
        read = text if chat is None else render(lm.tokenizer, [text], chat)[0]
        return len(tokenize(lm.tokenizer, [read], special=chat is None)[0][0]) + self.reserve <= lm.max_length

    def check(self, module: object, requests: Sequence[EditRequest]) -> None:
        """Refuse requests that the memory cannot take.

        Args:
            module: An `EditableModule` or `LanguageModel`.
            requests: The requests of one edit.
        """
        lm = as_language_model(module)
        check_batch(requests)
        for request in requests:
            if not self.fits(lm, sentence_of(request), None):
                raise RequestError(
                    f"the sentence of request {request.id!r} leaves no {self.reserve} tokens to write in the model's "
                    f"context of {lm.max_length}; expected a shorter one. Give the request a short `sentence`."
                )

    # -- where it stands -------------------------------------------------------------------------------------------

    def attach(self, module: object) -> list[int]:
        """Take the place between prompts and the model. A memory that is empty changes no answer.

        Args:
            module: An `EditableModule` or `LanguageModel`.

        Raises:
            EditError: If another memory that holds something stands there.
        """
        lm = as_language_model(module)
        other = lm.memory
        if other is not None and other is not self and not (isinstance(other, TextMemory) and not other.sentences):
            raise EditError(
                f"the model answers out of another memory already ({type(other).__name__}); expected none, or an "
                "empty one. Call detach(module) on its editor first."
            )
        lm.memory = self
        return []

    def detach(self, module: object) -> None:
        """Give the place free; the model answers by itself again.

        Args:
            module: An `EditableModule` or `LanguageModel`.
        """
        lm = as_language_model(module)
        if lm.memory is self:
            lm.memory = None
