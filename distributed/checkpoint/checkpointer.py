"""A folder of checkpoints by step: the last few are kept, damaged ones are passed over, one job writes at a time."""

from __future__ import annotations

import fcntl
import os
import re
import shutil
import socket
import warnings
from collections.abc import Iterable
from typing import Any

from ...tensor.serialization import CheckpointError
from ..group import Group
from .loading import read
from .saving import INDEX, Saving

STEP = re.compile(r"step-(\d{9,})")


class Checkpointer:
    """Saves the state of a training by step into `folder`, and finds the newest that is whole.

        checkpointer = Checkpointer("runs/a", keep=3, asynchronous=True)
        step, state = checkpointer.load() or (0, None)
        ...
            checkpointer.save(step, {"model": model.state_dict(), f"rank{rank}": {"rng": rng_state()}})
        checkpointer.close()

    All ranks of `group` (default: all workers) call every method. Each rank writes its share; what is the same on all
    ranks is written once. It may be loaded on any number of ranks. keep: how many are left (None: all).
    asynchronous: `save` copies the tensors and returns, a thread writes; at most one save is under way, and its error
    is raised by the next `save`, `wait` or `close`. The memory of the copies is kept for the next save.
    A second job that saves into the folder is refused.
    """

    def __init__(
        self,
        folder: str | os.PathLike[str],
        keep: int | None = 3,
        asynchronous: bool = False,
        group: Group | None = None,
    ) -> None:
        if keep is not None and keep < 1:
            raise ValueError(f"[Checkpointer] keep must be at least 1, or None for all, came {keep}")
        self.folder, self.keep, self.asynchronous = os.path.abspath(folder), keep, asynchronous
        self.group = group_of(group)
        self._saving: tuple[int, Saving] | None = None
        self._copies: dict[str, Any] | None = {} if asynchronous else None
        self._lock: int | None = None

    def steps(self) -> list[int]:
        """Steps with a completed save, in order."""
        names = os.listdir(self.folder) if os.path.isdir(self.folder) else []
        found = [int(m[1]) for name in names if (m := STEP.fullmatch(name)) and self._whole(name)]
        return sorted(found)

    def _whole(self, name: str) -> bool:
        return os.path.exists(os.path.join(self.folder, name, INDEX))

    def path(self, step: int) -> str:
        return os.path.join(self.folder, f"step-{step:09d}")

    def save(self, step: int, state: Any, steady: Iterable[Any] = ()) -> None:
        """Saves `state` as that of `step`. Returns when it is on disk, or copied if asynchronous.

        steady: optimizers, and other tensors, that nobody writes until `copied()`. Their parameters and states are
        then copied beside the next forward and backward. A save during which one was written nevertheless fails.
        """
        self.wait()
        self._take_lock()
        self._saving = step, Saving(state, self.path(step), self.group, self._copies, steady)
        if not self.asynchronous:
            self.wait()

    def copied(self) -> None:
        """Blocks until what was given as `steady` may be written; to be called before the next optimizer step."""
        if self._saving is not None:
            self._saving[1].copied()

    def wait(self) -> None:
        """Blocks until the save under way is on disk; raises its error on every rank."""
        if self._saving is None:
            return
        (step, saving), self._saving = self._saving, None
        saving.wait()
        if self.group.rank == 0 and self.keep is not None:
            for old in [s for s in self.steps() if s != step][: -self.keep + 1 or None]:
                remove(self.path(old))

    def load(self, step: int | None = None) -> tuple[int, Any] | None:
        """(step, state) of `step`, or of the newest that is whole on every rank's reading; None where there is none.

        One that is damaged is passed over with a warning that names what is wrong with it, unless it was asked for.
        """
        self.wait()
        steps = self.group.broadcast_object(self.steps())
        if step is not None:
            if step not in steps:
                raise FileNotFoundError(f"[Checkpointer] {self.folder} has steps {steps}, and not {step}")
            return step, read(self.path(step))
        for found in reversed(steps):
            state, error = self._try(found)
            errors = [text for text in self.group.all_gather_object(error) if text]
            if not errors:
                return found, state
            warnings.warn(f"passing over step {found} for the one before: {errors[0]}", stacklevel=2)
        return None

    def _try(self, step: int) -> tuple[Any, str | None]:
        try:
            return read(self.path(step)), None
        except (CheckpointError, OSError) as error:
            return None, str(error)

    def close(self) -> None:
        """Waits, and lets another job save here."""
        try:
            self.wait()
        finally:
            if self._lock is not None:
                os.close(self._lock)
                self._lock = None

    def __enter__(self) -> Checkpointer:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _take_lock(self) -> None:
        """Rank 0 locks the folder for as long as it lives; all ranks raise where another job has."""
        problem = None
        if self.group.rank == 0 and self._lock is None:
            try:
                self._lock = locked(self.folder)
            except OSError as error:
                problem = str(error)
        if problem := self.group.broadcast_object(problem):
            raise RuntimeError(problem)


def locked(folder: str) -> int:
    """An open descriptor that holds the folder's lock. BlockingIOError naming the holder where there is one."""
    os.makedirs(folder, exist_ok=True)
    lock = os.open(os.path.join(folder, "lock"), os.O_CREAT | os.O_RDWR | os.O_CLOEXEC, 0o644)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        holder = os.pread(lock, 200, 0).decode(errors="replace").strip() or "another process"
        os.close(lock)
        raise BlockingIOError(
            f"[Checkpointer] {folder} must be written by one job at a time, and {holder} has it: wait for it, or "
            "choose another folder"
        ) from None
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"process {os.getpid()} on {socket.gethostname()}\n".encode(), 0)
    return lock


def remove(path: str) -> None:
    """Removes a checkpoint: its index first, so that no half of it is taken for a whole one."""
    index = os.path.join(path, INDEX)
    if os.path.exists(index):
        os.unlink(index)
    shutil.rmtree(path, ignore_errors=True)


def group_of(group: Group | None) -> Group:
    """`group`, or that of all workers, or one of this process alone before init_process_group."""
    from ..process_group import is_initialized, world_group

    if group is not None or is_initialized():
        return world_group(group)
    return Group()
