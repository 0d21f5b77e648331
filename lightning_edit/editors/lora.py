r"""Editing with a LoRA adapter (Hu et al., arXiv 2106.09685, equation 3), trained on the targets' likelihood.

    W x + s B (A x),    s = alpha / r

Three policies say what becomes of an adapter when its commit is learned: `one` is kept and trained on, as in the public
code; `merge` writes it into the weights and begins anew; `per_commit` freezes it, and all of them answer together.
Adapters that are not merged live beside the model, in the editor and in hooks: training, optimizer and checkpoints of
the model never see them, and a user's own PEFT adapter is left alone.
"""

from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args

import torch
from peft import LoraConfig
from peft.utils import TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING
from torch import Tensor, nn
from transformers.pytorch_utils import Conv1D

from lightning_edit.editors.commits import Commit, Tensors
from lightning_edit.editors.descent import DescentOptions, descend, final_losses
from lightning_edit.editors.examples import make_examples
from lightning_edit.editors.gradient import GradientEditor
from lightning_edit.editors.gradient_settings import GradientSettings
from lightning_edit.editors.matrices import copies, distance, matrix, put, take_back
from lightning_edit.editors.peft_layers import PeftLayers, factors_of, scale_of
from lightning_edit.errors import EditError, StateError
from lightning_edit.model.adapter_hooks import AdapterHooks, Factors, find_linears
from lightning_edit.model.language_model import LanguageModel, as_language_model
from lightning_edit.model.sites import Layer
from lightning_edit.model.weights import base_layer, read_weight, write_weight
from lightning_edit.requests import EditRequest

Policy = Literal["one", "merge", "per_commit"]
STEPS = 100  # any number of steps, where a configuration is only asked for its scale


class LoRA(GradientEditor):
    """Low-rank adapters beside the linear modules, learned by gradient: one, merged, or one per commit.

    Args:
        policy: What becomes of an adapter when its commit is learned: `one`, `merge` or `per_commit`. With `per_commit`
            any commit can be taken back, with the others the last ones.
        modules: Names of the linear modules that get an adapter, such as `q_proj` or `mlp.c_proj`; None takes the
            preset's, and else what PEFT lists for the architecture.
        layers: Blocks whose modules get one, by number or path; None takes all.
        rank: Rank r; None takes the preset's, as for all that follows.
        alpha: Scale times rank.
        dropout: Dropout on the adapter's input while it learns. A loss that is read with it is a noisy one.
        lr: Learning rate of Adam.
        steps: Passes over a commit's requests at most.
        batch_size: Requests in one step.
        weight_decay: Adam's weight decay.
        stop_loss: A request is learned when its loss is below this; published settings make all steps.
        seed: Seed of initial values and dropout; each commit draws its own from it.
        preset: Name of a model whose published settings to take.
        undo_depth: How many of the last commits can be taken back, with `one` and `merge`; all if None. For each of
            them the adapter is kept, or with `merge` a copy of the weights.
    """

    settings_of = "lora"

    def __init__(
        self,
        policy: Policy = "one",
        modules: list[str] | None = None,
        layers: list[Layer] | None = None,
        rank: int | None = None,
        alpha: int | None = None,
        dropout: float | None = None,
        lr: float | None = None,
        steps: int | None = None,
        batch_size: int | None = None,
        weight_decay: float | None = None,
        stop_loss: float | None = None,
        seed: int = 0,
        preset: str | None = None,
        undo_depth: int | None = 16,
    ) -> None:
        if policy not in get_args(Policy):
            raise EditError(f"policy={policy!r}; expected one of {', '.join(map(repr, get_args(Policy)))}.")
        if rank is not None and rank < 1:
            raise EditError(f"rank={rank}; expected at least 1.")
        self.policy, self.seed = policy, seed
        self.any_order = policy == "per_commit"
        self.acts_on_every_rank = policy != "merge"
        given = {"modules": modules, "layers": layers, "rank": rank, "alpha": alpha, "dropout": dropout, "lr": lr}
        given |= {"steps": steps, "batch_size": batch_size, "weight_decay": weight_decay, "stop_loss": stop_loss}
        super().__init__(given, preset, undo_depth)
        self._paths: list[str] = []
        self._adapter: dict[str, Tensor] = {}  # the one that is kept, by `path/part`
        self._scale = 1.0
        self._hooks = AdapterHooks()

    # -- what PEFT is asked for ------------------------------------------------------------------------------------

    def make_config(self, settings: GradientSettings, steps: int) -> LoraConfig:
        """PEFT's configuration of an adapter.

        Args:
            settings: The settings.
            steps: Optimizer steps of the commit at most.
        """
        return LoraConfig(r=settings.rank, lora_alpha=settings.alpha, lora_dropout=settings.dropout)

    def _descend(self, lm: LanguageModel, batch: Sequence[EditRequest], layers: PeftLayers) -> dict[str, float]:
        """Train the layers."""
        parameters = layers.parameters
        return descend(lm, make_examples(lm, batch), parameters, parameters, self._descent())

    def _descent(self) -> DescentOptions:
        assert self.settings is not None  # settled
        return self.settings.descent

    # -- the model -------------------------------------------------------------------------------------------------

    def detach(self, module: object) -> None:
        """Take the adapters off the model; what was merged stays. `attach` puts them back.

        Args:
            module: An `EditableModule` or `LanguageModel`.
        """
        if self._hooks.model is as_language_model(module).model:
            self._hooks.clear()

    def weights(self, lm: LanguageModel) -> list[Tensor]:
        """The matrices that adapters are merged into; none where they are not merged.

        Args:
            lm: The language model.
        """
        return list(self._parameters(lm).values())

    @property
    def ranks(self) -> list[dict[str, int]]:
        """Rank of each module's change, adapter by adapter."""
        return [{path: down.shape[0] for path, (down, _) in adapter.items()} for adapter in self._adapters()]

    def _settle(self, lm: LanguageModel, settings: GradientSettings) -> list[int]:
        names = settings.modules or tuple(
            TRANSFORMERS_MODELS_TO_LORA_TARGET_MODULES_MAPPING.get(lm.model.config.get_text_config().model_type, ())
        )
        if not names:
            raise EditError(
                f"PEFT lists no modules for {type(lm.model).__name__}; expected names of its linear modules. Pass "
                "modules=[...], such as the query and value projections."
            )
        wanted = {lm.site(layer).layer for layer in settings.layers or [site.layer for site in lm.sites]}
        sites = [lm.site(layer) for layer in sorted(wanted)]
        self._paths = find_linears(lm.model, [site.block for site in sites], names)
        scale = scale_of(self.make_config(settings, STEPS))
        if scale != self._scale and self._adapters():
            raise StateError(
                f"the adapters at work are scaled by {self._scale:g}, the settings say {scale:g}; expected the rank "
                "and alpha that they were made with."
            )
        self._scale = scale
        if self.policy == "merge":
            self._parameters(lm)  # refuses what cannot be written
        elif self._hooks.model is not lm.model:
            self._place(lm.model)
        return [site.layer for site in sites if site.name in self._paths]

    def _learn(self, lm: LanguageModel, batch: Sequence[EditRequest]) -> dict[str, float]:
        assert self.settings is not None  # settled
        _seed(self.seed + self._book.applied, lm.device)
        modules = {path: base_layer(lm.model.get_submodule(path)) for path in self._paths}
        config = self.make_config(self.settings, self._descent().total(len(batch)))
        config.fan_in_fan_out = any(isinstance(module, Conv1D) for module in modules.values())
        layers = PeftLayers(modules, config)
        if self._adapter:
            layers.write(self._adapter)
            self._hooks.clear()  # the layers stand for the adapter that is kept
        with layers.hooked():
            layers.train(True)
            self._descend(lm, batch, layers)
            layers.train(False)
        self._adapter = layers.read()
        self._carry(lm)
        return final_losses(lm, make_examples(lm, batch), self.settings.batch_size)

    def _carry(self, lm: LanguageModel) -> None:
        """Let the model answer with the adapter that has just been trained."""
        if self.policy != "merge":
            self._place(lm.model)
            return
        for path, (down, up) in factors_of(self._adapter, self._scale).items():
            projection = lm.model.get_submodule(path)
            change = (up.double() @ down.double()).to(lm.device)
            write_weight(projection, read_weight(projection).double() + change)
        self._adapter = {}

    def _place(self, model: nn.Module) -> None:
        """Put the hooks of all adapters on the model."""
        adapters = self._adapters()
        together = {
            path: (torch.cat([a[path][0] for a in adapters]), torch.cat([a[path][1] for a in adapters], dim=1))
            for path in dict.fromkeys(path for adapter in adapters for path in adapter)
        }
        self._hooks.place(model, {path: pair for path, pair in together.items() if len(pair[0])})

    def _adapters(self) -> list[dict[str, Factors]]:
        """Factors of every adapter at work, oldest first."""
        kept = [entry.after for entry in self._book.entries if entry.after] if self.policy == "per_commit" else []
        kept += [self._adapter] if self._adapter else []
        return [factors_of(adapter, self._scale) for adapter in kept]

    def _parameters(self, lm: LanguageModel) -> dict[str, Tensor]:
        """The matrices that a commit writes, by path."""
        paths = self._paths if self.policy == "merge" else []
        return {path: matrix(lm.model.get_submodule(path), path) for path in paths}

    # -- state -----------------------------------------------------------------------------------------------------

    def _extra_state(self) -> dict[str, Any]:
        return {"policy": self.policy, "scale": self._scale, "adapter": dict(self._adapter)}

    def _check_extra(self, state: dict[str, Any]) -> None:
        if state["policy"] != self.policy:
            raise StateError(f"the state is of policy {state['policy']!r}; expected {self.policy!r}, the editor's own.")

    def _load_extra(self, state: dict[str, Any]) -> None:
        self._scale, self._adapter = state["scale"], dict(state["adapter"])
        if self._hooks.model is not None:
            self._place(self._hooks.model)

    # -- commits ---------------------------------------------------------------------------------------------------

    @property
    def _depth(self) -> int | None:
        """Adapters of single commits are at work, so all of them are kept."""
        return None if self.policy == "per_commit" else self.undo_depth

    def _capture(self, lm: LanguageModel) -> Tensors:
        return copies(self._parameters(lm)) if self.policy == "merge" else self._adapter

    def _install(self, lm: LanguageModel, captured: Tensors) -> None:
        if self.policy == "merge":
            put(self._parameters(lm), captured)
            self._adapter = {}
        else:
            self._adapter = dict(captured)
            self._place(lm.model)

    def _commit(self, lm: LanguageModel, batch: Sequence[EditRequest], before: Tensors) -> Commit:
        commit = Commit(tuple(batch), before, self._capture(lm))
        if self.policy == "per_commit":
            self._adapter = {}  # the commit's own from now on
        return commit

    def _unlearn(self, lm: LanguageModel, gone: Sequence[Commit]) -> list[str]:
        if self.policy == "merge":
            return take_back(self._parameters(lm), gone)
        self._adapter = dict(gone[0].before or {})
        self._place(lm.model)
        return []

    def _carried(self, captured: Tensors) -> Any:
        return captured if self.policy == "merge" else self._adapters()

    def _norm(self, before: Any, after: Any) -> float:
        return distance(before, after) if self.policy == "merge" else _gap(before, after)

    def _drift(self, now: Tensors) -> float:
        return super()._drift(now) if self.policy == "merge" else 0.0


def _gap(before: Sequence[Mapping[str, Factors]], after: Sequence[Mapping[str, Factors]]) -> float:
    """Frobenius norm of the difference of two sums of low-rank changes, without making a large matrix."""
    square = 0.0
    for path in dict.fromkeys(path for adapter in (*before, *after) for path in adapter):
        signed = [(-1.0, a[path]) for a in before if path in a] + [(1.0, a[path]) for a in after if path in a]
        down = torch.cat([pair[0].double() for _, pair in signed])
        up = torch.cat([sign * pair[1].double() for sign, pair in signed], dim=1)
        square += float(((down @ down.T) * (up.T @ up)).sum())
    return float(max(square, 0.0) ** 0.5)


def _seed(seed: int, device: torch.device) -> None:
    """Seed the generators that initial values and dropout come from; the caller restores them."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        with torch.cuda.device(device):
            torch.cuda.manual_seed(seed)
