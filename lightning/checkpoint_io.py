"""Plugins that write checkpoints: while training waits, or beside it."""

from __future__ import annotations

import os
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from typing import Any

from ..tensor.serialization import load, save
from ..tensor.serialization.leaves import from_array
from ..tensor.serialization.tree import Encoder, decode


class CheckpointIO:
    """Writes, reads and removes checkpoint files; for Trainer(plugins=...). Called on rank 0, reading on all ranks."""

    all_ranks = False  # whether all ranks save
    overlap = False  # whether weights are still read when save_checkpoint has returned, until `copied`
    steady: Any = ()  # what the Trainer does not write until it has called `copied`: tensors and optimizers

    def save_checkpoint(self, checkpoint: Any, path: str, storage_options: Any = None) -> None:
        """Writes the file whole or not at all; its folder is made."""
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        save(checkpoint, path)

    def load_checkpoint(self, path: str, map_location: Any = None) -> Any:
        return content(path, map_location)

    def remove_checkpoint(self, path: str) -> None:
        if os.path.isdir(path):
            from ..distributed.checkpoint.checkpointer import remove

            return remove(path)
        with suppress(FileNotFoundError):
            os.remove(path)

    def copied(self) -> None:
        """Returns when weights may be written again; the Trainer calls it before it or others may do so."""

    def teardown(self) -> None:
        """Returns when everything is on disk; at the end of each run."""


class AsyncCheckpointIO(CheckpointIO):
    """Copies a checkpoint's tensors and lets a thread write it, by `checkpoint_io` (default: a CheckpointIO).

    At most one save is under way; a second waits for it. What went wrong is raised by the next save or at the end of
    the run. Files are removed in turn with the saves: an old one goes once the new one is on disk. A checkpoint with
    whole objects in it, which cannot be copied, is written at once.
    overlap: weights and the optimizers' states are copied beside the next forward and backward; False, for a
    training_step that writes parameters itself: before the save returns.
    """

    def __init__(self, checkpoint_io: CheckpointIO | None = None, overlap: bool = True) -> None:
        self.checkpoint_io, self.overlap = checkpoint_io or CheckpointIO(), overlap
        self._snapshot: Any = None
        self._thread: ThreadPoolExecutor | None = None
        self._pending: list[Future[None]] = []
        self._saved: Future[None] | None = None

    def save_checkpoint(self, checkpoint: Any, path: str, storage_options: Any = None) -> None:
        self._finish()
        from ..distributed.checkpoint.snapshot import Snapshot

        encoder = Encoder()
        try:
            tree = encoder.encode(checkpoint)
        except TypeError:
            self._saved = None
            return self.checkpoint_io.save_checkpoint(checkpoint, path, storage_options)
        self._snapshot = Snapshot(encoder.leaves, {}, self.steady)
        self._saved = self._submit(self._write, self._snapshot, tree, path, storage_options)

    def _write(self, snapshot: Any, tree: Any, path: str, storage_options: Any) -> None:
        snapshot.finish()
        leaves = [from_array(leaf.kind, leaf.array, leaf.requires_grad) for leaf in snapshot.leaves]
        self.checkpoint_io.save_checkpoint(decode(tree, leaves), path, storage_options)

    def copied(self) -> None:
        if self._snapshot is not None:
            self._snapshot.copied()
            self._snapshot = None

    def load_checkpoint(self, path: str, map_location: Any = None) -> Any:
        self._finish()
        return self.checkpoint_io.load_checkpoint(path, map_location)

    def remove_checkpoint(self, path: str) -> None:
        self._submit(self._remove, path, self._saved)

    def _remove(self, path: str, saved: Future[None] | None) -> None:
        """Runs behind the save that makes the file needless; where that failed, the old file is all there is."""
        if saved is None or saved.exception() is None:
            self.checkpoint_io.remove_checkpoint(path)

    def teardown(self) -> None:
        try:
            self._finish()
        finally:
            if self._thread is not None:
                self._thread.shutdown()
                self._thread = None
            self.checkpoint_io.teardown()

    def _submit(self, function: Any, *args: Any) -> Future[None]:
        if self._thread is None:
            self._thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        future = self._thread.submit(function, *args)
        self._pending.append(future)
        return future

    def _finish(self) -> None:
        self.copied()
        pending, self._pending = self._pending, []
        errors = [error for future in pending if (error := future.exception())]
        if errors:
            raise errors[0]


def content(path: Any, map_location: Any = None) -> Any:
    """What is in a checkpoint: a file, or a folder that all workers have written."""
    if not os.path.isdir(path):
        return load(path, map_location)
    from ..distributed.checkpoint.loading import read
    from ..distributed.sharded_state import whole

    checkpoint = read(os.fspath(path))
    if isinstance(checkpoint, dict) and "optimizer_states" in checkpoint:
        checkpoint["optimizer_states"] = [whole(state) for state in checkpoint["optimizer_states"]]
    return checkpoint


def saved_at(path: str) -> float | None:
    """When a checkpoint was written; None where there is none, or one that was never completed."""
    from ..distributed.checkpoint.saving import INDEX

    inner = os.path.join(path, INDEX) if os.path.isdir(path) else path
    return os.path.getmtime(inner) if os.path.exists(inner) else None
