"""Watch over the workers of one host from start to end, and leave nothing behind."""

import os
import selectors
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NamedTuple

from .failure import Failure, read_failures
from .guard import Guard, kill_group, kill_job, lock_run_dir, make_run_dir, remove_run_dir
from .host import MemoryKills, usable_cores
from .output import Sink, Stream
from .spawn import Job, Worker, start_worker, worker_variables
from .verdict import died, verdict

FAILURE_GRACE = 1.0  # s for other ranks to report on their own after a first failure
TERMINATE_GRACE = 0.7  # s between SIGTERM and SIGKILL after that
UNKILLABLE = 10.0  # s after SIGKILL: what still lives then waits in the kernel and can not be killed


class Outcome(NamedTuple):
    """How a job ended. `exit_code`: 0, the first failure's, or 128 + the stopping signal; `root`: the first failure."""

    exit_code: int
    root: Failure | None = None
    stopped: bool = False  # by a signal to ringrun, or by a reader that left


def supervise(job: Job) -> Outcome:
    """Run the job to its end."""
    run_dir = make_run_dir()
    lock = lock_run_dir(run_dir)
    guard = Guard(run_dir, lock)
    groups: set[int] = set()
    try:
        supervisor = _Supervisor(job, run_dir, guard, groups)
        return supervisor.run()
    finally:
        kill_job(groups, run_dir)
        remove_run_dir(run_dir)
        guard.dismiss()
        os.close(lock)


class _Supervisor:
    def __init__(self, job: Job, run_dir: str, guard: Guard, groups: set[int]) -> None:
        self.job, self.run_dir, self.guard, self.groups = job, run_dir, guard, groups
        self.out, self.err = Sink(1), Sink(2)
        if self.err.same_as(self.out):
            self.err = self.out
        self.workers: list[Worker] = []
        self.live: list[Worker] = []
        self.streams: list[Stream] = []
        self.deaths: list[Failure] = []
        self.alarms: list[tuple[float, Callable[[], None]]] = []
        self.stop_signal: int | None = None
        self.failed = False
        self.ending_at: float | None = None  # when we began to end workers: what dies later is no failure
        self.memory = MemoryKills.now()
        self.selector = selectors.DefaultSelector()

    def run(self) -> Outcome:
        report_read, report_write = os.pipe()
        os.set_blocking(report_read, False)
        try:
            with self._signals():
                self.selector.register(report_read, selectors.EVENT_READ, self._hear_reports)
                self._start_all(report_write)
                while self.live:
                    self._wait()
                    self._reap()
                    self._ring_alarms()
                # A descendant in another session can hold a pipe: end those before reading what is left.
                kill_job(self.groups, self.run_dir)
                return self._conclude()
        except BrokenPipeError:  # nobody reads our output any more, as after `ringrun ... | head`
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return Outcome(128 + signal.SIGPIPE, stopped=True)
        finally:
            self._abandon()
            os.close(report_read)
            os.close(report_write)
            self.selector.close()

    def _start_all(self, report_fd: int) -> None:
        cores = usable_cores()
        for local_rank in range(self.job.workers):
            if self.ending_at is not None:
                return
            place = self.job.place(local_rank, self.run_dir)
            variables = worker_variables(self.job, place, os.environ, cores)
            worker, streams = start_worker(self.job, place, variables, self.out, self.err, report_fd)
            self.guard.watch(worker.pid)
            self.groups.add(worker.pid)
            self.workers.append(worker)
            self.live.append(worker)
            for stream in streams:
                self.streams.append(stream)
                self.selector.register(stream.fd, selectors.EVENT_READ, stream)
        if self.ending_at is not None:  # a signal came while the last one started
            self._send(signal.SIGTERM)

    def _wait(self) -> None:
        times = [when for when, _ in self.alarms] + [s.show_at for s in self.streams if s.show_at is not None]
        timeout = max(0.0, min(times) - time.monotonic()) if times else None
        for key, _ in self.selector.select(timeout):
            if not isinstance(key.data, Stream):
                key.data(key.fd)
            elif not key.data.read():
                self._close(key.data)
        now = time.monotonic()
        for stream in self.streams:
            if stream.show_at is not None and stream.show_at <= now:
                stream.show_open_line()

    def _hear_reports(self, fd: int) -> None:
        os.read(fd, 4096)  # the reports themselves are files
        self._fail()

    def _reap(self) -> None:
        for worker in list(self.live):
            # Look first without reaping: its process group's number is its own for as long as it is a zombie.
            if os.waitid(os.P_PID, worker.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
                continue
            kill_group(worker.pid)
            self.live.remove(worker)
            self.groups.discard(worker.pid)
            self.guard.forget(worker.pid)
            worker.status = worker.process.wait()
            if worker.status != 0 and self.ending_at is None:
                evidence = MemoryKills.now().explain_since(self.memory)
                times = time.monotonic(), time.time()
                self.deaths.append(died(worker.rank, worker.pid, worker.status, *times, evidence))
                self._fail()

    def _fail(self) -> None:
        if not self.failed and self.ending_at is None:
            self.failed = True
            self._at(FAILURE_GRACE, lambda: self._end(signal.SIGTERM, TERMINATE_GRACE))

    def _end(self, signum: int, grace: float) -> None:
        self.ending_at = time.monotonic()
        self._send(signum)
        self._at(grace, self._kill)

    def _kill(self) -> None:
        for worker in list(self.live):
            kill_group(worker.pid)
        self._at(UNKILLABLE, self._give_up)

    def _give_up(self) -> None:
        pids = ", ".join(str(worker.pid) for worker in self.live)
        self.err.write_block(
            f"[ringrun] SIGKILL did not end process {pids}: it waits in the kernel; leaving it\n"
        )
        self.live.clear()

    def _send(self, signum: int) -> None:
        for worker in list(self.live):
            os.kill(worker.pid, signum)  # not reaped yet, so the number is still its own

    def _at(self, seconds: float, action: Callable[[], None]) -> None:
        self.alarms.append((time.monotonic() + seconds, action))

    def _ring_alarms(self) -> None:
        now = time.monotonic()
        due = [alarm for alarm in self.alarms if alarm[0] <= now]
        for alarm in due:
            self.alarms.remove(alarm)
            alarm[1]()

    @contextmanager
    def _signals(self) -> Iterator[None]:
        """Handlers act at once, even while a write to a stopped terminal blocks; the loop does the rest."""
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_read, False)
        os.set_blocking(wake_write, False)
        self.selector.register(wake_read, selectors.EVENT_READ, lambda fd: os.read(fd, 4096))
        handlers: dict[int, Callable[[int, FrameType | None], None]] = {
            signal.SIGINT: self._on_stop,
            signal.SIGTERM: self._on_stop,
            signal.SIGHUP: self._on_stop,
            signal.SIGTSTP: self._on_suspend,
            signal.SIGUSR1: lambda signum, _: self._send(signum),  # Slurm's warning before a job's time is up
            signal.SIGUSR2: lambda signum, _: self._send(signum),
            signal.SIGCHLD: lambda signum, _: None,
        }
        # What is ignored stays ignored: nohup, and jobs that a shell started in the background.
        before = {n: signal.getsignal(n) for n in handlers if signal.getsignal(n) != signal.SIG_IGN}
        before[signal.SIGCHLD] = signal.getsignal(signal.SIGCHLD)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        for signum in before:
            signal.signal(signum, handlers[signum])
        try:
            yield
        finally:
            for signum, handler in before.items():
                signal.signal(signum, handler)
            signal.set_wakeup_fd(-1)
            os.close(wake_read)
            os.close(wake_write)

    def _on_stop(self, signum: int, frame: FrameType | None) -> None:
        if self.failed or self.stop_signal is not None:
            self.ending_at = self.ending_at or time.monotonic()
            self._kill()
        else:
            self.stop_signal = signum
            self._end(signal.SIGINT if signum == signal.SIGINT else signal.SIGTERM, self.job.grace)
            self._at(1.0, self._ask_for_patience)

    def _ask_for_patience(self) -> None:
        count = len(self.live)
        self.err.write_block(
            f"[ringrun] waiting up to {self.job.grace:g} s for {count} to finish; again kills at once\n"
        )

    def _on_suspend(self, signum: int, frame: FrameType | None) -> None:
        for worker in self.live:
            kill_group(worker.pid, signal.SIGSTOP)
        os.kill(os.getpid(), signal.SIGSTOP)
        for worker in self.live:
            kill_group(worker.pid, signal.SIGCONT)

    def _close(self, stream: Stream) -> None:
        self.selector.unregister(stream.fd)
        self.streams.remove(stream)
        stream.close()

    def _conclude(self) -> Outcome:
        """Show the rest of the output, then say what happened."""
        while self.streams:
            stream = self.streams.pop()
            self.selector.unregister(stream.fd)
            stream.drain()
        failures = self._failures()
        if failures:
            failed = {failure.rank for failure in failures}
            ended = sum(worker.status != 0 and worker.rank not in failed for worker in self.workers)
            logs = {worker.rank: worker.log for worker in self.workers if worker.log}
            self._log_tracebacks(failures, logs)
            self.err.write_block(verdict(failures, ended, logs))
        if self.stop_signal is not None:
            self.err.write_block(f"[ringrun] stopped by {signal.Signals(self.stop_signal).name}\n")
            return Outcome(128 + self.stop_signal, stopped=True)
        return Outcome(failures[0].exit_code, failures[0]) if failures else Outcome(0)

    def _failures(self) -> list[Failure]:
        """What counts as failure, the root cause first: not what our own signals brought about."""
        end = self.ending_at if self.ending_at is not None else float("inf")
        reported = [
            failure
            for failure in read_failures(self.run_dir)
            if failure.monotonic < end or _own_fault(failure)
        ]
        ranks = {failure.rank for failure in reported}
        silent = [death for death in self.deaths if death.rank not in ranks]
        return sorted(reported + silent, key=lambda f: (f.is_consequence, f.monotonic))

    def _log_tracebacks(self, failures: list[Failure], logs: dict[int, str]) -> None:
        for failure in failures:
            if failure.rank in logs:
                with open(logs[failure.rank], "a", encoding="utf-8", errors="backslashreplace") as log:
                    log.write(failure.traceback)

    def _abandon(self) -> None:
        """Reap what an exception left running. Does nothing after a regular end."""
        for worker in self.live:
            kill_group(worker.pid)
            worker.process.wait()
        for stream in self.streams:
            os.close(stream.fd)


def _own_fault(failure: Failure) -> bool:
    """A signal from us makes a worker exit or raise KeyboardInterrupt; other exceptions are its own."""
    return failure.kind not in ("SystemExit", "KeyboardInterrupt") and not failure.is_consequence
