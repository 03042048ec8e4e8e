"""Handles of collectives under way, and the lanes that run them in order."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable


class Work:
    """A collective under way. Its buffers belong to it until `wait` returns."""

    def __init__(self, text: str = "", result: object = None, *, done: bool = False) -> None:
        self.text = text
        self._result = result
        self._error: BaseException | None = None
        self._after: Callable[[], None] | None = None
        self._done = threading.Event()
        if done:
            self._done.set()

    def is_completed(self) -> bool:
        """True once the collective has ended, well or badly."""
        return self._done.is_set()

    def is_success(self) -> bool:
        return self._done.is_set() and self._error is None

    def exception(self) -> BaseException | None:
        return self._error

    def wait(self, timeout: float | None = None) -> bool:
        """Block until done and raise what the collective raised.

        timeout: seconds, on top of the group's own deadline. Raises TimeoutError when it passes; the
        collective goes on and may be waited for again.
        """
        if not self._done.wait(timeout):
            raise TimeoutError(f"[Work.wait] {self.text} must end within {timeout} s, and is still under way")
        if self._error is not None:
            raise self._error
        after, self._after = self._after, None
        if after is not None:
            after()
        return True

    def then(self, after: Callable[[], None]) -> Work:
        """Have the first successful `wait` call `after`, on the thread that waits."""
        self._after = after
        return self

    def result(self) -> object:
        """What the `_object` verbs return; None for those that fill arrays."""
        self.wait()
        return self._result

    def _run(self, job: Callable[[], object]) -> None:
        try:
            self._result = job()
        except BaseException as error:
            self._error = error
        self._done.set()


class Lane:
    """Runs jobs one after another: on the caller's thread while idle, on its own thread when asked to
    overlap.

    A thread hand-over costs more than a small collective, hence the first way.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.inline = True  # whether the job that runs now has its caller's whole attention, and may spin
        self._turn = threading.Lock()  # held while a job runs
        self._queued = 0  # jobs handed to the thread and not finished
        self._count = threading.Lock()
        self._jobs: queue.SimpleQueue[tuple[Work, Callable[[], object]] | None] | None = None
        self._thread: threading.Thread | None = None

    def run(self, text: str, job: Callable[[], object]) -> Work:
        """Run `job` after those submitted before it, and return when it is done; raises what it raises."""
        if not self._queued and self._turn.acquire(blocking=False):
            try:
                if not self._queued:
                    return Work(text, job(), done=True)
            finally:
                self._turn.release()
        work = self.submit(text, job)
        work.wait()
        return work

    def submit(self, text: str, job: Callable[[], object]) -> Work:
        """Hand `job` to the lane's thread and return at once."""
        work = Work(text)
        with self._count:
            self._queued += 1
            if self._jobs is None:
                self._jobs = queue.SimpleQueue()
                self._thread = threading.Thread(
                    target=self._serve, args=(self._jobs,), name=self.name, daemon=True
                )
                self._thread.start()
            self._jobs.put((work, job))
        return work

    def close(self) -> None:
        """End the thread after the jobs that it already has."""
        if self._jobs is not None and self._thread is not None:
            self._jobs.put(None)
            self._thread.join(timeout=5)
            self._jobs = self._thread = None

    def _serve(self, jobs: queue.SimpleQueue[tuple[Work, Callable[[], object]] | None]) -> None:
        while (item := jobs.get()) is not None:
            work, job = item
            with self._turn:
                self.inline = False
                try:
                    work._run(job)
                finally:
                    self.inline = True
                    with self._count:
                        self._queued -= 1
            del item, work, job  # buffers must not live on while the lane is idle
