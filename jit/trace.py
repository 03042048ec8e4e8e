"""Recording what a function computes: ops, what backward does, gradients, optimizer steps, random numbers.

A traced call runs eagerly, so its results are right whatever comes of the trace. Values are known by their arrays. What
reaches an op without having been made by something recorded, and without having stood in reach of the function before,
stops the trace, as does Python looking at a tensor's values: such a call cannot be repeated without Python.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
from numpy.lib.array_utils import byte_bounds

from ..autograd import engine
from ..autograd.engine import ArrayFunction, Node, Variable, array_namespace, call_site, mode, wrap
from ..autograd.function import FunctionNode
from ..autograd.op import Identity, OpNode, listeners
from ..optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from ..tensor import generator
from ..tensor.device import device
from . import graph
from .graph import Graph, Ref, Value
from .halves import Halves, tensors

DRAWS = (
    "uniform", "normal", "log_normal", "exponential", "cauchy", "geometric", "bernoulli", "random", "randint",
    "randperm",
)  # fmt: skip
WORDS = ("words", "words64", "float32", "float64", "unit", "double", "manual_seed", "set_state", "seed")
MOST_NODES = 100_000
PLAIN = (
    bool, int, float, complex, str, bytes, type(None), np.dtype, np.generic, slice, type(Ellipsis), type, device,
)  # fmt: skip


def owner(array: Any) -> Any:
    """The array whose memory this one is a part of."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


class Tracer:
    """The trace of one call; `graph` is what was recorded, `stopped` why it is of no use, if so.

    outside: the tensors in reach of the function before the call.
    """

    def __init__(self, name: str, inputs: Iterable[Any], outside: Iterable[Any]) -> None:
        self.graph = Graph(name)
        self.stopped: str | None = None
        self.values: dict[int, Value] = {}  # id of an array -> its value
        self.arrays: dict[int, Any] = {}  # number of a value -> its array
        self.roots: dict[int, int] = {}  # id of an owner -> its number
        self.members: dict[int, list[Value]] = {}
        self.alive: list[Any] = []  # so that no id is used twice
        self.made_by: dict[Any, graph.Node] = {}  # OpNode -> the node of the call that it records
        self.gradients: dict[Any, str] = {}  # leaf -> what its gradient must be at entry: none, present, any
        self.last_gradient: dict[Any, int] = {}  # leaf -> the value that its gradient was set to
        self.cleared: list[Any] = []  # leaves whose gradients are gone at the end
        self.unseen: set[int] = set()  # arrays written by something that was not recorded (yet)
        self.halves: Halves | None = None  # the way back from what is returned, which others will walk
        self.began = engine.sequence()
        self.known = list(outside)
        self.paused = self.drawing = 0
        self.thread = threading.get_ident()
        self.outside: dict[int, Any] = {}
        self.owners: dict[int, Any] = {}
        self.entry_grads: dict[int, Any] = {}
        self.inputs = list(inputs)
        for i, t in enumerate(self.inputs):
            known = self.values.get(id(t.array)) or self.add(t.array, "input", f"input{i}")
            self.graph.inputs.append(known.id)
        for t in (*self.inputs, *self.known):
            if t._grad is not None:
                self.entry_grads[id(t._grad.array)] = t
                self.alive.append(t._grad.array)
        for t in self.known:
            self.outside.setdefault(id(t.array), t)
            self.owners.setdefault(id(owner(t.array)), t)

    # ---- being told

    def run(self, call: Callable[[], Any]) -> Any:
        """Runs call() eagerly while everything it does is recorded; its result."""
        hooks = [
            register_optimizer_step_pre_hook(self._before_step),
            register_optimizer_step_post_hook(self._after_step),
        ]
        doors: list[tuple[Any, Any]] = [
            (listeners, self._listen), (engine.readers, self._read), (engine.writers, self._wrote),
            (engine.makers, self._made), (engine.callers, self._array_function),
        ]  # fmt: skip
        for door, tell in doors:
            door.append(tell)
        engine.watch = self
        source = generator.default_generator
        for name in DRAWS:
            source.__dict__[name] = self._drawing(getattr(source, name), name)
        for name in WORDS:
            source.__dict__[name] = self._secret(getattr(source, name))
        try:
            result = call()
            live = [t for t in tensors(result) if t._needs and t._node is not None and not _released(t._node)]
            if live and self.stopped is None:
                self._walk_back(result, live)
        finally:
            for door, tell in doors:
                door.remove(tell)
            engine.watch = None
            for name in (*DRAWS, *WORDS):
                del source.__dict__[name]
            for hook in hooks:
                hook.remove()
        if self.stopped is None and self.halves is None:
            self.graph.outputs = self._returned(result)
        self._final_gradients()
        if self.unseen:
            self.stop("memory was written in a way that is not recorded", "")
        self.release()
        return result

    def release(self) -> None:
        """Drops the arrays of the call."""
        for held in (self.made_by, self.alive, self.arrays, self.values, self.members, self.roots):
            held.clear()

    def stop(self, why: str, where: str | None = None) -> None:
        """Notes why the call cannot be replayed; the first reason counts."""
        if self.stopped is None and threading.get_ident() == self.thread:
            where = call_site() if where is None else where
            self.stopped = f"{why} (at {where})" if where else why

    def _off(self) -> bool:
        return self.stopped is not None or self.paused > 0 or threading.get_ident() != self.thread

    # ---- values

    def add(self, array: Any, kind: str, name: str = "", where: str = "") -> Value:
        if not isinstance(array, np.ndarray):
            self.stop("a tensor is not in the CPU's memory", where)
        key = id(owner(array))
        root = self.roots.get(key)
        if root is None:
            root = self.roots[key] = len(self.members)
            self.members[root] = []
        value = Value(len(self.graph.values), array, kind, name, where, root)
        self.graph.values[value.id] = value
        self.members[root].append(value)
        self.values[id(array)] = value
        self.arrays[value.id] = array
        self.alive += (array, owner(array))
        return value

    def value_of(self, holder: Any, where: str) -> Value:
        """The value that a Tensor or an array holds."""
        array = holder.array if isinstance(holder, Variable) else holder
        found = self.values.get(id(array))
        if found is not None:
            if id(array) in self.unseen:
                self.stop("a tensor was written in a way that is not recorded, and is read again", where)
            return found
        if id(array) in self.outside:
            return self._external(self.outside[id(array)])
        if id(array) in self.entry_grads:
            value = self.add(array, "grad")
            value.tensor = self.leaf(self.entry_grads[id(array)])
            return value
        root = owner(array)
        if id(root) not in self.roots and id(root) in self.owners:
            self._external(self.owners[id(root)])
        if id(root) in self.roots and array.size:
            return self._strided(array, self.members[self.roots[id(root)]][0], where)
        if not isinstance(holder, Variable) and array.size <= 1:
            return self._constant(array)
        self.stop(
            f"a tensor ({array.dtype.name}{list(array.shape)}) comes from code that is not recorded", where
        )
        return self._constant(array)

    def leaf(self, tensor: Any) -> Any:
        """A tensor outside, or which input (by number) it is."""
        return next((i for i, t in enumerate(self.inputs) if t is tensor), tensor)

    def _external(self, tensor: Any) -> Value:
        value = self.add(tensor.array, "external")
        value.tensor = tensor
        return value

    def _constant(self, array: Any) -> Value:
        value = self.add(array, "constant")
        value.array = array.copy(order="K")
        return value

    def _strided(self, array: Any, base: Value, where: str) -> Value:
        """A part of known memory, seen through other strides than any recorded op gave it."""
        whole = self.arrays[base.id]
        (low, high), (first, end) = byte_bounds(array), byte_bounds(whole)
        if whole.dtype != array.dtype or not whole.flags.forc or low < first or high > end:
            self.stop("memory is seen in another way by code that is not recorded", where)
        offset = array.__array_interface__["data"][0] - whole.__array_interface__["data"][0]
        kw = {"shape": array.shape, "strides": array.strides, "offset": offset}
        value = self.add(array, "result", where=where)
        self.graph.nodes.append(graph.Node("view", "strided", (Ref(base.id),), kw, [value.id], where))
        return value

    def _rebound(self, array: Any, where: str) -> Value:
        """Another value in memory whose old one nobody can see any more."""
        self.roots[id(owner(array))] = root = len(self.members)
        self.members[root] = []
        return self.add(array, "result", where=where)

    def _alone(self, value: Value) -> bool:
        """Whether a value is the only one in its memory, which the call itself has made."""
        array = self.arrays[value.id]
        whole = (
            array.flags.forc and owner(array).nbytes == array.nbytes
        )  # an op may give its result another shape
        return value.kind == "result" and len(self.members[value.root]) == 1 and whole

    def argument(self, value: Any, where: str) -> Any:
        """An argument with Refs in place of Tensors and arrays."""
        if isinstance(value, Variable) or type(value) in array_namespace:
            return Ref(self.value_of(value, where).id)
        if isinstance(value, tuple):
            parts = [self.argument(v, where) for v in value]
            return type(value)(*parts) if hasattr(value, "_fields") else tuple(parts)
        if isinstance(value, list):
            return [self.argument(v, where) for v in value]
        if isinstance(value, dict):
            return {k: self.argument(v, where) for k, v in value.items()}
        if not isinstance(value, PLAIN):
            self.stop(f"an argument of an op is a {type(value).__name__}, which cannot be compared", where)
        return value

    def _record(
        self, kind: str, op: str, args: Any, kw: Any, made: Iterable[Any], where: str, **more: Any
    ) -> Any:
        """A node whose outputs are those of `made` that are new arrays."""
        if len(self.graph.nodes) > MOST_NODES:
            self.stop(f"the call runs more than {MOST_NODES} operations: compile a smaller part", where)
        outputs = [self.add(a, "result", where=where).id for a in made]
        node = graph.Node(kind, op, args, kw, outputs, where, **more)
        self.graph.nodes.append(node)
        return node

    # ---- ops

    def _listen(self, op: Any, inputs: tuple[Any, ...], kw: dict[str, Any], output: Any) -> None:
        if self._off():
            return
        where = call_site()
        if isinstance(output, Variable) and any(output is a for a in inputs[:1]):
            return self._inplace(op, inputs, kw, output, where)
        parts = list(output) if isinstance(output, tuple | list) else [output]
        if all(id(t.array) in self.values for t in parts):
            return None  # an op that gave back what it was given
        args, kw = self.argument(tuple(inputs), where), self.argument(kw, where)
        given = [self.graph.values[r.id] for r in graph.refs((args, kw))]
        if all(v.kind == "constant" for v in given) and not any(
            id(owner(t.array)) in self.roots for t in parts
        ):
            for t in parts:  # of constants alone: a constant, which Python may look at
                self._constant(t.array)
            return None
        node = self._record("op", op.name, args, kw, [t.array for t in parts], where)
        for t in parts:
            if t._node is not None:
                self.made_by[t._node if isinstance(t._node, Node) else t._node.node] = node
        return None

    def _inplace(self, op: Any, inputs: Any, kw: dict[str, Any], x: Any, where: str) -> None:
        self.unseen.discard(id(x.array))
        target = self.value_of(x, where)
        args, kw = self.argument(tuple(inputs), where), self.argument(kw, where)
        arrays = [a.array if isinstance(a, Variable) else a for a in inputs]
        same = all(a.dtype == x.array.dtype for a in arrays if type(a) in array_namespace)
        if (
            self._alone(target)
            and same
            and op.outputs == 1
            and not op.name.startswith(("eq", "ne", "l", "g"))
        ):
            node = graph.Node("op", op.name, args, kw, [], where)
            node.outputs.append(self._rebound(x.array, where).id)
            self.graph.nodes.append(node)
        else:
            node = self._record("op", op.name, args, kw, [], where, writes=(target.id,), effect=True)
        if isinstance(x._node, OpNode) and x._node.op is op:
            self.made_by[x._node] = node

    def _made(self, tensor: Any) -> None:
        array = tensor.array
        if self._off() or id(array) in self.values or id(owner(array)) in self.roots:
            return
        if id(array) not in self.outside and id(owner(array)) not in self.owners:
            self._constant(array)

    def _read(self, tensor: Any, how: str) -> None:
        if self._off():
            return
        value = self.values.get(id(tensor.array))
        if value is None or value.kind != "constant" or id(tensor.array) in self.unseen:
            self.stop(f"Python looks at the values of a tensor: {how}")

    def _wrote(self, tensor: Any) -> None:
        if not self._off():
            self.value_of(tensor, "")
            self.unseen.add(id(tensor.array))

    # ---- functions on arrays, random numbers, optimizers

    def _array_function(self, fn: ArrayFunction, args: Any, kw: Any, result: Any) -> None:
        if self._off():
            return
        where = call_site()
        if fn.name == "dropout_noise":  # what was recorded of it is only its beginning
            node = self.graph.nodes[-1]
            node.kind, node.op, node.args, node.kw = "array", fn.name, tuple(args), dict(kw)
            return
        given = self.argument(tuple(args), where), self.argument(dict(kw), where)
        writes = tuple(r.id for i in fn.writes for r in graph.refs(given[0][i]))
        made = [] if result is None else list(result) if isinstance(result, tuple) else [result]
        self._record("array", fn.name, *given, made, where, writes=writes, effect=bool(writes))

    def _drawing(self, draw: Callable[..., Any], name: str) -> Callable[..., Any]:
        def drawn(*args: Any, **kw: Any) -> Any:
            if self.drawing or self._off():
                return draw(*args, **kw)
            self.drawing += 1
            try:
                result = draw(*args, **kw)
            finally:
                self.drawing -= 1
            where = call_site()
            given = self.argument(tuple(args), where), self.argument(kw, where)
            if kw.get("out") is not None:
                self.unseen.discard(id(kw["out"]))
                out = given[1]["out"].id
                self._record("random", name, *given, [], where, writes=(out,), effect=True)
            else:
                self._record("random", name, *given, [result], where, effect=True)
            return result

        return drawn

    def _secret(self, draw: Callable[..., Any]) -> Callable[..., Any]:
        def drawn(*args: Any, **kw: Any) -> Any:
            if not self.drawing and not self._off():
                self.stop("random numbers are drawn, or the seed set, in a way that is not recorded")
            return draw(*args, **kw)

        return drawn

    def _before_step(self, optimizer: Any, args: Any, kw: Any) -> None:
        if self._off():
            self.paused += 1
            return
        if args or any(v is not None for v in kw.values()):
            self.stop("an optimizer's step is given a closure")
        if optimizer._optimizer_step_pre_hooks or optimizer._optimizer_step_post_hooks:
            self.stop("an optimizer has hooks on its step")
        where = call_site()
        params = [p for g in optimizer.param_groups for p in g["params"] if p._grad is not None]
        grads = [Ref(self.value_of(p._grad, where).id) for p in params]
        writes = tuple(self.value_of(p, where).id for p in params)
        args = ([Ref(i) for i in writes], grads)
        name = type(optimizer).__name__
        self._record("optimizer", name, args, {}, [], where, writes=writes, effect=True, payload=optimizer)
        self.paused += 1

    def _after_step(self, optimizer: Any, args: Any, kw: Any) -> None:
        self.paused -= 1

    # ---- backward: called by the engine

    def walked(self, node: Any, g: Any, create: bool) -> list[Any]:
        """What node.vjp(g) gives; formulas made of other ops are run on Tensors, and recorded as these ops."""
        if self._off() or create:
            return node.vjp(g, create)
        for part in g if node.outputs != 1 else [g]:
            if type(part) in array_namespace:
                self.value_of(part, "backward")
            elif part is not None:
                self.stop("a gradient is a number, not an array", "backward")
        if node.hooks:
            self.stop("a tensor inside of the graph has a hook")
        if isinstance(node, OpNode):
            node.check_saved()
            first = g if node.outputs == 1 else next(part for part in g if part is not None)
            plain = first.dtype.char in "fd" and all(_is_plain(v) for v in node.saved.values())
            if node.op.backward is None and plain:
                return self._by_ops(node, g)
            return self._opaque(node, g)
        if not isinstance(node, Identity | FunctionNode):
            self.stop(f"the gradient goes through {node.name()}, which is not recorded")
        return node.vjp(g, False)

    def _by_ops(self, node: Any, g: Any) -> list[Any]:
        many = node.outputs != 1
        tensors: Any = (
            [None if p is None else wrap(np.asarray(p)) for p in g] if many else wrap(np.asarray(g))
        )
        before, mode.grad = mode.grad, False
        try:
            grads = node._vjp_recorded(tensors)
        finally:
            mode.grad = before
        return [t.array if isinstance(t, Variable) else t for t in grads]

    def _opaque(self, node: Any, g: Any) -> list[Any]:
        """A fused backward: one node, given what the forward's node kept."""
        op, where = node.op, call_site()
        maker = self.made_by.get(node)
        for name in op.extras:
            extra = node.saved[name] = _array(node.saved.get(name))
            if type(extra) in array_namespace and id(extra) not in self.values and maker is not None:
                maker.extras = (*maker.extras, name)
                maker.outputs.append(self.add(extra, "result", where=maker.where).id)
            elif isinstance(extra, float | list) or (type(extra) in array_namespace and maker is None):
                self.stop(f"what {op.name} keeps for its backward was not recorded", where)
        names = op.together.names if op.together else tuple(node.saved)
        saved = {n: self.argument(_array(node.saved[n]), where) for n in names if n in node.saved}
        if op.together is None and "shapes" in node.saved:
            saved["shapes"] = node.saved["shapes"]
        needs = tuple(node.needs())
        grads = node.vjp(g, False)
        grads = [None if x is None else np.asarray(x) for x in grads]
        new = [i for i, x in enumerate(grads) if x is not None and id(x) not in self.values]
        given = (self.argument(_array(g), where),)
        kw = {"needs": needs, "outputs": node.outputs, "wanted": tuple(new), "saved": saved}
        self._record("backward", op.name, given, kw, [grads[i] for i in new], where)
        return grads

    def summed(self, held: Any, g: Any, total: Any) -> Any:
        if self._off() or isinstance(total, Variable):
            return total
        args = self.argument((held, g), "")
        total = _array(total)
        node = graph.Node("op", "add", args, {}, [], "backward")
        node.outputs.append((self._rebound(total, "") if total is held else self.add(total, "result")).id)
        self.graph.nodes.append(node)
        return total

    def taken(self, g: Any, own: Any) -> None:
        """autograd.grad returns `own`, which may be a copy of g."""
        if not self._off() and id(own) not in self.values:
            args = (Ref(self.value_of(_array(g), "").id),)
            self._record("op", "clone", args, {}, [own], "backward")

    def accumulated(self, leaf: Any, before: Any, given: Any, create: bool) -> None:
        if self._off():
            return
        if create:
            return self.stop("backward(create_graph=True) inside of compiled code")
        if leaf._hooks or leaf._whole_hooks or leaf._grad_home is not None:
            return self.stop("a parameter has hooks on its gradient (DistributedDataParallel has)")
        array = leaf._grad.array
        g = Ref(self.value_of(_array(given), "backward").id)
        if before is None:
            node = graph.Node("gradient", "gradient", (g,), {}, [], "backward", (), True, self.leaf(leaf))
            known = id(array) in self.values
            node.outputs.append((self._rebound(array, "") if known else self.add(array, "result")).id)
            self.graph.nodes.append(node)
            self.last_gradient[leaf] = node.outputs[0]
            entered = any(t is leaf for t in self.entry_grads.values())
            self.gradients.setdefault(leaf, "any" if entered else "none")
        else:
            held = self.value_of(before, "backward")
            self.gradients.setdefault(leaf, "present" if held.kind == "grad" else "none")
            self._record("op", "add", (Ref(held.id), g), {}, [], "backward", writes=(held.id,), effect=True)
        return None

    def _new(self, tensor: Any) -> bool:
        """Whether a tensor was made in the call."""
        node = tensor._node
        return bool((node.node if node.kind == engine.OUTPUT else node).seq > self.began)

    # ---- the end

    def _walk_back(self, result: Any, live: list[Any]) -> None:
        """Records the way back from the results, which is the second half of the program; the graph itself stays.

        The engine walks it once more for that, with ones as gradients.
        """
        if self.gradients or any(node.kind == "optimizer" for node in self.graph.nodes):
            return self.stop(
                "a tensor is returned on which backward() can still be called, after a backward()", ""
            )
        edges = [engine.edge_of(t) for t in live]
        order, uses = engine.schedule([e.node if e.kind == engine.OUTPUT else e for e in edges])
        own = {id(t) for t in (*self.inputs, *self.known)}
        leaves = [t for t in uses if id(t) in own]
        if any(node.seq < self.began for node in order) or len(leaves) < len(uses):
            return self.stop("gradients go on to tensors that were computed before the call", "")
        if any(
            t._node is not None and self._new(t) and not any(t is u for u in live)
            for t in (*self.inputs, *self.known)
        ):
            return self.stop("a tensor from before the call was written, and now has a graph", "")
        if any(t._hooks for t in leaves):
            return self.stop("a leaf has hooks on its gradient, and backward() is called outside", "")
        parts = list(tensors(result))
        places = [i for i, t in enumerate(parts) if any(t is u for u in live)]
        edges = [engine.edge_of(parts[i]) for i in places]
        given = [np.ones(parts[i].array.shape, parts[i].array.dtype) for i in places]
        returned = self._returned(result)
        if self.stopped is not None:
            return None
        numbers = tuple(t if isinstance(t, int) else id(t) for t in map(self.leaf, leaves))
        kw = {"places": tuple(places), "leaves": numbers}
        self._record("pause", "pause", (returned,), kw, given, "return", effect=True)
        found = engine.backward(list(zip(edges, given)), True, False, leaves, accumulate=False)
        if any(g is None for g in found):
            return self.stop("a leaf gets no gradient from a graph that leads to it", "")
        self.graph.outputs = tuple(Ref(self.value_of(_array(g), "backward").id) for g in found)
        self.halves = Halves(places, [self.leaf(t) for t in leaves])
        return None

    def _final_gradients(self) -> None:
        """What `.grad` is at the end must be what was recorded, what it was before, or nothing."""
        had = {id(t) for t in self.entry_grads.values()}
        for t in (*self.inputs, *self.outside.values()):
            grad = t._grad
            if grad is None:
                if t in self.gradients or id(t) in had:
                    self.cleared.append(self.leaf(t))
                continue
            value = self.values.get(id(grad.array))
            last = self.last_gradient.get(t)
            if last is None:
                as_recorded = self.entry_grads.get(id(grad.array)) is t
            else:
                as_recorded = value is not None and value.root == self.graph.values[last].root
            if not as_recorded:
                self.stop("the gradient of a parameter was set by other means than backward()", "")

    def _returned(self, result: Any) -> Any:
        if isinstance(result, Variable):
            return Ref(self.value_of(result, "return").id)
        if isinstance(result, tuple | list):
            parts = [self._returned(v) for v in result]
            return type(result)(*parts) if hasattr(result, "_fields") else type(result)(parts)
        if type(result) is dict:
            return {k: self._returned(v) for k, v in result.items()}
        if not isinstance(result, PLAIN):
            self.stop(f"a {type(result).__name__} is returned", "")
        return result


def _array(value: Any) -> Any:
    """NumPy's scalars as the arrays that ops make of them."""
    if isinstance(value, np.generic):
        return np.asarray(value)
    if isinstance(value, list | tuple):
        return type(value)(_array(v) for v in value) if not hasattr(value, "_fields") else value
    return value


def _is_plain(value: Any) -> bool:
    return type(value) not in array_namespace or value.dtype.char not in "eEFDg"


def _released(node: Any) -> bool:
    node = node if isinstance(node, Node) else node.node
    return isinstance(node, OpNode) and node.saved is None


__all__ = ["Tracer", "owner"]
