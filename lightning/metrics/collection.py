"""Several metrics of the same predictions as one."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from ...nn import ModuleDict
from .metric import Metric


class MetricCollection(ModuleDict):
    """`MetricCollection([Accuracy(...), F1Score(...)], prefix="val_")`: update, compute and reset all of them.

    Names are the classes', or the keys of a dict. Calls return dicts; `self.log_dict(collection)` logs every metric.
    """

    def __init__(
        self, metrics: Mapping[str, Metric] | Iterable[Metric], prefix: str = "", postfix: str = ""
    ) -> None:
        named = dict(metrics) if isinstance(metrics, Mapping) else None
        if named is None:
            listed = list(metrics)
            named = {type(metric).__name__: metric for metric in listed}
            if len(named) < len(listed):
                raise ValueError("[MetricCollection] metrics of one class need names: pass a dict")
        super().__init__()
        for name, metric in named.items():
            self[f"{prefix}{name}{postfix}"] = metric

    def update(self, *args: Any, **kwargs: Any) -> None:
        """Adds a batch to each."""
        for metric in self.values():
            metric.update(*args, **kwargs)

    def forward(self, *args: Any, **kwargs: Any) -> dict[str, Any]:
        """Adds a batch to each; returns the batch's own values."""
        return {name: metric(*args, **kwargs) for name, metric in self.items()}

    def compute(self) -> dict[str, Any]:
        """The values over all batches and workers."""
        return {name: metric.compute() for name, metric in self.items()}

    def reset(self) -> None:
        """Forgets all batches."""
        for metric in self.values():
            metric.reset()
