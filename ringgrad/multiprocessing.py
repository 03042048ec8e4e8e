"""`torch.multiprocessing`: Python's multiprocessing, through which tensors travel as shared memory, and `spawn`.

A tensor that is put into a queue or pipe, or passed to a new process, is moved into shared memory and not copied
again: all processes that hold it read and write the same elements, gradients apart. The sender must live until the
receiver has it.
"""

from __future__ import annotations

import multiprocessing as _mp
import multiprocessing.spawn as _spawn
import signal
import sys
import time
import traceback
from collections.abc import Callable
from multiprocessing import *  # noqa: F403
from multiprocessing import connection
from multiprocessing.reduction import DupFd, ForkingPickler
from typing import Any

import numpy as np

from .tensor import Parameter, Tensor
from .tensor.shared import Block, block_of, open_block, share_memory_

MOST_TRACE = 48 << 10  # bytes of a traceback: a pipe takes them without a reader

# ---- tensors as arguments


def _reduce_block(block: Block) -> tuple[Any, ...]:
    return _receive_block, (DupFd(block.fd), len(block))


def _receive_block(handle: Any, size: int) -> Block:
    return open_block(handle.detach(), size)


def _reduce_tensor(t: Any) -> tuple[Any, ...]:
    if t._node is not None:
        raise RuntimeError(
            "[multiprocessing] a tensor that travels must be a leaf: autograd does not reach across processes; use"
            " detach()"
        )
    if not t.array.size:
        return _receive_empty, (type(t), t.array.shape, t.array.dtype, t._needs)
    array = share_memory_(t).array
    block = block_of(array)
    assert block is not None
    start = np.ndarray(1, np.uint8, buffer=block).__array_interface__["data"][0]
    offset = array.__array_interface__["data"][0] - start
    return _receive_tensor, (type(t), block, offset, array.shape, array.strides, array.dtype, t._needs)


def _receive_tensor(
    kind: type, block: Block, offset: int, shape: Any, strides: Any, dtype: Any, needs: bool
) -> Any:
    return _made(kind, np.ndarray(shape, dtype, buffer=block, offset=offset, strides=strides), needs)


def _receive_empty(kind: type, shape: Any, dtype: Any, needs: bool) -> Any:
    return _made(kind, np.empty(shape, dtype), needs)


def _made(kind: type, array: Any, needs: bool) -> Any:
    t: Any = object.__new__(kind)
    t.array, t._version = array, [0, None]
    if needs:
        t._needs = True
    return t


ForkingPickler.register(Block, _reduce_block)
for _kind in (Tensor, Parameter):
    ForkingPickler.register(_kind, _reduce_tensor)


# ---- the alias `torch` in processes that start from nothing


class _Named(str):
    """A process's name that lets `import torch` mean ringgrad where it arrives, before the main script is imported."""

    def __reduce__(self) -> tuple[Any, ...]:
        return _arrive, (str(self),)


def _arrive(name: str) -> str:
    from .torch import install

    install()
    return name


_plain_preparation = _spawn.get_preparation_data


def _preparation(name: str) -> dict[str, Any]:
    data = _plain_preparation(name)
    if sys.modules.get("torch") is sys.modules[__package__]:
        data["name"] = _Named(name)
    return data


_spawn.get_preparation_data = _preparation


# ---- sharing strategies


def get_all_sharing_strategies() -> set[str]:
    """The ways in which memory can be shared: by file descriptor alone."""
    return {"file_descriptor"}


def get_sharing_strategy() -> str:
    """How memory is shared."""
    return "file_descriptor"


def set_sharing_strategy(new_strategy: str) -> None:
    """Accepts PyTorch's names; memory is shared by file descriptor, which leaves no files behind, in any case."""
    if new_strategy not in ("file_descriptor", "file_system"):
        raise ValueError(
            f"[set_sharing_strategy] must be 'file_descriptor' or 'file_system', came {new_strategy!r}"
        )
    if new_strategy == "file_system":
        import warnings

        warnings.warn(
            "[set_sharing_strategy] 'file_system' is ignored: memory is shared by file descriptor",
            stacklevel=2,
        )


# ---- spawn


class ProcessException(Exception):
    """A process of `spawn` failed: which one, and its process id."""

    def __init__(self, msg: str, error_index: int, pid: int) -> None:
        super().__init__(msg)
        self.msg, self.error_index, self.pid = msg, error_index, pid
        self.error_pid = pid


class ProcessRaisedException(ProcessException):
    """A process raised an exception; the message holds its traceback."""


class ProcessExitedException(ProcessException):
    """A process ended by a signal or with an exit code other than 0."""

    def __init__(
        self, msg: str, error_index: int, error_pid: int, exit_code: int, signal_name: str | None = None
    ) -> None:
        super().__init__(msg, error_index, error_pid)
        self.exit_code, self.signal_name = exit_code, signal_name


def _end_with_parent() -> None:
    """Linux: this process gets SIGTERM when its parent dies."""
    import ctypes

    pr_set_pdeathsig = 1
    ctypes.CDLL(None).prctl(pr_set_pdeathsig, signal.SIGTERM)


def _run(fn: Callable[..., Any], i: int, args: tuple[Any, ...], errors: Any) -> None:
    _end_with_parent()
    parent = _mp.parent_process()
    if parent is None or not parent.is_alive():  # it died before the line above
        return
    try:
        fn(i, *args)
    except KeyboardInterrupt:
        pass  # the parent got it too
    except Exception:
        errors.send_bytes(traceback.format_exc().encode()[-MOST_TRACE:])
        sys.exit(1)


class ProcessContext:
    """The processes that `start_processes` started."""

    def __init__(self, processes: list[Any], errors: list[Any]) -> None:
        self.processes, self._errors = processes, errors
        self.sentinels = {process.sentinel: i for i, process in enumerate(processes)}

    def pids(self) -> list[int]:
        """The process ids, by index."""
        return [int(process.pid) for process in self.processes]

    def join(self, timeout: float | None = None, grace_period: float | None = None) -> bool:
        """Waits until a process ends, at most `timeout` seconds: True when all have ended well.

        When one failed, the others get SIGTERM (and SIGKILL when they still run after `grace_period` or 30
        seconds), and its failure is raised with its traceback.
        """
        if not self.sentinels:
            return True
        failed = None
        for sentinel in connection.wait(list(self.sentinels), timeout):
            i = self.sentinels.pop(sentinel)
            self.processes[i].join()
            if self.processes[i].exitcode != 0 and failed is None:
                failed = i
        if failed is None:
            return not self.sentinels
        self._stop(30.0 if grace_period is None else grace_period)
        raise self._failure(failed)

    def _stop(self, grace: float) -> None:
        for process in self.processes:
            if process.is_alive():
                process.terminate()
        end = time.monotonic() + grace
        for process in self.processes:
            process.join(max(0.0, end - time.monotonic()))
            if process.is_alive():
                process.kill()
                process.join()

    def _trace(self, i: int) -> str:
        """What process `i` left; its own children may still hold the other end, so waiting for an end could last."""
        try:
            return self._errors[i].recv_bytes().decode(errors="replace") if self._errors[i].poll() else ""
        except EOFError:
            return ""

    def _failure(self, i: int) -> ProcessException:
        process = self.processes[i]
        code, pid = int(process.exitcode), int(process.pid)
        text = self._trace(i)
        if text:
            return ProcessRaisedException(f"[spawn] process {i} must end well, it raised:\n\n{text}", i, pid)
        if code < 0:
            name = signal.Signals(-code).name
            return ProcessExitedException(
                f"[spawn] process {i} was ended by signal {name}", i, pid, code, name
            )
        return ProcessExitedException(f"[spawn] process {i} ended with exit code {code}", i, pid, code)


SpawnContext = ProcessContext


def start_processes(
    fn: Callable[..., Any],
    args: tuple[Any, ...] = (),
    nprocs: int = 1,
    join: bool = True,
    daemon: bool = False,
    start_method: str = "spawn",
) -> ProcessContext | None:
    """Runs fn(i, *args) in `nprocs` new processes, i = 0, 1, ...; waits for them unless `join` is off.

    A failure of one ends the others, and is raised here: ProcessRaisedException with the traceback, or
    ProcessExitedException. With `join` off it is raised by `join()` of what is returned.
    """
    if nprocs < 1:
        raise ValueError(f"[spawn] nprocs must be positive, came {nprocs}")
    context: Any = _mp.get_context(start_method)
    processes, errors = [], []
    for i in range(nprocs):
        receiver, sender = context.Pipe(duplex=False)
        process = context.Process(target=_run, args=(fn, i, args, sender), daemon=daemon)
        process.start()
        sender.close()
        processes.append(process)
        errors.append(receiver)
    started = ProcessContext(processes, errors)
    if not join:
        return started
    try:
        while not started.join():
            pass
    except BaseException:
        started._stop(5.0)  # an interrupt here leaves no process behind
        raise
    return None


def spawn(
    fn: Callable[..., Any],
    args: tuple[Any, ...] = (),
    nprocs: int = 1,
    join: bool = True,
    daemon: bool = False,
    start_method: str = "spawn",
) -> ProcessContext | None:
    """`start_processes` by the method "spawn": each process imports the main script anew."""
    return start_processes(fn, args, nprocs, join, daemon, start_method)


__all__ = [
    *_mp.__all__,
    "ProcessContext",
    "ProcessException",
    "ProcessExitedException",
    "ProcessRaisedException",
    "SpawnContext",
    "get_all_sharing_strategies",
    "get_sharing_strategy",
    "set_sharing_strategy",
    "spawn",
    "start_processes",
]
