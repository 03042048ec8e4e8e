"""The engine: variables, the nodes between them, and the walk back.

Graph edges run from node to node, never to tensors, but for leaves: an edge of a node is the node that made
its input, an `Output` of one that made several, the leaf itself, or None where no gradient is wanted. A node
never holds its own output, so a graph has no cycles and is freed at once by reference counting.
"""

from __future__ import annotations

import functools
import itertools
import sys
from collections.abc import Callable, Iterable, Sequence
from operator import attrgetter
from typing import TYPE_CHECKING, Any

import numpy as np

from .mode import mode

NODE, LEAF, OUTPUT = 0, 1, 2
sequence = itertools.count(1).__next__

# Given an array of a backend, its namespace: the one place where backends are told apart.
array_namespace: dict[type, Any] = {np.ndarray: np}


# Doors through which a trace (jit/trace.py) looks; all are empty but while one runs.
watch: Any = None  # told of each step of a walk back
readers: list[Callable[[Any, str], None]] = []  # told when Python looks at a tensor's values: (tensor, how)
writers: list[Callable[[Any], None]] = []  # told that a tensor's memory was written
makers: list[Callable[[Any], None]] = []  # told of a tensor that was made out of Python's numbers


callers: list[Callable[[ArrayFunction, Any, dict[str, Any], Any], None]] = []  # told of array functions


class ArrayFunction:
    """A function on arrays that runs beside the ops (moments, noise, clipping): a trace sees its calls.

    writes: positions of the arguments that it changes in place.
    """

    def __init__(self, fn: Callable[..., Any], writes: tuple[int, ...] = ()) -> None:
        self.fn, self.writes, self.name = fn, writes, fn.__name__.strip("_")
        array_functions[self.name] = self

    def __call__(self, *args: Any, **kw: Any) -> Any:
        result = self.fn(*args, **kw)
        for caller in callers:
            caller(self, args, kw, result)
        return result


array_functions: dict[str, ArrayFunction] = {}

wholes: list[Callable[[Callable[..., Any], Any, dict[str, Any], Any], None]] = []  # told of whole functions


def whole(fn: Callable[..., Any]) -> Callable[..., Any]:
    """Marks a function on tensors that an export takes as one operation: it reads values that no op sees."""

    @functools.wraps(fn)
    def call(*args: Any, **kw: Any) -> Any:
        result = fn(*args, **kw)
        for tell in wholes:
            tell(fn, args, kw, result)
        return result

    return call


def read(tensor: Any, how: str) -> None:
    """Notes that Python looks at the values of a tensor: what it does next may depend on them."""
    for reader in readers:
        reader(tensor, how)


class Variable:
    """What the engine knows of a tensor. Class attributes are defaults: an instance holds what differs."""

    kind = LEAF
    array: Any
    _version: list[Any]  # [writes so far, where the last one was]; shared with views and `detach()`
    _needs = False  # requires grad: a leaf that asked for it, or the result of a recorded op
    _node: Any = None
    _grad: Any = None
    _base: Any = None  # the tensor this one is a view of, with the ops that lead from it to here
    _replay: Any = None
    _view_version = 0  # the version at which `_node` was right
    _hooks: Any = None  # on a leaf; those of other tensors are with their node
    _whole_hooks: Any = None  # called with the leaf when its gradient is whole
    if TYPE_CHECKING:  # the tensor folder, which stands above this one, adds the rest

        def __getattr__(self, name: str) -> Any: ...

    _grad_home: Any = None  # where the first gradient is written, when it must not be just anywhere


class Output:
    """Edge to one of several outputs of a node."""

    __slots__ = ("index", "node")
    kind = OUTPUT

    def __init__(self, node: Node, index: int) -> None:
        self.node, self.index = node, index


class Node:
    """One recorded operation. `edges` are aligned with its inputs; subclasses say how gradients go through."""

    __slots__ = ("__weakref__", "edges", "extra", "hooks", "outputs", "seq", "where")
    kind = NODE

    def __init__(self, edges: Sequence[Any], outputs: int = 1) -> None:
        self.edges = edges
        self.outputs = outputs
        self.seq = sequence()
        self.hooks: Any = None  # {output index: [function of the gradient]}
        self.where: Any = call_site() if mode.anomaly else None
        self.extra: Any = None

    def vjp(self, g: Any, create: bool) -> list[Any]:
        """A fresh list of gradients for the inputs from that of the output (a list for several outputs).

        Arrays in, arrays out; Tensors in and out under `create`, where what is computed is recorded in turn.
        """
        raise NotImplementedError

    def release(self) -> None:
        """Drops what was saved; called when the graph is not to be kept."""

    def name(self) -> str:
        return type(self).__name__


def edge_of(variable: Any) -> Any:
    """The graph edge that points at a tensor, or None when it needs no gradient."""
    if variable._base is not None:
        refresh(variable)
    if not variable._needs:
        return None
    return variable if variable._node is None else variable._node


def refresh(view: Any) -> None:
    """Gives a view whose base was written in place the graph that it has now: its view ops on today's base."""
    if view._view_version == view._version[0]:
        return
    view._view_version = view._version[0]
    if view._replay is None or not view._base._needs:
        return
    before, mode.grad = mode.grad, True
    try:
        now = view._base
        for op, kw in view._replay:
            now = op(now, **kw)
    finally:
        mode.grad = before
    view._node, view._needs = now._node, True


def schedule(stack: list[Node]) -> tuple[list[Node], dict[Any, int]]:
    """All nodes reachable from those in `stack`, latest first, and how many edges lead to each leaf.

    A node is made after its inputs, so descending order of making is a topological order.
    """
    order: list[Node] = []
    uses: dict[Any, int] = {}
    seen = set()
    while stack:
        node = stack.pop()
        if node in seen:
            continue
        seen.add(node)
        order.append(node)
        for edge in node.edges:
            if edge is None:
                continue
            kind = edge.kind
            if kind == NODE:
                stack.append(edge)
            elif kind == LEAF:
                uses[edge] = uses.get(edge, 0) + 1
            else:
                stack.append(edge.node)
    if len(order) > 1:
        order.sort(key=_seq, reverse=True)
    return order, uses


_seq = attrgetter("seq")


def _needed(order: list[Node], targets: set[Any]) -> set[Node]:
    """Those nodes from which a target can be reached: earliest first, so inputs are known before."""
    needed: set[Node] = set()
    for node in reversed(order):
        for edge in node.edges:
            end = edge.node if edge is not None and edge.kind == OUTPUT else edge
            if end is not None and (end in targets or end in needed):
                needed.add(node)
                break
    return needed


def _held(g: Any) -> int:
    return sys.getrefcount(g)


def _calibrate() -> int:
    """The count seen by `accumulate_grad` when `_walk` alone holds a gradient: the same chain of calls."""

    def leaf_done(g: Any) -> int:
        return accumulate(g)

    def accumulate(g: Any) -> int:
        return _held(g)

    g = np.empty(1)
    return leaf_done(g)


_OWNED = _calibrate()


def queue_callback(fn: Callable[[], None]) -> None:
    """Calls `fn` once when the backward that is under way in this thread ends."""
    if mode.callbacks is None:
        raise RuntimeError(
            "[queue_callback] must be called from within a backward (a hook), came outside of one"
        )
    if fn not in mode.callbacks:
        mode.callbacks.append(fn)


def backward(
    roots: Sequence[tuple[Any, Any]],
    keep: bool,
    create: bool,
    targets: Sequence[Any] | None = None,
    accumulate: bool = True,
) -> list[Any]:
    """Walks back from `roots`, pairs of (edge, gradient).

    Gradients are arrays, or Tensors under `create` (whose computation is then recorded too). `targets` are
    edges: only what leads to them is computed, and with `accumulate` off their gradients are returned
    instead of being added to the leaves.
    """
    outer, mode.callbacks = mode.callbacks, []
    before, mode.grad = mode.grad, create
    kept, mode.keep = mode.keep, keep
    try:
        found = _walk(roots, keep, create, targets, accumulate)
        for fn in mode.callbacks:  # a callback may queue another: the list grows while it is walked
            fn()
        return found
    finally:
        mode.grad = before
        mode.keep = kept
        mode.callbacks = outer


def _walk(
    roots: Sequence[tuple[Any, Any]],
    keep: bool,
    create: bool,
    targets: Sequence[Any] | None,
    accumulate: bool,
) -> list[Any]:
    starts = [edge.node if edge.kind == OUTPUT else edge for edge, _ in roots if edge.kind != LEAF]
    order, uses = schedule(starts)
    wanted: dict[Any, list[int]] = {}
    needed = None
    anomaly = mode.anomaly
    found: list[Any] = []
    if targets is not None:
        found = [None] * len(targets)
        for i, edge in enumerate(targets):
            wanted.setdefault((edge.node, edge.index) if edge.kind == OUTPUT else edge, []).append(i)
        needed = _needed(order, {key[0] if type(key) is tuple else key for key in wanted})
    pending: dict[Any, Any] = {}
    summed: set[Any] = set()

    take = (create, targets, wanted, accumulate, found)
    for edge, g in roots:
        if edge.kind == NODE and edge.outputs == 1 and edge not in pending:
            pending[edge] = g
        elif edge.kind == LEAF and edge not in uses:
            _leaf_done(edge, g, take)
        else:
            _send(pending, summed, edge, g, create)
    del roots

    for k, node in enumerate(order):
        order[k] = None  # type: ignore[call-overload]  # what is done is freed at once
        g = pending.pop(node, None)
        skip = g is None
        if not skip:
            if node.hooks:
                g = node_hooks(node, g, create)
            if wanted and (node in wanted or node.outputs > 1):
                _capture(node, g, wanted, found)
            skip = needed is not None and node not in needed
        if not skip:
            grads = node.vjp(g, create) if watch is None else watch.walked(node, g, create)
            if anomaly:
                check_finite(node, grads)
            if not keep:
                node.release()
        i = -1
        for edge in node.edges:
            i += 1
            if edge is None:
                continue
            g = None if skip else grads[i]
            kind = edge.kind
            if kind == LEAF:
                left = uses[edge]
                if left > 1:
                    uses[edge] = left - 1
                    if g is not None:
                        _send(pending, summed, edge, g, create)
                    continue
                if pending and edge in pending:
                    if g is not None:
                        _send(pending, summed, edge, g, create)
                    g = pending.pop(edge)
                elif g is not None:
                    grads[i] = None  # now the engine alone holds it, and may keep its array as it is
                if g is not None:
                    _leaf_done(edge, g, take)
            elif g is not None:
                if kind == NODE and edge.outputs == 1 and edge not in pending:
                    pending[edge] = g
                else:
                    _send(pending, summed, edge, g, create)
        grads = g = None
    return found


def _leaf_done(leaf: Any, g: Any, take: tuple[Any, ...]) -> None:
    """The gradient of a leaf is whole: it goes to `.grad`, or to where it was asked for."""
    create, targets, wanted, accumulate, found = take
    if leaf._hooks:
        g = call_hooks(leaf._hooks.values(), g, create)
    if targets is None:
        accumulate_grad(leaf, g, create)
    elif leaf in wanted:
        if accumulate:
            accumulate_grad(leaf, g, create)
        else:
            for i in wanted[leaf]:
                found[i] = g


def _send(pending: dict[Any, Any], summed: set[Any], edge: Any, g: Any, create: bool) -> None:
    """Adds a contribution to what waits for the far end of an edge."""
    if edge.kind != LEAF and (edge.kind == OUTPUT or edge.outputs > 1):
        node, i = (edge.node, edge.index) if edge.kind == OUTPUT else (edge, 0)
        slots = pending.get(node)
        if slots is None:
            slots = pending[node] = [None] * node.outputs
        held = slots[i]
        slots[i] = g if held is None else held + g
        if watch is not None and held is not None:
            slots[i] = watch.summed(held, g, slots[i])
        return
    held = pending.get(edge)
    if held is None:
        pending[edge] = g
    elif edge in summed:
        held += g  # this sum is the engine's own array
        if watch is not None:
            watch.summed(held, g, held)
    else:
        pending[edge] = held + g
        if watch is not None:
            pending[edge] = watch.summed(held, g, pending[edge])
        if not create and held.shape:
            summed.add(edge)


def _capture(node: Node, g: Any, wanted: dict[Any, list[int]], found: list[Any]) -> None:
    """Keeps gradients of tensors inside the graph that were asked for."""
    if node.outputs == 1:
        for i in wanted[node]:
            found[i] = g
        return
    for k in range(node.outputs):
        for i in wanted.get((node, k), ()):
            found[i] = g[k]


def accumulate_grad(leaf: Any, g: Any, create: bool) -> None:
    """Adds to `leaf.grad`: in place where there is one, into the leaf's home for gradients, or as it comes."""
    grad = leaf._grad
    given = g if watch is not None else None
    if create:
        leaf._grad = g if grad is None else grad + g
    elif grad is not None:
        array = grad.array
        if array.dtype == g.dtype:
            array += g
        else:
            array += g.astype(array.dtype)
        grad._version[0] += 1
    elif leaf._grad_home is not None:
        leaf._grad_home.array[...] = g
        leaf._grad = leaf._grad_home
    else:
        if type(g) not in array_namespace:
            g = np.array(g)  # NumPy's arithmetic makes scalars of 0-d arrays
        elif (
            g.base is not None
            or _held(g) > _OWNED
            or not (g.flags.writeable if type(g) is np.ndarray else writable(g))
        ):
            g = g.copy()
        if g.dtype is not leaf.array.dtype:
            g = g.astype(leaf.array.dtype, copy=False)
        leaf._grad = wrap(g)
    if watch is not None:
        watch.accumulated(leaf, grad, given, create)
    if leaf._whole_hooks:
        for hook in list(leaf._whole_hooks.values()):
            hook(leaf)


def as_array(value: Any, dtype: Any = None) -> Any:
    """np.asarray for what is no array of a backend already."""
    if type(value) in array_namespace and type(value) is not np.ndarray:
        return value if dtype is None else value.astype(dtype, copy=False)
    return np.asarray(value, dtype)


def ones_beside(array: Any) -> Any:
    """Ones of an array's shape and dtype, where it stands."""
    xp = array_namespace[type(array)]
    if xp is np:
        return np.ones(array.shape, array.dtype)
    with array.device:
        return xp.ones(array.shape, array.dtype)


def writable(array: Any) -> bool:
    """Whether an array's memory may be written element by element: not read-only, no element stored once for many."""
    if isinstance(array, np.ndarray):
        return array.flags.writeable
    return array.size < 2 or all(step or n == 1 for step, n in zip(array.strides, array.shape))


def call_hooks(hooks: Iterable[Callable[[Any], Any]], g: Any, create: bool) -> Any:
    """Runs hooks on a gradient: they see Tensors, and may return another one."""
    tensor = g if create else wrap(np.asarray(g) if type(g) not in array_namespace else g)
    for hook in list(hooks):
        result = hook(tensor)
        if result is not None:
            tensor = result
    return tensor if create else tensor.array


def node_hooks(node: Node, g: Any, create: bool) -> Any:
    for index, hooks in node.hooks.items():
        if node.outputs == 1:
            g = call_hooks(hooks.values(), g, create)
        elif g[index] is not None:
            g[index] = call_hooks(hooks.values(), g[index], create)
    return g


def check_finite(node: Node, grads: Sequence[Any]) -> None:
    for i, g in enumerate(grads):
        if g is None:
            continue
        array = g.array if isinstance(g, Variable) else g
        if type(array) not in array_namespace or type(array) is np.ndarray:
            array = np.asarray(array, dtype=np.float64)
        if (array != array).any():
            made = f"; the op was called at {node.where}" if node.where else ""
            raise RuntimeError(
                f"[detect_anomaly] gradients must not be NaN, came NaN from {node.name()} for its input {i}{made}"
            )


def call_site() -> str:
    """`file:line` of the innermost caller outside of ringgrad."""
    frame = sys._getframe(1)
    package = __name__.split(".")[0] + "."
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith(package):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


tensor_class: type = Variable
_new = object.__new__


def wrap(array: Any) -> Any:
    """A Tensor over an array, without any of the checks of its constructor."""
    t: Any = _new(tensor_class)
    t.array = array
    t._version = [0, None]
    return t


def set_tensor_class(cls: type) -> None:
    """Called once by the tensor folder, which stands above this one: what results of ops are."""
    global tensor_class
    tensor_class = cls
