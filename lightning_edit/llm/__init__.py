"""A second language model that is asked for help: a verdict, a rewriting. Local, or behind an endpoint.

Knows prompts, replies, and how to come by a reply in the form that was asked for. Refuses to know what the question is
about (`lightning_edit/judges/`, `lightning_edit/data/events.py`). Importing it loads neither torch nor transformers.
"""

from lightning_edit.llm.asking import Asked, Malformed, ask_strictly
from lightning_edit.llm.assistant import Assistant, Reply, without_thoughts
from lightning_edit.llm.cache import ReplyCache
from lightning_edit.llm.endpoint import Endpoint

__all__ = ["Asked", "Assistant", "Endpoint", "Malformed", "Reply", "ReplyCache", "ask_strictly", "without_thoughts"]
