"""Reading a checkpoint that several ranks wrote, on any number of ranks: index, then shards, everything checked."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from typing import Any

from ...tensor.serialization import CheckpointError, load
from ...tensor.serialization.tree import decode
from .layout import relabelled
from .saving import FORMAT, INDEX

WRONG = (ValueError, TypeError, KeyError, IndexError, AttributeError, OverflowError, RecursionError)


def read_index(folder: str) -> dict[str, Any]:
    """The index. Raises FileNotFoundError where there is none, CheckpointError where it is none that a save writes."""
    path = os.path.join(folder, INDEX)
    if not os.path.exists(path):
        raise FileNotFoundError(
            f"[checkpoint] {folder} must hold a checkpoint, and has no {INDEX}: no save into it was completed"
        )
    index = load(path)
    keys = {"format", "save", "files", "writers", "tree"}
    if type(index) is not dict or not keys <= index.keys():
        raise CheckpointError(f"[checkpoint] {path} is not the index of a checkpoint")
    if index["format"] != FORMAT:
        raise CheckpointError(
            f"[checkpoint] {path} has format {index['format']}, this ringgrad reads {FORMAT}: update ringgrad"
        )
    return index


def shards(folder: str, index: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    """Name and tensors (by path) of each shard, checked against the index."""
    for name, size in index["files"].items():
        path = os.path.join(folder, os.path.basename(name))
        try:
            found = os.path.getsize(path)
        except FileNotFoundError:
            raise CheckpointError(f"[checkpoint] {folder} must hold {name}, which is not there") from None
        if found != size:
            raise CheckpointError(f"[checkpoint] {path} must have {size} bytes, it has {found}")
        shard = load(path)
        if type(shard) is not dict or shard.get("save") != index["save"]:
            raise CheckpointError(f"[checkpoint] {path} must be of save {index['save']}, it is of another")
        yield name, shard["tensors"]


def read(folder: str) -> Any:
    """The whole state. Raises CheckpointError naming what is damaged or missing."""
    index = read_index(folder)
    tensors: dict[str, Any] = {}
    for _, part in shards(folder, index):
        tensors.update(part)
    try:
        tree = json.loads(index["tree"])
        leaves: list[Any] = []

        def place(label: Any) -> int:
            leaves.append(tensors[label[0]])
            return len(leaves) - 1

        return decode(relabelled(tree, place), leaves)
    except WRONG as error:
        raise CheckpointError(
            f"[checkpoint] {folder} has an index that does not fit its shards: {error!r}"
        ) from None
