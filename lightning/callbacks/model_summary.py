"""ModelSummary: a table of the module's parts before training."""

from __future__ import annotations

from typing import Any

from ..tables import summary_table
from .callback import Callback


class ModelSummary(Callback):
    """Prints names, types and numbers of parameters of submodules down to `max_depth` (-1: all)."""

    def __init__(self, max_depth: int = 1) -> None:
        self.max_depth = max_depth

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        if not trainer.is_global_zero or not self.max_depth:
            return
        rows = [
            (name, type(module).__name__, sum(p.numel() for p in module.parameters()), module.training)
            for name, module in pl_module.named_modules()
            if name and (self.max_depth == -1 or name.count(".") < self.max_depth)
        ]
        parameters = list(pl_module.parameters())
        total = sum(p.numel() for p in parameters)
        trainable = sum(p.numel() for p in parameters if p.requires_grad)
        summary_table(rows, total, trainable, sum(p.array.nbytes for p in parameters))
