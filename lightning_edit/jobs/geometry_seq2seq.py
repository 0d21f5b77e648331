"""`seq2seq`: the geometry of an encoder-decoder, Tables 8, 12, 19, 20 and 24 of *Revisiting*.

Three measurements of the same places: spectra of the unedited model, what one edit moves, and what becomes of principal
subspaces over a sequence. Each is the job that does it for decoder-only models; this file puts their rows together.
"""

from dataclasses import replace
from pathlib import Path

from lightning_edit.jobs.geometry_collapse import collapse
from lightning_edit.jobs.geometry_sequence import stability
from lightning_edit.jobs.geometry_settings import Edits, Reading
from lightning_edit.jobs.geometry_single import perturbation
from lightning_edit.runner.results import RunResult


def seq2seq(
    output: Path,
    model: str,
    edits: Edits,
    counts: list[int],
    reading: Reading | None = None,
    singles: int = 1,
    edits_per_commit: int = 1,
    untrained: bool = False,
    dtype: str = "float32",
    device: str | None = None,
) -> list[RunResult]:
    """Measure the spectra at places of both stacks, what single edits move there, and what a sequence turns.

    Args:
        output: Folder for the figures.
        model: Hub name or folder of a T5-style encoder-decoder with its tokenizer.
        edits: Who edits what; editors without keys of subjects.
        counts: Numbers of edits at which the sequence is measured; the first is the paper's single edit.
        reading: Where and on what representations are read; blocks go by paths such as encoder.block.3.
        singles: Number of requests that are edited alone.
        edits_per_commit: Requests handed over at once in the sequence, at most.
        untrained: Whether to measure the spectra of the same architecture with random weights, too.
        dtype: Precision of the weights.
        device: Where the model goes; the first GPU, or else the CPU, where absent.
    """
    how = reading or Reading()
    spectra = collapse(output, model, how, edits.requests, untrained, dtype, device)
    alone = perturbation(output, edits, model, how, singles, dtype, device)
    turned = stability(output, edits, counts, model, replace(how, first_order=0), edits_per_commit, dtype, device)
    parts = {"spectra": spectra, "one edit": alone, "sequence": turned}
    for what, results in parts.items():
        for result in results:
            result.row = {"measured": what, **result.row}
    return [result for results in parts.values() for result in results]
