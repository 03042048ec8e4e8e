"""Where values live: how long each is needed, and the arena that those of known size share.

Kernels write into arrays that are given to them. Those arrays are parts of one block of memory: two values share bytes
where their lives do not overlap, so the block is about as large as the largest set of values alive at once. A
gradient's value gets an array of its own, as it outlives the call.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from . import kernel_table
from .graph import Graph, Node

ALIGN = 64


class Plan:
    """When the memory of each value is free again, and the places in the arena."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        values = graph.values
        self.last_of_root: dict[int, int] = {}
        self.born: dict[int, int] = {}
        made: dict[int, int] = {}
        for i, node in enumerate(graph.nodes):
            for id in node.outputs:
                made[id] = i
                self.born.setdefault(values[id].root, i)
            for id in (*node.inputs(), *node.outputs):
                self.last_of_root[values[id].root] = i
        self.escaping = set(graph.returned())
        outside = {v.root for v in values.values() if v.kind in ("external", "input", "grad")}
        self.kept = {values[id].root for id in self.escaping} | outside
        self.last: dict[int, list[int]] = {}
        for id in made:
            root = values[id].root
            if root not in self.kept:
                self.last.setdefault(self.last_of_root[root], []).append(id)
        self.home = self._homes()
        self.places = self._places()
        self.peak = max((at + size for at, size in self.places.values()), default=0)
        self.asked = sum(size for _, size in self.places.values())
        self.arena = np.empty(self.peak + ALIGN, np.uint8)
        start = -self.arena.__array_interface__["data"][0] % ALIGN
        self.arena = self.arena[start : start + self.peak]

    def array(self, id: int) -> Any:
        """A value's array, or None where it is to be made by what computes it."""
        value = self.graph.values[id]
        if id in self.home.values():
            return empty_as(value)
        place = self.places.get(value.root)
        if place is None:
            return None
        return empty_as(value, self.arena[place[0] : place[0] + value.nbytes])

    def _planned(self, node: Node) -> list[int]:
        if node.kind != "kernel":
            return []
        return [id for id in kernel_table.room(node) if self.graph.values[id].root not in self.kept]

    def _homes(self) -> dict[int, int]:
        """Gradients that their kernel can write right where they stay: {gradient: the kernel's value}."""
        graph, values = self.graph, self.graph.values
        planned = {id for node in graph.nodes for id in self._planned(node)}
        index = {id: i for i, node in enumerate(graph.nodes) for id in node.inputs()}  # of the last reader
        members: dict[int, int] = {}
        for value in values.values():
            members[value.root] = members.get(value.root, 0) + 1
        found: dict[int, int] = {}
        for i, node in enumerate(graph.nodes):
            if node.kind == "gradient" and not isinstance(node.payload, int):
                (source,), (made,) = node.inputs(), node.outputs
                a, b = values[source], values[made]
                alike = (a.shape, a.dtype, a.strides) == (b.shape, b.dtype, b.strides)
                alone = members[a.root] == 1 and index[source] <= i and source not in found.values()
                if source in planned and alike and alone:
                    found[made] = source
        return found

    def _places(self) -> dict[int, tuple[int, int]]:
        """{root: (offset, bytes)}: large ones first, each at the lowest offset that is free during its life."""
        values = self.graph.values
        homes = {values[id].root for id in self.home.values()}
        size: dict[int, int] = {}
        same: dict[int, int] = {}  # root -> the root over which it is written
        end = dict(self.last_of_root)
        for i, node in enumerate(self.graph.nodes):
            for id in self._planned(node):
                root = values[id].root
                if root not in homes:
                    size[root] = max(size.get(root, 0), -(-values[id].nbytes // ALIGN) * ALIGN)
            if node.kind == "kernel" and node.op in kernel_table.IN_PLACE:
                self._over(node, i, size, same, end)
        whole: dict[int, list[int]] = {}
        for root in size:
            whole.setdefault(_first(same, root), []).append(root)
        placed: list[tuple[int, int, int, int]] = []  # offset, end, born, last
        found: dict[int, tuple[int, int]] = {}
        for first, roots in sorted(whole.items(), key=lambda item: -size[item[0]]):
            born, last, room = self.born[first], max(end[r] for r in roots), size[first]
            at = 0
            for low, high, _, _ in sorted(p for p in placed if p[2] <= last and born <= p[3]):
                if at + room <= low:
                    break
                at = max(at, high)
            placed.append((at, at + room, born, last))
            for root in roots:
                found[root] = (at, room)
        return found

    def _over(self, node: Node, i: int, size: Any, same: dict[int, int], end: dict[int, int]) -> None:
        """Lets an elementwise kernel write over an operand that nobody reads afterwards."""
        values = self.graph.values
        out = values[node.outputs[0]]
        for id in node.inputs():
            x = values[id]
            alike = (x.shape, x.strides, x.dtype) == (out.shape, out.strides, out.dtype)
            if x.root not in size or out.root not in size or x.root == out.root or not alike:
                continue
            fits = size[x.root] == size[out.root] and end[x.root] == i and self.born[out.root] == i
            if fits and out.root not in same:
                same[out.root] = x.root
                return


def _first(same: dict[int, int], root: int) -> int:
    while root in same:
        root = same[root]
    return root


def empty_as(value: Any, memory: Any = None) -> Any:
    """An array with the shape, dtype and order of strides of a value, on given bytes or new ones."""
    order = sorted(range(len(value.shape)), key=lambda axis: -abs(value.strides[axis]))
    shape = [value.shape[axis] for axis in order]
    made = np.empty(shape, value.dtype) if memory is None else memory.view(value.dtype).reshape(shape)
    return made.transpose(sorted(range(len(order)), key=order.__getitem__))
