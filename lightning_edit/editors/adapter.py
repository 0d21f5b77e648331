"""The edits of a model as a LoRA adapter that plain PEFT loads.

At every site S - W_b = B (QK)' has rank N at most, so lora_B = B and lora_A = (QK)' with a scale of one. The adapter
belongs on the base weights W_b: where these are no longer the ones the first edit found, they are written beside it.
This file knows PEFT's file layout and the ledgers' factors; it changes no model.
"""

import json
from collections.abc import Sequence
from os import PathLike
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from lightning_edit.editors.edited_site import EditedSite, fingerprint
from lightning_edit.errors import LedgerError
from lightning_edit.model.language_model import LanguageModel

BASE_FILE = "edited_base.safetensors"
NOTE_FILE = "edits.json"


def export_adapter(
    lm: LanguageModel, sites: Sequence[EditedSite], folder: str | PathLike[str], name: str | None = None
) -> dict[str, Any]:
    """Write the edits as a PEFT adapter.

    Args:
        lm: The language model that carries them.
        sites: The edited sites.
        folder: Where to write; it is made.
        name: Hub name or folder of the base model, for the adapter's configuration.

    Returns:
        What was written, as in `edits.json`: ranks, hashes of the base weights, whether those were written too, and
        the distance of the deployed weights from the exact ones, which an adapter cannot carry.
    """
    from peft import LoraConfig

    if not any(len(site.ledger) for site in sites):
        raise LedgerError(
            "there are no columns to export; expected an editor that keeps its edits and has made some. An absorbed "
            "history leaves nothing but the weights: save the model instead."
        )
    target = Path(folder)
    target.mkdir(parents=True, exist_ok=True)
    names = {site.layer: lm.site(site.layer).name for site in sites}
    factors = {names[site.layer]: low_rank(site) for site in sites}
    ranks = {module: left.shape[1] for module, (left, _) in factors.items()}
    config = LoraConfig(
        r=max(ranks.values()),
        lora_alpha=max(ranks.values()),
        target_modules=list(ranks),
        rank_pattern=ranks,
        alpha_pattern=ranks,
        fan_in_fan_out=lm.site(sites[0].layer).transposed,
        task_type="CAUSAL_LM",
        base_model_name_or_path=name or str(lm.model.config._name_or_path),
        inference_mode=True,
    )
    config.save_pretrained(str(target))
    save_file(_tensors(factors), target / "adapter_model.safetensors", {"format": "pt"})
    bases = {names[site.layer]: base_weight(site) for site in sites}
    moved = any(fingerprint(bases[names[site.layer]]) != site.source for site in sites)
    if moved:
        save_file({f"{module}.weight": _stored(lm, base) for module, base in bases.items()}, target / BASE_FILE)
    note = {
        "ranks": ranks,
        "base_sha256": {module: fingerprint(base) for module, base in bases.items()},
        "base_file": BASE_FILE if moved else None,
        "deployed_minus_exact": {names[site.layer]: site.pending for site in sites},
    }
    (target / NOTE_FILE).write_text(json.dumps(note, indent=2) + "\n")
    return note


def low_rank(site: EditedSite) -> tuple[Tensor, Tensor]:
    """Factors (d, r) and (n, r) of S - W_b, with r at most d.

    Args:
        site: An edited site.
    """
    left, right = site.ledger.delta()  # (d, N), (n, N)
    if left.shape[1] > left.shape[0]:
        return torch.eye(left.shape[0], dtype=left.dtype, device=left.device), right @ left.T
    return left, right


def base_weight(site: EditedSite) -> Tensor:
    """What the adapter belongs on (d, n), in the model's own dtype: W_b, and the drift that is ignored.

    Args:
        site: An edited site.
    """
    base = site.ledger.base
    return (base if site.ignored is None else base.double() + site.ignored).to(site.deployed.dtype)


def _tensors(factors: dict[str, tuple[Tensor, Tensor]]) -> dict[str, Tensor]:
    """PEFT's names: lora_B (d, r) and lora_A (r, n)."""
    tensors = {}
    for module, (left, right) in factors.items():
        tensors[f"base_model.model.{module}.lora_A.weight"] = right.T.float().cpu().contiguous()
        tensors[f"base_model.model.{module}.lora_B.weight"] = left.float().cpu().contiguous()
    return tensors


def _stored(lm: LanguageModel, weight: Tensor) -> Tensor:
    """A weight (d, n) in the layout of the model's parameter."""
    return (weight.T if lm.sites[0].transposed else weight).cpu().contiguous()
