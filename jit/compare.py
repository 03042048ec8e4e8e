"""Whether two recordings of a function are the same: then it may be repeated."""

from __future__ import annotations

from typing import Any

import numpy as np

from .graph import Graph, Node, Ref, title


def difference(a: Graph, b: Graph) -> str | None:
    """What differs first, in words; None for equal graphs."""
    for x, y in zip(a.nodes, b.nodes):
        if x.kind != y.kind or x.op != y.op:
            return f"one call ran {title(x)} (at {x.where}), the next {title(y)} (at {y.where})"
        if x.payload is not y.payload or x.writes != y.writes or x.outputs != y.outputs:
            return f"{title(x)} (at {x.where}) differs from call to call"
        changed = _changed(x, y)
        if changed:
            return f"{title(x)} (at {x.where}) is given other arguments from call to call: {changed}"
    if len(a.nodes) != len(b.nodes):
        longer = a.nodes if len(a.nodes) > len(b.nodes) else b.nodes
        extra = longer[min(len(a.nodes), len(b.nodes))]
        return f"one call runs more operations than the next, from {title(extra)} (at {extra.where}) on"
    for id, v in a.values.items():
        w = b.values.get(id)
        if w is None or (v.kind, v.shape, v.dtype, v.strides) != (w.kind, w.shape, w.dtype, w.strides):
            return f"a value made at {v.where or v.kind} has another shape or layout from call to call"
        if v.kind == "external" and v.tensor is not w.tensor:
            return "another tensor is read from call to call"
        if v.kind == "constant" and not _same_array(v.array, w.array):
            return f"a tensor made of Python's numbers ({v.type()}) differs from call to call"
    return None if alike(a.outputs, b.outputs) else "another result is returned from call to call"


def _changed(x: Node, y: Node) -> str:
    if not alike(x.args, y.args):
        return f"{x.args!r:.80} and {y.args!r:.80}"
    if not alike(x.kw, y.kw):
        return f"{x.kw!r:.80} and {y.kw!r:.80}"
    return ""


def alike(a: Any, b: Any) -> bool:
    """Equal arguments: of one type, equal numbers (NaN equals NaN), the same values."""
    if type(a) is not type(b):
        return False
    if isinstance(a, Ref):
        return a.id == b.id
    if isinstance(a, tuple | list):
        return len(a) == len(b) and all(map(alike, a, b))
    if isinstance(a, dict):
        return a.keys() == b.keys() and all(alike(v, b[k]) for k, v in a.items())
    return bool(a == b or (a != a and b != b))


def _same_array(a: Any, b: Any) -> bool:
    if a.shape != b.shape or a.dtype != b.dtype:
        return False
    return a.tobytes() == b.tobytes() or bool(np.array_equal(a, b, equal_nan=a.dtype.kind in "fc"))


__all__ = ["alike", "difference"]
