"""Checkpoints that all workers write together, each its share, beside training; any number of workers reads them."""

from __future__ import annotations

import os
import sys
from typing import Any

from .checkpoint_io import CheckpointIO


class ShardedCheckpointIO(CheckpointIO):
    """Trainer(plugins=[ShardedCheckpointIO()]): a checkpoint is a folder, into which each worker writes its share.

    What all workers hold alike is written once; ZeRO's parts go to the disk as they are. The folder must be one that
    all workers see. asynchronous: tensors are copied and a thread writes; at most one save is under way, and its
    error is raised on all workers by the next save or at the end of the run. Then, too, go files that ModelCheckpoint
    no longer needs. Another job that saves into the same folder meanwhile is refused.
    overlap: weights and the optimizers' states are copied beside the next forward and backward; False, for a
    training_step that writes parameters itself: before the save returns.
    """

    all_ranks = True

    def __init__(self, asynchronous: bool = True, overlap: bool = True) -> None:
        self.asynchronous, self.overlap = asynchronous, asynchronous and overlap
        self._copies: dict[str, Any] | None = (
            {} if asynchronous else None
        )  # memory that is used from save to save
        self._saving: Any = None
        self._needless: list[str] = []
        self._locks: dict[str, int] = {}  # rank 0's, by folder

    def save_checkpoint(self, checkpoint: Any, path: str, storage_options: Any = None) -> None:
        """All workers call it: rank 0 with everything, the others with the tensors that they hold."""
        from ..distributed.checkpoint import Saving
        from ..distributed.checkpoint.checkpointer import group_of

        self._finish()
        path, group = os.path.abspath(path), group_of(None)
        self._lock(os.path.dirname(path), group)
        self._saving = Saving(checkpoint, path, group, self._copies, self.steady)
        if not self.asynchronous:
            self._finish()

    def copied(self) -> None:
        if self._saving is not None:
            self._saving.copied()

    def remove_checkpoint(self, path: str) -> None:
        self._needless.append(path)
        if self._saving is None:
            self._remove()

    def teardown(self) -> None:
        """At the end of a run; after an error, which may be this worker's alone, it waits for none of the others."""
        try:
            if sys.exc_info()[0] is None:
                self._finish()
            elif self._saving is not None:
                self._saving.settle()
        finally:
            self._saving, locks, self._locks = None, self._locks, {}
            for lock in locks.values():
                os.close(lock)

    def _finish(self) -> None:
        saving, self._saving = self._saving, None
        if saving is not None:
            saving.wait()
        self._remove()

    def _remove(self) -> None:
        while self._needless:
            super().remove_checkpoint(self._needless.pop())

    def _lock(self, folder: str, group: Any) -> None:
        from ..distributed.checkpoint.checkpointer import locked

        problem = None
        if group.rank == 0 and folder not in self._locks:
            try:
                self._locks[folder] = locked(folder)
            except OSError as error:
                problem = str(error)
        if problem := group.broadcast_object(problem):
            raise RuntimeError(problem)


def held(checkpoint: dict[str, Any], module: Any) -> dict[str, Any]:
    """Of a checkpoint what ranks other than 0 give to it: parameters and optimizers' states, not what is their own."""
    parameters = dict(module.named_parameters())
    found: dict[str, Any] = {
        "state_dict": {k: v for k, v in checkpoint["state_dict"].items() if k in parameters}
    }
    if "optimizer_states" in checkpoint:
        wanted = ("state", "slices")
        found["optimizer_states"] = [
            {k: state[k] for k in wanted if k in state} for state in checkpoint["optimizer_states"]
        ]
    return found
