"""The embedded world as a stream: next year's texts to train on, and edits that arrive meanwhile."""

from itertools import islice

from lightning_edit.data.stream import EditStream
from lightning_edit.data.world import corpus
from lightning_edit.data.world.edits import world_requests
from lightning_edit.data.world.facts import World


class WorldStream(EditStream):
    """Documents of the world's next year, and requests to change what is true in it.

    The documents are about people who are new to the world, so training on them teaches something and contradicts
    nothing: neither what the model knows nor what the edits say.

    Args:
        edits: Number of requests, one a subject.
        documents: Number of documents.
        seed: Seed of requests, documents and their order.
        max_length: Tokens in a row.
        batch_size: Rows in a batch.
    """

    def __init__(
        self, edits: int = 400, documents: int = 4000, seed: int = 0, max_length: int = 128, batch_size: int = 8
    ) -> None:
        world = World()
        known = islice(corpus.documents(world, seed=1_000 + seed), 1_200)
        super().__init__(
            requests=world_requests(world, edits, seed),
            train=corpus.next_year(world, seed, documents),
            corpus=[document.text for document in known],
            max_length=max_length,
            batch_size=batch_size,
            seed=seed,
        )
