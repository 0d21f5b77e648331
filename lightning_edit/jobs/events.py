"""`leaderboard_events`: every editor, the same events, several loads.

Question 3 of *Revisiting* (arXiv 2606.00570; Tables 35 and 36, Figure 4): can editors take in events, of which many
questions hang? Text memories are told an event's text, all others its question-answer pairs or triples. Knows what
has to be there before the first cell; which cells are wanted stands in `events_goals.py`, how one is played in
`events_arena.py`.
"""

import time
from pathlib import Path
from typing import Any

from lightning_edit.errors import EditError
from lightning_edit.jobs.board import Board, ModelSource
from lightning_edit.jobs.compare import UNEDITED
from lightning_edit.jobs.events_arena import EventArena, EventLoad, EventMeasuring
from lightning_edit.jobs.events_goals import EventGoals
from lightning_edit.jobs.events_report import make_results
from lightning_edit.jobs.events_stream import draw_events
from lightning_edit.jobs.events_world import Taught
from lightning_edit.jobs.inputs import Choice, check_files
from lightning_edit.jobs.leaderboard_cells import CellFolder
from lightning_edit.jobs.leaderboard_entries import read_entries
from lightning_edit.jobs.preparer import KeySource
from lightning_edit.jobs.stage import load_model
from lightning_edit.runner.results import RunResult

LOADS = (EventLoad(1, 10), EventLoad(10, 2), EventLoad(50), EventLoad(100))


def events(
    output: Path,
    editors: dict[str, dict[str, Any]],
    shared: dict[str, Any] | None = None,
    model: str = "embedded",
    requests: str = "embedded",
    loads: list[EventLoad] | None = None,
    measuring: EventMeasuring | None = None,
    corpus: str | None = None,
    statistics: str | None = None,
    tokens: int | None = None,
    dtype: str = "float32",
    choice: Choice = "first",
    taught: Taught = "pairs",
    seed: int = 0,
    minutes: float | None = None,
    device: str | None = None,
) -> list[RunResult]:
    """Let every editor take in the same events at several loads, and ask everything about them.

    Cells lie in `cells` in the output folder. A rerun plays those that are missing, failed, or were played with other
    settings; the rest is read. A cell that fails is recorded with its error, and the others go on.

    Args:
        output: Folder of the report.
        editors: Label to an editor's options; `editor` among them is its name (memit if absent), `batch` the edits of
            an event that it is handed at once, all of them where absent, `shortened` what is less than published, in
            words.
        shared: Options of all editors that know them and do not set them. So are `chat` and `system` of the answers.
        model: Hub name or folder of a causal LM with its tokenizer; "embedded" is the embedded world's model.
        requests: ELKEN file, file of triples that `convert_events` wrote, or any request file with groups, local or on
            the Hub (`hf://datasets/...`); "embedded" for events of the embedded world.
        loads: Numbers of events; 1 in 10 groups, 10 in 2, 50 and 100 where absent.
        measuring: What is asked.
        corpus: Text or JSONL file to take key statistics from; the embedded world's documents, or else the model's own
            text, where absent.
        statistics: Safetensors file of key statistics of this model, instead of a corpus.
        tokens: Tokens read for key statistics at most; twenty for each unit of the inner width where absent.
        dtype: Precision of the weights.
        choice: first takes the first events of a file in their order, random draws their order from the seed.
        taught: What editors of weights are taught of the embedded world's events: `pairs` of question and answer, or
            `statements`, as triples are, with all questions held out. A file says so by itself.
        seed: Seed of the events, and of contexts where an editor samples any.
        minutes: Start no further cell after so many minutes; 0 reports what there is. Run again to go on.
        device: Where the model goes; the first GPU, or else the CPU, where absent.
    """
    deadline = None if minutes is None else time.perf_counter() + 60 * minutes
    plans = sorted(loads or LOADS, key=lambda load: load.events)
    if len({load.events for load in plans}) < len(plans) or UNEDITED in editors:
        raise EditError(
            f"found loads of {[load.events for load in plans]} events and editors {', '.join(editors)}; expected "
            f"different loads, and no editor with the label {UNEDITED}."
        )
    asked = measuring or EventMeasuring()
    entries = read_entries(editors, shared or {}, asked.answers)
    untrained = [entry.label for entry in entries if entry.wants_mend]
    if untrained:
        raise EditError(
            f"found no network for {', '.join(untrained)}, expected `checkpoint` among its options. Train one: "
            "lightning-edit run train_mend"
        )
    check_files(requests, corpus, statistics)
    drawn = draw_events(requests, max(load.total for load in plans), seed, choice, taught)
    lm = load_model(model, dtype, device)
    arena = EventArena(lm, drawn.events, asked)
    source, keys = ModelSource(model, dtype), KeySource(requests, corpus, statistics, tokens)
    goals = EventGoals(arena, entries, plans, source, keys, seed)
    board = Board(lm, source, [*goals], CellFolder(output / "cells"))
    board.play(deadline)
    labels, cells = [entry.label for entry in entries], (board.found(), board.missing())
    return make_results(labels, *cells, drawn.notes, output, arena.protocol)
