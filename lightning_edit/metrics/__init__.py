"""What an edit is worth, as torchmetrics: add them to a MetricCollection, log them, reduce them over processes."""

from lightning_edit.metrics.comparison import harmonic_mean, target_magnitude, target_success
from lightning_edit.metrics.consistency import Consistency, Idf, tfidf_cosine
from lightning_edit.metrics.counterfact import (
    EfficacyMagnitude,
    EfficacySuccess,
    NeighborhoodMagnitude,
    NeighborhoodSuccess,
    ParaphraseMagnitude,
    ParaphraseSuccess,
    Score,
)
from lightning_edit.metrics.events import EventAccuracy, event_accuracy
from lightning_edit.metrics.fluency import Fluency, ngram_entropy
from lightning_edit.metrics.functional import share_right, share_right_by_kind
from lightning_edit.metrics.records import mean_over_records, share_of_whole_records
from lightning_edit.metrics.shares import Generalization, Locality, LocalityGold, Portability, Reliability
from lightning_edit.metrics.token_accuracy import TeacherForcedTokenAccuracy, teacher_forced_token_accuracy
from lightning_edit.metrics.token_locality import TokenLocality, token_match_ratio

__all__ = [
    "Consistency",
    "EfficacyMagnitude",
    "EfficacySuccess",
    "EventAccuracy",
    "Fluency",
    "Generalization",
    "Idf",
    "Locality",
    "LocalityGold",
    "NeighborhoodMagnitude",
    "NeighborhoodSuccess",
    "ParaphraseMagnitude",
    "ParaphraseSuccess",
    "Portability",
    "Reliability",
    "Score",
    "TeacherForcedTokenAccuracy",
    "TokenLocality",
    "event_accuracy",
    "harmonic_mean",
    "mean_over_records",
    "ngram_entropy",
    "share_of_whole_records",
    "share_right",
    "share_right_by_kind",
    "target_magnitude",
    "target_success",
    "teacher_forced_token_accuracy",
    "tfidf_cosine",
    "token_match_ratio",
]
