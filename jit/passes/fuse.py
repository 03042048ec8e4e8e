"""Fusion: what follows a matrix product goes into it, chains of elementwise kernels become one."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from .. import kernel_table
from ..graph import Graph, Node, Ref
from .simplify import contiguous

F32 = np.dtype("float32")
SMALLEST = 8192  # elements from which a compiled chain is worth its compilation
LONGEST = 24  # operations in one kernel
FUSED = {
    "add", "subtract", "multiply", "divide", "negative", "maximum", "minimum", "absolute", "square", "sqrt", "exp",
    "tanh",
}  # fmt: skip


def fuse_epilogues(graph: Graph) -> Graph:
    """relu of a matrix product or a batch norm is done where these write, if nothing else reads what they wrote."""
    graph = graph.copy()
    uses, makers = graph.uses(), graph.makers()
    returned = set(graph.returned())
    gone: list[Node] = []
    for node in graph.nodes:
        if node.kind != "kernel" or node.op != "relu":
            continue
        source = node.args[0].id
        product = makers.get(source)
        alone = len(uses.get(source, ())) == 1 and source not in returned
        takes = product is not None and product.kind == "kernel" and product.op in ("gemm", "batch_norm")
        if product is not None and takes and alone and source == product.outputs[0]:
            product.kw["act"] = "relu"
            product.outputs = [node.outputs[0], *product.outputs[1:]]
            gone.append(node)
    graph.nodes = [n for n in graph.nodes if n not in gone]
    return graph


def fuse_elementwise(graph: Graph) -> Graph:
    """A kernel that alone reads another's result takes its work over: one pass over memory for both."""
    if not kernel_table.available():
        return graph
    graph = graph.copy()
    uses, makers = graph.uses(), graph.makers()
    returned = {graph.values[i].root for i in graph.returned()}
    gone: set[int] = set()
    mutated = graph.mutated()

    def fusible(node: Node) -> bool:
        return _fusible(graph, node) and not any(graph.values[i].root in mutated for i in node.inputs())

    for node in reversed(graph.nodes):
        if id(node) in gone or not fusible(node):
            continue
        members = [node]
        frontier = [node]
        while frontier and len(members) < LONGEST:
            for id_ in frontier.pop().inputs():
                inner = makers.get(id_)
                if inner is None or inner in members or not fusible(inner):
                    continue
                shared = graph.values[id_].shape == graph.values[node.outputs[0]].shape
                if shared and len(uses[id_]) == 1 and graph.values[id_].root not in returned:
                    members.append(inner)
                    frontier.append(inner)
        if len(members) > 1:
            _merge(graph, node, sorted(members, key=graph.nodes.index))
            gone.update(id(m) for m in members if m is not node)
    graph.nodes = [n for n in graph.nodes if id(n) not in gone]
    return graph


def _fusible(graph: Graph, node: Node) -> bool:
    known = node.op in ("masked", "relu") or (node.op == "ufunc" and node.kw["ufunc"] in FUSED)
    if node.kind != "kernel" or not known:
        return False
    made = graph.values[node.outputs[0]]
    for id in (*node.inputs(), made.id):
        v = graph.values[id]
        if v.dtype != F32 or (v.shape and (v.shape != made.shape or not contiguous(v))):
            return False
    return math.prod(made.shape) >= SMALLEST


def _merge(graph: Graph, last: Node, members: list[Node]) -> None:
    """The last of them becomes a node of kind kernel that holds the steps of all."""
    inside: dict[int, int] = {}
    arguments: list[int] = []
    steps: list[tuple[Any, ...]] = []
    for k, node in enumerate(members):
        operands = []
        for id in node.inputs():
            if id in inside:
                operands.append(("t", inside[id]))
            else:
                if id not in arguments:
                    arguments.append(id)
                whole = "a" if graph.values[id].shape else "s"
                operands.append((whole, arguments.index(id)))
        name = node.kw["ufunc"] if node.op == "ufunc" else node.op
        steps.append((name, tuple(operands), float(node.kw.get("threshold", 0))))
        inside[node.outputs[0]] = k
    last.op = "fused"
    last.args, last.kw = tuple(Ref(i) for i in arguments), {"steps": tuple(steps)}


__all__ = ["fuse_elementwise", "fuse_epilogues"]
