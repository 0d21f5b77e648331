"""Layers for a model that nobody has published settings for, found by a cheap causal tracing.

MEMIT (Meng et al., arXiv 2210.07229, section 4.1) edits the FFNs through which a fact passes at its subject's last
token. Here a few facts that the model knows are traced at that token only, with as many neighbouring FFNs put back
together as shall be edited, and the stretch that brings most of the answer back is proposed. All other numbers are the
model's preset, or the nearest one scaled by shape. Tracing a large model takes time, so no editor calls this by itself;
`edit_model` does, for a model without a preset.
"""

import logging
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from lightning_edit.editors.base import ClosedFormEditor
from lightning_edit.editors.presets import Preset, choose_preset, find_sheet
from lightning_edit.editors.registry import editor_class
from lightning_edit.errors import EditError, RequestError
from lightning_edit.jobs.locate import known_facts
from lightning_edit.jobs.tracing import Fact, subject_scale, trace
from lightning_edit.model.language_model import LanguageModel, as_language_model
from lightning_edit.requests import EditRequest

LEAST = 0.05  # share of the lost probability that has to come back for a stretch to be proposed
LOOK = 8  # requests looked at for each fact that is traced, in search of facts that the model knows

_log = logging.getLogger(__name__)


def propose_preset(
    module: object,
    requests: Iterable[EditRequest],
    editor: str | None = None,
    family: str | None = None,
    facts: int = 8,
    samples: int = 4,
    noise: float = 3.0,
    batch_size: int = 256,
    seed: int = 0,
) -> Preset:
    """Propose settings: layers by causal tracing, the rest from the model's preset or the nearest one.

    It costs, for each fact, about `samples` short rows through the model for each of its layers, and says in the log
    what it found and what it assumed. Hand the result to an editor: `get_editor("memit", preset=proposed)`.

    Args:
        module: An `EditableModule` or `LanguageModel`.
        requests: Requests with subjects, whose `old` (or `target`, where there is no `old`) the model knows.
        editor: Name of the editor that is meant, for the numbers it has of its own.
        family: Family of settings, `original` or `easyedit`; None takes the published one.
        facts: Number of facts to trace.
        samples: Draws of the noise for each fact.
        noise: Standard deviation of the noise, in standard deviations of the subjects' embeddings.
        batch_size: Rows in one forward.
        seed: Seed of the noise.

    Raises:
        RequestError: The model knows none of the facts.
    """
    if facts < 1 or samples < 1:
        raise EditError(f"facts={facts}, samples={samples}; expected at least one of each.")
    lm = as_language_model(module)
    lm.check_decoder_only("Causal tracing")
    assumed = choose_preset(lm, f"@{family}" if family else None, editor)
    if assumed.layers is None:
        raise EditError(f"preset {assumed.name!r} says nothing about layers; expected a stretch whose length to keep.")
    looked_at = list(requests)[: LOOK * facts]
    known = known_facts(lm, looked_at)[:facts]
    length = len(assumed.layers)
    _log.info("tracing %d facts through %d layers, %d FFNs at a time", len(known), lm.num_layers, length)
    shares = stretch_recovery(lm, known, length, samples, noise, batch_size, seed)
    first = int(shares.argmax())
    best, found = float(shares[first]), tuple(range(first, first + length))
    traced = f"{len(known)} facts that the model knows, out of {len(looked_at)} looked at, were traced"
    back = "at the subject's last token bring back"
    layers = assumed.layers if best < LEAST else found
    remark = f"layers {list(found)} are proposed: {traced}, and these FFNs {back} {best:.1%} of the lost probability"
    if best < LEAST:
        remark = (
            f"layers {list(layers)} are kept: {traced}, but no {length} neighbouring FFNs {back} more than "
            f"{best:.1%} of the lost probability"
        )
    remarks = (remark, *assumed.remarks[:1])  # the rest is about layers
    for text in remarks:
        _log.warning(text)
    return replace(assumed, name="proposed", layers=layers, remarks=remarks)


def with_proposed_layers(
    editor: str, options: Mapping[str, Any], lm: LanguageModel, requests: Sequence[EditRequest]
) -> tuple[dict[str, Any], str | None]:
    """Options of an editor, with a proposal where neither the user nor a preset of this shape says which layers.

    Args:
        editor: Name of the editor, or the path of its class.
        options: Its options.
        lm: The language model.
        requests: The requests; facts that the model knows among them are traced.

    Returns:
        The options, and what was found or why nothing was; None where nothing was looked for.
    """
    kind, preset = editor_class(editor), options.get("preset")
    told = options.get("layers") is not None or not (preset is None or (isinstance(preset, str) and preset[:1] == "@"))
    if not issubclass(kind, ClosedFormEditor) or told or lm.layout.separate or find_sheet(lm) is not None:
        return dict(options), None
    try:
        family = preset[1:] if preset else None
        proposed = propose_preset(lm, requests, kind.settings_of or kind.__name__, family)
    except RequestError as error:
        return dict(options), f"no layers were traced: {error}"
    return {**options, "preset": proposed}, proposed.remarks[0]


def stretch_recovery(
    lm: LanguageModel,
    facts: Sequence[Fact],
    length: int,
    samples: int = 4,
    noise: float = 3.0,
    batch_size: int = 256,
    seed: int = 0,
) -> Tensor:
    """Share of the lost probability that comes back when a stretch of FFNs is put back at the subject's last token.

    Args:
        lm: The language model.
        facts: Facts that it knows.
        length: Length of the stretch, in layers.
        samples: Draws of the noise for each fact.
        noise: Standard deviation of the noise, in standard deviations of the subjects' embeddings.
        batch_size: Rows in one forward.
        seed: Seed of the noise.

    Returns:
        By first layer of the stretch (layers - length + 1,), summed over facts before dividing.
    """
    scale = noise * subject_scale(lm, facts)
    gained, lost = torch.zeros(lm.num_layers), 0.0
    for number, fact in enumerate(facts):
        last = fact.subject[1] - 1
        found = trace(lm, fact, scale, samples, length, batch_size, seed + number, kinds=("ffn",), positions=[last])
        gained += found.restored["ffn"][0] - found.corrupted
        lost += found.clean - found.corrupted
    whole = slice(length // 2, length // 2 + lm.num_layers - length + 1)  # windows that the model's ends do not cut
    return gained[whole] / max(lost, 1e-9)
