"""What jobs read: requests from a file or from the embedded world, and texts to take key statistics from.

Knows names a user types. Refuses to know what is done with requests and texts.
"""

import random
from collections.abc import Iterable, Sequence
from itertools import cycle, islice
from math import ceil
from typing import Literal

import torch

from lightning_edit.algebra import KeyCovariance
from lightning_edit.bars import show_progress
from lightning_edit.data.hub import local_file
from lightning_edit.data.load import OnBad, load_requests
from lightning_edit.data.text import read_texts
from lightning_edit.errors import EditError, RequestError
from lightning_edit.model.encoding import tokenize
from lightning_edit.model.generation import generate, write_freely
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.model.statistics import collect_statistics
from lightning_edit.requests import EditRequest

EMBEDDED = "embedded"
SAMPLE_LENGTH = 64  # tokens of each text of a sampled corpus at most
MOST_ROUNDS = 8  # of writing, for models whose texts end early
TOKENS_PER_UNIT = 20  # tokens read for key statistics, for each unit of the inner width
Choice = Literal["random", "first"]


def check_files(
    requests: str = EMBEDDED, corpus: str | None = None, statistics: str | None = None, texts: str | None = None
) -> None:
    """Refuse files that are not there, before a model is loaded, which can take minutes.

    Args:
        requests: Request file, an address on the Hugging Face Hub, or `embedded`.
        corpus: Text or JSONL file for key statistics.
        statistics: File of key statistics.
        texts: Text or JSONL file to read.

    Raises:
        RequestError: One of them is not there.
        EditError: There are a corpus and key statistics.
    """
    if corpus is not None and statistics is not None:
        raise EditError(f"found corpus={corpus!r} and statistics={statistics!r}; expected one of them at most")
    elsewhere = requests == EMBEDDED or requests.startswith("hf:")
    given = {"requests": None if elsewhere else requests, "corpus": corpus, "statistics": statistics, "texts": texts}
    for name, file in given.items():
        if file is not None and not local_file(file).exists():
            raise RequestError(f"found no file {file}, expected the {name} there; correct the path")


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


def draw_stream(source: str, count: int, seed: int, choice: Choice = "random") -> list[EditRequest]:
    """The stream of edits of one seed.

    Args:
        source: A request file, or `embedded` for requests about the embedded world, drawn anew for each seed.
        count: Number of edits.
        seed: The seed.
        choice: `random` draws requests of a file and their order from the seed; `first` takes the first ones as they
            stand, as most papers do.
    """
    if source == EMBEDDED:
        from lightning_edit.data.world import World, world_requests

        return world_requests(World(), count, seed)
    everything, _ = read_requests(source, None)
    if len(everything) < count:
        raise EditError(f"{source} holds {len(everything)} requests, expected at least count={count}")
    return everything[:count] if choice == "first" else random.Random(seed).sample(everything, count)


def gather_moments(
    lm: LanguageModel,
    source: str,
    layers: list[int],
    stream: Sequence[EditRequest],
    corpus: str | None,
    statistics: str | None,
    tokens: int | None,
) -> dict[int, KeyCovariance] | str:
    """Key statistics for all editors of a job, collected in one pass; or the file they are in.

    Args:
        lm: The clean model.
        source: Where the requests come from.
        layers: The layers that any editor needs; none is no pass.
        stream: Requests whose texts the model continues, where there is no corpus.
        corpus: Text or JSONL file; the embedded world's documents, or else the model's own text, where None.
        statistics: Safetensors file of key statistics; `check_files` has refused both.
        tokens: Tokens read at most; twenty for each unit of the inner width where None.
    """
    if statistics is not None:
        return statistics
    if not layers:
        return {}
    limit = tokens or TOKENS_PER_UNIT * max(site.inner for site in lm.sites)
    if corpus is not None:
        texts: Iterable[str] = read_texts(corpus)
    elif source == EMBEDDED:
        from lightning_edit.data.world import World
        from lightning_edit.data.world.corpus import documents

        texts = [document.text for document in islice(documents(World(), seed=1_000), 1_200)]
    else:
        texts = sample_corpus(lm, stream, limit, seed=0)
    with show_progress(lm, "reading keys (tokens)"):
        return dict(collect_statistics(lm, texts, layers, limit))


def sample_corpus(lm: LanguageModel, requests: Iterable[EditRequest], tokens: int, seed: int) -> list[str]:
    """What the model itself writes: a corpus where the user has none.

    A decoder writes from its start token on. It is not asked to go on from the requests' texts: key statistics of those
    would price the very keys that are to be edited, and with a single request nothing else. An encoder-decoder, which
    has no such statistics and cannot begin with nothing, does go on from them.

    Args:
        lm: The unedited language model.
        requests: Requests, whose prompts, paraphrases and probes an encoder-decoder reads.
        tokens: Tokens wanted, about.
        seed: Seed of the sampling; the global random state is left alone.
    """
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if not lm.layout.separate:
            return _written_freely(lm, tokens)
        beginnings = list(dict.fromkeys(text for request in requests for text in _texts(request)))
        prompts = list(islice(cycle(beginnings), ceil(tokens / SAMPLE_LENGTH)))
        written = generate(lm, prompts, SAMPLE_LENGTH, batch_size=64, do_sample=True)
    return [prompt + text for prompt, text in zip(prompts, written, strict=True)]


def _written_freely(lm: LanguageModel, tokens: int) -> list[str]:
    """Texts from nothing, about as many tokens; a model that ends its texts early writes more of them."""
    texts, known = list[str](), 0
    for _ in range(MOST_ROUNDS):
        written = write_freely(lm, ceil((tokens - known) / SAMPLE_LENGTH), SAMPLE_LENGTH)
        fresh = [text for text in written if text.strip()]
        texts += fresh
        known += sum(len(ids) for ids, _ in tokenize(lm.tokenizer, fresh))
        if known >= tokens:
            break
    if not known:
        raise EditError(
            "the model writes nothing from its start token, so there is no text to take key statistics from; expected "
            "some. Give a text or JSONL file as corpus."
        )
    return texts


def _texts(request: EditRequest) -> Sequence[str]:
    """Every prompt of a request."""
    probes = [
        probe.prompt for kinds in (request.locality, request.portability) for kind in kinds.values() for probe in kind
    ]
    return [request.prompt, *request.paraphrases, *probes]
