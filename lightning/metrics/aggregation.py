"""The mean of values."""

from __future__ import annotations

from typing import Any

import numpy as np

from .metric import Metric, array_of


class MeanMetric(Metric):
    """The mean of all values given, each with its weight."""

    total: Any
    weight: Any

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", 0.0)
        self.add_state("weight", 0.0)

    def update(self, value: Any, weight: Any = 1.0) -> None:
        """value: numbers of any shape; weight: broadcast to it."""
        values = array_of(value).astype(np.float64)
        weights = np.broadcast_to(array_of(weight).astype(np.float64), values.shape)
        self.total = self.total + (values * weights).sum()
        self.weight = self.weight + weights.sum()

    def _compute(self) -> float:
        if not self.weight:
            raise RuntimeError("[MeanMetric] compute() needs a value, came none: call update before")
        return float(self.total / self.weight)
