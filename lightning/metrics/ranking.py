"""Metrics of ranked scores: how well they tell one class, or one label, from the others."""

from __future__ import annotations

from typing import Any

import numpy as np

from .classification import _Classification, _ratio


class _Ranked(_Classification):
    """Keeps all scores: the value depends on their order. average: "macro", "weighted" or "none", over classes that
    occur, each against the others; of labels "micro" too: all as one.
    """

    tasks = ("binary", "multiclass", "multilabel")
    scores: Any
    targets: Any

    def __init__(
        self,
        task: str,
        num_classes: int | None = None,
        average: str | None = "macro",
        ignore_index: int | None = None,
        num_labels: int | None = None,
    ) -> None:
        super().__init__(task, num_classes, ignore_index=ignore_index, num_labels=num_labels)
        if average not in ("macro", "weighted", "none", None, *(("micro",) if task == "multilabel" else ())):
            raise ValueError(
                f"[{type(self).__name__}] average must be macro, weighted or none (micro for multilabel), came "
                f"{average!r}"
            )
        self.average = average
        self.add_state("scores", [])
        self.add_state("targets", [])

    def update(self, preds: Any, target: Any) -> None:
        """Adds a batch of scores: (N,) for the binary task, else (N, C)."""
        if self.task == "multilabel":
            p, t, counts = self._labels(preds, target)
            t = np.where(counts, t, -1)
        else:
            p, t = self._samples(preds, target)
        if p.ndim != (1 if self.task == "binary" else 2) or p.dtype.kind != "f":
            raise ValueError(f"[{type(self).__name__}] needs scores, came {p.dtype} {p.shape}")
        self.scores, self.targets = self.scores + [p], self.targets + [t]

    def _curve(self, scores: np.ndarray, positive: np.ndarray) -> float:
        raise NotImplementedError

    def _compute(self) -> Any:
        if not sum(len(t) for t in self.targets):
            raise RuntimeError(
                f"[{type(self).__name__}] compute() needs samples, came none: call update before"
            )
        scores, target = np.concatenate(self.scores), np.concatenate(self.targets)
        if self.task == "binary":
            return self._curve(scores, target == 1)
        if self.task == "multilabel":
            return self._of_labels(scores, target)
        each = np.array([self._curve(scores[:, c], target == c) for c in range(self.num_classes)])
        if self.average in (None, "none"):
            return each
        counts = np.bincount(target, minlength=self.num_classes).astype(float)
        weights = counts if self.average == "weighted" else (counts > 0).astype(float)
        return float((each * weights).sum() / weights.sum())

    def _of_labels(self, scores: np.ndarray, target: np.ndarray) -> Any:
        """target: -1 where a sample does not count for a label."""
        if self.average == "micro":
            return self._curve(scores[target >= 0], target[target >= 0] == 1)
        each = np.zeros(self.num_classes)
        for label, (column, t) in enumerate(zip(scores.T, target.T)):
            if (t >= 0).any():
                each[label] = self._curve(column[t >= 0], t[t >= 0] == 1)
        if self.average in (None, "none"):
            return each
        weights = (target == 1).sum(0) if self.average == "weighted" else np.ones(self.num_classes)
        return float(_ratio((each * weights).sum(), weights.sum()))


class AUROC(_Ranked):
    """The area under the ROC curve: how likely a positive has a higher score than a negative; 0 without both."""

    def _curve(self, scores: np.ndarray, positive: np.ndarray) -> float:
        hits, others = _steps(scores, positive)
        if not hits[-1] or not others[-1]:
            return 0.0
        x, y = np.r_[0, others] / others[-1], np.r_[0, hits] / hits[-1]
        return float(((x[1:] - x[:-1]) * (y[1:] + y[:-1])).sum() / 2)


class AveragePrecision(_Ranked):
    """The sum over thresholds of (recall gained) x precision; 0 without positives."""

    def _curve(self, scores: np.ndarray, positive: np.ndarray) -> float:
        hits, others = _steps(scores, positive)
        if not hits[-1]:
            return 0.0
        return float((np.diff(hits / hits[-1], prepend=0) * hits / (hits + others)).sum())


def _steps(scores: np.ndarray, positive: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Positives and negatives with a score of at least each distinct one, from the highest down."""
    order = np.argsort(-scores, kind="stable")
    ends = np.r_[np.flatnonzero(np.diff(scores[order])), len(order) - 1]
    hits = np.cumsum(positive[order])[ends]
    return hits, ends + 1 - hits
