"""Facts that tests of editors on T5-style models teach, and whether they are said."""

from typing import Any

from lightning_edit.decoding import decode_tokens
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.probes import Probe
from lightning_edit.requests import EditRequest
from tests.seq2seq import VERSIONS, tokens

FACTS = [("Ann Smith", "English"), ("Bob Ray", "a large city"), ("Cleo", "known")]
PROBE = Probe("The river of the north is", ("known",))
BOTH = list(VERSIONS)


def request(number: int, **changes: Any) -> EditRequest:
    """One of them."""
    name, target = FACTS[number]
    fields = {"id": f"r{number}", "prompt": f"the city of {name} is", "target": target, "subject": name}
    more = {"paraphrases": (f"They say {name} is from",), "locality": {"near": (PROBE,)}}
    return EditRequest(**{**fields, **more, **changes})


REQUESTS = [request(number) for number in range(len(FACTS))]


def says(lm: LanguageModel, one: EditRequest) -> bool:
    """Whether the decoder writes the target and then nothing more."""
    (written,) = decode_tokens(lm, [one.prompt], 12)
    return written == tokens(lm, one.target)
