"""Metrics that are exact over batches and workers: update, compute, reset."""

from .aggregation import MeanMetric
from .classification import AUROC, Accuracy, AveragePrecision, ConfusionMatrix, F1Score, Precision, Recall
from .metric import Metric
from .regression import MeanAbsoluteError, MeanSquaredError, Perplexity, R2Score

__all__ = [
    "AUROC",
    "Accuracy",
    "AveragePrecision",
    "ConfusionMatrix",
    "F1Score",
    "MeanAbsoluteError",
    "MeanMetric",
    "MeanSquaredError",
    "Metric",
    "Perplexity",
    "Precision",
    "R2Score",
    "Recall",
]
