"""A graph as one flat Python function of array calls.

Every value is `dynamic`, a local variable of the function, or `static`: an array that stands in the function's
namespace before it runs, because it is a parameter, a constant, lies in the arena, or is a view of such. Kernels write
static values through `out=`; views of them are made once, when the program is made.
"""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import Any

import numpy as np

from ..autograd.engine import array_functions, wrap
from ..autograd.op import OpNode, low_floats, registry
from ..tensor import generator
from . import kernel_table
from .graph import Graph, Node, Ref, mapped, refs
from .memory import Plan, empty_as
from .optimizers import step as optimizer_step
from .passes.simplify import contiguous


class Program:
    """The executable form of a graph, bound to today's arrays of its externals."""

    def __init__(self, graph: Graph, cleared: list[Any], exact: bool = False) -> None:
        self.graph, self.exact = graph, exact
        self.space: dict[str, Any] = {
            "np": np, "wrap": wrap, "ndarray": np.ndarray, "asarray": np.asarray, "copyto": np.copyto,
            "strided": strided, "generator": generator.default_generator,
        }  # fmt: skip
        self.lines: list[str] = []
        self.static: dict[int, Any] = {}
        self.plan = Plan(graph)
        self.homes: list[
            tuple[Any, Any, Any]
        ] = []  # gradients' own arrays, the Tensors over them, the leaves
        self._constants: dict[int, str] = {}
        self._alive: list[Any] = []
        self.paused = False
        self.own: set[int] = set()  # results that the program goes on with: the caller gets copies
        self._bind()
        for i, node in enumerate(graph.nodes):
            self._emit(node)
            self._free(i)
        for leaf in cleared:
            self.lines.append(f"{self.leaf(leaf)}._grad = None")
        self.lines.append(f"return {self.returned()}")
        names = ", ".join(f"t{i}" for i in range(len(graph.inputs)))
        self.source = f"def run({names}):\n " + "\n ".join(self.lines)
        exec(compile(self.source, f"<ringgrad.jit {graph.name}>", "exec"), self.space)
        self.run: Callable[..., Any] = self.space["run"]
        self._shorts: dict[int, Any] = {}
        self._count = self._references()

    # ---- what stands before it runs

    def _bind(self) -> None:
        graph = self.graph
        mutated = graph.mutated()
        for i, id in enumerate(graph.inputs):
            self.lines.append(f"v{id} = t{i}.array")
        for value in graph.values.values():
            if value.kind == "external":
                self.fix(value.id, value.tensor.array)
            elif value.kind == "grad":
                self.lines.append(f"v{value.id} = {self.leaf(value.tensor)}._grad.array")
            elif value.kind == "constant":
                if value.root in mutated or value.id in self.plan.escaping:
                    self.lines.append(f"v{value.id} = {self.name_of(value.array)}.copy('K')")
                else:
                    self.fix(value.id, value.array)

    def fix(self, id: int, array: Any) -> None:
        """Makes a value static."""
        self.static[id] = array
        self.space[f"v{id}"] = array

    def room(self, id: int) -> bool:
        """Gives a value an array of its own where one is planned; False: it stays dynamic."""
        if id in self.static:
            return True
        array = self.plan.array(id)
        if array is None:
            return False
        self.fix(id, array)
        return True

    # ---- writing code

    def name_of(self, thing: Any) -> str:
        """A name in the namespace for any object."""
        found = self._constants.get(id(thing))
        if found is None:
            found = self._constants[id(thing)] = f"k{len(self._constants)}"
            self.space[found] = thing
            self._alive.append(thing)
        return found

    def leaf(self, leaf: Any) -> str:
        """A tensor outside, or the input of that number."""
        return f"t{leaf}" if isinstance(leaf, int) else self.name_of(leaf)

    def expression(self, value: Any) -> str:
        """Source text of an argument."""
        if isinstance(value, Ref):
            return f"v{value.id}"
        if value is None or type(value) in (bool, int):
            return repr(value)
        if isinstance(value, tuple | list | dict) and next(refs(value), None) is not None:
            if isinstance(value, dict):
                return "{" + ", ".join(f"{k!r}: {self.expression(v)}" for k, v in value.items()) + "}"
            inner = ", ".join(map(self.expression, value))
            return f"[{inner}]" if isinstance(value, list) else f"({inner},)"
        return self.name_of(value)

    def arguments(self, node: Node) -> str:
        return ", ".join(
            [self.expression(a) for a in node.args]
            + [f"{k}={self.expression(v)}" for k, v in node.kw.items()]
        )

    def line(self, text: str) -> None:
        self.lines.append(text)

    def _emit(self, node: Node) -> None:
        getattr(self, f"_{node.kind}")(node)

    def _kernel(self, node: Node) -> None:
        kernel_table.emit(self, node)

    def out(self, id: int) -> str:
        """The array that a kernel writes: planned, or made anew at each call."""
        if not self.room(id):
            value = self.graph.values[id]
            if contiguous(value):
                self.line(f"v{id} = np.empty({value.shape}, {self.name_of(value.dtype)})")
            else:
                self.line(f"v{id} = {self.name_of(empty_as)}({self.name_of(value)})")
        return f"v{id}"

    def _shaped(self, id: int, shape: str, turn: Callable[[Any], Any]) -> str:
        """A view of a value: made now where it is static."""
        return self.name_of(turn(self.static[id])) if id in self.static else f"v{id}{shape}"

    def flat(self, ref: Ref) -> str:
        return self._shaped(ref.id, ".reshape(-1)", lambda a: a.reshape(-1))

    def flat_out(self, id: int) -> str:
        self.out(id)
        return self.flat(Ref(id))

    def rows(self, ref: Ref) -> str:
        width = self.graph.values[ref.id].shape[-1]
        return self._shaped(ref.id, f".reshape(-1, {width})", lambda a: a.reshape(-1, width))

    def rows_out(self, id: int) -> str:
        self.out(id)
        return self.rows(Ref(id))

    def channels(self, ref: Ref) -> str:
        """(N, C, L) of (N, C, ...)."""
        n, c = self.graph.values[ref.id].shape[:2]
        return self._shaped(ref.id, f".reshape({n}, {c}, -1)", lambda a: a.reshape(n, c, -1))

    def channels_out(self, id: int) -> str:
        self.out(id)
        return self.channels(Ref(id))

    def planes(self, ref: Ref) -> str:
        """(N * C, H, W) of (N, C, H, W)."""
        h, w = self.graph.values[ref.id].shape[-2:]
        return self._shaped(ref.id, f".reshape(-1, {h}, {w})", lambda a: a.reshape(-1, h, w))

    def planes_out(self, id: int) -> str:
        self.out(id)
        return self.planes(Ref(id))

    def turned(self, ref: Ref) -> str:
        """The last two dimensions exchanged."""
        return self._shaped(ref.id, ".swapaxes(-1, -2)", lambda a: a.swapaxes(-1, -2))

    def _op(self, node: Node) -> None:
        op = registry[node.op]
        made = node.outputs
        if len(made) == 1 and not node.writes and op.view is not False and self._fixed_view(node, op):
            return
        low = any(self.graph.values[i].dtype in low_floats for i in (*node.inputs(), *made))
        call = f"{self.name_of(op.forward)}(np, {self.arguments(node)})"
        if low and op.half == "float32":
            args = ", ".join(map(self.expression, node.args))
            kw = ", ".join(f"{k!r}: {self.expression(v)}" for k, v in node.kw.items())
            self.line(f"y, e = {self.name_of(op.compute)}([{args}], {{{kw}}})")
        elif op.extras:
            self.line(f"y = {call}")
            self.line("y, e = y[0], y[1:]")
        else:
            self.line(f"y = {call}")
        if node.writes:
            self.line(f"v{node.writes[0]}[...] = y")
            held = self.graph.values[node.writes[0]]
            if held.kind == "external":
                self.line(f"{self.name_of(held.tensor)}._version[0] += 1")
            self.line("y = e = None")
            return
        count = len(made) - len(node.extras)
        for k, id in enumerate(made[:count]):
            self._take(id, "y" if op.outputs == 1 else f"y[{k}]")
        for name, id in zip(node.extras, made[count:]):
            self._take(id, f"e[{op.extras.index(name)}]")
        self.line("y = e = None")

    def _take(self, id: int, text: str) -> None:
        """A value out of an expression; NumPy makes scalars of 0-d results."""
        self.line(f"v{id} = asarray({text})" if not self.graph.values[id].shape else f"v{id} = {text}")

    def _fixed_view(self, node: Node, op: Any) -> bool:
        """A view of a static array is made now, and once."""
        (made,) = node.outputs
        source = next(iter(node.inputs()), None)
        values = self.graph.values
        if source not in self.static or values[source].root != values[made].root:
            return False
        if any(i not in self.static for i in node.inputs()):
            return False
        args = mapped(node.args, lambda r: self.static[r.id])
        self.fix(made, op.forward(np, *args, **mapped(node.kw, lambda r: self.static[r.id])))
        return True

    def _view(self, node: Node) -> None:
        (source,), (made,) = node.inputs(), node.outputs
        if source in self.static:
            self.fix(made, strided(self.static[source], **node.kw))
        else:
            self.line(f"v{made} = strided({self.arguments(node)})")

    def _backward(self, node: Node) -> None:
        op = registry[node.op]
        kw = node.kw
        dtypes = {self.graph.values[i].dtype.char for i in node.inputs()}
        if op.backward is None or dtypes & set("eEFDg") or any(d not in "fdlqi?bBhHIL" for d in dtypes):
            call = self.name_of(Again(op, kw))
            self.line(f"y = {call}({self.expression(node.args[0])}, {self.expression(kw['saved'])})")
        else:
            assert op.together is not None
            values = ", ".join(self.expression(kw["saved"].get(n)) for n in op.together.names)
            rule, needs = self.name_of(op.together.rule), self.name_of(list(kw["needs"]))
            self.line(f"y = {rule}(np, {self.expression(node.args[0])}, {needs}, {values})")
        for place, id in zip(kw["wanted"], node.outputs):
            self._take(id, f"y[{place}]")
        self.line("y = None")

    def _array(self, node: Node) -> None:
        self._called(node, self.name_of(array_functions[node.op].fn))

    def _random(self, node: Node) -> None:
        self._called(node, f"generator.{node.op}")

    def _called(self, node: Node, function: str) -> None:
        call = f"{function}({self.arguments(node)})"
        if not node.outputs:
            self.line(call)
        elif len(node.outputs) == 1:
            self._take(node.outputs[0], call)
        else:
            self.line(f"y = {call}")
            for k, id in enumerate(node.outputs):
                self._take(id, f"y[{k}]")

    def _gradient(self, node: Node) -> None:
        """The leaf's `.grad` gets a Tensor over an array that stays the same from call to call."""
        (source,), (made,) = node.inputs(), node.outputs
        leaf, value = self.leaf(node.payload), self.graph.values[made]
        if isinstance(node.payload, int):  # another Tensor at each call
            self.line(f"v{made} = v{source}.astype({self.name_of(value.dtype)}, 'C')")
            self.line(f"{leaf}._grad = wrap(v{made})")
            return
        if self.plan.home.get(made) == source and source in self.static:
            home = self.static[source]
            self.fix(made, home)
        else:
            home = np.empty(value.shape, value.dtype)
            self.fix(made, home)
            self.line(f"copyto(v{made}, v{source}, 'unsafe')")
        tensor = wrap(home)
        self.homes.append((home, tensor, node.payload))
        self.space[f"grad{made}"] = tensor
        self.line(f"{leaf}._grad = grad{made}")

    def _optimizer(self, node: Node) -> None:
        optimizer = self.name_of(node.payload)
        self.line(f"{optimizer}.step()" if self.exact else f"{self.name_of(self._step)}({optimizer})")

    def _free(self, i: int) -> None:
        gone = [f"v{id}" for id in self.plan.last.get(i, ()) if id not in self.static]
        if gone:
            self.line(" = ".join(gone) + " = None")

    # ---- results

    def _pause(self, node: Node) -> None:
        """The first half of the program ends; the second goes on when the gradients of the results are there."""
        (results,) = node.args
        self.own = set(node.inputs())
        given = ", ".join(f"v{id}" for id in node.outputs)
        self.line(f"[{given}] = yield {self.result(results)}")
        self.paused = True

    def returned(self) -> str:
        """What is returned at the end: of a second half, gradients as arrays that the engine may keep."""
        if not self.paused:
            return self.result(self.graph.outputs)
        return "[" + ", ".join(f"v{ref.id}.copy()" for ref in self.graph.outputs) + "]"

    def result(self, value: Any) -> str:
        if isinstance(value, Ref):
            held = self.graph.values[value.id]
            if held.kind == "external":
                return self.name_of(held.tensor)
            if held.kind == "input":
                return f"t{self.graph.inputs.index(value.id)}"
            shared = value.id in self.static or value.id in self.own
            return f"wrap(v{value.id}.copy('K'))" if shared else f"wrap(v{value.id})"
        if isinstance(value, tuple | list) and not isinstance(value, str):
            inner = ", ".join(map(self.result, value))
            if hasattr(value, "_fields"):
                return f"{self.name_of(type(value))}({inner})"
            text = f"({inner},)" if isinstance(value, tuple) else f"[{inner}]"
            return text if type(value) in (tuple, list) else f"{self.name_of(type(value))}({text})"
        if isinstance(value, dict):
            return "{" + ", ".join(f"{self.name_of(k)}: {self.result(v)}" for k, v in value.items()) + "}"
        return self.name_of(value)

    # ---- while it runs

    def _step(self, optimizer: Any) -> None:
        """An optimizer's step. What is kept for the next one refers to gradients: these references are our own."""
        short = self._shorts.get(id(optimizer))
        if short is not None and short.fits():
            return short.run()
        before = self._references()
        self._shorts[id(optimizer)] = short = optimizer_step(optimizer)
        after = self._references()
        counts = zip(self._count, after, before)
        self._count = [(a + x - u, t + y - v) for (a, t), (x, y), (u, v) in counts]
        return None

    def _references(self) -> list[tuple[int, int]]:
        return [(sys.getrefcount(a), sys.getrefcount(t)) for a, t, _ in self.homes]

    # ---- before each run

    def stale(self) -> bool:
        """Whether a gradient of an earlier call is still held by somebody, who must not see it change."""
        count = sys.getrefcount
        for (array, tensor, leaf), (a, t) in zip(self.homes, self._count):
            if count(array) > a or count(tensor) > t + (leaf._grad is tensor):
                return True
        return False


class Again:
    """A fused backward in its general form: 16-bit floats, complex numbers."""

    def __init__(self, op: Any, kw: dict[str, Any]) -> None:
        self.op, self.kw = op, kw

    def __call__(self, g: Any, saved: dict[str, Any]) -> Any:
        node = object.__new__(OpNode)
        node.op, node.saved, node.outputs, node.versions = self.op, saved, self.kw["outputs"], ()
        node.edges = [True if wanted else None for wanted in self.kw["needs"]]
        return node.vjp(g, False)


def strided(base: Any, *, shape: Any, strides: Any, offset: int) -> Any:
    """Other strides on the memory of an array, from `offset` bytes behind its first element on."""
    whole = base if base.flags.c_contiguous else base.T
    return np.ndarray(shape, base.dtype, buffer=whole, offset=offset, strides=strides)
