"""In-place operations under autograd.

Writing into a tensor gives it a new place in the graph. Writing into a view gives its base a new place: the
base's gradient is the old one with the part under the view sent through the written operation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from . import engine
from .engine import Node, Variable, array_namespace, call_site, edge_of, mode, refresh, writable
from .op import F32, F64, Op, OpNode, describe, listeners, no_kernel, registry, tensor_ops


class CopySlices(Node):
    """Gradient of a base of which a view was written by the op recorded in `inner`."""

    __slots__ = ("inner", "replay")

    def __init__(self, base_edge: Any, replay: Sequence[tuple[Any, dict[str, Any]]], inner: Node) -> None:
        super().__init__((base_edge, *inner.edges[1:]))
        self.replay, self.inner = replay, inner

    def vjp(self, g: Any, create: bool) -> list[Any]:
        g = g.clone() if create else g.copy(order="K")
        part = g
        for op, kw in self.replay:
            part = op(part, **kw) if create else op.forward(array_namespace[type(g)], part, **kw)
        old, *others = self.inner.vjp(part.clone() if create else part.copy(), create)
        if create:
            part.zero_() if old is None else part.copy_(old)
        else:
            part[...] = 0 if old is None else old
        return [g, *others]

    def release(self) -> None:
        self.inner.release()

    def name(self) -> str:
        return "CopySlices"


def check_writable(name: str, x: Any) -> None:
    """What PyTorch forbids: in-place writes to leaves that require gradients, and to some views."""
    if not mode.grad:
        return
    if x._base is not None:
        refresh(x)
        if x._replay is None and (x._needs or x._base._needs):
            raise RuntimeError(
                f"[{name}] a view that came together with others (split, unbind) must not be written in place: the"
                " others' gradients could not follow; use clone() before, or narrow() for the view"
            )
        if x._base._needs and x._base._node is None:
            raise RuntimeError(
                f"[{name}] a view of a leaf that requires grad must not be written in place:"
                " do it under no_grad(), or on a clone()"
            )
    elif x._needs and x._node is None:
        raise RuntimeError(
            f"[{name}] a leaf that requires grad must not be written in place: do it under no_grad(),"
            " or on a clone()"
        )


def written(x: Any) -> None:
    """Notes that a tensor's memory changed, and where."""
    version = x._version
    version[0] += 1
    version[1] = call_site()
    for writer in engine.writers:
        writer(x)


# NumPy's own in-place forms, by the name of the op.
UFUNCS = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.true_divide}


def _at_once(name: str, x: Any, other: Any) -> bool:
    """Writes x by a ufunc where nothing is recorded and dtypes are equal; False where the long way must do it."""
    ufunc, a, b = UFUNCS.get(name), x.array, other
    if ufunc is None or listeners or x._base is not None or type(a) is not np.ndarray:
        return False
    recorded = x._needs
    if isinstance(other, Variable):
        b, recorded = other.array, recorded or other._needs or other._base is not None
        if type(b) is not np.ndarray or b.dtype is not a.dtype:
            return False
    elif type(b) is not float and type(b) is not int:
        return False
    if (a.dtype is not F32 and a.dtype is not F64) or (recorded and mode.grad) or not a.flags.writeable:
        return False
    try:
        ufunc(a, b, a)
    except (ValueError, OverflowError):
        return False  # the long way says it in our words
    return True


def apply_inplace(op: Callable[..., Any], x: Any, *others: Any, **kw: Any) -> Any:
    """Writes op(x, *others) into x, and records it; returns x."""
    declared: Op = getattr(op, "op", op)  # type: ignore[arg-type]
    if others and not kw and len(others) == 1 and _at_once(declared.name, x, others[0]):
        written(x)
        return x
    check_writable(declared.name + "_", x)
    args: Sequence[Any] = (x, *others)
    if declared.prepare is not None:
        args, kw = declared.prepare(x, *others, **kw)
    arrays = [a.array if isinstance(a, Variable) else a for a in args]
    if declared.refuses:
        for array in arrays:
            if type(array) in array_namespace and array.dtype.kind in declared.refuses:
                raise no_kernel(declared, array)
    y, extra = declared.compute(arrays, kw)
    mask = 0
    if mode.grad and declared.differentiable:
        for i, a in enumerate(args):
            if isinstance(a, Variable) and edge_of(a) is not None:
                mask |= 1 << i
    if mask:
        for _, i in declared.plan(
            mask
        ).arrays:  # what the rules need of the overwritten memory is kept as a copy
            if i < len(args) and isinstance(args[i], Variable) and args[i]._version is x._version:
                arrays[i] = arrays[i].copy()
    write(declared.name + "_", x, y)
    if mask or x._needs:
        record(x, _node(declared, x, args, arrays, kw, mask, y, extra) if mask else None)
    elif x._base is not None:
        x._view_version = x._version[0]
    if listeners:
        for listener in listeners:
            listener(declared, tuple(args), kw, x)
    return x


def _node(
    op: Op,
    target: Any,
    args: Sequence[Any],
    arrays: list[Any],
    kw: dict[str, Any],
    mask: int,
    y: Any,
    extra: Any,
) -> OpNode:
    """The op's node; of what was overwritten it holds copies, which no version counts."""
    node = OpNode(op, args, arrays, kw, mask, y, extra, None)
    versions = []
    for counter, version, name in node.versions:
        if counter is not target._version:
            versions.append((counter, version, name))
    if "y" in node.saved:
        node.saved["y"] = target.array
        versions.append((target._version, target._version[0], "y"))
    node.versions = versions
    return node


def write(name: str, x: Any, y: Any) -> None:
    """Copies an array into a tensor's memory."""
    array = x.array
    if y.shape != array.shape:
        raise RuntimeError(
            f"[{name}] the result must have the tensor's shape {list(array.shape)}, came {list(y.shape)}"
        )
    if y.dtype != array.dtype and not _fits(y.dtype, array.dtype):
        raise RuntimeError(
            f"[{name}] the result's type {y.dtype.name} cannot be cast to the tensor's {array.dtype.name}"
        )
    if not writable(array):
        raise RuntimeError(
            f"[{name}] the memory must be writable, came {describe(x)} whose elements share memory (expand) or are"
            " read-only: use clone() before"
        )
    array[...] = y if type(y) is type(array) else array_namespace[type(array)].asarray(y)
    written(x)


def _fits(source: Any, target: Any) -> bool:
    rank = {"b": 0, "i": 1, "u": 1, "f": 2, "V": 2, "c": 3}
    return rank.get(source.kind, 2) <= rank.get(target.kind, 2)


def record(x: Any, node: Any) -> None:
    """Gives a written tensor its new place in the graph; None: its content no longer depends on anything."""
    base = x._base
    if base is None:
        if node is not None:
            x._node, x._needs = node, True
        return
    if node is not None:
        base._node = CopySlices(edge_of(base), x._replay, node)
        base._needs = True
        assert base._base is None, "the base of a view is never a view"
        x._needs = True
    refresh(x)


def assign(x: Any, index: Any, value: Any) -> None:
    """x[index] = value."""
    check_writable("setitem", x)
    array = x.array
    if isinstance(value, Variable):
        source = value.array
    else:
        source = value if type(value) is type(array) else np.asarray(value)
        if source.dtype != array.dtype:
            source = source.astype(array.dtype)
        if type(source) is not type(array):
            source = array_namespace[type(array)].asarray(source)
        value = None
    if not writable(array):
        raise RuntimeError(
            f"[setitem] the memory must be writable, came {describe(x)} whose elements share memory (expand) or are"
            " read-only: use clone() before"
        )
    try:
        array[index] = source
    except (ValueError, TypeError) as error:
        raise RuntimeError(
            f"[setitem] the value must fit the indexed part ({error}), came {describe(source)} for {describe(x)}"
        ) from None
    mask = 0
    if mode.grad:
        mask = (edge_of(x) is not None) + 2 * (value is not None and edge_of(value) is not None)
    written(x)
    op = registry["setitem"]
    for listener in listeners:
        listener(op, (x, source if value is None else value), {"index": index}, x)
    if not mask:
        return
    args = (x, value if value is not None else source)
    if value is not None and value.array.dtype != array.dtype:
        args = (x, tensor_ops["cast"](value, dtype=array.dtype))
    arrays = [array, args[1].array if value is not None else source]
    record(x, OpNode(op, args, arrays, {"index": index}, mask, None, None, None))


__all__ = ["CopySlices", "apply_inplace", "assign", "check_writable", "record", "write", "written"]
