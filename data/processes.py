"""The parent's side of a DataLoader's worker processes: hands out batches to make, and takes them in order."""

from __future__ import annotations

import itertools
import os
import signal
import time
import weakref
from collections import deque
from contextlib import suppress
from functools import partial
from typing import Any

from .collate import pinned
from .fetch import make_fetch
from .iteration import LoaderIterator
from .slots import Unpacker
from .worker import ENDED, FAILED, STALE, Failure, Job, Request, serve

LOOK = 1.0  # seconds between looks whether a silent worker still lives
PATIENCE = 5.0  # seconds that workers get to finish a sample when they are to end
SHOWN = 32  # indices that an error lists


class Worker:
    """One process, what it was asked for, and the memory that its batches lie in."""

    def __init__(self, context: Any, job: Job) -> None:
        import warnings

        self.id = job.id
        self.requests: deque[Request] = deque()
        self.memory = Unpacker()
        self.connection, far = context.Pipe()
        self.process = context.Process(
            target=serve, args=(far, job), daemon=True, name=f"DataLoader-{job.id}"
        )
        with warnings.catch_warnings():
            # Python 3.12 warns of a fork beside threads. BLAS's threads know of forks, and a worker takes no locks
            # of the parent's others; scripts whose datasets are lambdas or local classes need the fork.
            warnings.filterwarnings("ignore", ".*fork.*", DeprecationWarning)
            self.process.start()
        far.close()

    def ask(self, epoch: int, indices: Any) -> None:
        """Requests a batch."""
        request = Request(epoch, indices, *self.memory.offer())
        self.requests.append(request)
        with suppress(BrokenPipeError, ConnectionResetError):  # it is dead: told when its batch is due
            self.connection.send(request)

    def receive(self) -> tuple[str, Any, Request]:
        """The answer to the earliest request, which has come. EOFError if the process ended instead."""
        from multiprocessing.reduction import recv_handle

        try:
            _, status, content = self.connection.recv()
            request = self.requests.popleft()
            if status in (ENDED, FAILED, STALE):
                if request.slot is not None:
                    self.memory.give_back(request.slot)
                return status, content, request
            fd = recv_handle(self.connection) if content.fresh else -1
        except OSError as error:
            raise EOFError from error
        return status, self.memory.unpack(content, request.slot, fd), request

    def close(self) -> None:
        """Tells the process to end."""
        import socket

        try:
            # Not just closed: another process forked meanwhile may hold the same end.
            with socket.fromfd(self.connection.fileno(), socket.AF_UNIX, socket.SOCK_STREAM) as end:
                end.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass
        self.connection.close()

    def fate(self) -> str:
        """How the process ended, in words."""
        self.process.join(LOOK)
        code = self.process.exitcode
        if code is None:
            return "closed its connection"
        if code >= 0:
            return f"exited with code {code}"
        hints = {
            signal.SIGKILL: ", as the kernel does when memory runs out",
            signal.SIGBUS: ", as happens when there is no memory left to share",
        }
        try:
            name = signal.Signals(-code).name
        except ValueError:
            name = "signal"
        return f"was killed by {name} ({-code}){hints.get(-code, '')}"


def stop(workers: list[Worker], owner: int, patience: float = PATIENCE) -> None:
    """Ends the processes: asked first, then terminated, then killed. Nothing in a process that forked from `owner`."""
    if os.getpid() != owner:
        return
    for worker in workers:
        worker.close()
    for end in (None, "terminate", "kill"):
        deadline = time.monotonic() + (patience if end is None else LOOK)
        for worker in workers:
            if end:
                getattr(worker.process, end)()
        for worker in workers:
            worker.process.join(max(deadline - time.monotonic(), 0))
        workers = [worker for worker in workers if worker.process.is_alive()]
        if not workers:
            return


class ProcessIterator(LoaderIterator):
    """Batches made by worker processes, `prefetch_factor` ahead in each, in the sampler's order.

    With a stream the batches of the workers alternate until each worker's stream has ended.
    """

    def __init__(self, loader: Any) -> None:
        super().__init__(loader)
        import multiprocessing
        import threading

        context = loader.multiprocessing_context
        if context is None:
            methods = multiprocessing.get_all_start_methods()
            context = multiprocessing.get_context("fork" if "fork" in methods else None)
        batched = loader.batch_sampler is not None
        opened = partial(make_fetch, loader.dataset, batched, loader.collate_fn, loader.drop_last)
        self.workers: list[Worker] = []
        self.stop = weakref.finalize(self, stop, self.workers, os.getpid())
        self.epoch = 0
        forked = context.get_start_method() == "fork"
        # The kernel's signal comes when the thread ends that started the process, not only with the whole parent.
        main = threading.current_thread() is threading.main_thread()
        bound = main and context.get_start_method() != "forkserver"
        for i in range(loader.num_workers):
            job = Job(
                loader.dataset,
                opened,
                loader.worker_init_fn,
                self.base_seed,
                i,
                loader.num_workers,
                os.getpid(),
                forked,
                bound,
            )
            self.workers.append(Worker(context, job))
        self._begin()

    def restart(self) -> None:
        """Another epoch by the same workers."""
        self.rewind()
        self._begin()

    @property
    def usable(self) -> bool:
        """Whether the workers are there for another epoch."""
        return self.stop.alive

    def _begin(self) -> None:
        """Starts an epoch; answers to what was asked in the last one are passed over as they come."""
        self.epoch += 1
        self.turns = itertools.cycle(self.workers)
        self.active = set(self.workers)
        self.order: deque[Worker] = deque()
        for _ in range(self.loader.prefetch_factor * len(self.workers)):
            self._assign()

    def _assign(self) -> None:
        """Asks a worker for the sampler's next batch: each in turn or, if order is free, the one with least to do."""
        try:
            indices = next(self.indices)
        except StopIteration:
            return
        if not self.active:
            return
        if self.loader.in_order:
            worker = next(worker for worker in self.turns if worker in self.active)
        else:
            worker = min(self.active, key=lambda w: (len(w.requests), w.id))
        worker.ask(self.epoch, indices)
        self.order.append(worker)

    def next_batch(self) -> Any:
        while self.order:
            worker = self._await()
            try:
                status, content, request = worker.receive()
            except EOFError:
                raise self._died(worker) from None
            if request.epoch != self.epoch:
                continue
            self.order.remove(worker)
            if status == ENDED:
                self.active.discard(worker)
                self.order = deque(w for w in self.order if w is not worker)
            self._assign()
            if status == FAILED:
                raise _raised(content)
            if status != ENDED:
                return pinned(content) if self.loader.pin_memory else content
        if not self.loader.persistent_workers:
            self.stop()
        raise StopIteration

    def _await(self) -> Worker:
        """The worker whose answer is taken next, when it has come or when the worker is dead."""
        from multiprocessing.connection import wait

        timeout = self.loader.timeout or None
        deadline = None if timeout is None else time.monotonic() + timeout
        awaited = [self.order[0]] if self.loader.in_order else list(dict.fromkeys(self.order))
        while True:
            left = LOOK if deadline is None else min(LOOK, max(deadline - time.monotonic(), 0))
            if len(awaited) == 1:
                if awaited[0].connection.poll(left):
                    return awaited[0]
            else:
                ready = wait([worker.connection for worker in awaited], left)
                if ready:
                    return next(worker for worker in awaited if worker.connection is ready[0])
            for worker in awaited:
                # A process that it started may hold its end of the connection, so its death may show in no other way.
                if not worker.process.is_alive() and not worker.connection.poll(0):
                    raise self._died(worker)
            if deadline is not None and time.monotonic() >= deadline:
                raise self._late(awaited, timeout)

    def _died(self, worker: Worker) -> RuntimeError:
        text = (
            f"[DataLoader] DataLoader worker {worker.id} (pid {worker.process.pid}) exited unexpectedly: it "
            f"{worker.fate()} {_making(worker)}. Run with num_workers=0 to see what happens in this process"
        )
        self._abandon()
        return RuntimeError(text)

    def _late(self, awaited: list[Worker], timeout: Any) -> RuntimeError:
        who = "; ".join(f"worker {w.id} (pid {w.process.pid}) is still alive {_making(w)}" for w in awaited)
        self._abandon()
        return RuntimeError(f"[DataLoader] DataLoader timed out after {timeout} seconds: {who}")

    def _abandon(self) -> None:
        """Ends the workers at once, as one of them does not work."""
        self.order.clear()
        self.stop.detach()
        stop(self.workers, os.getpid(), patience=0)


def _making(worker: Worker) -> str:
    if not worker.requests:
        return "with nothing to do"
    indices = worker.requests[0].indices
    if isinstance(indices, list) and all(index is None for index in indices):
        return "while it read a batch of its stream"
    listed = repr(indices)
    if isinstance(indices, list) and len(indices) > SHOWN:
        listed = f"{indices[:SHOWN]!r} and {len(indices) - SHOWN} more"
    return f"while it made the batch of indices {listed}"


def _raised(failure: Failure) -> BaseException:
    """The worker's exception with its traceback as the message, as PyTorch raises it."""
    kind = failure.kind
    if kind is not None and not issubclass(kind, StopIteration):
        try:
            return kind(_Text(failure.text) if issubclass(kind, KeyError) else failure.text)
        except Exception:  # a constructor that wants other arguments
            pass
    return RuntimeError(failure.text)


class _Text(str):
    """A KeyError shows the repr of its message: this one keeps its lines."""

    def __repr__(self) -> str:
        return str(self)
