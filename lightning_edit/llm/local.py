"""A language model on this machine that is asked for help: any causal LM or T5-style encoder-decoder of transformers.

Nothing in it is edited, so it may be a mixture of experts or quantised. Knows the package's own greedy decoder, and
whether a tokenizer has a chat template. It must be another model than the one under editing: a model that judges itself
says what it has just learned.
"""

import hashlib
import json
from collections.abc import Generator, Sequence
from typing import Literal

import torch

from lightning_edit.chat import Chat, render
from lightning_edit.decoding import decode
from lightning_edit.errors import EditError
from lightning_edit.evaluation.reading import check_thoughts_end
from lightning_edit.llm.assistant import Reply
from lightning_edit.model.identity import model_identity
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.model.loading import load_pretrained

_SAMPLED = 64  # numbers of each weight that its fingerprint is made of


class LocalModel:
    """A causal LM or T5-style encoder-decoder that replies greedily.

    Args:
        lm: The language model; `LanguageModel(model, tokenizer, editable=False)` takes models that nobody can edit.
        max_new_tokens: Longest reply, thoughts included.
        batch_size: Prompts in one forward.
        until: Where a reply ends: `end` (not before the model says so) or `line`. By default `end` for a model with a
            chat template, which is then used, and `line` for a base model, which would go on for ever.
        system: What the system says first, for a model with a chat template.
        thinking: Whether the chat template shall let the model think first.

    Raises:
        EditError: There is no chat template for a system turn or thoughts, or the tokenizer drops `</think>` from what
            it decodes.
    """

    def __init__(
        self,
        lm: LanguageModel,
        max_new_tokens: int = 256,
        batch_size: int = 8,
        until: Literal["end", "line"] | None = None,
        system: str | None = None,
        thinking: bool = False,
    ) -> None:
        templated = bool(getattr(lm.tokenizer, "chat_template", None))
        if (system is not None or thinking) and not templated:
            raise EditError(
                f"found system or thinking for {type(lm.tokenizer).__name__} without a chat template; expected a chat "
                "model. Leave them out, or set tokenizer.chat_template."
            )
        if thinking:
            check_thoughts_end(lm.tokenizer.all_special_tokens)
        self.lm = lm
        self.max_new_tokens, self.batch_size = max_new_tokens, batch_size
        self.until = until or ("end" if templated else "line")
        self.chat = Chat(system, thinking) if templated else None

    @classmethod
    def from_pretrained(cls, name: str, dtype: str = "auto", device: str = "cpu", **options: object) -> "LocalModel":
        """Load a model by its Hub name or folder.

        Args:
            name: Hub name or folder of a model with its tokenizer.
            dtype: Precision of the weights; `auto` is that of the checkpoint.
            device: Where it runs.
            options: Arguments of `LocalModel`.
        """
        model, tokenizer = load_pretrained(name, dtype)
        lm = LanguageModel(model.to(device).eval(), tokenizer, editable=False)
        return cls(lm, **options)  # type: ignore[arg-type]

    @property
    def name(self) -> str:
        """What reports call it: the last part of its name, or its class."""
        named = str(self.lm.model.config._name_or_path or "")
        return named.rstrip("/").rpartition("/")[2] or type(self.lm.model).__name__

    @property
    def identity(self) -> str:
        """The model with a fingerprint of its weights as they are now, and all settings that decide a reply."""
        settings = [self.max_new_tokens, self.until, self.chat and [self.chat.system, self.chat.thinking]]
        return json.dumps([self.name, model_identity(self.lm.model, ()), self._fingerprint(), settings])

    def ask(self, prompts: Sequence[str]) -> Generator[tuple[int, Reply], None, None]:
        """Replies batch by batch, prompts of like length together.

        Args:
            prompts: What the user says, one conversation each.
        """
        room = self.lm.max_length - 1
        lengths = self._lengths(prompts)
        for index, length in enumerate(lengths):
            if length > room:
                yield index, Reply(None, f"found a prompt of {length} tokens, expected at most {room} (the context)")
        fitting = sorted((i for i, length in enumerate(lengths) if length <= room), key=lambda i: lengths[i])
        for start in range(0, len(fitting), self.batch_size):
            batch = fitting[start : start + self.batch_size]
            stop = _never if self.until == "end" else None
            asked = [prompts[index] for index in batch]
            texts = decode(self.lm, asked, self.max_new_tokens, self.batch_size, stop, self.chat)
            yield from ((index, Reply(text)) for index, text in zip(batch, texts, strict=True))

    def _lengths(self, prompts: Sequence[str]) -> list[int]:
        """Tokens of each prompt as it is asked."""
        texts = list(prompts) if self.chat is None else render(self.lm.tokenizer, prompts, self.chat)
        return [len(ids) for ids in self.lm.layout.read_prompts(self.lm, texts, special=self.chat is None)]

    def _fingerprint(self) -> str:
        """A hash of a few numbers of every weight: another model, a trained or an edited one has another."""
        digest, model = hashlib.sha256(), self.lm.model
        held = {
            **dict(model.named_buffers()),
            **dict(model.named_parameters()),
        }  # some quantisers keep codes in buffers
        for name in filter(held.__contains__, model.state_dict()):
            flat = held[name].detach().flatten()
            sample = flat[:: max(1, flat.numel() // _SAMPLED)].to("cpu", torch.float32)
            digest.update(name.encode() + sample.numpy().tobytes())
        return digest.hexdigest()[:16]


def _never(prompt: str, text: str) -> bool:
    """The stop of a model that ends its replies by itself."""
    return False
