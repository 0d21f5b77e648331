"""Hyper-parameter files of EasyEdit (and of the repositories it grew out of), as an editor's name and options.

A file is YAML, or JSON in the older repositories, with an `alg_name` and some thirty fields. Fields that say where and
how to compute are somebody else's business here (the Trainer's, the statistics file's). Everything else becomes an
option, or an error, or is named in a warning. This file knows spellings; whether the values make sense is for the
editor to say.
"""

import logging
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

from lightning_edit.editors.registry import editor_class, option_names
from lightning_edit.errors import EditError


class HyperparameterWarning(UserWarning):
    """A hyper-parameter file holds something that does not become an option."""


ALGORITHMS: Mapping[str, str] = MappingProxyType(
    {
        "ROME": "rome",
        "R-ROME": "rome",
        "MEMIT": "memit",
        "PMET": "pmet",
        "EMMET": "emmet",
        "AlphaEdit": "alphaedit",
    }
)
"""EasyEdit's names of algorithms that there is an editor for."""

OPTIONS: Mapping[str, tuple[str, Callable[[Any], Any]]] = MappingProxyType(
    {
        "layers": ("layers", lambda value: [int(layer) for layer in value]),
        "v_lr": ("lr", float),
        "v_num_grad_steps": ("steps", int),
        "clamp_norm_factor": ("clamp", float),
        "v_weight_decay": ("weight_decay", float),
        "kl_factor": ("kl", float),
        "mom2_update_weight": ("prior_weight", float),
        "nullspace_threshold": ("nullspace_threshold", float),
        "L2": ("l2", float),
        "emmet_lambda": ("noise", float),
        "update_norm_lambda": ("ridge", float),
        "mom2_adjustment": ("mom2_adjustment", bool),
    }
)
"""Fields that become options, with the option's name and type."""

ONLY: Mapping[str, Any] = MappingProxyType(
    {"fact_token": "subject_last", "layer_selection": "all", "nll_loss_factor": 1.0}
)
"""Fields that have one value here."""

ELSEWHERE = frozenset(
    {
        *("alg_name", "model_name", "model_class", "device", "model_parallel", "fp16", "bf16"),
        *("batch_size", "max_length", "max_output_length", "sequential_edit", "context_template_length_params"),
        *("stats_dir", "P_loc", "mom2_dataset", "mom2_n_samples", "mom2_dtype"),
        *("rewrite_module_tmp", "rewrite_module_tmps", "layer_module_tmp", "mlp_module_tmp", "attn_module_tmp"),
        *("ln_f_module", "lm_head_module", "v_loss_layer", "calculate_objective_value", "objective_optimization"),
    }
)
"""Fields that are decided elsewhere: by the Trainer, by the statistics' file, or by the model and its own output."""

UNUSED: Mapping[str, frozenset[str]] = MappingProxyType(
    {  # what the public code reads from its file and then does not use
        "memit": frozenset({"mom2_adjustment"}),
        "pmet": frozenset({"mom2_adjustment"}),
        "emmet": frozenset({"mom2_adjustment"}),
        "alphaedit": frozenset({"mom2_adjustment", "mom2_update_weight"}),
        "rome": frozenset({"mom2_update_weight"}),
    }
)

_log = logging.getLogger(__name__)


def from_easyedit(path: str | Path, algorithm: str | None = None) -> tuple[str, dict[str, Any]]:
    """Read a hyper-parameter file.

    ``name, options = from_easyedit("hparams/MEMIT/llama-7b.yaml"); editor = get_editor(name, **options)``

    Args:
        path: A `.yaml` file of EasyEdit, or a `.json` file of the older repositories.
        algorithm: What the file is for, where it has no `alg_name`; without both, the name of its folder counts.

    Returns:
        Name and options for `get_editor`.

    Raises:
        EditError: The file cannot be read, there is no editor for its algorithm, or a field has a value that cannot be
            reproduced.

    Warns:
        HyperparameterWarning: Fields that nobody here knows, or that this editor has no option for.
    """
    file = Path(path)
    fields = _fields(file)
    name = _algorithm(file, str(fields.get("alg_name") or algorithm or file.parent.name))
    _check_only(file, fields)
    known = option_names(editor_class(name)) or []
    options: dict[str, Any] = {}
    left: list[str] = []
    for field, value in fields.items():
        if field in UNUSED[name] or value is None:
            continue
        option, convert = OPTIONS.get(field, ("", None))
        if convert is not None and option in known:
            options[option] = _converted(file, field, value, convert)
        elif field not in ELSEWHERE and field not in ONLY:
            left.append(f"{field}={value!r}")
    if left:
        warnings.warn(
            f"{file}: {', '.join(left)} became no option of {name!r}, which has {', '.join(known)}. Set what is meant "
            "by hand, if anything.",
            HyperparameterWarning,
            stacklevel=2,
        )
    elsewhere = sorted(ELSEWHERE & set(fields))
    _log.info("%s: %s are decided elsewhere and were not taken over", file, ", ".join(elsewhere))
    return name, options


def _fields(file: Path) -> dict[str, Any]:
    """The fields of a file."""
    if not file.is_file():
        raise EditError(f"there is no hyper-parameter file {file}; expected a .yaml or .json file.")
    try:
        content = yaml.safe_load(file.read_text("utf-8").replace("\t", "  "))  # JSON is YAML, but for its tabs
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise EditError(f"{file} is neither YAML nor JSON ({error}); expected a file of hyper-parameters.") from error
    if not isinstance(content, dict) or "layers" not in content:
        raise EditError(f"{file} has no field 'layers'; expected the hyper-parameters of a locate-then-edit method.")
    return content


def _algorithm(file: Path, wanted: str) -> str:
    """The editor for an algorithm."""
    names = {name.lower(): editor for name, editor in ALGORITHMS.items()}
    if wanted.lower() not in names:
        raise EditError(
            f"{file} is for {wanted!r}; expected one of {', '.join(ALGORITHMS)} in its alg_name, or as algorithm=."
        )
    return names[wanted.lower()]


def _check_only(file: Path, fields: Mapping[str, Any]) -> None:
    """Refuse values that nothing here reproduces."""
    for field, value in ONLY.items():
        if field in fields and fields[field] != value:
            raise EditError(
                f"{file}: found {field}: {fields[field]!r}; expected {value!r}, the only value that is reproduced here."
            )


def _converted(file: Path, field: str, value: Any, convert: Callable[[Any], Any]) -> Any:
    """A value as a number; YAML reads `5e-1` as a text."""
    try:
        return convert(value)
    except (TypeError, ValueError) as error:
        raise EditError(f"{file}: found {field}: {value!r}; expected a number ({error}).") from error
