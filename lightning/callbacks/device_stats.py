"""DeviceStatsMonitor: what training does to the machine, in the loggers."""

from __future__ import annotations

import os
import resource
from typing import Any

from .callback import Callback


class DeviceStatsMonitor(Callback):
    """Logs, on rank 0 with the loggers' steps: memory of this process and of the machine, load, context switches,
    and on a GPU its memory. Names begin with "device/"; sizes are in MB.
    """

    changes_weights = False

    def __init__(self, cpu_stats: bool | None = None) -> None:
        self.cpu_stats = cpu_stats is not False

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        if stage == "fit" and not trainer.loggers:
            raise ValueError("[DeviceStatsMonitor] needs a logger, came Trainer(logger=False)")

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        every = trainer.log_every_n_steps
        if every and trainer.fit_loop.batches_that_stepped % every == 0 and trainer.is_global_zero:
            found = cpu_stats() if self.cpu_stats else {}
            if pl_module.device.type == "cuda":
                found |= _cuda_stats()
            trainer.log_metrics({f"device/{name}": value for name, value in found.items()})


def cpu_stats() -> dict[str, float]:
    """This process's and this machine's state, from Linux's /proc."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    with open("/proc/self/statm") as file:
        resident = int(file.read().split()[1]) * resource.getpagesize()
    with open("/proc/meminfo") as file:
        memory = {line.split(":")[0]: int(line.split()[1]) for line in file}
    return {
        "resident_mb": resident / 1e6,
        "peak_mb": max(usage.ru_maxrss * 1024, resident) / 1e6,
        "available_mb": memory["MemAvailable"] * 1024 / 1e6,
        "load_1min": os.getloadavg()[0],
        "cpu_seconds": usage.ru_utime + usage.ru_stime,
        "involuntary_switches": float(usage.ru_nivcsw),
    }


def _cuda_stats() -> dict[str, float]:
    import cupy

    free, total = cupy.cuda.runtime.memGetInfo()
    pool = cupy.get_default_memory_pool()
    return {"gpu_used_mb": (total - free) / 1e6, "gpu_pool_mb": pool.used_bytes() / 1e6}
