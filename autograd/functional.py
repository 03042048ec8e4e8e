"""Derivatives of functions: Jacobians, Hessians and their products with vectors, with PyTorch's signatures.

`inputs` is a tensor or a tuple of tensors, and results are tuples where inputs or outputs are. With
`create_graph` the results can be differentiated again. With `strict` an output that does not depend on an input
is an error; otherwise its derivative is zero.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from . import engine
from . import grad as _grad
from .engine import Variable, array_namespace, wrap
from .mode import enable_grad, mode
from .op import tensor_ops

Tensors = tuple[Any, ...]


def vjp(
    func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False
) -> tuple[Any, Any]:
    """(outputs, v^T J): the gradients of the outputs weighted by `v`, which has their shape (None for one element)."""
    with enable_grad():
        xs, one_input = _inputs("vjp", inputs, create_graph)
        ys, one_output = _outputs("vjp", func, xs, strict)
        weights = _vectors("vjp", v, ys, "outputs")
        found = _gradients("vjp", ys, xs, weights, create_graph, strict)
    return _give(ys, one_output, create_graph), _give(found, one_input, create_graph)


def jvp(
    func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False
) -> tuple[Any, Any]:
    """(outputs, J v): the change of the outputs when the inputs move along `v`, which has their shape.

    J v is the gradient of u^T J with respect to u: two backwards.
    """
    with enable_grad():
        xs, _ = _inputs("jvp", inputs, create_graph)
        vs = _vectors("jvp", v, xs, "inputs")
        ys, one_output = _outputs("jvp", func, xs, strict)
        us = tuple(_leaf(wrap(np.zeros_like(y.array))) for y in ys)
        rows = _gradients("jvp", ys, xs, us, True, strict)
        found = _gradients("jvp", rows, us, vs, create_graph, strict)
    return _give(ys, one_output, create_graph), _give(found, one_output, create_graph)


def jacobian(
    func: Callable[..., Any],
    inputs: Any,
    create_graph: bool = False,
    strict: bool = False,
    vectorize: bool = False,
    strategy: str = "reverse-mode",
) -> Any:
    """All derivatives of all outputs: shape [*output shape, *input shape]; [output][input] for tuples.

    vectorize: accepted; every element of the outputs takes one backward either way.
    """
    if strategy != "reverse-mode":
        raise ValueError(f"[jacobian] strategy must be 'reverse-mode', came {strategy!r}")
    with enable_grad():
        xs, one_input = _inputs("jacobian", inputs, create_graph)
        ys, one_output = _outputs("jacobian", func, xs, strict)
        found = tuple(_give(_rows(y, xs, create_graph, strict), one_input, create_graph) for y in ys)
    return found[0] if one_output else found


def hessian(
    func: Callable[..., Any],
    inputs: Any,
    create_graph: bool = False,
    strict: bool = False,
    vectorize: bool = False,
    outer_jacobian_strategy: str = "reverse-mode",
) -> Any:
    """The second derivatives of a scalar function: shape [*shape of input i, *shape of input j]; [i][j] for tuples."""
    several = not isinstance(inputs, Variable)

    def gradient(*xs: Any) -> Any:
        found = jacobian(_scalar("hessian", func), xs, create_graph=True)
        if strict and not all(g.requires_grad for g in found):
            raise RuntimeError(
                "[hessian] with strict=True every gradient must depend on the inputs, came one that does not"
            )
        return found if several else found[0]

    return jacobian(gradient, inputs, create_graph, strict, vectorize, outer_jacobian_strategy)


def vhp(
    func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False
) -> tuple[Any, Any]:
    """(output, v^T H) of a scalar function; `v` has the inputs' shapes."""
    with enable_grad():
        xs, one_input = _inputs("vhp", inputs, create_graph)
        vs = _vectors("vhp", v, xs, "inputs")
        ys, one_output = _outputs("vhp", _scalar("vhp", func), xs, strict)
        first = _gradients("vhp", ys, xs, None, True, strict)
        found = _gradients("vhp", first, xs, vs, create_graph, strict)
    return _give(ys, one_output, create_graph), _give(found, one_input, create_graph)


def hvp(
    func: Callable[..., Any], inputs: Any, v: Any = None, create_graph: bool = False, strict: bool = False
) -> tuple[Any, Any]:
    """(output, H v) of a scalar function; H is symmetric, so this is `vhp` where H is continuous.

    H v is computed as PyTorch does, by two further backwards of the gradient; `vhp` needs one and is faster.
    """
    with enable_grad():
        xs, one_input = _inputs("hvp", inputs, create_graph)
        vs = _vectors("hvp", v, xs, "inputs")
        ys, one_output = _outputs("hvp", _scalar("hvp", func), xs, strict)
        first = _gradients("hvp", ys, xs, None, True, strict)
        us = tuple(_leaf(wrap(np.zeros_like(x.array))) for x in xs)
        rows = _gradients("hvp", first, xs, us, True, strict)
        found = _gradients("hvp", rows, us, vs, create_graph, strict)
    return _give(ys, one_output, create_graph), _give(found, one_input, create_graph)


def _leaf(t: Any) -> Any:
    t.requires_grad_()
    return t


def _inputs(name: str, inputs: Any, create_graph: bool) -> tuple[Tensors, bool]:
    """Tensors of our own to differentiate by, joined to the caller's graph under `create_graph`."""
    one = isinstance(inputs, Variable)
    given: Tensors = (inputs,) if one else tuple(inputs)
    for i, x in enumerate(given):
        if not isinstance(x, Variable):
            raise TypeError(
                f"[{name}] inputs must be a Tensor or a tuple of Tensors, came {type(x).__name__} at {i}"
            )
    joined = create_graph and mode.grad
    alias = tensor_ops["alias"]
    return tuple(
        alias(x) if joined and engine.edge_of(x) is not None else _leaf(wrap(x.array)) for x in given
    ), one


def _outputs(name: str, func: Callable[..., Any], xs: Tensors, strict: bool) -> tuple[Tensors, bool]:
    result = func(*xs)
    one = isinstance(result, Variable)
    ys: Tensors = (result,) if one else tuple(result)
    for i, y in enumerate(ys):
        if not isinstance(y, Variable):
            raise TypeError(
                f"[{name}] func must return a Tensor or a tuple of Tensors, came {type(y).__name__} at {i}"
            )
        if strict and engine.edge_of(y) is None:
            raise RuntimeError(
                f"[{name}] with strict=True every output must depend on the inputs, came output {i} that does not"
            )
    return ys, one


def _scalar(name: str, func: Callable[..., Any]) -> Callable[..., Any]:
    def checked(*xs: Any) -> Any:
        y = func(*xs)
        if not isinstance(y, Variable) or y.array.size != 1:
            came = list(y.array.shape) if isinstance(y, Variable) else type(y).__name__
            raise RuntimeError(f"[{name}] func must return one Tensor of one element, came {came}")
        return tensor_ops["reshape"](y, shape=())

    return checked


def _vectors(name: str, v: Any, like: Tensors, what: str) -> Tensors:
    """`v` as a tuple that fits the tensors `like`; ones where it is left out for one element."""
    if v is None:
        if len(like) != 1 or like[0].array.size != 1:
            raise RuntimeError(f"[{name}] v can be left out for one element only: it must fit the {what}")
        return (wrap(np.ones_like(like[0].array)),)
    vs: Tensors = (v,) if isinstance(v, Variable) else tuple(v)
    came, want = [list(t.array.shape) for t in vs], [list(t.array.shape) for t in like]
    if came != want:
        raise RuntimeError(f"[{name}] v must have the shapes of the {what} {want}, came {came}")
    return vs


def _gradients(name: str, ys: Tensors, xs: Tensors, weights: Any, create: bool, strict: bool) -> Tensors:
    """grad() that leaves out outputs without a graph, and gives zeros (or an error) for inputs without influence."""
    weights = weights if weights is not None else (None,) * len(ys)
    pairs = [(y, w) for y, w in zip(ys, weights) if engine.edge_of(y) is not None]
    found: Tensors = (None,) * len(xs)
    if pairs:
        outputs, given = zip(*pairs)
        found = _grad(outputs, xs, given, retain_graph=True, create_graph=create, allow_unused=True)
    elif strict:
        raise RuntimeError(
            f"[{name}] with strict=True the outputs must depend on the inputs, came none that does"
        )
    for i, g in enumerate(found):
        if g is None and strict:
            raise RuntimeError(
                f"[{name}] with strict=True the outputs must depend on input {i}, came independent ones"
            )
    return tuple(wrap(np.zeros_like(x.array)) if g is None else g for g, x in zip(found, xs))


def _rows(y: Any, xs: Tensors, create: bool, strict: bool) -> Tensors:
    """The Jacobian of one output, a backward for each of its elements."""
    rows: list[Tensors] = []
    for k in range(y.array.size):
        one = array_namespace[type(y.array)].zeros(y.array.size, y.array.dtype)
        one[k] = 1
        rows.append(_gradients("jacobian", (y,), xs, (wrap(one.reshape(y.array.shape)),), create, strict))
    shapes = [y.array.shape + x.array.shape for x in xs]
    if not rows:
        return tuple(
            wrap(array_namespace[type(x.array)].zeros(shape, x.array.dtype)) for shape, x in zip(shapes, xs)
        )
    stack, reshape = tensor_ops["stack"], tensor_ops["reshape"]
    return tuple(reshape(stack(*parts, dim=0), shape=shape) for parts, shape in zip(zip(*rows), shapes))


def _give(tensors: Tensors, one: bool, create: bool) -> Any:
    """What the caller gets: without a graph unless asked for, a single tensor where one came."""
    out = tensors if create else tuple(t.detach() for t in tensors)
    return out[0] if one else out


__all__ = ["hessian", "hvp", "jacobian", "jvp", "vhp", "vjp"]
