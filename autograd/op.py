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
from copy import copy
from typing import Any

import numpy as np

from . import engine
from .engine import LEAF, OUTPUT, Node, Output, Variable, array_namespace, edge_of, mode, refresh, wrap

registry: dict[str, Op] = {}
tensor_ops: dict[str, Callable[..., Any]] = {}  # name -> what is called with Tensors

_new = object.__new__
ndarray = np.ndarray
F32, F64 = np.dtype("float32"), np.dtype("float64")
# 16-bit floats: computed in float32 and rounded once (bfloat16 joins when ml_dtypes is loaded).
low_floats: set[Any] = {np.dtype("float16")}
# Op -> kinds of dtype (NumPy's letters) that it refuses; filled before ops are declared.
refused: dict[str, str] = {}
# Op -> the name of its node, or name(node, what it keeps): where PyTorch's is another than the op's own.
titles: dict[str, str | Callable[[Any, Any], str]] = {}
ERRORS = (ValueError, TypeError, IndexError, np.linalg.LinAlgError)

# Signs in a message that an argument was no tensor or number at all.
STRANGE = ("argument", "StrDType", "as an integer", "NoneType", "'str'", "'list'", "dtype('O')")

# Called as listener(op, inputs, kwargs, output) after each op: the door for tracing and profiling.
listeners: list[Callable[[Op, tuple[Any, ...], dict[str, Any], Any], None]] = []

# How other folders get into a profile: door(note) begins to call note(kind, text, start, nanoseconds), and returns what
# ends that.
doors: list[Callable[[Callable[[str, str, int, int], None]], Callable[[], None]]] = []


class Op:
    """One operation. Tensors are positional, everything else is keyword.

    rules     one gradient rule an input (None: no gradient); or one function for all inputs together:
              (ops, g, needs, names...) -> a gradient for each input
    backward  for fused ops: (xp, g, needs, names...) -> the same, on arrays only and faster. Where there are rules
              too, they say what is kept (backward gets None for the rest) and serve the recorded backward
    composite the same function written with `ops`, for a recorded backward of a fused op
    extras    names of further arrays that the forward returns after the output, kept for the rules
    outputs   how many tensors the op returns; 0 when it depends on the arguments
    view      whether the output shares the input's memory; None: look
    analytic  whether the op on complex numbers is differentiable as such: then its rules, written for real numbers,
              hold between conjugates
    remake    whether an output that was overwritten is computed again when backward needs it (PyTorch keeps something
              else than the output there, so its users write over it); the rules must keep all inputs
    half      what to do with 16-bit floats: "float32" computes in float32 and rounds once, "native" does not; "weak"
              does not either, and takes numbers beside arrays as Python's
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
        analytic: bool = False,
        remake: bool = False,
        half: str = "float32",
        prepare: Callable[..., Any] | None = None,
        hint: str = "",
    ) -> None:
        self.name, self.forward = name, forward
        self.joint: Callable[..., Any] | None = rules if callable(rules) else None
        self.rules: Sequence[Callable[..., Any] | None] = () if callable(rules) else rules
        self.backward, self.composite, self.extras = backward, composite, extras
        self.outputs, self.view, self.broadcast, self.half = outputs, view, broadcast, half
        self.analytic, self.remake = analytic, remake
        self.prepare, self.hint = prepare, hint
        self.refuses = refused.get(name, "")
        self.declared = self  # a backend's variant names the op that it stands for
        code = forward.__code__
        self.inputs: tuple[str, ...] = code.co_varnames[1 : code.co_argcount]
        self.keywords = code.co_varnames[code.co_argcount : code.co_argcount + code.co_kwonlyargcount]
        self.defaults: dict[str, Any] = forward.__kwdefaults__ or {}
        self.calls = [Call(rule) if rule else None for rule in self.rules]
        together = self.joint or backward
        self.together = Call(together) if together else None
        self.differentiable = bool(together or any(self.rules))
        self.plans: dict[int, Plan] = {}
        self.variants: dict[
            Any, list[Variant]
        ] = {}  # array module of a backend -> its bodies, first fit first
        self.title = "".join(part.capitalize() for part in name.split("_")) + "Backward0"
        self._enter(name)

    def _enter(self, name: str) -> None:
        assert name not in registry, f"op {name} is declared twice"
        registry[name] = self
        tensor_ops[name] = self

    def variant(self, arrays: Sequence[Any], kw: dict[str, Any]) -> Variant | None:
        """The body that a backend has for these arrays, if any."""
        for found in self.variants.get(namespace_of(arrays), ()):
            if found.accepts(*arrays, **kw):
                return found
        return None

    def __repr__(self) -> str:
        return f"<op {self.name}>"

    # ---- calling

    def __call__(self, *args: Any, **kw: Any) -> Any:
        if self.prepare is not None:
            args, kw = self.prepare(*args, **kw)
        arrays = []
        mask, bit = 0, 1
        low = None
        for a in args:
            if isinstance(a, Variable):
                if a._base is not None and a._view_version != a._version[0]:
                    refresh(a)
                if a._needs:
                    mask |= bit
                array = a.array
                dtype = array.dtype
                if dtype is not F32:
                    if dtype.kind in self.refuses:
                        raise no_kernel(self, array)
                    if dtype in low_floats:
                        low = dtype
                arrays.append(array)
            else:
                arrays.append(a)
            bit += bit
        if low is None and not self.extras and self.outputs == 1 and len(array_namespace) == 1:
            try:
                y = self.forward(np, *arrays, **kw)
            except ERRORS as error:
                raise self.explain(error, arrays, kw) from None
            if type(y) is not ndarray:
                y = np.asarray(y)
            extra = None
        else:
            if self.variants and (variant := self.variant(arrays, kw)) is not None:
                return variant(*args, **kw)
            y, extra = self.compute(arrays, kw)
        record = mask and mode.grad and self.differentiable
        if self.outputs == 1:
            out: Any = _new(engine.tensor_class)
            out.array = y
            out._version = [0, None]
            if self.view is not False:
                self._mark_view(args[0], out, kw)
            if record and (y.dtype.kind in "fc" or is_floating(y)):
                out._node = OpNode(self, args, arrays, kw, mask, y, extra, out._version)
                out._needs = True
        else:
            parts = [wrap(part) for part in y]
            if self.view:
                for part in parts:
                    self._mark_view(args[0], part, None)
            if record:
                node = OpNode(self, args, arrays, kw, mask, y, extra, None, len(parts))
                if "y" in node.saved:
                    node.versions = (*node.versions, *((p._version, p._version[0], "y") for p in parts))
                for i, part in enumerate(parts):
                    if is_floating(part.array):
                        part._node, part._needs = Output(node, i), True
            out = tuple(parts)
        if listeners:
            for listener in listeners:
                listener(self.declared, args, kw, out)
        return out

    def compute(self, arrays: Sequence[Any], kw: dict[str, Any]) -> tuple[Any, Any]:
        """The forward on arrays: (output, extras), with 16-bit floats computed in float32."""
        xp = np if len(array_namespace) == 1 else namespace_of(arrays)
        low = None
        if xp is not np:
            arrays = beside(xp, arrays, self.half)
        try:
            if self.half == "float32":
                for a in arrays:
                    if type(a) in array_namespace and a.dtype in low_floats:
                        low = a.dtype
                        arrays = [widen(b) for b in arrays]
                        break
            y = self.forward(xp, *arrays, **kw)
        except ERRORS as error:
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
        strange = any(v is None or isinstance(v, str | list) for v in arrays) or any(
            word in text for word in STRANGE
        )
        if (isinstance(error, TypeError) and strange) or "invalid literal" in text:
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

    def plan(self, mask: int) -> Plan:
        """What to keep when the inputs in `mask` want gradients."""
        found = self.plans.get(mask)
        if found is None:
            found = self.plans[mask] = Plan(self, mask)
        return found


class Variant(Op):
    """A backend's own body of an op, with its own gradient: what a call becomes when its arrays are of that backend.

    accepts  whether the body computes these arrays and keywords; otherwise the next one, or the op's own, does

    Attached with `op.variants[xp]`, from the backend's folder; ops know nothing of it.
    """

    def __init__(
        self,
        op: Op,
        xp: Any,
        accepts: Callable[..., bool],
        forward: Callable[..., Any],
        backward: Callable[..., Any] | None = None,
        *,
        extras: tuple[str, ...] = (),
        half: str = "native",
    ) -> None:
        own = backward is not None
        super().__init__(
            op.name,
            forward,
            () if own else op.joint or op.rules,
            backward=backward,
            composite=(op.composite or _rules_of(op)) if own else op.composite,
            extras=extras,
            outputs=op.outputs,
            broadcast=op.broadcast and not own,
            analytic=op.analytic,
            half=half,
            hint=op.hint,
        )
        self.declared, self.accepts = op, accepts
        op.variants.setdefault(xp, []).append(self)
        general = getattr(tensor_ops[op.name], "general", None)
        if general is not None:  # the short way of a family goes past variants
            general()

    def _enter(self, name: str) -> None:
        """A variant is found through its op, not by name."""

    def variant(self, arrays: Sequence[Any], kw: dict[str, Any]) -> Variant | None:
        return None


def no_kernel(op: Op, array: Any) -> NotImplementedError:
    """What an op raises for a dtype that it refuses."""
    cast = "a real one (.real, .abs())" if array.dtype.kind == "c" else "another, as with .float() or .int()"
    return NotImplementedError(
        f"[{op.name}] is not implemented for {array.dtype.name}, came {describe(array)}: cast it to {cast}"
    )


def _rules_of(op: Op) -> Callable[..., Any]:
    """The op itself as composite, without its variants: the recorded backward goes by its rules."""
    plain = copy(op)
    plain.variants = {}
    return lambda ops, *args, **kw: plain(*args, **kw)


class Call:
    """A gradient rule and what it is called with: `ops` or not, then g, then the saved values by name."""

    __slots__ = ("names", "rule", "with_ops")

    def __init__(self, rule: Callable[..., Any]) -> None:
        names = parameters(rule)
        self.rule = rule
        self.with_ops = names[0] == "ops"
        if names[0] in ("ops", "xp"):
            names = names[1:]
        assert names[0] == "g", f"a rule's parameters start with (ops,) g, came {names}"
        self.names = names[2:] if len(names) > 1 and names[1] == "needs" else names[1:]


class Plan:
    """Where the saved values of a node come from, worked out once for an op and a set of wanted inputs."""

    __slots__ = (
        "arrays",
        "dtypes",
        "extras",
        "inputs",
        "inputs_shape",
        "keep_y",
        "keywords",
        "positions",
        "rare",
        "shapes",
    )

    def __init__(self, op: Op, mask: int) -> None:
        by_rules = bool(op.calls) and op.joint is None
        calls = [c for i, c in enumerate(op.calls) if c and mask >> i & 1] if by_rules else [op.together]
        names = sorted({name for call in calls if call for name in call.names})
        place = {name: i for i, name in enumerate(op.inputs)}
        if by_rules and op.together:  # shapes and keywords cost nothing
            names = sorted(
                {
                    *names,
                    *(n for n in op.together.names if n not in place and n not in op.extras and n != "y"),
                }
            )
        self.keep_y = "y" in names
        self.inputs, self.inputs_shape = "inputs" in names, "inputs_shape" in names
        self.arrays = tuple((n, place[n]) for n in names if n in place)
        self.shapes = tuple((n, place[n[:-6]]) for n in names if n.endswith("_shape") and n[:-6] in place)
        self.dtypes = tuple((n, place[n[:-6]]) for n in names if n.endswith("_dtype") and n[:-6] in place)
        self.extras = tuple((n, op.extras.index(n)) for n in names if n in op.extras)
        special = {
            "y",
            "inputs",
            "inputs_shape",
            *op.extras,
            *(n for n, _ in self.arrays + self.shapes + self.dtypes),
        }
        self.keywords = bool(set(names) - special)
        self.positions = dict(self.arrays)
        self.rare = bool(self.dtypes or self.extras or self.inputs or self.inputs_shape)


class OpNode(Node):
    """A recorded call of an Op: edges to its inputs, and what its gradient rules need."""

    __slots__ = ("op", "positions", "saved", "versions")

    def __init__(
        self,
        op: Op,
        args: Sequence[Any],
        arrays: Sequence[Any],
        kw: dict[str, Any],
        mask: int,
        y: Any,
        extra: Any,
        version: Any,
        outputs: int = 1,
    ) -> None:
        plan = op.plans.get(mask) or op.plan(mask)
        edges = []
        for a in args:
            if mask & 1:
                edge = a._node
                edges.append(a if edge is None else edge)
            else:
                edges.append(None)
            mask >>= 1
        self.edges = edges
        self.outputs = outputs
        self.seq = engine.sequence()
        self.hooks = None
        self.where = engine.call_site() if mode.anomaly else None
        self.op = op
        saved: dict[str, Any] = {**op.defaults, **kw} if plan.keywords else {}
        versions: Any = ()
        if plan.arrays:
            versions = []
            count = len(arrays)
            for name, i in plan.arrays:
                if i < count:
                    saved[name] = arrays[i]
                    a = args[i]
                    if isinstance(a, Variable):
                        versions.append((a._version, a._version[0], name))
                else:
                    saved[name] = None
        for name, i in plan.shapes:
            saved[name] = arrays[i].shape
        if plan.rare:
            for name, i in plan.dtypes:
                saved[name] = arrays[i].dtype
            for name, i in plan.extras:
                saved[name] = extra[i]
            if plan.inputs:
                saved["inputs"] = list(arrays)
                tensors = [(i, a) for i, a in enumerate(args) if isinstance(a, Variable)]
                versions = [(a._version, a._version[0], f"input {i}") for i, a in tensors]
            if plan.inputs_shape:
                saved["inputs_shape"] = [getattr(a, "shape", ()) for a in arrays]
        if plan.keep_y:
            saved["y"] = y
            if version is not None:
                versions = [*versions, (version, version[0], "y")]
        if op.broadcast:
            saved["shapes"] = [getattr(a, "shape", ()) for a in arrays]
        if op.composite is not None:
            saved["call"] = args, kw
        self.saved: Any = saved
        self.versions = versions
        self.positions = plan.positions

    def name(self) -> str:
        title = titles.get(self.op.declared.name, self.op.title)
        if isinstance(title, str):
            return title
        return title(self, self.saved) if self.saved is not None else self.op.title

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
                if name == "y" and self.op.remake:
                    self._remake()
                    continue
                made = f" (called at {self.where})" if self.where else ""
                raise RuntimeError(
                    f"[{self.op.name}] what backward needs must not be overwritten: {name!r}{made} is at version"
                    f" {counter[0]} and was saved at version {version}; last written by {counter[1]}."
                    " An in-place operation changed it: use the out-of-place form there, or clone() before"
                )

    def _remake(self) -> None:
        op, saved = self.op, self.saved
        inputs = [saved[name] for name in op.inputs]
        xp = array_namespace[type(inputs[0])]
        saved["y"] = op.forward(xp, *inputs, **{name: saved[name] for name in op.keywords})
        self.versions = [kept for kept in self.versions if kept[2] != "y"]

    def vjp(self, g: Any, create: bool) -> list[Any]:
        saved, op = self.saved, self.op
        if saved is None:
            self.check_saved()
        for counter, version, _ in self.versions:
            if counter[0] != version:
                self.check_saved()
        if not create and op.together is None:
            dtype = g.dtype
            if dtype is F32 or dtype is F64:
                return self._by_rules(g, array_ops, saved)
        if op.analytic and self.outputs == 1 and _dtype(g).kind == "c":
            ops = tensor_namespace if create else array_ops
            grads = self._vjp(ops.conj(g), create)
            return [None if grad is None else ops.conj(grad) for grad in grads]
        return self._vjp(g, create)

    def _vjp(self, g: Any, create: bool) -> list[Any]:
        saved, op = self.saved, self.op
        if create:
            return self._vjp_composite(g) if op.composite else self._vjp_recorded(g)
        if op.together is None and (g.dtype not in low_floats or op.half != "float32"):
            return self._by_rules(g, array_ops, saved)
        low = None
        if op.half == "float32":
            first = g if self.outputs == 1 else next(part for part in g if part is not None)
            if first.dtype in low_floats:
                low = first.dtype
                g = widen(g) if self.outputs == 1 else [None if part is None else widen(part) for part in g]
                saved = {name: widen(value) for name, value in saved.items()}
        if op.together is None:
            grads = self._by_rules(g, array_ops, saved)
        else:
            values = [saved.get(n) for n in op.together.names]
            if op.joint is not None:
                grads = list(op.joint(array_ops, g, self.needs(), *values))
            else:
                first = g if self.outputs == 1 else next(part for part in g if part is not None)
                grads = list(op.together.rule(array_namespace.get(type(first), np), g, self.needs(), *values))
        if low is not None:
            grads = [None if grad is None else grad.astype(low) for grad in grads]
        return grads

    def needs(self) -> list[bool]:
        return [edge is not None for edge in self.edges]

    def _by_rules(self, g: Any, ops: Any, env: dict[str, Any]) -> list[Any]:
        op = self.op
        shapes = env["shapes"] if op.broadcast else None
        grads: list[Any] = []
        for edge, call in zip(self.edges, op.calls):
            if edge is None or call is None:
                grads.append(None)
                continue
            names = call.names
            if len(names) == 1 and not call.with_ops:
                grad = call.rule(g, env[names[0]])
            elif call.with_ops:
                grad = call.rule(ops, g, *[env[n] for n in names])
            else:
                grad = call.rule(g, *[env[n] for n in names])
            if shapes is not None and grad.shape != shapes[len(grads)]:
                grad = ops.sum_to_shape(grad, shape=shapes[len(grads)])
            grads.append(grad)
        return grads if len(grads) == len(self.edges) else grads + [None] * (len(self.edges) - len(grads))

    def _vjp_recorded(self, g: Any) -> list[Any]:
        """The same with Tensors: saved arrays become Tensors again, with their place in the graph."""
        op = self.op
        assert op.backward is None or op.calls, f"op {op.name} has a backward on arrays and no composite"
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
            assert op.together is not None
            return list(op.joint(tensor_namespace, g, self.needs(), *[env[n] for n in op.together.names]))
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


def _dtype(g: Any) -> Any:
    return g.array.dtype if isinstance(g, Variable) else g.dtype


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
        if found is None or (found is np and not a.ndim):  # a number goes with any device
            continue
        if xp is not None and found is not xp:
            raise RuntimeError(
                f"[device] all tensors must be on one device, came {', '.join(describe(b) for b in arrays)}"
            )
        xp = found
    return np if xp is None else xp


def beside(xp: Any, arrays: Sequence[Any], half: str) -> Sequence[Any]:
    """Numbers, which come as 0-d NumPy arrays, in the form that a GPU's kernels take: as scalars, in place.

    Those in 16 bits are given in float32, in which ops compute. Ops that do not widen get 0-d arrays.
    """
    for i, a in enumerate(arrays):
        if type(a) is ndarray:
            if half == "weak":
                arrays[i] = a.item() if a.dtype.kind != "V" else float(a)  # type: ignore[index]
            elif not a.ndim and half != "native":
                arrays[i] = (a.astype(F32) if a.dtype in low_floats else a)[()]  # type: ignore[index]
            else:
                arrays[i] = xp.asarray(a)  # type: ignore[index]
    return arrays


def is_floating(array: Any) -> bool:
    dtype = array.dtype
    return dtype.kind in "fc" or (dtype.kind == "V" and dtype.name == "bfloat16")


def widen(a: Any) -> Any:
    if type(a) is list:  # the outputs of an op that has several
        return [widen(part) for part in a]
    if (type(a) in array_namespace or isinstance(a, np.generic)) and a.dtype in low_floats:
        return a.astype(np.float32)
    return a


def narrow(y: Any, low: Any, xp: Any) -> Any:
    if type(y) not in array_namespace:
        y = xp.asarray(y)
    return y.astype(low) if low is not None and y.dtype == np.float32 else y


def describe(a: Any) -> str:
    """`float32[2, 3]` for arrays and Tensors, the repr of anything else."""
    a = a.array if isinstance(a, Variable) else a
    if type(a) is ndarray:
        return f"{a.dtype.name}{list(a.shape)}"
    if type(a) in array_namespace:
        return f"{a.dtype.name}{list(a.shape)} on cuda:{a.device.id}"
    return repr(a)


# Forms of ops that are faster on arrays, where sharing memory does not matter.
array_forms: dict[str, Callable[..., Any]] = {}


class ArrayOps:
    """The ops on plain arrays, as gradient rules see them: `ops.sum(g, dim=0)`."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        op = registry.get(name)
        if op is None:
            raise AttributeError(f"no op is called {name!r}")
        if name in array_forms:
            self.__dict__[name] = array_forms[name]
            return array_forms[name]
        forward, prepare, extras = op.forward, op.prepare, op.extras

        def call(*args: Any, **kw: Any) -> Any:
            for a in args:
                if isinstance(a, np.generic):  # what NumPy's arithmetic makes of 0-d arrays
                    args = tuple(np.asarray(a) if isinstance(a, np.generic) else a for a in args)
                    break
            if prepare is not None:
                args, kw = prepare(*args, **kw)
            if len(array_namespace) == 1:
                y = forward(np, *args, **kw)
            else:
                xp = namespace_of(args)
                if op.variants and (body := op.variant(args, kw)) is not None:
                    return body.forward(xp, *args, **kw)[0] if body.extras else body.forward(xp, *args, **kw)
                y = forward(xp, *(args if xp is np else beside(xp, list(args), op.half)), **kw)
            return y[0] if extras else y

        self.__dict__[name] = call
        return call


class TensorOps:
    """The ops on Tensors under the same names, for a backward that is recorded."""

    def __getattr__(self, name: str) -> Callable[..., Any]:
        return tensor_ops[name]


array_ops = ArrayOps()
tensor_namespace = TensorOps()
__all__ = ["OUTPUT", "Op", "OpNode", "array_ops", "doors", "listeners", "registry", "tensor_ops"]
