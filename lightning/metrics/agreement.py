"""How far predictions agree with targets beyond chance: from the confusion matrix."""

from __future__ import annotations

import numpy as np

from .classification import ConfusionMatrix


class _Agreement(ConfusionMatrix):
    def __init__(
        self,
        task: str,
        num_classes: int | None = None,
        threshold: float = 0.5,
        ignore_index: int | None = None,
    ) -> None:
        super().__init__(task, num_classes, threshold, ignore_index=ignore_index)

    def _value(self, counts: np.ndarray, total: float) -> float:
        raise NotImplementedError

    def _compute(self) -> float:
        counts = self.counts.astype(np.float64)
        total = counts.sum()
        if not total:
            raise RuntimeError(
                f"[{type(self).__name__}] compute() needs samples, came none: call update before"
            )
        return self._value(counts, total)


class MatthewsCorrCoef(_Agreement):
    """The correlation of targets and predictions, -1 to 1 (J. Gorodkin 2004 for several classes); 0 where one of them
    is always the same.
    """

    def _value(self, counts: np.ndarray, total: float) -> float:
        targets, predicted = counts.sum(1), counts.sum(0)
        covariance = total * np.trace(counts) - targets @ predicted
        spread = (total**2 - predicted @ predicted) * (total**2 - targets @ targets)
        return float(covariance / np.sqrt(spread)) if spread else 0.0


class CohenKappa(_Agreement):
    """(agreement - agreement by chance) / (1 - agreement by chance); J. Cohen 1960."""

    def _value(self, counts: np.ndarray, total: float) -> float:
        observed, chance = np.trace(counts) / total, counts.sum(1) @ counts.sum(0) / total**2
        return float((observed - chance) / (1 - chance)) if chance != 1 else 0.0
