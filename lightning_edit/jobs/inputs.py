"""What jobs read: requests from a file or from the embedded world, and texts to take key statistics from.

Knows names a user types. Refuses to know what is done with requests and texts.
"""

from collections.abc import Iterable, Sequence
from itertools import cycle, islice
from math import ceil

import torch

from lightning_edit.data.load import OnBad, load_requests
from lightning_edit.errors import RequestError
from lightning_edit.model.generation import generate
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.requests import EditRequest

EMBEDDED = "embedded"
SAMPLE_LENGTH = 64  # tokens the model writes behind each prompt of a sampled corpus


def read_requests(source: str, count: int | None, on_bad: OnBad = "raise") -> tuple[list[EditRequest], list[str]]:
    """The first requests of a source, with what a person should know about reading them.

    Args:
        source: A request file, or `embedded` for requests about the embedded world.
        count: How many; None takes all of a file, or a hundred of the embedded world.
        on_bad: `raise` stops at a bad record, `skip` leaves it out and says so.
    """
    if count is not None and count < 1:
        raise RequestError(f"found count={count}, expected at least one request")
    if source == EMBEDDED:
        from lightning_edit.data.world import World, world_requests

        return world_requests(World(), count or 100), []
    loaded = load_requests(source, on_bad)
    notes = [f"skipped {finding}" for finding in loaded.skipped]
    if count is not None and len(loaded) < count:
        notes.append(f"{source} holds {len(loaded)} requests; {count} were asked for")
    return list(loaded[:count]), notes


def sample_corpus(lm: LanguageModel, requests: Iterable[EditRequest], tokens: int, seed: int) -> list[str]:
    """What the model itself writes behind the requests' texts: a corpus where the user has none.

    Args:
        lm: The unedited language model.
        requests: Requests, whose prompts, paraphrases and probes are the beginnings.
        tokens: Tokens wanted, about.
        seed: Seed of the sampling; the global random state is left alone.
    """
    beginnings = list(dict.fromkeys(text for request in requests for text in _texts(request)))
    prompts = list(islice(cycle(beginnings), ceil(tokens / SAMPLE_LENGTH)))
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        written = generate(lm, prompts, SAMPLE_LENGTH, batch_size=64, do_sample=True)
    return [prompt + text for prompt, text in zip(prompts, written, strict=True)]


def _texts(request: EditRequest) -> Sequence[str]:
    """Every prompt of a request."""
    probes = [
        probe.prompt for kinds in (request.locality, request.portability) for kind in kinds.values() for probe in kind
    ]
    return [request.prompt, *request.paraphrases, *probes]
