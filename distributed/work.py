"""Handles of collectives under way, and the lanes that run them in order."""

from __future__ import annotations

import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from .transport import Pace

if TYPE_CHECKING:
    from .hooks import Future


class Work:
    """A collective under way. Its buffers belong to it until `wait` returns."""

    def __init__(self, text: str = "", result: object = None, *, done: bool = False) -> None:
        self.text = text
        self._result = result
        self._error: BaseException | None = None
        self._after: Callable[[], None] | None = None
        self.outputs: list[Any] = []  # the tensors that it fills
        self._done = done
        self._ended: threading.Event | None = None  # where another thread ends it

    def is_completed(self) -> bool:
        """True once the collective has ended, well or badly."""
        return self._done

    def is_success(self) -> bool:
        return self.is_completed() and self._error is None

    def exception(self) -> BaseException | None:
        return self._error

    def wait(self, timeout: float | None = None) -> bool:
        """Block until done and raise what the collective raised.

        timeout: seconds, on top of the group's own deadline. Raises TimeoutError when it passes; the
        collective goes on and may be waited for again.
        """
        if not self._done and not self._await(timeout):
            raise TimeoutError(f"[Work.wait] {self.text} must end within {timeout} s, and is still under way")
        if self._error is not None:
            raise self._error
        after, self._after = self._after, None
        if after is not None:
            after()
        return True

    def then(self, after: Callable[[], None]) -> Work:
        """Run `after` once, in `wait`, when the collective has ended well."""
        self._after = after
        return self

    def get_future(self) -> Future[list[Any]]:
        """A Future of the tensors that it fills. What is added with its `then` runs when it is waited for."""
        from .hooks import Future

        return Future.of(self, self.outputs)

    def source_rank(self) -> int:
        """The group rank that a finished receive came from."""
        source = self.result()
        if not isinstance(source, int):
            raise ValueError(f"[Work.source_rank] it must be a receive, and this is {self.text}")
        return source

    _source_rank = source_rank

    def result(self) -> object:
        """What the `_object` verbs return; None for those that fill arrays."""
        self.wait()
        return self._result

    def _await(self, timeout: float | None) -> bool:
        """Whether it has ended before the timeout."""
        return self._ended is not None and self._ended.wait(timeout)

    def _end(self, error: BaseException | None) -> None:
        self._error, self._done = error, True
        if self._ended is not None:
            self._ended.set()


class Job(Work):
    """A collective that its lane drives: at once, on a thread, or in pieces by whoever passes by."""

    def __init__(self, text: str, steps: Iterator[None], pace: Pace, lane: Lane) -> None:
        super().__init__(text)
        self._steps, self._pace, self._lane = steps, pace, lane

    def is_completed(self) -> bool:
        self._lane.advance()
        return self._done

    def advance(self) -> bool:
        """Go on for as long as nothing has to be waited for; whether it has ended."""
        try:
            # Overflow to infinity is a value like any other here, as in torch: no NumPy warning.
            with np.errstate(all="ignore"):
                for _ in self._steps:
                    return False
        except BaseException as error:
            self._end(error)
        else:
            self._end(None)
        self._steps = iter(())  # buffers must not live on
        return True

    def finish(self, spin: bool) -> None:
        """Go on to the end."""
        self._pace.wait, self._pace.spin = True, spin
        self.advance()

    def _await(self, timeout: float | None) -> bool:
        return super()._await(timeout) if self._ended is not None else self._lane.finish(self, timeout)


class Lane:
    """Runs jobs one after another, in the order in which they came.

    On the caller's thread (`run`), as a hand-over costs more than a small collective; on a thread of its own, to
    overlap with what the caller does (`submit`); or in pieces on the caller's thread (`begin`), where no core is
    left for another thread: it goes on in `advance`, which costs next to nothing, and when it is waited for.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self._turn = threading.Lock()  # held while a job runs
        self._queued = 0  # jobs handed to the thread and not finished
        self._begun: deque[Job] = deque()
        self._count = threading.Lock()
        self._jobs: queue.SimpleQueue[Job | None] | None = None
        self._thread: threading.Thread | None = None

    def run(self, text: str, steps: Iterator[None], pace: Pace) -> Work:
        """Run a job after those that came before it, and return when it is done; raises what it raises."""
        if not self._queued and self._turn.acquire(blocking=False):
            try:
                if not self._queued:
                    self._finish_begun()
                    pace.spin = True
                    with np.errstate(all="ignore"):
                        for _ in steps:
                            pass
                    return Work(text, done=True)
            finally:
                self._turn.release()
        work = self.submit(text, steps, pace)
        work.wait()
        return work

    def submit(self, text: str, steps: Iterator[None], pace: Pace) -> Work:
        """Hand a job to the lane's thread and return at once."""
        if self._begun:
            with self._turn:
                self._finish_begun()
        job = Job(text, steps, pace, self)
        job._ended = threading.Event()
        with self._count:
            self._queued += 1
            if self._jobs is None:
                self._jobs = queue.SimpleQueue()
                self._thread = threading.Thread(
                    target=self._serve, args=(self._jobs,), name=self.name, daemon=True
                )
                self._thread.start()
            self._jobs.put(job)
        return job

    def begin(self, text: str, steps: Iterator[None], pace: Pace) -> Work:
        """Begin a job, behind others that were begun; `advance` and its `wait` take it further."""
        if self._queued:
            return self.submit(text, steps, pace)
        job = Job(text, steps, pace, self)
        pace.wait = False
        self._begun.append(job)
        self.advance()
        return job

    def advance(self) -> None:
        """Take the jobs that were begun as far as they go without waiting."""
        if self._begun and self._turn.acquire(blocking=False):
            try:
                while self._begun and self._begun[0].advance():
                    self._begun.popleft()
            finally:
                self._turn.release()

    def finish(self, job: Job, timeout: float | None) -> bool:
        """Take the jobs that were begun to the end of `job`; False if it has not ended before the timeout."""
        end = None if timeout is None else time.monotonic() + timeout
        while end is not None and not job.is_completed():
            if time.monotonic() > end:
                return False
            time.sleep(1e-4)
        with self._turn:
            while not job._done:
                self._finish_first()
        return True

    def close(self) -> None:
        """End the thread after the jobs that it already has."""
        self._begun.clear()
        if self._jobs is not None and self._thread is not None:
            self._jobs.put(None)
            self._thread.join(timeout=5)
            self._jobs = self._thread = None

    def _finish_begun(self) -> None:
        while self._begun:
            self._finish_first()

    def _finish_first(self) -> None:
        self._begun[0].finish(spin=True)
        self._begun.popleft()

    def _serve(self, jobs: queue.SimpleQueue[Job | None]) -> None:
        while (job := jobs.get()) is not None:
            with self._turn:
                try:
                    job.finish(spin=False)
                finally:
                    with self._count:
                        self._queued -= 1
            del job  # buffers must not live on while the lane is idle
