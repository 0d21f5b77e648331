"""What jobs read: requests from a file or from the embedded world.

Knows names a user types. Refuses to know what is done with the requests.
"""

from lightning_edit.data.load import OnBad, load_requests
from lightning_edit.errors import RequestError
from lightning_edit.requests import EditRequest

EMBEDDED = "embedded"


def read_requests(source: str, count: int | None, on_bad: OnBad = "raise") -> tuple[list[EditRequest], list[str]]:
    """The first requests of a source, with what a person should know about reading them.

    Args:
        source: A request file, or `embedded` for requests about the embedded world.
        count: How many; None takes all of a file.
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
