"""How a chat model wants to be asked.

Knows the tokenizer's own chat template and nothing else: no model, no answers. A base model needs none of this.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from lightning_edit.errors import EditError


@dataclass(frozen=True, slots=True)
class Chat:
    """A conversation of one turn, rendered by the tokenizer's chat template.

    Args:
        system: What the system says first; None for no such turn.
        thinking: Whether the model may think before it answers; handed to the template as `enable_thinking`, which
            templates without that switch ignore.
    """

    system: str | None = None
    thinking: bool = False


def render(tokenizer: Any, prompts: Sequence[str], chat: Chat) -> list[str]:
    """Each prompt as the user's turn, up to where the model's own begins.

    The result brings its special tokens along as text, so it is tokenized without adding any: a template that opens
    with the beginning-of-text token would otherwise put two of them in front.

    Args:
        tokenizer: A tokenizer with a chat template.
        prompts: What the user says.
        chat: How the conversation is set up.
    """
    if not getattr(tokenizer, "chat_template", None):
        raise EditError(
            f"{type(tokenizer).__name__} has no chat template; expected one, as instruction-tuned models bring along. "
            "Set tokenizer.chat_template, or ask without chat."
        )
    opening = [] if chat.system is None else [{"role": "system", "content": chat.system}]
    talks = [[*opening, {"role": "user", "content": prompt}] for prompt in prompts]
    settings = {"tokenize": False, "add_generation_prompt": True, "enable_thinking": chat.thinking}
    return [tokenizer.apply_chat_template(talk, **settings) for talk in talks]
