"""From columns to token rows: which tokens to run, where the offset goes, which predictions are scored.

This file knows the tokenizer's view of a text and nothing of the network that will run it.
"""

from dataclasses import dataclass

from lightning_edit.errors import RequestError
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.targets.columns import Column


@dataclass(frozen=True, slots=True)
class Row:
    """One token sequence.

    Args:
        column: Index of the column it belongs to.
        ids: Input tokens, up to the last position that is scored.
        lookup: Position of the subject's last token, where the offset is added.
        scored: Positions whose predictions are read.
        labels: The token that should follow each scored position; empty where the prediction should stay.
        at_end: For a row without labels: whether it is the last position that is scored, not the subject's.
    """

    column: int
    ids: tuple[int, ...]
    lookup: int
    scored: tuple[int, ...]
    labels: tuple[int, ...]
    at_end: bool = False

    @property
    def tail(self) -> int:
        """Number of tokens from the subject's last one on."""
        return len(self.ids) - self.lookup


def make_rows(lm: LanguageModel, columns: list[Column]) -> list[Row]:
    """Tokenise every text of the columns, rows of one column side by side.

    Args:
        lm: The language model whose tokenizer is used.
        columns: The columns.
    """
    texts, spans, owners = [], [], []
    starts: list[int | None] = []  # where the target begins; None where nothing is to be said
    ends: list[bool] = []  # whether a row without target is scored at its end
    for index, column in enumerate(columns):
        for prompt in column.prompts:
            texts.append(f"{prompt.text} {prompt.target}")
            spans.append(prompt.span)
            starts.append(len(prompt.text))
            owners.append(index)
            ends.append(False)
        kept = [] if column.kl_prompt is None else [(column.kl_prompt, False)]
        for (text, span), at_end in [*kept, *((preserved, True) for preserved in column.preserved)]:
            texts.append(text)
            spans.append(span)
            starts.append(None)
            owners.append(index)
            ends.append(at_end)
    lookups = lm.subject_positions(texts, spans)
    encoded = lm.encode(texts)
    rows = []
    for i, (owner, lookup, start) in enumerate(zip(owners, lookups, starts, strict=True)):
        ids = encoded.input_ids[i][encoded.attention_mask[i].bool()].tolist()
        if start is None:
            scored = len(ids) - 1 if ends[i] else lookup
            rows.append(Row(owner, tuple(ids[: scored + 1]), lookup, (scored,), (), ends[i]))
        else:
            rows.append(_target_row(columns[owner], owner, ids, encoded.offsets[i], lookup, start))
    return rows


def _target_row(
    column: Column, owner: int, ids: list[int], offsets: list[tuple[int, int]], lookup: int, start: int
) -> Row:
    """Score the tokens that reach beyond the prompt's last character."""
    answer = [j for j, (_, end) in enumerate(offsets[: len(ids)]) if end > start]
    if not answer or answer[0] <= lookup:
        raise RequestError(
            f"column {column.id}: the target's tokens begin at {answer[:1]}, the subject's last token is at {lookup}; "
            "expected the target to be tokenised behind the subject. Check the request's prompt and target."
        )
    return Row(owner, tuple(ids[: answer[-1]]), lookup, tuple(j - 1 for j in answer), tuple(ids[j] for j in answer))
