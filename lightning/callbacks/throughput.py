"""ThroughputMonitor: how fast training is, what the time goes into, and who is slow."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import wraps
from typing import Any

from ..results import size_of
from .callback import Callback


class Window:
    """Seconds and counts of one worker since the last look."""

    def __init__(self) -> None:
        self.batches = self.samples = self.items = 0
        self.busy = self.communication = self.stall = 0.0

    def row(self) -> list[float]:
        return [self.batches, self.samples, self.items, self.busy, self.communication, self.stall]


class ThroughputMonitor(Callback):
    """Logs, each `log_every_n_steps` steps, over the steps since the last time and all workers:

    throughput/samples_per_s, throughput/items_per_s (with length_fn: tokens), throughput/step_ms;
    share/compute, share/communication (exchanging gradients and, under ZeRO, parameters: what backward did not hide),
    share/stall (waiting for the loader); throughput/straggler: the rank that the others wait for, -1 where none is
    10 % slower than the middle one. batch_size_fn, length_fn: from a batch its samples and its items; by default the
    first dimension of the first tensor. Validation does not count.
    """

    changes_weights = False

    def __init__(
        self,
        batch_size_fn: Callable[[Any], int] = size_of,
        length_fn: Callable[[Any], int] | None = None,
        verbose: bool = False,
    ) -> None:
        self.batch_size_fn, self.length_fn, self.verbose = batch_size_fn, length_fn, verbose
        self.window = Window()
        self.values: dict[str, float] = {}  # as they were logged last
        self._began = self._ended = 0.0
        self._timed: list[tuple[Any, str]] = []
        self._exchanging = False

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        for owner, name in trainer.strategy.exchanges(trainer.optimizers):
            self._time_exchange(owner, name)
        self._restart()

    def on_train_batch_start(self, trainer: Any, pl_module: Any, batch: Any, batch_idx: int) -> None:
        self._began = time.perf_counter()
        if self._ended:
            self.window.stall += self._began - self._ended

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        window = self.window
        window.busy += time.perf_counter() - self._began
        window.batches += 1
        window.samples += self.batch_size_fn(batch)
        if self.length_fn is not None:
            window.items += self.length_fn(batch)
        every, loop = trainer.log_every_n_steps, trainer.fit_loop
        if every and loop.batches_that_stepped and loop.batches_that_stepped % every == 0:
            self._publish(trainer)
        self._ended = time.perf_counter()

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        self._ended = 0.0

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        self._ended = time.perf_counter()

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        if self.window.batches:  # as many on all workers
            self._publish(trainer)
        while self._timed:
            owner, name = self._timed.pop()
            del owner.__dict__[name]

    def _publish(self, trainer: Any) -> None:
        self.values = summary(trainer.strategy.gather_object(self.window.row()), self.length_fn is not None)
        trainer.callback_values.update(self.values)
        trainer.log_metrics(self.values)
        self._tell(trainer)
        self.window = Window()

    def _restart(self) -> None:
        self.window, self._ended = Window(), 0.0

    def _tell(self, trainer: Any) -> None:
        rank = int(self.values["throughput/straggler"])
        if self.verbose and rank >= 0:
            trainer.print(f"[ThroughputMonitor] step {trainer.global_step}: the workers wait for rank {rank}")

    def _time_exchange(self, owner: Any, name: str) -> None:
        """Puts a clock around a method that waits for other workers; what it calls is within its time."""
        exchange = getattr(owner, name)

        @wraps(exchange)
        def timed(*args: Any, **kwargs: Any) -> Any:
            if self._exchanging:
                return exchange(*args, **kwargs)
            self._exchanging, start = True, time.perf_counter()
            try:
                return exchange(*args, **kwargs)
            finally:
                self._exchanging = False
                self.window.communication += time.perf_counter() - start

        owner.__dict__[name] = timed
        self._timed.append((owner, name))


def summary(rows: list[list[float]], items: bool) -> dict[str, float]:
    """What the workers' windows say together."""
    own = [busy - communication + stall for *_, busy, communication, stall in rows]
    seconds = max(busy + stall for *_, busy, _, stall in rows)
    total = sum(busy + stall for *_, busy, _, stall in rows)
    communication, stall = sum(row[4] for row in rows) / total, sum(row[5] for row in rows) / total
    slowest, middle = max(range(len(rows)), key=own.__getitem__), sorted(own)[(len(own) - 1) // 2]
    found = {
        "throughput/samples_per_s": sum(row[1] for row in rows) / seconds,
        "throughput/step_ms": 1e3 * seconds / rows[0][0],
        "throughput/straggler": float(slowest if own[slowest] > 1.1 * middle else -1),
        "share/compute": 1 - communication - stall,
        "share/communication": communication,
        "share/stall": stall,
    }
    if items:
        found["throughput/items_per_s"] = sum(row[2] for row in rows) / seconds
    return found
