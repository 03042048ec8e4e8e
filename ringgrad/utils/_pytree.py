"""`torch.utils._pytree`: nested containers as lists of leaves."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from typing import Any, NamedTuple


class TreeSpec(NamedTuple):
    """How a container was built: its type, what it needs to be built again, and the specs of its children."""

    type: Any
    context: Any
    children: tuple[Any, ...]

    @property
    def num_leaves(self) -> int:
        return 1 if self.type is None else sum(child.num_leaves for child in self.children)


LEAF = TreeSpec(None, None, ())


def tree_flatten(tree: Any, is_leaf: Callable[[Any], bool] | None = None) -> tuple[list[Any], TreeSpec]:
    """The leaves of nested lists, tuples, named tuples and dicts, and the spec that builds them up again."""
    if is_leaf is not None and is_leaf(tree):
        return [tree], LEAF
    if isinstance(tree, dict):
        keys, children = list(tree), list(tree.values())
        kind: Any = type(tree)
        context: Any = keys
    elif isinstance(tree, list | tuple):
        kind, context, children = type(tree), None, list(tree)
    else:
        return [tree], LEAF
    leaves, specs = [], []
    for child in children:
        found, spec = tree_flatten(child, is_leaf)
        leaves.extend(found)
        specs.append(spec)
    return leaves, TreeSpec(kind, context, tuple(specs))


def tree_unflatten(leaves: Any, treespec: TreeSpec) -> Any:
    """The container that a spec describes, over other leaves."""
    leaves = list(leaves)
    if len(leaves) != treespec.num_leaves:
        raise ValueError(f"[tree_unflatten] {treespec.num_leaves} leaves are needed, came {len(leaves)}")
    return _build(iter(leaves), treespec)


def _build(leaves: Any, spec: TreeSpec) -> Any:
    if spec.type is None:
        return next(leaves)
    children = [_build(leaves, child) for child in spec.children]
    if issubclass(spec.type, dict):
        pairs = zip(spec.context, children)
        return OrderedDict(pairs) if spec.type is OrderedDict else spec.type(pairs)
    return spec.type(*children) if hasattr(spec.type, "_fields") else spec.type(children)


def tree_leaves(tree: Any) -> list[Any]:
    """The leaves alone."""
    return tree_flatten(tree)[0]


def tree_map(fn: Callable[..., Any], tree: Any, *rest: Any) -> Any:
    """The same container over fn(leaf); further trees give fn more arguments."""
    leaves, spec = tree_flatten(tree)
    others = [tree_flatten(t)[0] for t in rest]
    return tree_unflatten([fn(*values) for values in zip(leaves, *others)], spec)


def tree_map_only(kind: Any, fn: Callable[[Any], Any], tree: Any) -> Any:
    """tree_map over leaves of one type; the others stay."""
    return tree_map(lambda leaf: fn(leaf) if isinstance(leaf, kind) else leaf, tree)
