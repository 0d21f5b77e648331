"""One small file per request format, and the table that lists them.

A format says by which fields it is known and how one record of it becomes an `EditRequest`. It refuses to know files:
lines, encodings and what happens to a bad record are `lightning_edit/data/load.py`'s business.
"""

from lightning_edit.data.readers import counterfact, counterfact_rome, jsonl, wiki_counterfact, zsre, zsre_mend
from lightning_edit.data.readers.format import RequestFormat

FORMATS: tuple[RequestFormat, ...] = (  # the earlier one wins where fields leave the choice open
    jsonl.FORMAT,
    wiki_counterfact.FORMAT,
    zsre.FORMAT,
    counterfact.FORMAT,
    counterfact_rome.FORMAT,
    zsre_mend.FORMAT,
)

__all__ = ["FORMATS", "RequestFormat"]
