"""One small file per request format, and the table that lists them.

A format says by which fields it is known and how one record of it becomes an `EditRequest`, or several that belong
together. It refuses to know files: lines, encodings and what happens to a bad record are the business of
`lightning_edit/data/load.py`.
"""

from lightning_edit.data.readers import (
    counterfact,
    counterfact_rome,
    elken,
    jsonl,
    mquake,
    qaedit,
    wiki_counterfact,
    wise_hallucination,
    zsre,
    zsre_mend,
)
from lightning_edit.data.readers.format import RequestFormat

FORMATS: tuple[RequestFormat, ...] = (  # the earlier one wins where fields leave the choice open
    jsonl.FORMAT,
    wiki_counterfact.FORMAT,
    zsre.FORMAT,
    wise_hallucination.FORMAT,  # before CounterFact, whose fields include all of its own
    counterfact.FORMAT,
    counterfact_rome.FORMAT,
    mquake.FORMAT,
    zsre_mend.FORMAT,
    elken.FORMAT,
    qaedit.FORMAT,
)

__all__ = ["FORMATS", "RequestFormat"]
