"""What an edit is worth, as torchmetrics: add them to a MetricCollection, log them, reduce them over processes."""

from lightning_edit.metrics.functional import share_right, share_right_by_kind
from lightning_edit.metrics.shares import Generalization, Locality, Portability, Reliability

__all__ = ["Generalization", "Locality", "Portability", "Reliability", "share_right", "share_right_by_kind"]
