"""Where edits and texts come from. Kept light: importing it loads the readers of request files and nothing else."""

from lightning_edit.data.live import RequestIterator, iter_requests
from lightning_edit.data.load import RequestList, load_requests

__all__ = ["RequestIterator", "RequestList", "iter_requests", "load_requests"]
