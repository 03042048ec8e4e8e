"""HTMLReport: a run as one page to look at, mail, or keep."""

from __future__ import annotations

import math
import os
import time
from datetime import datetime
from typing import Any

from ..loggers.logger import Logger, as_dict
from ..report import page
from .throughput import ThroughputMonitor


class HTMLReport(ThroughputMonitor):
    """Writes <log_dir>/report.html: curves of all that is logged, the learning rate, throughput, what the time went
    into. One file without scripts or links, in light and dark. It is written anew every `refresh` seconds and at
    the end, also of a run that fails. path: another place for it. The other arguments are ThroughputMonitor's.
    """

    def __init__(
        self, path: str | os.PathLike[str] | None = None, refresh: float = 30.0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.path = None if path is None else os.path.abspath(path)
        self.refresh = refresh
        self.recorder = Recorder()
        self._started, self._written = time.monotonic(), -math.inf  # the first is there after a step
        self._status = "running"

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        if stage == "fit":
            if self.path is None:
                self.path = os.path.join(trainer.log_dir, "report.html")
            if self.recorder not in trainer.loggers:
                trainer.loggers.append(self.recorder)
            self._started, self._status = time.monotonic(), "running"

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        super().on_train_batch_end(trainer, pl_module, outputs, batch, batch_idx)
        every, steps = trainer.log_every_n_steps, trainer.fit_loop.batches_that_stepped
        if trainer.is_global_zero and every and (steps % every == 0 or steps == 1):
            for name, value in rates(trainer).items():
                self.recorder.add(name, steps - 1, value)
            if time.monotonic() - self._written > self.refresh:
                self._write(trainer, pl_module)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        super().on_train_end(trainer, pl_module)
        self._status = "interrupted" if trainer.interrupted else "finished"
        self._write(trainer, pl_module)

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        if trainer.stage == "fit":
            self._status = f"ended by {type(exception).__name__}: {exception}"[:200]
            self._write(trainer, pl_module)

    def _write(self, trainer: Any, module: Any) -> None:
        if not trainer.is_global_zero or self.path is None:
            return
        self._written = time.monotonic()
        text = page(
            f"Training of {type(module).__name__}",
            f"{self._status} at {datetime.now():%Y-%m-%d %H:%M:%S}",
            self.recorder.series,
            self._facts(trainer, module),
            self.recorder.hparams,
        )
        os.makedirs(os.path.dirname(self.path), exist_ok=True)
        with open(self.path + ".new", "w", encoding="utf-8") as file:
            file.write(text)
        os.replace(self.path + ".new", self.path)

    def _facts(self, trainer: Any, module: Any) -> dict[str, Any]:
        seconds = int(time.monotonic() - self._started)
        facts: dict[str, Any] = {
            "epochs": trainer.current_epoch,
            "steps": trainer.global_step,
            "time": f"{seconds // 3600}:{seconds // 60 % 60:02d}:{seconds % 60:02d}",
            "workers": trainer.world_size,
            "parameters": sum(p.numel() for p in module.parameters()),
        }
        if self.values:
            facts["samples/s"] = round(self.values["throughput/samples_per_s"])
            facts["communication"] = f"{100 * self.values['share/communication']:.3g} %"
            rank = int(self.values["throughput/straggler"])
            facts["straggler"] = f"rank {rank}" if rank >= 0 else "none"
        return facts


class Recorder(Logger):
    """Keeps what is logged: name -> (step, value)."""

    def __init__(self) -> None:
        self.series: dict[str, list[tuple[float, float]]] = {}
        self.hparams: dict[str, Any] = {}

    def add(self, name: str, step: float, value: float) -> None:
        self.series.setdefault(name, []).append((float(step), float(value)))

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        for name, value in metrics.items():
            self.add(name, step or 0, value)

    def log_hyperparams(self, params: Any, *args: Any) -> None:
        self.hparams.update(as_dict(params))


def rates(trainer: Any) -> dict[str, float]:
    """Learning rates by optimizer and parameter group."""
    found = {}
    for optimizer in trainer.optimizers:
        for i, group in enumerate(optimizer.param_groups):
            name = f"lr-{type(optimizer).__name__}" + (
                f"/pg{i + 1}" if len(optimizer.param_groups) > 1 else ""
            )
            found[name] = float(group["lr"])
    return found
