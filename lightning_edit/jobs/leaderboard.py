"""`leaderboard`: every editor, the same requests, several loads, everything measured, cell by cell.

The comparison of *Revisiting* (arXiv 2606.00570): Tables 3, 29, 33, 37, 40 and 43, Figures 3 and 5. Knows what has to
be there before the first cell: networks, model, requests. Which cells are wanted stands in `leaderboard_goals.py`, how
one is played, kept and reported in the files beside it.
"""

import time
from pathlib import Path
from typing import Any

from lightning_edit.errors import EditError
from lightning_edit.jobs.board import Board, ModelSource
from lightning_edit.jobs.compare import UNEDITED
from lightning_edit.jobs.inputs import Choice, check_files, draw_stream
from lightning_edit.jobs.leaderboard_cells import CellFolder, Load
from lightning_edit.jobs.leaderboard_entries import plain, read_entries
from lightning_edit.jobs.leaderboard_goals import Goals, Sources
from lightning_edit.jobs.leaderboard_mend import MENDPlan, TrainedMEND, train_mend
from lightning_edit.jobs.leaderboard_play import Arena, Measuring
from lightning_edit.jobs.leaderboard_report import make_results
from lightning_edit.jobs.preparer import KeySource
from lightning_edit.jobs.stage import load_model
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.runner.results import RunResult

LOADS = (Load(1, 20), Load(10, 2), Load(100, 1, 10), Load(500, 1, 10))


def leaderboard(
    output: Path,
    editors: dict[str, dict[str, Any]],
    shared: dict[str, Any] | None = None,
    model: str = "embedded",
    requests: str = "embedded",
    loads: list[Load] | None = None,
    measuring: Measuring | None = None,
    mend: MENDPlan | None = None,
    corpus: str | None = None,
    statistics: str | None = None,
    tokens: int | None = None,
    dtype: str = "float32",
    choice: Choice = "first",
    seed: int = 0,
    minutes: float | None = None,
    device: str | None = None,
) -> list[RunResult]:
    """Let every editor make the same edits at several loads, and measure everything.

    Cells lie in `cells` in the output folder. A rerun plays those that are missing, failed, or were played with other
    settings; the rest is read. A cell that fails is recorded with its error, and the others go on.

    Args:
        output: Folder of the report.
        editors: Label to an editor's options; `editor` among them is its name (memit if absent), `batch` the requests
            it is handed at once where that is not the load's, `shortened` what is less than published, in words.
        shared: Options of all editors that know them and do not set them. So are `chat` and `system` of the answers.
        model: Hub name or folder of a causal LM with its tokenizer; "embedded" is the embedded world's model.
        requests: Request file; "embedded" for requests about the embedded world, drawn from the seed.
        loads: Numbers of edits; 1 in 20 groups, 10 in 2, 100 and 500 where absent.
        measuring: What is asked.
        mend: How MEND's network is trained, where an editor of that name has no checkpoint.
        corpus: Text or JSONL file to take key statistics from; the embedded world's documents, or else the model's own
            text, where absent.
        statistics: Safetensors file of key statistics of this model, instead of a corpus.
        tokens: Tokens read for key statistics at most; twenty for each unit of the inner width where absent.
        dtype: Precision of the weights.
        choice: first takes the first requests of a file in their order, random draws them from the seed.
        seed: Seed of the requests, and of contexts where an editor samples any.
        minutes: Start no further cell after so many minutes; 0 reports what there is. Run again to go on.
        device: Where the model goes; the first GPU, or else the CPU, where absent.
    """
    deadline = None if minutes is None else time.perf_counter() + 60 * minutes
    plans = sorted(loads or LOADS, key=lambda load: load.edits)
    if len({load.edits for load in plans}) < len(plans) or UNEDITED in editors:
        raise EditError(
            f"found loads of {[load.edits for load in plans]} edits and editors {', '.join(editors)}; expected "
            f"different loads, and no editor with the label {UNEDITED}."
        )
    check_files(requests, corpus, statistics)
    asked = measuring or Measuring()
    entries = read_entries(editors, shared or {}, asked.answers)
    lessons = mend or MENDPlan()
    trained, trouble = None, ""
    lm = load_model(model, dtype, device)
    if any(entry.wants_mend for entry in entries):
        trained, trouble = _try_to_train(lessons, lm, model, dtype, device, output / "mend")
    if trained is not None:
        entries = [entry.with_mend(trained.checkpoint) for entry in entries]
    stream = draw_stream(requests, max(load.requests for load in plans), seed, choice)
    source, keys = ModelSource(model, dtype), KeySource(requests, corpus, statistics, tokens)
    arena, sources = (
        Arena(lm, stream, asked),
        Sources(source, keys, seed, plain(lessons.settings(lm)), trouble),
    )
    board = Board(lm, source, [*Goals(arena, entries, plans, sources)], CellFolder(output / "cells"))
    board.play(deadline)
    return make_results(entries, board.found(), board.missing(), trained, arena.protocol)


def _try_to_train(
    plan: MENDPlan, lm: LanguageModel, model: str, dtype: str, device: str | None, folder: Path
) -> tuple[TrainedMEND | None, str]:
    """MEND's network; what went wrong is the error of its cells, and the other editors go on."""
    try:
        return train_mend(plan, lm, model, dtype, device, folder), ""
    except Exception as error:
        return None, f"MEND's network could not be trained: {type(error).__name__}: {error}"
