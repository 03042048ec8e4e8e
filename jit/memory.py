"""Where values live: how long each is needed, and the arena that those of known size share."""

from __future__ import annotations

from typing import Any

import numpy as np

from .graph import Graph


class Plan:
    """When the memory of each value is free again, and which values get a place in the arena."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        values = graph.values
        last_of_root: dict[int, int] = {}
        born: dict[int, int] = {}
        for i, node in enumerate(graph.nodes):
            for id in node.outputs:
                born[id] = i
            for id in (*node.inputs(), *node.outputs):
                last_of_root[values[id].root] = i
        self.escaping = set(graph.returned())
        kept_roots = {values[id].root for id in self.escaping}
        kept_roots |= {v.root for v in values.values() if v.kind in ("external", "input", "grad")}
        self.last: dict[int, list[int]] = {}
        for id in born:
            root = values[id].root
            if root not in kept_roots:
                self.last.setdefault(last_of_root[root], []).append(id)
        self.home: dict[int, int] = {}

    def array(self, id: int) -> Any:
        """A value's own array, or None where it is to be made by what computes it."""
        return None


def empty_as(value: Any) -> Any:
    """An uninitialised array with the shape, dtype and order of strides of a value."""
    order = sorted(range(len(value.shape)), key=lambda axis: -abs(value.strides[axis]))
    made = np.empty([value.shape[axis] for axis in order], value.dtype)
    return made.transpose(sorted(range(len(order)), key=order.__getitem__))
