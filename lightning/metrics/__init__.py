"""Metrics that are exact over batches and workers: update, compute, reset."""

from .aggregation import MaxMetric, MeanMetric, MinMetric, SumMetric
from .agreement import CohenKappa, MatthewsCorrCoef
from .classification import Accuracy, ConfusionMatrix, F1Score, Precision, Recall
from .collection import MetricCollection
from .metric import Metric
from .ranking import AUROC, AveragePrecision
from .regression import MeanAbsoluteError, MeanSquaredError, Perplexity, R2Score

__all__ = [
    "AUROC",
    "Accuracy",
    "AveragePrecision",
    "CohenKappa",
    "ConfusionMatrix",
    "F1Score",
    "MatthewsCorrCoef",
    "MaxMetric",
    "MeanAbsoluteError",
    "MeanMetric",
    "MeanSquaredError",
    "Metric",
    "MetricCollection",
    "MinMetric",
    "Perplexity",
    "Precision",
    "R2Score",
    "Recall",
    "SumMetric",
]
