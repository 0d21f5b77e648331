"""EditableModule: a transformers causal LM or T5-style encoder-decoder as a LightningModule that can be edited.

It knows how to load, train, generate and save. It knows no editor (one comes to it, through a callback or by hand) and
no data beyond batches of `input_ids`, `attention_mask` and `labels`.
"""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple, Self

import lightning as L
import torch
from lightning.pytorch.utilities.rank_zero import rank_zero_warn
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lightning_edit.errors import EditError
from lightning_edit.model.generation import generate
from lightning_edit.model.language_model import LanguageModel
from lightning_edit.model.loading import load_pretrained
from lightning_edit.model.optimizer import Schedule, build_adamw, build_schedule
from lightning_edit.model.saving import save_folder
from lightning_edit.model.seq2seq import layout_of

DTYPES = ("float32", "bfloat16", "float16", "float64")
EMBEDDED = "embedded"


class _Loaded(NamedTuple):
    """A model that is in memory already."""

    model: PreTrainedModel
    tokenizer: PreTrainedTokenizerBase
    name: str


class EditableModule(L.LightningModule):
    """A transformers language model with its tokenizer and its FFN sites, trained by next-token prediction.

    A T5-style encoder-decoder is trained to say the `labels` of a batch; where a batch has none, each text is cut in
    the middle, and what follows is to be said (`model/seq2seq.py`).

    Args:
        model: Hub name or folder of a causal LM or T5-style encoder-decoder with its tokenizer; "embedded" is the model
            of the embedded world.
        dtype: Precision of the weights: float32, bfloat16, float16 or float64. Use float32 with `precision="32-true"`
            and the mixed ones, bfloat16 with `precision="bf16-true"`.
        lr: Learning rate of AdamW.
        weight_decay: Weight decay of matrices; norms and biases do not decay.
        betas: Decay rates of AdamW's moments.
        warmup_steps: Steps of linear warmup.
        schedule: "constant", or "cosine" down to zero over the Trainer's estimated steps.
        peft: Arguments of `peft.LoraConfig`. The adapter is trained, and edits go into the frozen matrices under it.
        projection: Path of the FFN output projection with `{}` for the layer's number, for architectures whose
            structure does not show it.

    Example:
        >>> from lightning_edit import EditableModule
        >>> module = EditableModule.from_pretrained("Qwen/Qwen2.5-0.5B")  # doctest: +SKIP
        >>> module.generate("The capital of France is", max_new_tokens=3)  # doctest: +SKIP
        [' Paris. It']
    """

    def __init__(
        self,
        model: str = "embedded",
        dtype: str = "float32",
        lr: float = 1e-5,
        weight_decay: float = 0.01,
        betas: tuple[float, float] = (0.9, 0.95),
        warmup_steps: int = 0,
        schedule: Schedule = "constant",
        peft: dict[str, Any] | None = None,
        projection: str | None = None,
    ) -> None:
        super().__init__()
        loaded = model if isinstance(model, _Loaded) else _load(model, dtype)
        self.save_hyperparameters(  # as a mapping: what a model in memory is loaded by is its name
            {
                "model": loaded.name,
                "dtype": dtype,
                "lr": lr,
                "weight_decay": weight_decay,
                "betas": tuple(betas),
                "warmup_steps": warmup_steps,
                "schedule": schedule,
                "peft": peft,
                "projection": projection,
            }
        )
        self.model: Any = loaded.model if peft is None else _with_adapter(loaded.model, peft)
        self.tokenizer = loaded.tokenizer
        self.language_model = LanguageModel(self.model, self.tokenizer, projection)
        self.editor: Any = None

    @classmethod
    def from_pretrained(cls, name_or_folder: str | Path, dtype: str = "float32", **options: Any) -> Self:
        """Load a model and its tokenizer from the hub or a folder.

        Args:
            name_or_folder: Hub name or folder; "embedded" is the model of the embedded world.
            dtype: Precision of the weights, whatever the checkpoint was saved in.
            options: Further arguments of the constructor.
        """
        return cls(model=str(name_or_folder), dtype=dtype, **options)

    @classmethod
    def from_model(cls, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, **options: Any) -> Self:
        """Take a model that is in memory already, in the precision that it has.

        Args:
            model: A transformers causal LM or T5-style encoder-decoder.
            tokenizer: Its tokenizer.
            options: Further arguments of the constructor, except `model` and `dtype`.
        """
        loaded = _Loaded(model, tokenizer, model.config._name_or_path or "")
        dtype = str(model.dtype).removeprefix("torch.")
        return cls(model=loaded, dtype=dtype, **options)  # type: ignore[arg-type]

    def setup(self, stage: str) -> None:
        """Put the backbone into train mode for fitting: models are loaded in eval mode, and `fit` leaves them so."""
        if stage == "fit":
            self.model.train()

    def forward(self, **batch: Tensor) -> Any:
        """Run the model.

        Args:
            batch: Arguments of the transformers model.
        """
        return self.model(use_cache=False, **batch)

    def training_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> Tensor:
        """Next-token loss of a batch, logged as `train_loss`."""
        loss = self._loss(batch)
        self.log("train_loss", loss, prog_bar=True, batch_size=len(batch["input_ids"]))
        return loss

    def validation_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> Tensor:
        """Next-token loss of a batch, logged as `val_loss`."""
        loss = self._loss(batch)
        self.log("val_loss", loss, prog_bar=True, sync_dist=True, batch_size=len(batch["input_ids"]))
        return loss

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """AdamW, and a schedule where warmup or a cosine is asked for."""
        options: Any = self.hparams
        optimizer = build_adamw(self, options.lr, options.weight_decay, tuple(options.betas))
        if options.schedule == "constant" and options.warmup_steps == 0:
            return optimizer
        total = math.inf if options.schedule == "constant" else self.trainer.estimated_stepping_batches
        if options.schedule == "cosine" and math.isinf(total):
            raise EditError(
                "a cosine schedule needs to know its end, but the Trainer has neither max_steps nor max_epochs; "
                'set one of them, or use schedule="constant".'
            )
        scheduler = build_schedule(optimizer, options.warmup_steps, options.schedule, total)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    def generate(self, prompts: str | Sequence[str], max_new_tokens: int = 32, **options: Any) -> list[str]:
        """Continue prompts, greedily unless `options` say otherwise; the module is left as it is.

        Args:
            prompts: One prompt or several.
            max_new_tokens: Longest continuation.
            options: `batch_size`, and fields of `transformers.GenerationConfig` such as `do_sample=True`.

        Returns:
            The continuations, without their prompts.
        """
        return generate(
            self.language_model, [prompts] if isinstance(prompts, str) else prompts, max_new_tokens, **options
        )

    def save_pretrained(self, folder: str | Path) -> None:
        """Write model and tokenizer as a folder that plain transformers loads, edits included.

        A PEFT adapter is merged into a copy of the weights; `module.model.save_pretrained` writes the adapter alone,
        which then lacks the edits, since those are in the matrices under it. Under a distributed strategy every rank
        must call, and the first one writes.

        Where the module's editor has edits beside the weights (GRACE, WISE, text memories) a warning says that they are
        not in the folder; `lightning_edit.save_edits` writes them too.

        Args:
            folder: Where to write.
        """
        if not getattr(self.editor, "in_weights", True) and self.editor.requests:
            rank_zero_warn(
                f"the folder {folder} lacks the edits of {type(self.editor).__name__}, which are not in the weights; "
                "lightning_edit.save_edits(module, folder) writes model and editor, and load_edits(folder) loads both."
            )
        save_folder(self.model, self.tokenizer, folder, write=self.global_rank == 0)

    def _loss(self, batch: Mapping[str, Tensor]) -> Tensor:
        lm = self.language_model
        loss: Tensor = self(**lm.layout.training_inputs(lm, batch)).loss
        return loss


def _load(name: str, dtype: str) -> _Loaded:
    """A model and its tokenizer by name, in an explicit precision."""
    if dtype not in DTYPES:
        raise EditError(f"dtype={dtype!r} is no precision of weights; expected one of {', '.join(DTYPES)}.")
    precision: torch.dtype = getattr(torch, dtype)
    if name == EMBEDDED:
        from lightning_edit.data.world import load_world_model

        return _Loaded(*load_world_model(precision), EMBEDDED)
    if not name:
        raise EditError(
            "the model has no name to load it by; expected a hub name or a folder. The checkpoint of a module that was "
            "made with `from_model` is loaded with `model=<folder>`, where the model was saved to that folder."
        )
    return _Loaded(*load_pretrained(name, precision), name)


def _with_adapter(model: PreTrainedModel, options: Mapping[str, Any]) -> Any:
    """The model with a fresh LoRA adapter; everything else is frozen."""
    from peft import LoraConfig, get_peft_model

    return get_peft_model(model, LoraConfig(**{"task_type": layout_of(model).task, **options}))
