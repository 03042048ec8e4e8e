"""When the time on a machine is over: a checkpoint is saved, Slurm is asked for another turn, training ends."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
import time
from types import FrameType
from typing import Any

INTERVAL = 0.25  # s between the moments at which workers ask each other: they must stop after the same batch


class SLURMEnvironment:
    """For Trainer(plugins=...): how the trainer behaves in a Slurm job.

    auto_requeue: `scontrol requeue` once a checkpoint is saved. requeue_signal: what Slurm was told to send before
    the job's time is over, as `#SBATCH --signal=SIGUSR1@120` does.
    """

    def __init__(self, auto_requeue: bool = True, requeue_signal: int | None = None) -> None:
        self.auto_requeue = auto_requeue
        self.requeue_signal = signal.Signals(requeue_signal or signal.SIGUSR1)

    @property
    def job_id(self) -> str | None:
        """This job's, by which it is requeued: <array job>_<task> within an array."""
        env = os.environ
        if env.get("SLURM_ARRAY_JOB_ID") and env.get("SLURM_ARRAY_TASK_ID"):
            return f"{env['SLURM_ARRAY_JOB_ID']}_{env['SLURM_ARRAY_TASK_ID']}"
        # An interactive shell's training is over when its terminal is.
        return (
            None if env.get("SLURM_JOB_NAME") in ("bash", "interactive") else env.get("SLURM_JOB_ID") or None
        )


class Signals:
    """Within it, SIGTERM (a preemption) and Slurm's warning are noted; `look` acts on them between two batches.

    A handler that the script has installed before stays.
    """

    def __init__(self, trainer: Any, slurm: SLURMEnvironment) -> None:
        self.trainer, self.slurm = trainer, slurm
        self.received, self.pid = 0, os.getpid()
        self.before: dict[int, Any] = {}
        self.every, self.batches, self.since = 1, 0, time.monotonic()

    def __enter__(self) -> Signals:
        wanted = [signal.SIGTERM]
        if self.slurm.job_id is not None:
            wanted.append(self.slurm.requeue_signal)
        if threading.current_thread() is threading.main_thread():
            for signum in wanted:
                if signal.getsignal(signum) == signal.SIG_DFL:
                    self.before[signum] = signal.signal(signum, self._note)
        return self

    def __exit__(self, *_: object) -> None:
        for signum, handler in self.before.items():
            signal.signal(signum, handler)

    def _note(self, signum: int, frame: FrameType | None) -> None:
        if os.getpid() == self.pid:
            self.received = signum
        else:  # a process that was forked from ours, such as a loader's worker, is no concern of ours
            signal.signal(signum, signal.SIG_DFL)
            os.kill(os.getpid(), signum)

    def look(self) -> None:
        """After each batch: if a signal has come to any worker, all save and leave. Raises SystemExit then."""
        strategy = self.trainer.strategy
        received = self.received
        if strategy.world_size > 1:
            self.batches += 1
            if self.batches < self.every:
                return
            seconds = (time.monotonic() - self.since) / self.batches
            answers = strategy.gather_object([received, seconds])
            received = max(answer[0] for answer in answers)
            slowest = max(answer[1] for answer in answers)
            self.every, self.batches = max(1, int(INTERVAL / max(slowest, 1e-4))), 0
            self.since = time.monotonic()
        if received:
            self._leave(signal.Signals(received))

    def _leave(self, received: signal.Signals) -> None:
        trainer, path = self.trainer, hpc_path(self.trainer)
        trainer.save_checkpoint(path)
        trainer.checkpoint_io.teardown()  # it is on disk before anybody is told so
        code = 128 + received
        if trainer.is_global_zero:
            print(f"[Trainer] {received.name}: saved {path}", file=sys.stderr)
            if received == self.slurm.requeue_signal and self.slurm.auto_requeue and self._requeue():
                code = 0
        code = trainer.strategy.broadcast_object(int(code))
        raise SystemExit(code)

    def _requeue(self) -> bool:
        command = ["scontrol", "requeue", str(self.slurm.job_id)]
        try:
            subprocess.run(command, check=True, capture_output=True, text=True, timeout=60)
        except (OSError, subprocess.SubprocessError) as error:
            told = (getattr(error, "stderr", None) or str(error)).strip()
            print(
                f"[Trainer] `{' '.join(command)}` failed: {told}; submit the job again to go on",
                file=sys.stderr,
            )
            return False
        print(f"[Trainer] requeued job {self.slurm.job_id}, which will go on from there", file=sys.stderr)
        return True


def hpc_path(trainer: Any) -> str:
    """Where a job that is cut off leaves its checkpoint. Slurm's jobs keep their number when they are requeued."""
    job = trainer.slurm.job_id
    return os.path.join(trainer.default_root_dir, f"hpc_ckpt_{job}.ckpt" if job else "hpc_ckpt.ckpt")
