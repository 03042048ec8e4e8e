"""The graph of a computation: values, and the nodes that make them. Written by trace.py; read by passes, code
generation, files and ONNX export.

A node calls one function on arrays. `op` says which (see `Node.kind`); its arguments are numbers, tuples, and `Ref`s
that stand for values. Nodes are kept in the order in which they ran, which is a topological order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any


class Ref:
    """Stands for a value inside of a node's arguments."""

    __slots__ = ("id",)

    def __init__(self, id: int) -> None:
        self.id = id

    def __eq__(self, other: object) -> bool:
        return type(other) is Ref and other.id == self.id

    def __hash__(self) -> int:
        return hash(("ref", self.id))

    def __repr__(self) -> str:
        return f"%{self.id}"


class Value:
    """An array of the computation.

    kind    input: comes with each call; external: a tensor that stood before (parameter, buffer, closure);
            constant: made of Python's numbers; result: made by a node
    root    number of the memory it lies in: values with one root are views of each other
    array   the array seen in the trace (kept for externals and constants)
    tensor  the Tensor of an external
    """

    __slots__ = ("array", "dtype", "id", "kind", "name", "root", "shape", "strides", "tensor", "where")

    def __init__(
        self, id: int, array: Any, kind: str, name: str = "", where: str = "", root: int = 0
    ) -> None:
        self.id, self.kind, self.name, self.where, self.root = id, kind, name, where, root
        self.shape, self.dtype, self.strides = array.shape, array.dtype, array.strides
        self.array: Any = array if kind in ("external", "constant") else None
        self.tensor: Any = None

    @property
    def nbytes(self) -> int:
        n = self.dtype.itemsize
        for size in self.shape:
            n *= size
        return n

    def type(self) -> str:
        return f"{self.dtype.name}{list(self.shape)}"


class Node:
    """One call.

    kind     op: the forward of a registered op; backward: the fused backward of one; array: an ArrayFunction;
             random: a method of the default generator; gradient: a leaf's gradient is whole; optimizer: a step;
             fused: elementwise steps made one by a pass; view: other strides on the same memory
    extras   names of what the op's forward gives beside its output, where somebody needs it: after the outputs
    writes   values that are changed in place
    effect   must run even when nobody reads an output
    """

    __slots__ = ("args", "effect", "extras", "kind", "kw", "op", "outputs", "payload", "where", "writes")

    def __init__(
        self,
        kind: str,
        op: str,
        args: Any,
        kw: dict[str, Any],
        outputs: list[int],
        where: str = "",
        writes: tuple[int, ...] = (),
        effect: bool = False,
        payload: Any = None,
    ) -> None:
        self.kind, self.op, self.args, self.kw, self.outputs = kind, op, args, kw, outputs
        self.where, self.writes, self.effect, self.payload = where, writes, effect, payload
        self.extras: tuple[str, ...] = ()

    def inputs(self) -> list[int]:
        """Numbers of the values it reads, in order, repeated where read twice."""
        return [r.id for r in refs((self.args, *self.kw.values()))]

    def copy(self) -> Node:
        new = Node(
            self.kind, self.op, self.args, dict(self.kw), list(self.outputs), self.where, self.writes,
            self.effect, self.payload,
        )  # fmt: skip
        new.extras = self.extras
        return new


class Graph:
    """Nodes in order, values by number. `outputs`: what is returned, a structure with Refs; `inputs`: numbers."""

    def __init__(self, name: str = "graph") -> None:
        self.name = name
        self.values: dict[int, Value] = {}
        self.nodes: list[Node] = []
        self.inputs: list[int] = []
        self.outputs: Any = ()

    def copy(self) -> Graph:
        """Another graph with its own nodes; values are shared."""
        new = Graph(self.name)
        new.values, new.inputs, new.outputs = dict(self.values), list(self.inputs), self.outputs
        new.nodes = [node.copy() for node in self.nodes]
        return new

    def returned(self) -> list[int]:
        return [r.id for r in refs(self.outputs)]

    def makers(self) -> dict[int, Node]:
        """The node that makes each value."""
        return {id: node for node in self.nodes for id in node.outputs}

    def uses(self) -> dict[int, list[Node]]:
        """The nodes that read each value (once for each time)."""
        found: dict[int, list[Node]] = {}
        for node in self.nodes:
            for id in node.inputs():
                found.setdefault(id, []).append(node)
        return found

    def mutated(self) -> set[int]:
        """Roots of the memory that some node writes in place: their values change while the graph runs."""
        return {self.values[id].root for node in self.nodes for id in node.writes}

    # ---- to read

    def __str__(self) -> str:
        lines = [f"{self.name}("]
        for value in self.values.values():
            if value.kind != "result" and self._is_read(value.id):
                lines.append(f"  %{value.id}: {value.type()} {value.kind} {value.name}".rstrip())
        lines.append("):")
        for node in self.nodes:
            made = ", ".join(f"%{id}: {self.values[id].type()}" for id in node.outputs)
            wrote = f"  ! writes {', '.join(f'%{id}' for id in node.writes)}" if node.writes else ""
            lines.append(f"  {made + ' = ' if made else ''}{title(node)}({arguments(node)}){wrote}")
        return "\n".join([*lines, f"  return {show(self.outputs)}"])

    def _is_read(self, id: int) -> bool:
        return any(id in node.inputs() for node in self.nodes) or id in self.returned()

    def to_dot(self) -> str:
        """The graph in graphviz's language: `dot -Tsvg`."""
        lines = [
            "digraph {",
            '  rankdir=TB; node [fontname="sans-serif", fontsize=10, shape=box, style=filled];',
        ]
        colours = {"input": "#cfe8ff", "external": "#ffe9c7", "constant": "#eeeeee"}
        makers = self.makers()
        for value in self.values.values():
            if value.kind != "result" and self._is_read(value.id):
                label = f"{value.name or value.kind}\\n{value.type()}"
                lines.append(
                    f'  v{value.id} [label="{label}", shape=ellipse, fillcolor="{colours[value.kind]}"];'
                )
        for i, node in enumerate(self.nodes):
            made = "".join(f"\\n{self.values[id].type()}" for id in node.outputs[:1])
            colour = "#d6f5d6" if node.kind == "fused" else "#ffd6d6" if node.effect else "#ffffff"
            lines.append(f'  n{i} [label="{title(node)}{made}", fillcolor="{colour}"];')
            for id in dict.fromkeys(node.inputs()):
                source = f"n{self.nodes.index(makers[id])}" if id in makers else f"v{id}"
                lines.append(f"  {source} -> n{i};")
        for k, id in enumerate(dict.fromkeys(self.returned())):
            lines.append(f'  r{k} [label="return", shape=ellipse, fillcolor="#cfe8ff"];')
            lines.append(f"  {f'n{self.nodes.index(makers[id])}' if id in makers else f'v{id}'} -> r{k};")
        return "\n".join([*lines, "}"])


def title(node: Node) -> str:
    """The node's name as it is printed."""
    return node.op + (".backward" if node.kind == "backward" else "")


def arguments(node: Node) -> str:
    parts = [show(a) for a in node.args] + [f"{k}={show(v)}" for k, v in node.kw.items()]
    return ", ".join(parts)


def show(value: Any) -> str:
    """A structure of arguments as text."""
    if isinstance(value, Ref):
        return f"%{value.id}"
    if isinstance(value, tuple | list):
        inner = ", ".join(map(show, value))
        return f"({inner},)" if len(value) == 1 else f"({inner})"
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k}: {show(v)}" for k, v in value.items()) + "}"
    return repr(value)


def leaves(value: Any, kind: type) -> Iterator[Any]:
    """What is of a kind in nested tuples, lists and dicts, in order."""
    if isinstance(value, kind):
        yield value
    elif isinstance(value, tuple | list):
        for v in value:
            yield from leaves(v, kind)
    elif isinstance(value, dict):
        for v in value.values():
            yield from leaves(v, kind)


def refs(value: Any) -> Iterator[Ref]:
    """The Refs of nested tuples, lists and dicts, in order."""
    return leaves(value, Ref)


def mapped(value: Any, change: Callable[[Any], Any]) -> Any:
    """The same structure with every Ref replaced by change(ref)."""
    if isinstance(value, Ref):
        return change(value)
    if isinstance(value, tuple):
        parts = [mapped(v, change) for v in value]
        return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
    if isinstance(value, list):
        return [mapped(v, change) for v in value]
    if isinstance(value, dict):
        return {k: mapped(v, change) for k, v in value.items()}
    return value


def renamed(graph: Graph, names: dict[int, int]) -> None:
    """Reads of some values become reads of others, in place."""
    if not names:
        return

    def change(ref: Ref) -> Ref:
        id = ref.id
        while id in names:
            id = names[id]
        return ref if id == ref.id else Ref(id)

    for node in graph.nodes:
        node.args = mapped(node.args, change)
        node.kw = {k: mapped(v, change) for k, v in node.kw.items()}
    graph.outputs = mapped(graph.outputs, change)
