"""Failed edits as a table of a report: what a model wrote where it should have said the target, to be read by people.

Knows cases that were read and judged. How they are read stands in `judges/failure_modes.py`.
"""

from collections.abc import Sequence

from lightning_edit.judges.failure_modes import NAMES, FailureCase
from lightning_edit.runner.results import ReportTable, Scalar

SHOWN_CASES, SHOWN_TEXT = 12, 400  # cases in a report, characters of each


def case_table(label: str, cases: Sequence[FailureCase]) -> ReportTable:
    """The first cases of each mode, the modes taking turns.

    Args:
        label: Folder of the run, which holds the file of all cases.
        cases: The cases; not empty.
    """
    turns: dict[str | None, list[FailureCase]] = {}
    for case in cases:
        turns.setdefault(case.mode, []).append(case)
    longest = max(map(len, turns.values()))
    mixed = [own[place] for place in range(longest) for own in turns.values() if place < len(own)]
    rows: list[list[Scalar | None]] = [
        [NAMES[case.mode] if case.mode else f"no verdict: {case.fault}", case.prompt, case.target, _cut(case.text)]
        for case in mixed[:SHOWN_CASES]
    ]
    text = f"{len(rows)} of {len(cases)}; all of them are in `{label}/failed_edits.jsonl`."
    return ReportTable(f"Failed edits of {label}", ["failure mode", "prompt", "target", "generation"], rows, text)


def _cut(text: str) -> str:
    """A text of which beginning and end can be read."""
    flat = " ".join(text.split())
    return flat if len(flat) <= SHOWN_TEXT else f"{flat[: SHOWN_TEXT // 2]} ... {flat[-SHOWN_TEXT // 2 :]}"
