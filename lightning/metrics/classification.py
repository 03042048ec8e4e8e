"""Metrics of classification, all from counts of (target, prediction)."""

from __future__ import annotations

from typing import Any

import numpy as np

from .metric import Metric, array_of

AVERAGES = ("micro", "macro", "weighted", "none", None)


class _Classification(Metric):
    """task "binary": preds (N, ...) of classes, probabilities or logits; "multiclass": preds (N, C, ...) of scores,
    or (N, ...) of classes. target: (N, ...), integers. "multilabel": preds (N, L, ...) of 0 and 1, probabilities or
    logits, target (N, L, ...) of 0 and 1: any of L labels at once. Logits are told by values outside [0, 1].
    """

    tasks: tuple[str, ...] = ("binary", "multiclass")

    def __init__(
        self,
        task: str,
        num_classes: int | None = None,
        threshold: float = 0.5,
        ignore_index: int | None = None,
        num_labels: int | None = None,
    ) -> None:
        super().__init__()
        who = type(self).__name__
        if task not in self.tasks:
            raise ValueError(f"[{who}] task must be one of {self.tasks}, came {task!r}")
        if task == "multiclass" and (num_classes is None or num_classes < 2):
            raise ValueError(f"[{who}] task='multiclass' needs num_classes of at least 2, came {num_classes}")
        self.task, self.threshold, self.ignore_index = task, threshold, ignore_index
        if task == "multilabel" and (num_labels is None or num_labels < 2):
            raise ValueError(f"[{who}] task='multilabel' needs num_labels of at least 2, came {num_labels}")
        self.num_labels = num_labels if task == "multilabel" else None
        self.num_classes = 2 if task == "binary" else int(self.num_labels or num_classes or 0)

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

    def _labels(self, preds: Any, target: Any) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """(scores or 0 and 1, target, which count), each (N, L), checked."""
        who, p, t = type(self).__name__, array_of(preds), array_of(target)
        if p.shape != t.shape or p.ndim < 2 or p.shape[1] != self.num_labels:
            raise ValueError(
                f"[{who}] preds and target must be (N, {self.num_labels}, ...) for task='multilabel', came {p.shape} "
                f"and {t.shape}"
            )
        p, t = (np.moveaxis(a, 1, -1).reshape(-1, self.num_classes) for a in (p, t))
        counts = np.ones(t.shape, bool) if self.ignore_index is None else t != self.ignore_index
        for name, values in (("target", t[counts]), *((("preds", p),) if p.dtype.kind != "f" else ())):
            if not np.isin(values, (0, 1)).all():
                raise ValueError(
                    f"[{who}] {name} must be of 0 and 1 for task='multilabel', came {values.max()}"
                )
        return p, t.astype(np.int64), counts

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
    """average: "micro" (over all samples), "macro" (mean over classes that occur, or over all labels), "weighted" (with
    the classes' numbers of targets) or "none" (each class). In the binary task the value is that of class 1.
    """

    tasks = ("binary", "multiclass", "multilabel")
    hits: Any
    predicted: Any
    targets: Any
    samples: Any

    def __init__(
        self,
        task: str,
        num_classes: int | None = None,
        threshold: float = 0.5,
        average: str | None = "micro",
        top_k: int = 1,
        ignore_index: int | None = None,
        num_labels: int | None = None,
    ) -> None:
        super().__init__(task, num_classes, threshold, ignore_index, num_labels)
        who = type(self).__name__
        if average not in AVERAGES:
            raise ValueError(f"[{who}] average must be one of {AVERAGES}, came {average!r}")
        if top_k != 1 and (task != "multiclass" or not 1 <= top_k <= self.num_classes or who != "Accuracy"):
            raise ValueError(
                f"[{who}] top_k > 1 is for multiclass Accuracy, at most num_classes, came {top_k}"
            )
        self.average, self.top_k = average, top_k
        for name in ("hits", "predicted", "targets", "samples"):
            self.add_state(name, np.zeros(self.num_classes, np.int64))

    def update(self, preds: Any, target: Any) -> None:
        """Adds a batch; shapes as the class says."""
        if self.task == "multilabel":
            return self._add_labels(*self._labels(preds, target))
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

    def _add_labels(self, p: np.ndarray, t: np.ndarray, counts: np.ndarray) -> None:
        positive = (self._probabilities(p) > self.threshold) & counts
        t = (t == 1) & counts
        self.hits = self.hits + (positive & t).sum(0)
        self.predicted, self.targets = self.predicted + positive.sum(0), self.targets + t.sum(0)
        self.samples = self.samples + counts.sum(0)

    def _value(self, hits: Any, predicted: Any, targets: Any) -> Any:
        raise NotImplementedError

    def _compute(self) -> Any:
        h, p, t = self.hits, self.predicted, self.targets
        if not (self.samples if self.task == "multilabel" else t).sum():
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
        occurs = (p > 0) | (t > 0) | (self.task == "multilabel")
        weights = t.astype(float) if self.average == "weighted" else occurs.astype(float)
        return float(_ratio((each * weights).sum(), weights.sum()))


class Accuracy(_FromCounts):
    """The share of samples whose class is predicted (binary, micro), or of each class's samples; top_k: is among the
    k highest scores. Of labels: the share of samples in which they are predicted rightly, there or not.
    """

    def _value(self, hits: Any, predicted: Any, targets: Any) -> Any:
        return _ratio(hits, targets)

    def _compute(self) -> Any:
        if self.task == "binary" and self.targets.sum():
            return float(self.hits.sum() / self.targets.sum())
        if self.task == "multilabel" and self.samples.sum():
            right = self.samples - self.predicted - self.targets + 2 * self.hits
            if self.average in (None, "none"):
                return _ratio(right, self.samples)
            if self.average == "micro":
                return float(right.sum() / self.samples.sum())
            weights = self.targets if self.average == "weighted" else np.ones(self.num_classes)
            return float(_ratio((_ratio(right, self.samples) * weights).sum(), weights.sum()))
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


def _ratio(a: Any, b: Any) -> Any:
    a, b = np.asarray(a, float), np.asarray(b, float)
    return np.divide(a, b, out=np.zeros(np.broadcast(a, b).shape), where=b != 0)
