"""`convert_events`: triples for every event of an ELKEN file, drawn by a language model and written as requests.

The half of *Revisiting*, Appendix C.2, that needs another model. How it is asked, and what counts as a triple, stands
in `data/events.py`; what editors make of the file, in `events.py`.
"""

from pathlib import Path
from typing import Any

from lightning_edit.data.events import convert_events as draw_triples
from lightning_edit.data.events import read_events
from lightning_edit.errors import EditError
from lightning_edit.judges.build import instantiate
from lightning_edit.llm import Endpoint
from lightning_edit.runner.results import ReportTable, RunResult

SHOWN = 20


def convert_events(
    output: Path,
    events: str,
    model: str = "Qwen/Qwen2.5-72B-Instruct",
    base_url: str = "http://localhost:8000/v1",
    options: dict[str, Any] | None = None,
    assistant: dict[str, Any] | None = None,
    count: int | None = None,
    attempts: int = 2,
) -> list[RunResult]:
    """Draw triples from events, and write them as edits that `leaderboard_events` reads.

    Replies are kept in `replies.sqlite` in the output folder: a run that was stopped asks only what is missing.

    Args:
        output: Folder that takes `triples.jsonl` and the replies.
        events: ELKEN file, local or on the Hub (`hf://datasets/...`).
        model: Name of the language model at an endpoint of OpenAI's form.
        base_url: Address of the endpoint up to `/chat/completions`.
        options: Further arguments of `lightning_edit.llm.Endpoint`, such as `concurrency` and `max_tokens`.
        assistant: class_path and init_args of another language model, such as `lightning_edit.llm.local.LocalModel`;
            the three before it are then not read.
        count: Events that are converted, the first ones that have factual questions; all of them where absent.
        attempts: How often an event is asked about before its reply counts as malformed.
    """
    if count is not None and count < 1:
        raise EditError(f"found count={count}, expected at least one event")
    told = read_events(events)[:count]
    asked = instantiate(assistant) if assistant else Endpoint(base_url, model, **(options or {}))
    conversion = draw_triples(told, asked, output / "replies.sqlite", attempts)
    triples = output / "triples.jsonl"
    conversion.save(triples)
    used = len({request.group for request in conversion.requests})
    result = RunResult("triples", {"model": conversion.model, "events": len(told), "converted": used})
    result.row |= {"edits": len(conversion.requests), "without_edit": len(conversion.faults)}
    result.row["to_look_at"] = len(conversion.notes)
    result.files["triples"] = triples
    for title, listed in (("Events without an edit", conversion.faults), ("Edits to look at", conversion.notes)):
        if listed:
            rows: list[list[str | float | bool | None]] = [[one.event, one.reason] for one in listed[:SHOWN]]
            result.tables.append(ReportTable(title, ["event", "reason"], rows, f"{len(rows)} of {len(listed)}."))
    return [result]
