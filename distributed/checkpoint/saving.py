"""A save: every rank writes its part into a file of its own, then one small index makes them a checkpoint.

    folder/shard-<save>-<rank>.rg   tensors by path, each with its checksum (tensor/serialization/container.py)
    folder/index.rg                 structure, and which file each tensor is in

Names of shards carry a random number of the save, so a save touches nothing of the one before; the index is replaced by
renaming, and only then are the shards of earlier saves removed. At every moment the folder holds one whole checkpoint.
"""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Callable, Iterable
from contextlib import suppress
from typing import Any

import numpy as np

from ...tensor.serialization import CheckpointError, save
from ...tensor.serialization.container import write_tree
from ...tensor.serialization.leaves import Leaf
from ..group import Group
from .layout import described, merged, shared_out
from .snapshot import Snapshot

INDEX = "index.rg"
FORMAT = 1
PATIENCE = 600.0  # s that rank 0 waits for the others' shards; one that failed says so at once
LAST_PATIENCE = 20.0  # s after a script has ended that did not wait
LOOK = 0.01  # s between two looks


def shard_name(save: str, rank: int) -> str:
    return f"shard-{save}-{rank:05d}.rg"


class Saving:
    """A save under way. `wait()` ends it: all ranks call it, as often as they like."""

    def __init__(
        self,
        state: Any,
        folder: str,
        group: Group,
        copies: dict[str, np.ndarray] | None,
        steady: Iterable[Any] = (),
    ) -> None:
        """copies: arrays by path to copy the tensors into, so that a thread can write them; None writes at once.

        steady: tensors that nobody writes until `copied()` (snapshot.py), and optimizers.
        """
        self.folder, self.group = folder, group
        self._error: BaseException | None = None
        self._settled = False
        tree, leaves = described(state)
        plan = self._agree(tree, leaves)
        self.id, self.writers = plan["save"], plan["writers"]
        own = [leaf for path, leaf in leaves.items() if self.writers[path] == group.rank]
        self._snapshot = None if copies is None else Snapshot(own, copies, steady)
        self._thread = threading.Thread(target=self._write, args=(own, plan["tree"]), name="ringgrad save")
        self._thread.run() if copies is None else self._thread.start()

    def _agree(self, tree: Any, leaves: dict[str, Leaf]) -> dict[str, Any]:
        """What rank 0 decides of all ranks' structures; every rank raises what it finds wrong."""
        sizes = {path: leaf.array.nbytes for path, leaf in leaves.items()}
        # As JSON text: the structure nests deeper than a message may.
        told = self.group.gather_object([json.dumps(tree), sizes])
        plan: dict[str, Any] = {}
        if told is not None:
            try:
                os.makedirs(self.folder, exist_ok=True)
                whole = merged([json.loads(text) for text, _ in told])
                writers = shared_out([holding for _, holding in told])
                plan = {"save": os.urandom(8).hex(), "writers": writers, "tree": json.dumps(whole)}
            except (ValueError, OSError) as error:
                plan = {"error": str(error), "wrong": isinstance(error, ValueError)}
        plan = self.group.broadcast_object(plan)
        if "error" in plan:
            raise (ValueError if plan["wrong"] else OSError)(plan["error"])
        return plan

    def _write(self, own: list[Leaf], tree: str) -> None:
        path = os.path.join(self.folder, shard_name(self.id, self.group.rank))
        try:
            if self._snapshot is not None:
                self._snapshot.finish()
                own = self._snapshot.leaves
            tensors = [[leaf.path, {"leaf": i}] for i, leaf in enumerate(own)]
            write_tree(path, {"dict": [["save", self.id], ["tensors", {"dict": tensors}]]}, own)
            if self.group.rank == 0:
                self._commit(tree)
        except BaseException as error:
            self._error = error
            with suppress(OSError):
                os.close(os.open(path + ".failed", os.O_CREAT | os.O_WRONLY, 0o600))

    def _commit(self, tree: str) -> None:
        """On rank 0: once all shards are there, the index makes them the checkpoint."""
        names = [shard_name(self.id, rank) for rank in range(self.group.size)]
        self._await(names)
        files = {name: os.path.getsize(os.path.join(self.folder, name)) for name in names}
        index = {
            "format": FORMAT,
            "save": self.id,
            "files": files,
            "writers": self.writers,
            "tree": tree,
        }
        save(index, os.path.join(self.folder, INDEX))
        sweep(self.folder, self.id)

    def _await(self, names: list[str]) -> None:
        deadline = time.monotonic() + PATIENCE
        for rank, name in enumerate(names):
            path = os.path.join(self.folder, name)
            while not os.path.exists(path):
                if os.path.exists(path + ".failed"):
                    raise CheckpointError(
                        f"[checkpoint] rank {rank} could not write its part of {self.folder}"
                    )
                if not threading.main_thread().is_alive():
                    deadline = min(deadline, time.monotonic() + LAST_PATIENCE)
                if time.monotonic() > deadline:
                    raise CheckpointError(
                        f"[checkpoint] rank {rank}'s part of {self.folder} must be there in time, and "
                        f"rank 0 sees no {name}: the folder must be one that all ranks share"
                    )
                time.sleep(LOOK)

    def copied(self) -> None:
        """Blocks until the state may be written again; asks no other rank, raises nothing."""
        if self._snapshot is not None:
            self._snapshot.copied()

    def done(self) -> bool:
        """Whether this rank's part is over; the whole may not be."""
        return not self._thread.is_alive()

    def settle(self) -> None:
        """Blocks until this rank's part is over, and on rank 0 the whole; asks no other rank, raises nothing."""
        self.copied()
        if self._thread.ident is not None:
            self._thread.join()

    def wait(self) -> None:
        """Blocks until the checkpoint is on disk on all ranks' account.

        Raises on every rank what went wrong on one of them, as CheckpointError or OSError; then the folder holds the
        checkpoint that it held before.
        """
        self.settle()
        if self._settled:
            return
        self._settled = True
        error = self._error
        told = self.group.all_gather_object(None if error is None else f"{type(error).__name__}: {error}")
        failed = [(rank, text) for rank, text in enumerate(told) if text]
        if not failed:
            return
        if self.group.rank == 0:
            abandon(self.folder, self.id)
        if error is not None and self.group.size == 1:
            raise error
        own = [(rank, text) for rank, text in failed if "could not write its part" not in text]
        rank, text = (own or failed)[0]
        raise CheckpointError(f"[checkpoint] saving {self.folder} failed on rank {rank}: {text}") from error


def sweep(folder: str, save: str) -> None:
    """Removes what other saves have left in a folder, whole or not."""
    _remove(folder, lambda name: f"-{save}-" not in name and name.startswith(("shard-", ".ringgrad-")))


def abandon(folder: str, save: str) -> None:
    """Removes the shards of a save that came to nothing."""
    _remove(folder, lambda name: name.startswith(f"shard-{save}-"))


def _remove(folder: str, needless: Callable[[str], bool]) -> None:
    for name in filter(needless, os.listdir(folder)):
        with suppress(FileNotFoundError):
            os.unlink(os.path.join(folder, name))
