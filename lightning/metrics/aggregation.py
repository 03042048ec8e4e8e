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


class _Extreme(Metric):
    """Keeps the extreme of each batch: sums would not do."""

    values: Any

    def __init__(self) -> None:
        super().__init__()
        self.add_state("values", [])

    def _of(self, values: np.ndarray) -> Any:
        raise NotImplementedError

    def update(self, value: Any) -> None:
        """value: numbers of any shape, at least one."""
        self.values = self.values + [np.array([self._of(array_of(value).astype(np.float64))])]

    def _compute(self) -> float:
        if not self.values:
            raise RuntimeError(
                f"[{type(self).__name__}] compute() needs a value, came none: call update before"
            )
        return float(self._of(np.concatenate(self.values)))


class MinMetric(_Extreme):
    """The smallest of all values given; NaN where one is."""

    def _of(self, values: np.ndarray) -> Any:
        return values.min()


class MaxMetric(_Extreme):
    """The largest of all values given; NaN where one is."""

    def _of(self, values: np.ndarray) -> Any:
        return values.max()


class SumMetric(Metric):
    """The sum of all values given."""

    total: Any
    count: Any

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", 0.0)
        self.add_state("count", 0)

    def update(self, value: Any) -> None:
        """value: numbers of any shape."""
        values = array_of(value).astype(np.float64)
        self.total, self.count = self.total + values.sum(), self.count + values.size

    def _compute(self) -> float:
        if not self.count:
            raise RuntimeError("[SumMetric] compute() needs a value, came none: call update before")
        return float(self.total)
