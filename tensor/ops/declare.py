"""Families of ops: what is the same for all of a kind is written here once, flat and fast.

A family gives an op its type rule, its broadcasting and a short way from the call to the array function. The
general way (`Op.__call__`) does the same and takes everything; the short ways below serve float32 and float64.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ...autograd import engine
from ...autograd import op as op_module
from ...autograd.engine import Variable, array_namespace, mode, refresh
from ...autograd.op import Op, OpNode, describe, listeners, tensor_ops
from ..dtypes import BOOL, F32, F64, category, default_float, promote_types, result_type

Rule = Callable[..., Any]
_new = object.__new__


class FastNode(OpNode):
    """An OpNode whose saved names were worked out when the op was declared."""

    __slots__ = ()

    def __init__(self) -> None:  # filled in by the families
        raise NotImplementedError


def _raise_numbers(name: str, x: Any) -> Any:
    raise TypeError(f"[{name}] must be called with a Tensor, came {type(x).__name__}")


def unary(
    name: str,
    forward: Callable[[Any, Any], Any],
    rule: Rule | None = None,
    *,
    floating: bool = False,
    analytic: bool = False,
    hint: str = "",
) -> Callable[[Any], Any]:
    """Elementwise op of one tensor. `floating`: integers and bools are computed in the default float type."""

    def to_floating(x: Any) -> tuple[tuple[Any], dict[str, Any]]:
        if not isinstance(x, Variable):
            if type(x) in array_namespace:
                return (x if category(x.dtype) > 1 else x.astype(default_float()),), {}
            _raise_numbers(name, x)
        if category(x.array.dtype) < 2:
            x = tensor_ops["cast"](x, dtype=default_float())
        return (x,), {}

    prepare = to_floating if floating else None
    op = Op(name, forward, [rule], prepare=prepare, analytic=analytic, hint=hint)
    names = op_module.parameters(rule) if rule else ()
    simple = rule is not None and set(names) <= {"g", "x", "x_shape", "y", "ops"}

    def general() -> None:  # a backend has attached a body of its own
        nonlocal simple
        simple = False

    keep_x, keep_y, keep_shape = "x" in names, "y" in names, "x_shape" in names

    def call(x: Any) -> Any:
        try:
            a = x.array
        except AttributeError:
            return _raise_numbers(name, x)
        dtype = a.dtype
        if (dtype is not F32 and dtype is not F64) or listeners or mode.anomaly or not simple:
            return op(x)
        xp = array_namespace[type(a)]
        try:
            y = forward(xp, a)
        except (ValueError, TypeError):
            return op(x)  # raises with our words
        if type(y) is not type(a):
            y = xp.asarray(y)
        t: Any = _new(engine.tensor_class)
        t.array = y
        t._version = [0, None]
        if x._base is not None:
            refresh(x)
        if x._needs and mode.grad:
            node = _new(FastNode)
            edge = x._node
            node.edges = (x if edge is None else edge,)
            node.outputs = 1
            node.seq = engine.sequence()
            node.hooks = node.where = None
            node.op = op
            if keep_x:
                version = x._version
                node.versions = ((version, version[0], "x"),)
                node.positions = X_FIRST
                node.saved = {"x": a, "y": y} if keep_y else {"x": a}
            else:
                node.versions = ()
                node.positions = NONE
                node.saved = {"y": y} if keep_y else {}
                if keep_y:
                    node.versions = ((t._version, 0, "y"),)
            if keep_shape:
                node.saved["x_shape"] = a.shape
            t._node = node
            t._needs = True
        return t

    call.general = general  # type: ignore[attr-defined]
    return _finish(op, call)


NONE: dict[str, int] = {}
X_FIRST = {"x": 0}


def _finish(op: Op, call: Callable[..., Any]) -> Callable[..., Any]:
    call.__name__ = call.__qualname__ = op.name
    call.op = op  # type: ignore[attr-defined]
    tensor_ops[op.name] = call
    return call


def promoted(name: str, args: tuple[Any, ...], least: int = 0) -> list[Any]:
    """Casts tensors to their common dtype, as PyTorch promotes; Python numbers become 0-d arrays of it.

    least: 2 lets integers become the default float type, as true division does.
    """
    arrays = []
    for a in args:
        if isinstance(a, Variable):
            arrays.append(a.array)
        elif isinstance(a, bool | int | float | complex) or type(a) in array_namespace:
            arrays.append(a)
        elif isinstance(a, np.generic):
            arrays.append(a.item() if a.dtype.itemsize >= 8 else np.asarray(a))
        else:
            raise TypeError(f"[{name}] must be called with Tensors or numbers, came {type(a).__name__}")
    if len(array_namespace) > 1:
        args = beside_others(args, arrays)
    target = result_type(arrays)
    if least > category(target):
        target = default_float()
    out: list[Any] = []
    for a, array in zip(args, arrays):
        if isinstance(a, Variable):
            out.append(a if array.dtype == target else tensor_ops["cast"](a, dtype=target))
        else:
            out.append(_number(name, array, target))
    return out


def _is_bool(a: Any) -> bool:
    return a.array.dtype == BOOL if isinstance(a, Variable) else a is True or a is False


def _said(a: Any) -> str:
    return describe(a) if isinstance(a, Variable) else repr(a)


def beside_others(args: tuple[Any, ...], arrays: list[Any]) -> tuple[Any, ...]:
    """0-d tensors on the CPU among others on a GPU are moved to it, as PyTorch takes them; recorded."""
    to = next((a.device.id for a in arrays if type(a) in array_namespace and type(a) is not np.ndarray), None)
    if to is None:
        return args
    moved = list(args)
    for i, a in enumerate(args):
        if isinstance(a, Variable) and type(a.array) is np.ndarray and not a.array.ndim:
            moved[i] = tensor_ops["copy_to"](a, device=f"cuda:{to}")
            arrays[i] = moved[i].array
    return tuple(moved)


def _number(name: str, value: Any, target: Any) -> Any:
    if type(value) in array_namespace and type(value) is not np.ndarray:
        return value.astype(target, copy=False)
    try:
        return np.asarray(value, dtype=target)
    except OverflowError:
        raise RuntimeError(f"[{name}] a number must fit {target.name}, came {value}") from None


def binary(
    name: str,
    forward: Callable[[Any, Any, Any], Any],
    rule_a: Rule | None = None,
    rule_b: Rule | None = None,
    *,
    least: int = 0,
    bools: bool = True,
    analytic: bool = False,
    hint: str = "",
) -> Callable[[Any, Any], Any]:
    """Elementwise op of two tensors or a tensor and a number: broadcast, and promoted as PyTorch does.

    bools: whether it takes bool tensors and Python's bools.
    """

    def prepare(a: Any, b: Any) -> tuple[Any, dict[str, Any]]:
        if type(a) in array_namespace and type(b) in array_namespace and a.dtype == b.dtype and not least:
            return (a, b), {}
        if not bools and (_is_bool(a) or _is_bool(b)):
            raise RuntimeError(
                f"[{name}] must not be used on bool tensors, came {_said(a)} and {_said(b)}: use ~, ^ or logical_not()"
            )
        if isinstance(a, Variable) and isinstance(b, Variable):
            x, z = a.array, b.array
            if x.dtype is z.dtype and type(x) is type(z) and category(x.dtype) >= least:
                return (a, b), {}
        return promoted(name, (a, b), least), {}

    op = Op(
        name,
        forward,
        [rule_a, rule_b],
        broadcast=True,
        analytic=analytic,
        prepare=prepare,
        hint=hint or "shapes must broadcast: be equal, or 1, from the last dimension on",
    )
    names_a = op_module.parameters(rule_a) if rule_a else ()
    names_b = op_module.parameters(rule_b) if rule_b else ()
    simple = set(names_a + names_b) <= {"g", "a", "b", "y", "ops"}

    def general() -> None:
        nonlocal simple
        simple = False

    keeps = [(), names_a, names_b, names_a + names_b]
    plans = [("a" in k, "b" in k, "y" in k) for k in keeps]

    def call(a: Any, b: Any) -> Any:
        try:
            x = a.array
            dtype = x.dtype
            z: Any = b
            if type(b) is float or type(b) is int:
                pass
            else:
                z = b.array
                if z.dtype is not dtype or type(z) is not type(x):
                    return op(a, b)
        except AttributeError:
            return op(a, b)
        if (dtype is not F32 and dtype is not F64) or listeners or mode.anomaly or not simple:
            return op(a, b)
        xp = array_namespace[type(x)]
        try:
            y = forward(xp, x, z)
        except (ValueError, TypeError):
            return op(a, b)  # raises with our words
        if type(y) is not type(x):
            y = xp.asarray(y)
        t: Any = _new(engine.tensor_class)
        t.array = y
        t._version = [0, None]
        if a._base is not None:
            refresh(a)
        number = z is b
        wanted = 1 if a._needs else 0
        if not number:
            if b._base is not None:
                refresh(b)
            if b._needs:
                wanted += 2
        if wanted and mode.grad:
            keep_a, keep_b, keep_y = plans[wanted]
            node = _new(FastNode)
            edge_a = edge_b = None
            if wanted != 2:
                edge_a = a._node
                if edge_a is None:
                    edge_a = a
            if wanted > 1:
                edge_b = b._node
                if edge_b is None:
                    edge_b = b
            node.edges = (edge_a, edge_b)
            node.outputs = 1
            node.seq = engine.sequence()
            node.hooks = node.where = None
            node.op = op
            shapes = (x.shape, () if number else z.shape)
            if keep_b:
                if number:
                    z = xp.asarray(z, dtype)
                if keep_a:
                    node.saved = {"a": x, "b": z, "shapes": shapes}
                else:
                    node.saved = {"b": z, "shapes": shapes}
            elif keep_a:
                node.saved = {"a": x, "shapes": shapes}
            else:
                node.saved = {"shapes": shapes}
            if number:
                node.versions = ((a._version, a._version[0], "a"),) if keep_a else ()
            elif keep_b:
                v = b._version
                if keep_a:
                    w = a._version
                    node.versions = ((w, w[0], "a"), (v, v[0], "b"))
                else:
                    node.versions = ((v, v[0], "b"),)
            elif keep_a:
                w = a._version
                node.versions = ((w, w[0], "a"),)
            else:
                node.versions = ()
            if keep_y:
                node.saved["y"] = y
                node.versions += ((t._version, 0, "y"),)
            node.positions = A_ALONE if number else A_AND_B
            t._node = node
            t._needs = True
        return t

    call.general = general  # type: ignore[attr-defined]
    return _finish(op, call)


def _behind(op: Op, x: Any) -> Any:
    """A node of one input, to be filled; `unary` has it in line, where a call more is 3 % of the whole."""
    node: Any = _new(FastNode)
    edge = x._node
    node.edges = (x if edge is None else edge,)
    node.outputs = 1
    node.seq = engine.sequence()
    node.hooks = node.where = None
    node.op = op
    return node


def viewing(op: Op) -> Callable[..., Any]:
    """The short way to call an op of one tensor that gives a view of it (or, for reshape, perhaps a copy)."""
    forward, prepare, always = op.forward, op.prepare, op.view is True
    plan = op.plan(1)
    assert not plan.arrays and not plan.rare and not plan.keep_y, (
        f"{op.name} keeps more than shapes and keywords"
    )

    def call(x: Any, **kw: Any) -> Any:
        if listeners or mode.anomaly or not isinstance(x, Variable) or len(array_namespace) > 1:
            return op(x, **kw)
        given = kw
        if prepare is not None:
            _, kw = prepare(x, **kw)
        a = x.array
        try:
            y = forward(np, a, **kw)
        except (ValueError, TypeError, IndexError):
            return op(x, **given)  # raises with our words
        t: Any = _new(engine.tensor_class)
        t.array = y
        base = x._base
        if base is not None:
            refresh(x)
        root = a if always else y.base
        if always or y is a or (root is not None and (root is a or root is a.base)):
            t._version = version = x._version
            t._view_version = version[0]
            if base is None:
                t._base = x
                t._replay = ((op, kw),)
            else:
                t._base = base
                if x._replay is not None:
                    t._replay = (*x._replay, (op, kw))
        else:
            t._version = [0, None]
        if x._needs and mode.grad:
            node = _behind(op, x)
            node.versions = ()
            node.positions = NONE
            node.saved = saved = dict(kw) if plan.keywords else {}
            for name, _ in plan.shapes:
                saved[name] = a.shape
            t._node = node
            t._needs = True
        return t

    return _finish(op, call)


def single(op: Op) -> Callable[..., Any]:
    """The short way to call an op of one tensor and keywords that makes one new array, in float32 and float64."""
    forward, plan, recorded = op.forward, op.plan(1), op.differentiable
    assert not plan.rare and op.outputs == 1 and not op.extras and not op.broadcast
    keep_x, keywords = bool(plan.arrays), plan.keywords

    def call(x: Any, **kw: Any) -> Any:
        if listeners or mode.anomaly or not isinstance(x, Variable) or len(array_namespace) > 1:
            return op(x, **kw)
        dtype = x.array.dtype
        if dtype is not F32 and dtype is not F64:
            return op(x, **kw)
        given = x, kw
        if op.prepare is not None:  # looked up now: autocast puts its own in its place
            (x,), kw = op.prepare(x, **kw)
        a = x.array
        dtype = a.dtype
        if dtype is not F32 and dtype is not F64:
            return op(given[0], **given[1])
        try:
            y = forward(np, a, **kw)
        except op_module.ERRORS:
            return op(given[0], **given[1])  # raises with our words
        t: Any = _new(engine.tensor_class)
        t.array = y if type(y) is np.ndarray else np.asarray(y)
        t._version = [0, None]
        if x._base is not None:
            refresh(x)
        if x._needs and recorded and mode.grad:
            node = _behind(op, x)
            node.saved = saved = {**op.defaults, **kw} if keywords else {}
            node.versions = ()
            node.positions = plan.positions
            for name, _ in plan.shapes:
                saved[name] = a.shape
            if keep_x:
                saved[plan.arrays[0][0]] = a
                version = x._version
                node.versions = ((version, version[0], plan.arrays[0][0]),)
            if plan.keep_y:
                saved["y"] = t.array
                node.versions = (*node.versions, (t._version, 0, "y"))
            if op.composite is not None:
                saved["call"] = (x,), kw
            t._node = node
            t._needs = True
        return t

    return _finish(op, call)


A_AND_B = {"a": 0, "b": 1}
A_ALONE = {"a": 0}


def comparison(name: str, forward: Callable[[Any, Any, Any], Any]) -> Op:
    """Elementwise comparison: broadcast and promoted, the result is bool and has no gradient."""

    def prepare(a: Any, b: Any) -> tuple[Any, dict[str, Any]]:
        if isinstance(a, Variable) and isinstance(b, Variable):
            x, z = a.array.dtype, b.array.dtype
            if x == z:
                return (a, b), {}
            common = promote_types(x, z)
            return [t if t.array.dtype == common else tensor_ops["cast"](t, dtype=common) for t in (a, b)], {}
        if isinstance(a, Variable) and type(b) is int and category(a.array.dtype) == 1:
            return (a, b), {}  # NumPy compares integers with any Python integer exactly
        return promoted(name, (a, b)), {}

    return Op(
        name,
        forward,
        prepare=prepare,
        broadcast=True,
        hint="shapes must broadcast: be equal, or 1, from the last dimension on",
    )


_ALL = [tuple(range(n)) for n in range(8)]


def axes_of(name: str, dim: Any, ndim: int) -> tuple[int, ...]:
    """Dimensions as a tuple of non-negative, distinct ints; None is all of them."""
    if dim is None:
        return _ALL[ndim] if ndim < 8 else tuple(range(ndim))
    if type(dim) is int and 0 <= dim < ndim:
        return (dim,)
    dims = (dim,) if isinstance(dim, int | np.integer) else tuple(dim)
    return distinct(name, tuple(axis_of(name, d, ndim) for d in dims), dim)


def distinct(name: str, axes: tuple[int, ...], dim: Any) -> tuple[int, ...]:
    if len(set(axes)) != len(axes):
        raise RuntimeError(f"[{name}] dimensions must be distinct, came dim={dim}")
    return axes


def axis_of(name: str, dim: Any, ndim: int) -> int:
    """One dimension as a non-negative int; IndexError outside of [-ndim, ndim)."""
    if type(dim) is int and -ndim <= dim < ndim:
        return dim if dim >= 0 else dim + ndim
    n = max(ndim, 1)
    if not isinstance(dim, int | np.integer):
        raise TypeError(f"[{name}] dim must be an int, came {type(dim).__name__}")
    if not -n <= dim < n:
        raise IndexError(f"[{name}] dim must be in [{-n}, {n - 1}], came {dim}")
    return int(dim) + (n if dim < 0 else 0)


__all__ = ["Op", "axes_of", "axis_of", "binary", "comparison", "describe", "promoted", "unary"]
