"""Errors of numbers: sums in float64, so that the order of batches and the number of workers do not matter."""

from __future__ import annotations

from typing import Any

import numpy as np

from .metric import Metric, array_of


def _pair(who: str, preds: Any, target: Any) -> tuple[np.ndarray, np.ndarray]:
    a, b = array_of(preds).astype(np.float64), array_of(target).astype(np.float64)
    if a.shape != b.shape:
        raise ValueError(f"[{who}] preds and target must have one shape, came {a.shape} and {b.shape}")
    return a, b


class _MeanError(Metric):
    total: Any
    count: Any

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", 0.0)
        self.add_state("count", 0)

    def _error(self, difference: np.ndarray) -> np.ndarray:
        raise NotImplementedError

    def update(self, preds: Any, target: Any) -> None:
        """preds, target: numbers of one shape."""
        a, b = _pair(type(self).__name__, preds, target)
        self.total, self.count = self.total + self._error(a - b).sum(), self.count + a.size

    def _compute(self) -> float:
        if not self.count:
            raise RuntimeError(
                f"[{type(self).__name__}] compute() needs samples, came none: call update before"
            )
        return float(self.total / self.count)


class MeanSquaredError(_MeanError):
    """The mean of squared differences; squared=False: its root."""

    def __init__(self, squared: bool = True) -> None:
        super().__init__()
        self.squared = squared

    def _error(self, difference: np.ndarray) -> np.ndarray:
        return difference**2

    def _compute(self) -> float:
        value = super()._compute()
        return value if self.squared else value**0.5


class MeanAbsoluteError(_MeanError):
    """The mean of absolute differences."""

    def _error(self, difference: np.ndarray) -> np.ndarray:
        return np.abs(difference)


class R2Score(Metric):
    """1 - residual sum of squares / total sum of squares; of targets that vary.

    Keeps all targets and predictions, as sums of squares alone lose digits where the mean is far from 0.
    """

    preds: Any
    target: Any

    def __init__(self) -> None:
        super().__init__()
        self.add_state("preds", [])
        self.add_state("target", [])

    def update(self, preds: Any, target: Any) -> None:
        """preds, target: (N,)."""
        a, b = _pair("R2Score", preds, target)
        self.preds, self.target = self.preds + [a.reshape(-1)], self.target + [b.reshape(-1)]

    def _compute(self) -> float:
        if not self.target:
            raise RuntimeError("[R2Score] compute() needs samples, came none: call update before")
        preds, target = np.concatenate(self.preds), np.concatenate(self.target)
        if len(target) < 2:
            return float("nan")
        spread = ((target - target.mean()) ** 2).sum()
        residual = ((target - preds) ** 2).sum()
        return float(1 - residual / spread) if spread else float(residual == 0)


class Perplexity(Metric):
    """exp of the mean negative log-likelihood of tokens. ignore_index: a target that does not count."""

    total: Any
    count: Any

    def __init__(self, ignore_index: int | None = None) -> None:
        super().__init__()
        self.ignore_index = ignore_index
        self.add_state("total", 0.0)
        self.add_state("count", 0)

    def update(self, preds: Any, target: Any) -> None:
        """preds: (batch, tokens, vocabulary), logits; target: (batch, tokens), integers."""
        logits, tokens = array_of(preds).astype(np.float64), array_of(target)
        if logits.ndim != 3 or logits.shape[:2] != tokens.shape:
            raise ValueError(
                "[Perplexity] preds must be (batch, tokens, vocabulary) and target (batch, tokens), came "
                f"{logits.shape} and {tokens.shape}"
            )
        keep = np.ones(tokens.shape, bool) if self.ignore_index is None else tokens != self.ignore_index
        logits, tokens = logits[keep], tokens[keep].astype(np.int64)
        top = logits.max(-1, keepdims=True, initial=-np.inf)
        log_total = np.log(np.exp(logits - top).sum(-1)) + top[:, 0]
        self.total = self.total + (log_total - logits[np.arange(len(tokens)), tokens]).sum()
        self.count = self.count + len(tokens)

    def _compute(self) -> float:
        if not self.count:
            raise RuntimeError("[Perplexity] compute() needs tokens, came none: call update before")
        return float(np.exp(self.total / self.count))
