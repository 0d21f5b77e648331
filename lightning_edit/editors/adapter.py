"""The edits of a model as a LoRA adapter that plain PEFT loads.

At every site S - W_b = B (QK)' has rank N at most, so lora_B = B and lora_A = (QK)' with a scale of one; a lower rank
can be asked for, and what that loses is measured. The adapter belongs on the base weights W_b: where these are no
longer the ones the first edit found, they are written beside it. This file knows PEFT's file layout; it changes no
model.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safetensors.torch import save_file
from torch import Tensor

from lightning_edit.editors.edited_site import EditedSite
from lightning_edit.editors.low_rank import Factors, measure_loss, update_factors
from lightning_edit.editors.site_backup import fingerprint
from lightning_edit.editors.site_state import whole_ledger
from lightning_edit.errors import LedgerError
from lightning_edit.model.language_model import LanguageModel

if TYPE_CHECKING:
    from peft import LoraConfig

BASE_FILE = "edited_base.safetensors"


def export_adapter(
    lm: LanguageModel,
    sites: Sequence[EditedSite],
    folder: str | PathLike[str],
    name: str | None = None,
    rank: int | None = None,
    write: bool = True,
) -> dict[str, Any]:
    """Write the edits as a PEFT adapter.

    The rows of ledgers are gathered where processes share them: every rank calls, one of them with `write`.

    Args:
        lm: The language model that carries them.
        sites: The edited sites.
        folder: Where to write; it is made.
        name: Hub name or folder of the base model, for the adapter's configuration.
        rank: Rank of the adapter at most; the one that is exact where None.
        write: Whether this process writes.

    Returns:
        Ranks, what the file lacks of the exact update (`Loss`), hashes of the base weights, and the file in which those
        are, where they are no longer the ones that the first edit found. All by the name of the module.

    Raises:
        LedgerError: There are no columns, or a penalty, or the rank is below 1.
    """
    if not any(len(site.ledger) for site in sites):
        raise LedgerError(
            "there are no columns to export; expected an editor that keeps its edits and has made some. An absorbed "
            "history leaves nothing but the weights: export them merged, or as a delta to the unedited model."
        )
    exact = {lm.site(site.layer).name: whole_ledger(site) for site in sites}
    factors = {module: update_factors(ledger, rank) for module, ledger in exact.items()}
    ranks = {module: found.rank for module, found in factors.items()}
    tensors = _tensors(factors)
    bases = {lm.site(site.layer).name: base_weight(site) for site in sites}
    hashes = {module: fingerprint(base) for module, base in bases.items()}
    moved = any(hashes[lm.site(site.layer).name] != site.source for site in sites)
    if write:
        target = Path(folder)
        target.mkdir(parents=True, exist_ok=True)
        _config(lm, ranks, name).save_pretrained(str(target))
        save_file(tensors, target / "adapter_model.safetensors", {"format": "pt"})
        if moved:
            save_file({f"{module}.weight": _stored(lm, base) for module, base in bases.items()}, target / BASE_FILE)
    return {
        "ranks": ranks,
        "loss": {module: asdict(measure_loss(exact[module], _read(tensors, module))) for module in ranks},
        "base_sha256": hashes,
        "base_file": BASE_FILE if moved else None,
    }


def base_weight(site: EditedSite) -> Tensor:
    """What the update belongs on (d, n), in the model's own dtype: W_b, and the drift that is ignored.

    Args:
        site: An edited site.
    """
    base = site.ledger.base
    return site.rows.gather((base if site.ignored is None else base.double() + site.ignored).to(site.deployed.dtype))


def _config(lm: LanguageModel, ranks: Mapping[str, int], name: str | None) -> "LoraConfig":
    """PEFT's configuration: every module with its own rank, and a scale of one."""
    from peft import LoraConfig

    return LoraConfig(
        r=max(ranks.values()),
        lora_alpha=max(ranks.values()),
        target_modules=list(ranks),
        rank_pattern=dict(ranks),
        alpha_pattern=dict(ranks),
        fan_in_fan_out=lm.sites[0].transposed,
        task_type="CAUSAL_LM",
        base_model_name_or_path=name or str(lm.model.config._name_or_path),
        inference_mode=True,
    )


def _tensors(factors: Mapping[str, Factors]) -> dict[str, Tensor]:
    """PEFT's names: lora_B (d, r) and lora_A (r, n)."""
    tensors = {}
    for module, found in factors.items():
        tensors[f"base_model.model.{module}.lora_A.weight"] = found.right.T.float().cpu().contiguous()
        tensors[f"base_model.model.{module}.lora_B.weight"] = found.left.float().cpu().contiguous()
    return tensors


def _read(tensors: Mapping[str, Tensor], module: str) -> Factors:
    """The factors of a module as they stand in the file."""
    right, left = (tensors[f"base_model.model.{module}.lora_{name}.weight"] for name in "AB")
    return Factors(left, right.T)


def _stored(lm: LanguageModel, weight: Tensor) -> Tensor:
    """A weight (d, n) in the layout of the model's parameter."""
    return (weight.T if lm.sites[0].transposed else weight).cpu().contiguous()
