"""Target values: what an FFN block should put out at the subject's last token, for many edits at once."""

from lightning_edit.targets.columns import Column, TargetOptions, TargetPrompt, Targets
from lightning_edit.targets.optimize import TargetOptimizer, optimize_targets

__all__ = ["Column", "TargetOptimizer", "TargetOptions", "TargetPrompt", "Targets", "optimize_targets"]
