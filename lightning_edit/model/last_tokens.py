"""What passes some modules at the last token of token rows: equal rows once, short ones together, no block too many.

Knows tokens and modules. Which rows and modules make a key or a hidden state, `LanguageModel` says.
"""

from collections.abc import Iterable, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from lightning_edit.model.encoding import pad
from lightning_edit.model.interception import Intercept
from lightning_edit.progress import Progress

Kind = Literal["inputs", "outputs"]


def read_last_tokens(
    model: Any,
    kind: Kind,
    names: Iterable[str],
    rows: Sequence[tuple[int, ...]],
    padding: int,
    batch_size: int,
    progress: Progress,
) -> dict[str, Tensor]:
    """Inputs or outputs of modules at each row's last token; the forward stops behind the deepest module.

    Args:
        model: A transformers causal LM.
        kind: Which of the two.
        names: Names of the modules.
        rows: Token ids of each row, at least one row.
        padding: Token id of padding.
        batch_size: Rows in one forward.
        progress: Hears how far it has come.

    Returns:
        For each name, states (rows, width) in float32 (float64 if the model is).
    """
    names = list(names)
    unique = sorted(dict.fromkeys(rows), key=lambda ids: (len(ids), ids))
    parts: dict[str, list[Tensor]] = {name: [] for name in names}
    progress.more(len(unique))
    for start in range(0, len(unique), batch_size):
        batch = unique[start : start + batch_size]
        seen = _read_batch(model, kind, names, batch, padding)
        progress.done(len(batch))
        for name in names:
            parts[name].append(seen[name])
    place = {ids: index for index, ids in enumerate(unique)}
    order = torch.tensor([place[ids] for ids in rows])
    return {name: torch.cat(found)[order.to(found[0].device)] for name, found in parts.items()}


def _read_batch(
    model: Any, kind: Kind, names: Sequence[str], rows: Sequence[Sequence[int]], padding: int
) -> dict[str, Tensor]:
    """One forward."""
    ids, mask = pad(rows, padding, "right", model.get_input_embeddings().weight.device)  # where tokens go in
    last = torch.tensor([len(row) - 1 for row in rows])

    def select(value: Tensor) -> Tensor:
        value = value.reshape(len(rows), -1, value.shape[-1])  # (b, t, n or d); OPT's FFN runs on (b t, n)
        value = value[torch.arange(len(rows)).to(value.device), last.to(value.device)]  # (b, n or d)
        return value if value.dtype == torch.float64 else value.float()

    watch: Any = {kind: dict.fromkeys(names, select)}
    with Intercept(model, stop=True, **watch) as seen:
        model(input_ids=ids, attention_mask=mask, use_cache=False)
    return seen.inputs if kind == "inputs" else seen.outputs
