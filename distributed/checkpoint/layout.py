"""Who writes what: the states of all ranks as one structure, and its tensors shared out. Pure functions.

A rank's state is a nested dict. What several ranks hold under the same keys is saved once, what one of them holds alone
(its share of an optimizer's state, its random numbers under a key of its own) is added to it.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

from ...tensor.serialization.leaves import Leaf
from ...tensor.serialization.tree import MAPPINGS, Encoder

Tree = Any  # JSON values, as tree.Encoder makes them; a leaf is {"leaf": ...}


def described(state: Any) -> tuple[Tree, dict[str, Leaf]]:
    """A state's structure, with leaves as {"leaf": [path, dtype, shape]}, and the leaves by path.

    Tensors that are the same view of the same memory (tied weights) get one path.
    """
    encoder = Encoder()
    tree = encoder.encode(state)
    first: dict[Any, str] = {}
    paths = [first.setdefault(_place(leaf), leaf.path) for leaf in encoder.leaves]
    leaves = {leaf.path: leaf for leaf, path in zip(encoder.leaves, paths) if path == leaf.path}

    def label(index: int) -> list[Any]:
        array = leaves[paths[index]].array
        return [paths[index], array.dtype.name, list(array.shape)]

    return relabelled(tree, label), leaves


def _place(leaf: Leaf) -> Any:
    array = leaf.array
    if not array.size:
        return leaf.path
    return array.__array_interface__["data"][0], array.dtype.name, array.shape, array.strides


def relabelled(tree: Tree, label: Callable[[Any], Any]) -> Tree:
    """The structure with another value in each leaf."""
    if type(tree) is list:
        return [relabelled(part, label) for part in tree]
    if type(tree) is not dict:
        return tree
    if "leaf" in tree:
        return {"leaf": label(tree["leaf"])}
    return {tag: relabelled(part, label) for tag, part in tree.items()}


def merged(trees: Sequence[Tree]) -> Tree:
    """One structure of all ranks' structures. ValueError where two ranks hold different things in one place."""
    whole = trees[0]
    for rank, tree in enumerate(trees[1:], 1):
        whole = _merged(whole, tree, "state", rank)
    return whole


def _merged(whole: Tree, other: Tree, path: str, rank: int) -> Tree:
    if whole == other:
        return whole
    if type(whole) is list and type(other) is list and len(whole) == len(other):
        return [_merged(a, b, f"{path}[{i}]", rank) for i, (a, b) in enumerate(zip(whole, other))]
    tag = next((tag for tag in MAPPINGS if _is(whole, tag) and _is(other, tag)), None)
    if tag is None:
        raise ValueError(
            f"[checkpoint] {path} must be the same on all ranks, or stand on one of them only, came {_short(whole)} "
            f"and on rank {rank} {_short(other)}: give what differs from rank to rank a key with the rank in it"
        )
    items = [list(item) for item in whole[tag]]
    place = {_key(key): i for i, (key, _) in enumerate(items)}
    for key, value in other[tag]:
        i = place.get(_key(key))
        if i is None:
            items.append([key, value])
        else:
            items[i][1] = _merged(items[i][1], value, f"{path}[{key!r}]", rank)
    return {**whole, tag: items}


def _is(tree: Tree, tag: str) -> bool:
    return type(tree) is dict and tag in tree


def _key(key: Any) -> str:
    return repr(key)


def _short(tree: Tree) -> str:
    if _is(tree, "leaf"):
        _, dtype, shape = tree["leaf"]
        return f"{dtype}{shape}"
    text = repr(tree)
    return text if len(text) < 60 else f"{text[:57]}..."


def shared_out(holdings: Sequence[Mapping[str, int]]) -> dict[str, int]:
    """path -> the rank that writes it, from each rank's {path: bytes}: a rank that holds it, and has least to write."""
    holders: dict[str, list[int]] = {}
    sizes: dict[str, int] = {}
    for rank, holding in enumerate(holdings):
        for path, size in holding.items():
            holders.setdefault(path, []).append(rank)
            sizes[path] = size
    loads = [0] * len(holdings)
    writers = {}
    for path in sorted(sizes, key=lambda path: (-sizes[path], path)):
        rank = min(holders[path], key=lambda rank: (loads[rank], rank))
        writers[path] = rank
        loads[rank] += sizes[path]
    return writers
