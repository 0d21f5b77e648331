"""Where a text names an entity: the character behind each name, and who it is.

No two names of a world share a word, so the last word of a name is enough to find it.
"""

import re
from collections.abc import Iterator

from lightning_edit.data.world.facts import World

WORD = re.compile(r"[A-Z][a-z]+")
NOBODY = -1


class Mentions:
    """Finds the names of a world's entities in its texts.

    Args:
        world: Whose entities.

    Attributes:
        names: All entities that have facts; an entity's number is its place here.
    """

    def __init__(self, world: World) -> None:
        self.names = list(dict.fromkeys(subject for subject, _ in world.facts))
        self._by_last_word = {name.split()[-1]: number for number, name in enumerate(self.names)}

    def find(self, text: str) -> Iterator[tuple[int, int]]:
        """``(end, entity)`` of every full name, where ``text[:end]`` ends in it."""
        for word in WORD.finditer(text):
            entity = self._by_last_word.get(word[0])
            if entity is not None and text.endswith(self.names[entity], 0, word.end()):
                yield word.end(), entity

    def at_tokens(self, text: str, spans: list[tuple[int, int]]) -> list[int]:
        """For every token, the entity whose name it ends, or `NOBODY`.

        Args:
            text: A text.
            spans: Characters of its tokens.
        """
        ends = dict(self.find(text))
        return [ends.get(stop, NOBODY) for _, stop in spans]
