"""Passes that drop work: dead code, equal nodes, constants, identities, views that change nothing."""

from __future__ import annotations

from typing import Any

from ...autograd.op import registry
from ..graph import Graph, Node, Ref, mapped, renamed

PURE = ("op", "view", "backward", "kernel")


def pure(graph: Graph) -> Any:
    """A test for nodes that only compute, on memory that nobody writes while the graph runs."""
    mutated = graph.mutated()

    def test(node: Node) -> bool:
        touched = (*node.inputs(), *node.outputs)
        quiet = node.kind in PURE and not node.effect and not node.writes
        return quiet and not any(graph.values[i].root in mutated for i in touched)

    return test


def dead_code(graph: Graph) -> Graph:
    """Without the nodes whose results nobody reads."""
    graph = graph.copy()
    needed = set(graph.returned())
    kept = []
    for node in reversed(graph.nodes):
        alive = node.effect or node.writes or node.kind not in PURE or needed.intersection(node.outputs)
        if alive:
            needed.update(node.inputs())
            kept.append(node)
    graph.nodes = kept[::-1]
    return graph


def _key(value: Any) -> Any:
    """Arguments as something that can be looked up; numbers of different types are different."""
    if isinstance(value, Ref):
        return value
    if isinstance(value, tuple | list):
        return (type(value), *map(_key, value))
    if isinstance(value, dict):
        return tuple((k, _key(v)) for k, v in value.items())
    if isinstance(value, slice):
        return ("slice", _key(value.start), _key(value.stop), _key(value.step))
    return (type(value), value if value == value else "nan")


def common_subexpressions(graph: Graph) -> Graph:
    """Equal nodes are computed once; what the caller gets back stays apart."""
    graph = graph.copy()
    values, mutated = graph.values, graph.mutated()
    kept_apart = {values[i].root for i in graph.returned()} | mutated
    seen: dict[Any, Node] = {}
    writes: dict[int, int] = {}  # of each memory, so far: what was read before and after is not the same
    kept = []
    for node in graph.nodes:
        for id in node.writes:
            writes[values[id].root] = writes.get(values[id].root, 0) + 1
        quiet = node.kind in PURE and not node.effect and not node.writes
        if quiet and not any(values[i].root in kept_apart for i in node.outputs):
            versions = tuple(writes.get(values[i].root, 0) for i in node.inputs())
            key = (node.kind, node.op, versions, _key(node.args), _key(node.kw))
            first = seen.get(key)
            if first is not None and first.extras == node.extras and len(first.outputs) == len(node.outputs):
                renamed(graph, dict(zip(node.outputs, first.outputs)))
                continue
            seen.setdefault(key, node)
        kept.append(node)
    graph.nodes = kept
    return graph


def fold_constants(graph: Graph) -> Graph:
    """Ops on constants alone are computed now."""
    graph = graph.copy()
    test = pure(graph)
    kept = []
    values = graph.values
    for node in graph.nodes:
        given = [values[i] for i in node.inputs()]
        made = [values[i] for i in node.outputs]
        own = not {v.root for v in made} & {v.root for v in given}
        if node.kind == "op" and given and test(node) and own and all(v.kind == "constant" for v in given):
            op = registry[node.op]
            if len(made) == op.outputs == 1 and not op.extras:
                args, kw = (mapped(a, lambda r: values[r.id].array) for a in (node.args, node.kw))
                made[0].array, _ = op.compute(list(args), kw)
                made[0].kind = "constant"
                continue
        kept.append(node)
    graph.nodes = kept
    return graph


# op -> the number that changes nothing on the right, and on the left
NEUTRAL: dict[str, tuple[float | None, float | None]] = {
    "mul": (1, 1), "div": (1, None), "add": (None, None), "pow": (1, None), "sub": (0, None),
}  # fmt: skip


def simplify_algebra(graph: Graph) -> Graph:
    """x * 1, x / 1, x ** 1 and x - 0 are x; -(-x) is x. x + 0 stays, as -0 + 0 is 0."""
    graph = graph.copy()
    test = pure(graph)
    makers = graph.makers()
    returned = {graph.values[i].root for i in graph.returned()}
    same: dict[int, int] = {}
    for node in graph.nodes:
        if node.kind == "op" and test(node) and len(node.outputs) == 1:
            found = _identity(graph, node, makers)
            if found is not None and graph.values[node.outputs[0]].root not in returned:
                same[node.outputs[0]] = found
    renamed(graph, same)
    graph.nodes = [n for n in graph.nodes if not (n.outputs and n.outputs[0] in same and len(n.outputs) == 1)]
    return graph


def _identity(graph: Graph, node: Node, makers: dict[int, Node]) -> int | None:
    made = graph.values[node.outputs[0]]
    if node.op == "neg" and isinstance(node.args[0], Ref):
        inner = makers.get(node.args[0].id)
        if inner is not None and inner.kind == "op" and inner.op == "neg":
            return inner.args[0].id
    if node.op not in NEUTRAL or len(node.args) != 2:
        return None
    for place, neutral in enumerate(NEUTRAL[node.op]):
        number, other = node.args[1 - place], node.args[place]
        if neutral is not None and isinstance(other, Ref) and _number(graph, number) == neutral:
            x = graph.values[other.id]
            if (x.shape, x.dtype) == (made.shape, made.dtype):
                return x.id
    return None


def _number(graph: Graph, value: Any) -> Any:
    if isinstance(value, Ref):
        held = graph.values[value.id]
        return held.array.item() if held.kind == "constant" and held.array.size == 1 else None
    return value if isinstance(value, int | float) else None


def remove_views(graph: Graph) -> Graph:
    """Views with the shape and strides of what they look at are that; views of views look at the first."""
    graph = graph.copy()
    test = pure(graph)
    values = graph.values
    same: dict[int, int] = {}
    kept = []
    for node in graph.nodes:
        if (
            node.kind == "op"
            and test(node)
            and len(node.outputs) == 1
            and registry[node.op].view is not False
        ):
            sources = node.inputs()
            made = values[node.outputs[0]]
            if len(sources) == 1:
                x = values[sources[0]]
                alike = (x.shape, x.strides, x.dtype, x.root) == (
                    made.shape,
                    made.strides,
                    made.dtype,
                    made.root,
                )
                if alike:
                    same[made.id] = x.id
                    continue
        kept.append(node)
    graph.nodes = kept
    renamed(graph, same)
    makers = graph.makers()
    skipped = [_skip_inner_view(graph, node, makers) for node in graph.nodes]
    return remove_views(graph) if any(skipped) else graph


def _skip_inner_view(graph: Graph, node: Node, makers: dict[int, Node]) -> bool:
    """reshape(reshape(x)) of contiguous memory is one reshape."""
    if node.kind != "op" or node.op not in ("reshape", "view") or node.writes:
        return False
    inner = makers.get(node.args[0].id)
    if inner is None or inner.kind != "op" or inner.op not in ("reshape", "view") or inner.writes:
        return False
    made, x = graph.values[node.outputs[0]], graph.values[inner.args[0].id]
    if made.root != x.root or not contiguous(x):
        return False
    node.args, node.kw = (Ref(x.id),), {"shape": made.shape}
    return True


def contiguous(value: Any) -> bool:
    """Whether a value lies in row-major order without gaps."""
    step = value.dtype.itemsize
    for size, stride in zip(reversed(value.shape), reversed(value.strides)):
        if size != 1:
            if stride != step:
                return 0 in value.shape
            step *= size
    return True


__all__ = [
    "common_subexpressions",
    "contiguous",
    "dead_code",
    "fold_constants",
    "pure",
    "remove_views",
    "simplify_algebra",
]
