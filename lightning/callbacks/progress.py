"""The progress bar, drawn by rich, on rank 0 of a terminal."""

from __future__ import annotations

import sys
import time
from typing import Any

from .callback import Callback


class RichProgressBar(Callback):
    """Batches, time and the values logged with prog_bar=True. refresh_rate: batches between updates, 0 for none."""

    changes_weights = False
    INTERVAL = 0.1  # s between updates: drawing costs more than a small step

    def __init__(self, refresh_rate: int = 1, leave: bool = False) -> None:
        self.refresh_rate, self.leave = refresh_rate, leave
        self._progress: Any = None
        self._task: Any = None
        self._last = 0.0

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self._open(trainer)

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        self._begin(f"Epoch {trainer.current_epoch}", trainer.fit_loop.total)

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if self._progress is not None:
            self._update(trainer, batch_idx, trainer.is_last_batch)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        if self._progress is not None:
            self._update(trainer, trainer.fit_loop.batch - 1, True)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        self._close()

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        self._close()

    def on_test_start(self, trainer: Any, pl_module: Any) -> None:
        self._open(trainer)
        self._begin("Testing", None)

    def on_test_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if self._progress is not None:
            self._update(trainer, batch_idx, False)

    def on_test_end(self, trainer: Any, pl_module: Any) -> None:
        self._close()

    def _open(self, trainer: Any) -> None:
        if not trainer.is_global_zero or not self.refresh_rate or not sys.stderr.isatty():
            return
        from rich.console import Console
        from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

        columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
        self._progress = Progress(*columns, TextColumn("{task.fields[values]}"), console=Console(stderr=True))
        self._progress.start()

    def _begin(self, title: str, total: int | None) -> None:
        if self._progress is None:
            return
        if self._task is not None and not self.leave:
            self._progress.remove_task(self._task)
        self._task = self._progress.add_task(title, total=total, values="")

    def _update(self, trainer: Any, batch_idx: int, now: bool) -> None:
        clock = time.monotonic()
        if not now and (clock - self._last < self.INTERVAL or (batch_idx + 1) % self.refresh_rate):
            return
        self._last = clock
        values = " ".join(f"{k}: {v:.4g}" for k, v in trainer.progress_bar_values.items())
        self._progress.update(self._task, completed=batch_idx + 1, values=values)

    def _close(self) -> None:
        if self._progress is not None:
            self._progress.stop()
        self._progress = self._task = None


TQDMProgressBar = RichProgressBar
