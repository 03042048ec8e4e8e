"""Metrics of classification: all from counts of (target, prediction), or of ranked scores."""

from __future__ import annotations

from typing import Any

import numpy as np

from .metric import Metric, array_of

TASKS = ("binary", "multiclass")
AVERAGES = ("micro", "macro", "weighted", "none", None)


class _Classification(Metric):
    """task "binary": preds (N, ...) of classes, probabilities or logits; "multiclass": preds (N, C, ...) of scores,
    or (N, ...) of classes. target: (N, ...), integers. Logits are told by values outside [0, 1].
    """

    def __init__(
        self,
        task: str,
        num_classes: int | None = None,
        threshold: float = 0.5,
        ignore_index: int | None = None,
    ) -> None:
        super().__init__()
        who = type(self).__name__
        if task not in TASKS:
            raise ValueError(f"[{who}] task must be one of {TASKS}, came {task!r}")
        if task == "multiclass" and (num_classes is None or num_classes < 2):
            raise ValueError(f"[{who}] task='multiclass' needs num_classes of at least 2, came {num_classes}")
        self.task, self.threshold, self.ignore_index = task, threshold, ignore_index
        self.num_classes = 2 if task == "binary" else int(num_classes or 0)

    def _samples(self, preds: Any, target: Any) -> tuple[np.ndarray, np.ndarray]:
        """(scores (N, C), or classes (N,) or binary scores (N,), target (N,)), checked and flat."""
        who, p, t = type(self).__name__, array_of(preds), array_of(target)
        if t.dtype.kind == "f":
            raise TypeError(f"[{who}] target must be of integers, came {t.dtype}")
        scores = self.task == "multiclass" and p.ndim == t.ndim + 1
        if p.shape != t.shape and not (scores and p.shape[:1] + p.shape[2:] == t.shape):
            raise ValueError(
                f"[{who}] preds and target must fit for task={self.task!r}, came {p.shape} and {t.shape}"
            )
        if scores:
            if p.shape[1] != self.num_classes:
                raise ValueError(f"[{who}] preds must have {self.num_classes} classes, came {p.shape}")
            p = np.moveaxis(p, 1, -1).reshape(-1, self.num_classes)
        else:
            p = p.reshape(-1)
        t = t.reshape(-1).astype(np.int64)
        if self.ignore_index is not None:
            p, t = p[t != self.ignore_index], t[t != self.ignore_index]
        for name, classes in (
            ("target", t),
            *((("preds", p),) if p.ndim == 1 and p.dtype.kind != "f" else ()),
        ):
            if classes.size and not 0 <= classes.min() <= classes.max() < self.num_classes:
                raise ValueError(
                    f"[{who}] {name} must be in 0 ... {self.num_classes - 1}, came {classes.min()} ... {classes.max()}"
                )
        return p, t

    def _probabilities(self, p: np.ndarray) -> np.ndarray:
        if p.dtype.kind != "f" or not p.size or (p.min() >= 0 and p.max() <= 1):
            return p
        return 1 / (1 + np.exp(-p.astype(np.float64)))

    def _classes(self, p: np.ndarray) -> np.ndarray:
        if p.ndim == 2:
            return p.argmax(1)
        if self.task == "binary" and p.dtype.kind == "f":
            return (self._probabilities(p) > self.threshold).astype(np.int64)
        if p.dtype.kind == "f":
            raise TypeError(
                f"[{type(self).__name__}] preds must be scores (N, C) or integers, came {p.dtype} {p.shape}"
            )
        return p.astype(np.int64)


class ConfusionMatrix(_Classification):
    """(C, C): row i, column j counts samples of class i that were predicted as j. normalize: "true" (rows sum to
    1), "pred" (columns) or "all".
    """

    counts: Any

    def __init__(
        self,
        task: str,
        num_classes: int | None = None,
        threshold: float = 0.5,
        normalize: str | None = None,
        ignore_index: int | None = None,
    ) -> None:
        super().__init__(task, num_classes, threshold, ignore_index)
        if normalize not in (None, "none", "true", "pred", "all"):
            raise ValueError(f"[ConfusionMatrix] normalize must be true, pred or all, came {normalize!r}")
        self.normalize = normalize
        self.add_state("counts", np.zeros((self.num_classes, self.num_classes), np.int64))

    def update(self, preds: Any, target: Any) -> None:
        """Adds a batch; shapes as the class says."""
        p, t = self._samples(preds, target)
        cells = np.bincount(t * self.num_classes + self._classes(p), minlength=self.num_classes**2)
        self.counts = self.counts + cells.reshape(self.counts.shape)

    def _compute(self) -> Any:
        if self.normalize in (None, "none"):
            return self.counts
        axis = {"true": 1, "pred": 0, "all": None}[str(self.normalize)]
        return _ratio(self.counts, self.counts.sum(axis, keepdims=True))


class _FromCounts(_Classification):
    """average: "micro" (over all samples), "macro" (mean over classes that occur), "weighted" (with the classes'
    numbers of targets) or "none" (each class). In the binary task the value is that of class 1.
    """

    hits: Any
    predicted: Any
    targets: Any

    def __init__(
        self,
        task: str,
        num_classes: int | None = None,
        threshold: float = 0.5,
        average: str | None = "micro",
        top_k: int = 1,
        ignore_index: int | None = None,
    ) -> None:
        super().__init__(task, num_classes, threshold, ignore_index)
        who = type(self).__name__
        if average not in AVERAGES:
            raise ValueError(f"[{who}] average must be one of {AVERAGES}, came {average!r}")
        if top_k != 1 and (task == "binary" or not 1 <= top_k <= self.num_classes or who != "Accuracy"):
            raise ValueError(
                f"[{who}] top_k > 1 is for multiclass Accuracy, at most num_classes, came {top_k}"
            )
        self.average, self.top_k = average, top_k
        for name in ("hits", "predicted", "targets"):
            self.add_state(name, np.zeros(self.num_classes, np.int64))

    def update(self, preds: Any, target: Any) -> None:
        """Adds a batch; shapes as the class says."""
        p, t = self._samples(preds, target)
        if self.top_k > 1:
            if p.ndim != 2:
                raise ValueError(f"[{type(self).__name__}] top_k needs scores (N, C), came {p.shape}")
            # As many classes as have a higher score, so that ties count for the earlier class as in argmax.
            own = p[np.arange(len(t)), t][:, None]
            ahead = (p > own).sum(1) + ((p == own) & (np.arange(p.shape[1]) < t[:, None])).sum(1)
            classes = np.where(ahead < self.top_k, t, p.argmax(1))
        else:
            classes = self._classes(p)
        n = self.num_classes
        self.hits = self.hits + np.bincount(t[classes == t], minlength=n)
        self.predicted = self.predicted + np.bincount(classes, minlength=n)
        self.targets = self.targets + np.bincount(t, minlength=n)

    def _value(self, hits: Any, predicted: Any, targets: Any) -> Any:
        raise NotImplementedError

    def _compute(self) -> Any:
        h, p, t = self.hits, self.predicted, self.targets
        if not t.sum():
            raise RuntimeError(
                f"[{type(self).__name__}] compute() needs samples, came none: call update before"
            )
        if self.task == "binary":
            return float(self._value(h[1], p[1], t[1]))
        if self.average == "micro":
            return float(self._value(h.sum(), p.sum(), t.sum()))
        each = self._value(h, p, t)
        if self.average in (None, "none"):
            return each
        weights = t.astype(float) if self.average == "weighted" else ((p > 0) | (t > 0)).astype(float)
        return float((each * weights).sum() / weights.sum())


class Accuracy(_FromCounts):
    """The share of samples whose class is predicted (binary, micro), or of each class's samples; top_k: is among the
    k highest scores.
    """

    def _value(self, hits: Any, predicted: Any, targets: Any) -> Any:
        return _ratio(hits, targets)

    def _compute(self) -> Any:
        if self.task == "binary" and self.targets.sum():
            return float(self.hits.sum() / self.targets.sum())
        return super()._compute()


class Precision(_FromCounts):
    """The share of samples predicted as a class that are of it; 0 where none is predicted."""

    def _value(self, hits: Any, predicted: Any, targets: Any) -> Any:
        return _ratio(hits, predicted)


class Recall(_FromCounts):
    """The share of a class's samples that are predicted as it; 0 where there are none."""

    def _value(self, hits: Any, predicted: Any, targets: Any) -> Any:
        return _ratio(hits, targets)


class F1Score(_FromCounts):
    """The harmonic mean of precision and recall."""

    def _value(self, hits: Any, predicted: Any, targets: Any) -> Any:
        return _ratio(2 * hits, predicted + targets)


class _Ranked(_Classification):
    """Keeps all scores: the value depends on their order. average: "macro", "weighted" or "none", over classes that
    occur, each against the others.
    """

    scores: Any
    targets: Any

    def __init__(
        self,
        task: str,
        num_classes: int | None = None,
        average: str | None = "macro",
        ignore_index: int | None = None,
    ) -> None:
        super().__init__(task, num_classes, ignore_index=ignore_index)
        if average not in ("macro", "weighted", "none", None):
            raise ValueError(
                f"[{type(self).__name__}] average must be macro, weighted or none, came {average!r}"
            )
        self.average = average
        self.add_state("scores", [])
        self.add_state("targets", [])

    def update(self, preds: Any, target: Any) -> None:
        """Adds a batch of scores: (N,) for the binary task, else (N, C)."""
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
        each = np.array([self._curve(scores[:, c], target == c) for c in range(self.num_classes)])
        if self.average in (None, "none"):
            return each
        counts = np.bincount(target, minlength=self.num_classes).astype(float)
        weights = counts if self.average == "weighted" else (counts > 0).astype(float)
        return float((each * weights).sum() / weights.sum())


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


def _ratio(a: Any, b: Any) -> Any:
    a, b = np.asarray(a, float), np.asarray(b, float)
    return np.divide(a, b, out=np.zeros(np.broadcast(a, b).shape), where=b != 0)
