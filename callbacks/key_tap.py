"""Reading keys out of forward passes that happen anyway.

Knows the input of the FFN projections and the attention mask that goes with it. Refuses to know whose forward pass it
is and what becomes of the moments.
"""

from collections.abc import Callable, Mapping
from types import TracebackType
from typing import Any, Self

import torch
import torch.distributed
from torch import Tensor, nn

from lightning_edit.algebra.moments import KeyCovariance
from lightning_edit.errors import StatisticsError
from lightning_edit.model.language_model import LanguageModel


class KeyTap:
    """Adds the keys of every forward pass to running moments while it is open.

    Args:
        lm: The language model whose projections are tapped.
        moments: Where keys are added, by layer.
        limit: Tokens of one forward that are used at most, evenly spread; None uses all. Padding never counts.
    """

    def __init__(self, lm: LanguageModel, moments: Mapping[int, KeyCovariance], limit: int | None = None) -> None:
        self._lm = lm
        self._moments = moments
        self._limit = limit
        self._handles: list[Any] = []
        self._mask: Tensor | None = None

    def __enter__(self) -> Self:
        """Put the hooks in place."""
        self.open()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let go."""
        self.close()

    @property
    def is_open(self) -> bool:
        """Whether hooks are in place."""
        return bool(self._handles)

    def open(self) -> None:
        """Put the hooks in place; nothing happens if they are."""
        if self._handles:
            return
        self._handles.append(self._lm.model.register_forward_pre_hook(self._on_forward, with_kwargs=True))
        for layer, moment in self._moments.items():
            self._handles.append(self._lm.projection(layer).register_forward_pre_hook(self._on_keys(moment)))

    def close(self) -> None:
        """Remove the hooks; safe to call twice."""
        while self._handles:
            self._handles.pop().remove()
        self._mask = None

    def _on_forward(self, module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
        mask = kwargs.get("attention_mask", args[1] if len(args) > 1 else None)
        self._mask = mask if isinstance(mask, Tensor) and mask.dim() == 2 else None

    def _real(self, count: int) -> Tensor:
        """Which of so many keys, row by row, belong to real tokens (count,)."""
        assert self._mask is not None
        length = count // len(self._mask)
        if length > self._mask.shape[1] or length * len(self._mask) != count:
            raise StatisticsError(
                f"found {count} keys in a forward with an attention mask of shape {tuple(self._mask.shape)}; expected "
                "one key for each token, so that padding can be left out. Give the model the mask of its own input."
            )
        return self._mask[:, self._mask.shape[1] - length :].reshape(-1).bool()  # what is cached comes first

    def _on_keys(self, moment: KeyCovariance) -> Callable[[nn.Module, tuple[Any, ...]], None]:
        def hook(module: nn.Module, args: tuple[Any, ...]) -> None:
            keys = args[0].detach()  # (b, t, n), or (b t, n) as in OPT
            rows = keys.reshape(-1, keys.shape[-1])
            if self._mask is not None:
                rows = rows[self._real(len(rows)).to(rows.device)]
            if self._limit is not None and len(rows) > self._limit:
                rows = rows[torch.arange(self._limit, device=rows.device) * len(rows) // self._limit]
            moment.update(rows)

        return hook


def empty_moments(lm: LanguageModel, layers: list[int], device: str | None = None) -> dict[int, KeyCovariance]:
    """Moments without any key, by layer.

    Args:
        lm: The language model.
        layers: The layers.
        device: Where the sums live; where the model is by default, and on the CPU where that has no float64.
    """
    lm.check_decoder_only("Collecting keys")
    home = str(lm.device if lm.device.type != "mps" else "cpu") if device is None else device
    return {layer: KeyCovariance(lm.site(layer).inner, device=home) for layer in layers}


def gather_moments(moments: Mapping[int, KeyCovariance]) -> None:
    """Bring what all ranks have seen to rank zero, and leave the others empty; every rank must call.

    Args:
        moments: Moments by layer, the same layers in the same order on every rank.
    """
    if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
        return
    keep = torch.distributed.get_rank() == 0
    meeting = torch.device("cuda" if torch.distributed.get_backend() == "nccl" else "cpu")
    for moment in moments.values():
        state = moment.state_dict()
        parts = {"count": torch.tensor(state["count"]), "sum": state["sum"], "second": state["second"]}
        for name, tensor in parts.items():
            parts[name] = tensor.to(meeting)
            torch.distributed.all_reduce(parts[name])
            parts[name] *= keep
        moment.load_state_dict({**state, **parts, "count": int(parts["count"])})
