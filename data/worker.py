"""A worker process of a DataLoader: takes indices, makes batches, and never outlives its parent."""

from __future__ import annotations

import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any, NamedTuple

BATCH, ENDED, FAILED, STALE = "batch", "ended", "failed", "stale"


class WorkerInfo(NamedTuple):
    """What a worker process knows of itself: its number among `num_workers`, its seed, its copy of the dataset."""

    id: int
    num_workers: int
    seed: int
    dataset: Any


class Request(NamedTuple):
    """One batch to make, in an epoch; with a slot for it and slots to drop."""

    epoch: int
    indices: Any
    slot: int | None
    dropped: list[int]


class Failure(NamedTuple):
    """An exception on its way: its type, where that can be sent, and a message with the worker's traceback."""

    kind: type[BaseException] | None
    text: str


class Job(NamedTuple):
    """What a worker is to do, as its parent tells it at the start."""

    dataset: Any
    make_fetch: Callable[[], Callable[[Any], Any]]
    init_fn: Callable[[int], None] | None
    base_seed: int
    id: int
    num_workers: int
    parent: int
    forked: bool
    bound: bool  # a child of the parent's main thread, which ends only with the parent


_info: WorkerInfo | None = None


def get_worker_info() -> WorkerInfo | None:
    """In a DataLoader's worker process: who it is. None elsewhere."""
    return _info


def serve(connection: Any, job: Job) -> None:
    """Runs a worker until its parent closes the connection or ends."""
    import threading
    from queue import SimpleQueue

    if job.bound:
        _die_with(job.parent)
    _settle(job)
    requests: SimpleQueue[Request | None] = SimpleQueue()
    latest = [0]
    threading.Thread(target=_end_with, args=(job.parent,), daemon=True).start()
    threading.Thread(target=_listen, args=(connection, requests, latest), daemon=True).start()
    # If the parent closed, nobody wants what was under way.
    with suppress(BrokenPipeError, ConnectionResetError):
        _work(connection, job, requests, latest)


def _settle(job: Job) -> None:
    """Makes this process a worker: signals, threads, seeds."""
    import gc
    import random
    import signal

    import numpy as np

    from ..tensor.generator import manual_seed
    from ..tensor.settings import set_num_threads

    global _info
    # Ctrl-C reaches the whole process group; the parent decides what it means. Its handlers are not ours.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    if job.forked:
        gc.freeze()  # the parent's garbage is the parent's to collect
    set_num_threads(1)  # the workers together use the cores
    seed = job.base_seed + job.id
    random.seed(seed)
    manual_seed(seed)
    words = [job.id, job.base_seed & 0xFFFFFFFF, job.base_seed >> 32, 0]
    np.random.seed(np.random.SeedSequence(words).generate_state(4))
    _info = WorkerInfo(job.id, job.num_workers, seed, job.dataset)


def _die_with(parent: int) -> None:
    """Has Linux kill this process when its parent ends, also while a call in C keeps all threads waiting."""
    import ctypes
    import signal
    import sys

    if sys.platform == "linux":
        PR_SET_PDEATHSIG = 1
        ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)


def _end_with(parent: int) -> None:
    """Ends this process when its parent has ended, whichever thread of it started this one."""
    import select
    import time

    try:
        watch = select.poll()
        watch.register(os.pidfd_open(parent), select.POLLIN)
        watch.poll()
    except (AttributeError, OSError):  # no pidfd here, or the parent is gone already
        while _exists(parent):
            time.sleep(1)
    os._exit(1)


def _exists(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def _listen(connection: Any, requests: Any, latest: list[int]) -> None:
    """Takes requests off the connection at once, so that the parent never waits to send one."""
    try:
        while True:
            request = connection.recv()
            latest[0] = request.epoch
            requests.put(request)
    except (EOFError, OSError):
        latest[0] = -1
        requests.put(None)


def _work(connection: Any, job: Job, requests: Any, latest: list[int]) -> None:
    from multiprocessing.reduction import send_handle

    from .slots import Packer

    packer, epoch, fetch = Packer(), 0, None
    failure = _initialize(job)
    while (request := requests.get()) is not None:
        for slot in request.dropped:
            packer.drop(slot)
        if request.epoch != latest[0]:  # the parent has begun another epoch, or closed
            connection.send((request.epoch, STALE, None))
            continue
        status: str = FAILED
        content: Any = failure
        if failure is None:
            try:
                if fetch is None or epoch != request.epoch:
                    fetch, epoch = job.make_fetch(), request.epoch
                status, content = _fetch(fetch, request, packer)
            except Exception as error:
                content = _describe(error, job.id)
        connection.send((request.epoch, status, content))
        if status == BATCH and content.fresh:
            send_handle(connection, packer.fd, None)
            os.close(packer.fd)


def _initialize(job: Job) -> Failure | None:
    try:
        if job.init_fn is not None:
            job.init_fn(job.id)
    except Exception as error:
        return _describe(error, job.id)
    return None


def _fetch(fetch: Callable[[Any], Any], request: Request, packer: Any) -> tuple[str, Any]:
    from .fetch import StreamEnd

    try:
        return BATCH, packer.pack(fetch(request.indices), request.slot)
    except StreamEnd:
        return ENDED, None


def _describe(error: Exception, worker: int) -> Failure:
    import pickle
    import traceback

    kind: type[BaseException] | None = type(error)
    try:
        pickle.dumps(kind)
    except Exception:  # a class made inside a function
        kind = None
    lines = "".join(traceback.format_exception(error))
    return Failure(
        kind,
        f"Caught {type(error).__name__} in DataLoader worker process {worker}.\nOriginal Traceback "
        f"(most recent call last, from process {os.getpid()}):\n{lines}",
    )
