"""Ops: declared once, called on tensors, recorded.

A declaration holds the forward on arrays and one gradient rule for each input; the names of a rule's
parameters say what it needs, so that is what the graph keeps:

    g              gradient of the output           y          the output
    a, b, ...      an input, as the forward names it   a_shape, a_dtype   only that of an input
    dim, ...       a keyword of the forward         mean, ...  an extra that the forward returns (see `extras`)
    ops            the ops themselves: on arrays in a plain backward, on Tensors where it is recorded

A rule written with operators and `ops` therefore gives every order of derivative. Fused ops have instead one
`backward` on arrays for all inputs, and a `composite` in terms of other ops, which gives the higher orders.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from . import engine
from .engine import LEAF, OUTPUT, Node, Output, Variable, array_namespace, edge_of, mode, refresh, wrap

registry: dict[str, Op] = {}
tensor_ops: dict[str, Callable[..., Any]] = {}  # name -> what is called with Tensors

# Called as listener(op, inputs, kwargs, output) after each op: the door for tracing and profiling.
listeners: list[Callable[[Op, tuple[Any, ...], dict[str, Any], Any], None]] = []


class Op:
    """One operation. Tensors are positional, everything else is keyword.

    rules     one gradient rule an input (None: no gradient); or one function for all inputs together:
              (ops, g, needs, names...) -> a gradient for each input
    backward  for fused ops instead of rules: (xp, g, needs, names...) -> the same, on arrays only
    composite the same function written with `ops`, for a recorded backward of a fused op
    extras    names of further arrays that the forward returns after the output, kept for the rules
    outputs   how many tensors the op returns; 0 when it depends on the arguments
    view      whether the output shares the input's memory; None: look
    half      what to do with 16-bit floats: "float32" computes in float32 and rounds once, "native" does not
    """

    def __init__(
        self,
        name: str,
        forward: Callable[..., Any],
        rules: Sequence[Callable[..., Any] | None] | Callable[..., Any] = (),
        *,
        backward: Callable[..., Any] | None = None,
        composite: Callable[..., Any] | None = None,
        extras: tuple[str, ...] = (),
        outputs: int = 1,
        view: bool | None = False,
        broadcast: bool = False,
        half: str = "float32",
        prepare: Callable[..., Any] | None = None,
        hint: str = "",
        onnx: Any = None,
    ) -> None:
        self.name, self.forward = name, forward
        self.joint: Callable[..., Any] | None = rules if callable(rules) else None
        self.rules: Sequence[Callable[..., Any] | None] = () if callable(rules) else rules
        self.backward, self.composite, self.extras = backward, composite, extras
        self.outputs, self.view, self.broadcast, self.half = outputs, view, broadcast, half
        self.prepare, self.hint, self.onnx = prepare, hint, onnx
        code = forward.__code__
        names = code.co_varnames[1 : code.co_argcount]
        self.inputs: tuple[str, ...] = names
        self._rule_names = {r: parameters(r) for r in self.rules if r}
        together = self.joint or backward
        self._together_names = parameters(together)[3:] if together else ()
        self.differentiable = bool(together or any(self.rules))
        self.title = "".join(part.capitalize() for part in name.split("_")) + "Backward0"
        assert name not in registry, f"op {name} is declared twice"
        registry[name] = self
        tensor_ops[name] = self

    def __repr__(self) -> str:
        return f"<op {self.name}>"

    # ---- calling

    def __call__(self, *args: Any, **kw: Any) -> Any:
        if self.prepare is not None:
            args, kw = self.prepare(*args, **kw)
        arrays = []
        needs = False
        for a in args:
            if isinstance(a, Variable):
                if a._base is not None:
                    refresh(a)
                if a._needs:
                    needs = True
                arrays.append(a.array)
            else:
                arrays.append(a)
        y, extra = self.compute(arrays, kw)
        if self.outputs == 1:
            out: Any = wrap(y)
            if self.view is not False:
                self._mark_view(args[0], out, kw)
            if needs and mode.grad and self.differentiable and is_floating(y):
                node = out._node = OpNode(self, args, arrays, kw, y, extra)
                out._needs = True
                if "y" in node.saved:
                    node.versions.append((out._version, out._version[0], "y"))
        else:
            out = [wrap(part) for part in y]
            if self.view:
                for part in out:
                    self._mark_view(args[0], part, None)
            if needs and mode.grad and self.differentiable:
                node = OpNode(self, args, arrays, kw, y, extra, len(out))
                if "y" in node.saved:
                    node.versions.extend((part._version, part._version[0], "y") for part in out)
                for i, part in enumerate(out):
                    if is_floating(part.array):
                        part._node, part._needs = Output(node, i), True
            out = tuple(out)
        if listeners:
            for listener in listeners:
                listener(self, args, kw, out)
        return out

    def compute(self, arrays: Sequence[Any], kw: dict[str, Any]) -> tuple[Any, Any]:
        """The forward on arrays: (output, extras), with 16-bit floats computed in float32."""
        xp = namespace_of(arrays)
        low = None
        if self.half == "float32":
            for a in arrays:
                if type(a) in array_namespace and a.dtype.itemsize == 2 and a.dtype.kind in "fV":
                    low = a.dtype
        try:
            if low is not None:
                arrays = [widen(a) for a in arrays]
            y = self.forward(xp, *arrays, **kw)
        except (ValueError, TypeError, IndexError, np.exceptions.AxisError, np.linalg.LinAlgError) as error:
            raise self.explain(error, arrays, kw) from None
        extra = None
        if self.extras:
            y, extra = y[0], y[1:]
        if self.outputs != 1:
            return [narrow(part, low, xp) for part in y], extra
        if type(y) not in array_namespace:
            y = xp.asarray(y)
        return (y if low is None else narrow(y, low, xp)), extra

    def explain(self, error: Exception, arrays: Sequence[Any], kw: dict[str, Any]) -> Exception:
        """The error of a failed forward, in the words of this op."""
        text = str(error)
        if text.startswith("["):
            return error
        came = ", ".join(describe(a) for a in arrays)
        options = "".join(f", {k}={v!r}" for k, v in kw.items() if not isinstance(v, Variable | np.ndarray))
        kind: type[Exception] = RuntimeError if isinstance(error, ValueError | TypeError) else IndexError
        if isinstance(error, TypeError) and "argument" in text:
            kind = TypeError
        return kind(f"[{self.name}] {self.hint or text}, came {came}{options}")

    def _mark_view(self, source: Any, out: Any, kw: dict[str, Any] | None) -> None:
        a, y = source.array, out.array
        if self.view is None and y is not a:
            root = y.base
            if root is None or (root is not a and root is not a.base):
                return
        out._base = source if source._base is None else source._base
        out._version = source._version
        out._view_version = source._version[0]
        if kw is not None and (source._base is None or source._replay is not None):
            out._replay = ((self, kw),) if source._base is None else (*source._replay, (self, kw))

    # ---- gradients

    def rule_for(self, i: int) -> Callable[..., Any] | None:
        return self.rules[i] if i < len(self.rules) else None

    def kept(self, needs: Sequence[bool]) -> set[str]:
        """Names of all that the gradients of the wanted inputs need."""
        names = set(self._together_names)
        for rule, wanted in zip(self.rules, needs):
            if wanted and rule is not None:
                names.update(self._rule_names[rule])
        return names


class OpNode(Node):
    """A recorded call of an Op: edges to its inputs, and what its gradient rules need."""

    __slots__ = ("op", "positions", "saved", "versions")

    def __init__(
        self, op: Op, args: Sequence[Any], arrays: Sequence[Any], kw: dict[str, Any], y: Any, extra: Any, outputs: int = 1
    ) -> None:
        Node.__init__(self, [edge_of(a) if isinstance(a, Variable) else None for a in args], outputs)
        self.op = op
        needs = [edge is not None for edge in self.edges]
        saved: dict[str, Any] = {}
        versions = []
        positions = {}
        for name in op.kept(needs):
            if name in ("g", "ops", "needs"):
                continue
            if name == "y":
                saved["y"] = y
            elif name in kw:
                saved[name] = kw[name]
            elif name in op.inputs:
                i = op.inputs.index(name)
                saved[name] = arrays[i] if i < len(arrays) else None
                if i < len(args) and isinstance(args[i], Variable):
                    counter = args[i]._version
                    versions.append((counter, counter[0], name))
                    positions[name] = i
            elif name == "inputs":
                saved[name] = list(arrays)
                for i, a in enumerate(args):
                    if isinstance(a, Variable):
                        versions.append((a._version, a._version[0], f"input {i}"))
            elif name.endswith("_shape"):
                if name == "inputs_shape":
                    saved[name] = [getattr(a, "shape", ()) for a in arrays]
                else:
                    saved[name] = getattr(arrays[op.inputs.index(name[:-6])], "shape", ())
            elif name.endswith("_dtype"):
                saved[name] = arrays[op.inputs.index(name[:-6])].dtype
            elif name in op.extras:
                saved[name] = extra[op.extras.index(name)]
            else:
                default = op.forward.__kwdefaults__ or {}
                assert name in default, f"rule of {op.name} asks for {name!r}, which nothing provides"
                saved[name] = default[name]
        if op.broadcast:
            saved["shapes"] = [getattr(a, "shape", ()) for a in arrays]
        if op.composite is not None:
            saved["call"] = args, kw
        self.saved: Any = saved
        self.versions = versions
        self.positions = positions

    def name(self) -> str:
        return self.op.title

    def release(self) -> None:
        self.saved = None
        self.versions = ()

    def check_saved(self) -> None:
        if self.saved is None:
            raise RuntimeError(
                f"[backward] a graph can be walked back once, then what {self.op.name} saved is freed; came a second"
                " time. Call the first backward with retain_graph=True, or run the forward again"
            )
        for counter, version, name in self.versions:
            if counter[0] != version:
                made = f" (called at {self.where})" if self.where else ""
                raise RuntimeError(
                    f"[{self.op.name}] what backward needs must not be overwritten: {name!r}{made} is at version"
                    f" {counter[0]} and was saved at version {version}; last written by {counter[1]}."
                    " An in-place operation changed it: use the out-of-place form there, or clone() before"
                )

    def vjp(self, g: Any, create: bool) -> list[Any]:
        self.check_saved()
        if create:
            return self._vjp_composite(g) if self.op.composite else self._vjp_recorded(g)
        op, saved = self.op, self.saved
        low = None
        if op.half == "float32":
            first = g if self.outputs == 1 else next(part for part in g if part is not None)
            if first.dtype.itemsize == 2:
                low = first.dtype
                g = widen(g) if self.outputs == 1 else [None if part is None else widen(part) for part in g]
                saved = {name: widen(value) for name, value in saved.items()}
        if op.joint is not None:
            grads = list(op.joint(array_ops, g, self.needs(), *[saved[n] for n in op._together_names]))
        elif op.backward is not None:
            first = g if self.outputs == 1 else next(part for part in g if part is not None)
            xp = array_namespace.get(type(first), np)
            grads = list(op.backward(xp, g, self.needs(), *[saved[n] for n in op._together_names]))
        else:
            grads = self._by_rules(g, array_ops, saved)
        if low is not None:
            grads = [None if grad is None else grad.astype(low) for grad in grads]
        return grads

    def needs(self) -> list[bool]:
        return [edge is not None for edge in self.edges]

    def _by_rules(self, g: Any, ops: Any, env: dict[str, Any]) -> list[Any]:
        op = self.op
        grads: list[Any] = []
        for i, edge in enumerate(self.edges):
            rule = op.rule_for(i) if edge is not None else None
            if rule is None:
                grads.append(None)
                continue
            names = op._rule_names[rule]
            grad = rule(*[g if n == "g" else ops if n == "ops" else env[n] for n in names])
            if op.broadcast and grad.shape != env["shapes"][i]:
                grad = ops.sum_to_shape(grad, shape=env["shapes"][i])
            grads.append(grad)
        return grads

    def _vjp_recorded(self, g: Any) -> list[Any]:
        """The same with Tensors: saved arrays become Tensors again, with their place in the graph."""
        op = self.op
        assert op.backward is None, f"op {op.name} has a backward on arrays and no composite"
        env: dict[str, Any] = {}
        for name, value in self.saved.items():
            if name in self.positions:
                env[name] = on_edge(value, self.edges[self.positions[name]])
            elif name == "y" and self.outputs == 1:
                env[name] = on_edge(value, self)
            elif name == "y":
                env[name] = [on_edge(v, Output(self, i)) for i, v in enumerate(value)]
            elif name == "inputs":
                env[name] = [on_edge(v, e) for v, e in zip(value, self.edges)]
            elif type(value) in array_namespace:
                env[name] = wrap(value)
            else:
                env[name] = value
        if op.joint is not None:
            return list(op.joint(tensor_namespace, g, self.needs(), *[env[n] for n in op._together_names]))
        return self._by_rules(g, tensor_namespace, env)

    def _vjp_composite(self, g: Any) -> list[Any]:
        """Runs the op again as its composite, and walks that back as far as the inputs."""
        args, kw = self.saved["call"]
        ends = [None if edge is None else Identity([edge]) for edge in self.edges]
        inputs = [on_edge(a.array, end) if isinstance(a, Variable) else a for a, end in zip(args, ends)]
        assert self.op.composite is not None
        y = self.op.composite(tensor_namespace, *inputs, **kw)
        pairs = [(y, g)] if self.outputs == 1 else zip(y, g)
        roots = [(edge_of(t), part) for t, part in pairs if part is not None and edge_of(t) is not None]
        places = [i for i, end in enumerate(ends) if end is not None]
        found = engine.backward(roots, True, True, [ends[i] for i in places], accumulate=False)
        grads: list[Any] = [None] * len(ends)
        for i, grad in zip(places, found):
            grads[i] = grad
        return grads


class Identity(Node):
    """A place in the graph of its own for an input that other inputs may share."""

    __slots__ = ()

    def vjp(self, g: Any, create: bool) -> list[Any]:
        return [g]


def on_edge(array: Any, edge: Any) -> Any:
    """A Tensor over a saved array at its place in the graph."""
    if edge is not None and edge.kind == LEAF:
        return edge
    if type(array) not in array_namespace:
        return array
    t = wrap(array)
    if edge is not None:
        t._node, t._needs = edge, True
    return t


def parameters(fn: Callable[..., Any]) -> tuple[str, ...]:
    code = fn.__code__
    return code.co_varnames[: code.co_argcount]


def namespace_of(arrays: Sequence[Any]) -> Any:
    """The array module of the inputs; an error where they are on different devices."""
    xp = None
    for a in arrays:
        found = array_namespace.get(type(a))
        if found is None:
            continue
        if xp is not None and found is not xp:
            raise RuntimeError(
                f"[device] all tensors must be on one device, came {', '.join(describe(b) for b in arrays)}"
            )
        xp = found
    return np if xp is None else xp


def is_floating(array: Any) -> bool:
    dtype = array.dtype
    return dtype.kind in "fc" or (dtype.kind == "V" and dtype.name == "bfloat16")


def widen(a: Any) -> Any:
    if type(a) in array_namespace and a.dtype.itemsize == 2 and a.dtype.kind in "fV":
        return a.astype(np.float32)
    return a


def narrow(y: Any, low: Any, xp: Any) -> Any:
    if type(y) not in array_namespace:
        y = xp.asarray(y)
    return y.astype(low) if low is not None and y.dtype == np.float32 else y


def describe(a: Any) -> str:
    """`float32[2, 3]` for arrays and Tensors, the repr of anything else."""
    a = a.array if isinstance(a, Variable) else a
    if type(a) in array_namespace:
        return f"{a.dtype.name}{list(a.shape)}"
    return repr(a)


class ArrayOps:
    """The ops on plain arrays, as gradient rules see them: `ops.sum(g, dim=0)`."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        op = registry.get(name)
        if op is None:
            raise AttributeError(f"no op is called {name!r}")
        forward, prepare, extras = op.forward, op.prepare, op.extras

        def call(*args: Any, **kw: Any) -> Any:
            if prepare is not None:
                args, kw = prepare(*args, **kw)
            y = forward(namespace_of(args), *args, **kw)
            return y[0] if extras else y

        self.__dict__[name] = call
        return call


class TensorOps:
    """The ops on Tensors under the same names, for a backward that is recorded."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return tensor_ops[name]


array_ops = ArrayOps()
tensor_namespace = TensorOps()
__all__ = ["OUTPUT", "Op", "OpNode", "array_ops", "listeners", "registry", "tensor_ops"]
