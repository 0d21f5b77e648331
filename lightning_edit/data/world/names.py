"""Names for a world that never was: pronounceable, distinct, and several tokens long.

No two names share a word, so the last token of a name, read together with those before it, belongs to one entity
only. This file knows syllables; it does not know who or what a name is for.
"""

import random
from collections.abc import Iterator

ONSETS = [
    "b",
    "br",
    "d",
    "dr",
    "f",
    "fl",
    "g",
    "gr",
    "h",
    "j",
    "k",
    "kl",
    "l",
    "m",
    "n",
    "p",
    "pr",
    "r",
    "s",
    "sk",
    "st",
    "t",
    "tr",
    "v",
    "w",
    "z",
]
VOWELS = ["a", "e", "i", "o", "u"]
CODAS = ["l", "m", "n", "r", "s", "th", "x"]

FLAVOURS: dict[str, tuple[tuple[int, int], tuple[str, ...]]] = {
    # kind: (syllables from..to, endings)
    "first": ((2, 2), ("",)),
    "last": ((2, 2), ("",)),
    "nickname": ((2, 2), ("o", "y", "ie")),
    "company": ((2, 2), ("corp", "tex", "lab", "net", "works", "mart")),
    "city": ((2, 2), ("ton", "burg", "mouth", "stad", "vik", "pol")),
    "country": ((2, 2), ("land", "ia", "mark")),
    "language": ((2, 2), ("ish", "ese", "ic")),
    "river": ((1, 2), ("a", "e", "o")),
    "currency": ((2, 2), ("ar", "in", "on")),
}


class NameMaker:
    """Draws names of every kind from one seeded source and never repeats a word.

    Args:
        rng: Source of randomness; two makers with equal seeds give equal names.
        taken: Words that must not be used again, for example those of an existing world.
    """

    def __init__(self, rng: random.Random, taken: set[str] | None = None) -> None:
        self.rng = rng
        self.taken = set(taken or ())

    def word(self, kind: str) -> str:
        """A new capitalised word of one kind."""
        (low, high), endings = FLAVOURS[kind]
        while True:
            ending = self.rng.choice(endings)
            word = "".join(self._syllable() for _ in range(self.rng.randint(low, high)))
            if not ending or ending[0] in "aeiou":
                word += self.rng.choice(CODAS)
            word = (word + ending).capitalize()
            if word not in self.taken:
                self.taken.add(word)
                return word

    def person(self) -> str:
        """A first and a last name, both new."""
        return f"{self.word('first')} {self.word('last')}"

    def many(self, kind: str, count: int) -> list[str]:
        """``count`` names of one kind; ``person`` gives full names."""
        return list(self._stream(kind, count))

    def _stream(self, kind: str, count: int) -> Iterator[str]:
        for _ in range(count):
            yield self.person() if kind == "person" else self.word(kind)

    def _syllable(self) -> str:
        return self.rng.choice(ONSETS) + self.rng.choice(VOWELS)
