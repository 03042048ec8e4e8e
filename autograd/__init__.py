"""Automatic differentiation: the engine, grad modes, custom functions."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from . import engine
from .engine import Variable as _Variable
from .engine import queue_callback
from .function import Function, once_differentiable
from .mode import (
    detect_anomaly,
    enable_grad,
    inference_mode,
    is_grad_enabled,
    is_inference_mode_enabled,
    no_grad,
    set_detect_anomaly,
    set_grad_enabled,
)


def _tuple(x: Any) -> tuple[Any, ...]:
    """One tensor, or any collection of them: a list, a generator, a ParameterList."""
    return tuple(x) if isinstance(x, Iterable) and not isinstance(x, _Variable) else (x,)


def _roots(
    name: str, tensors: tuple[Any, ...], grads: tuple[Any, ...], create: bool
) -> list[tuple[Any, Any]]:
    """Pairs of edge and gradient to start from; each gradient fits its tensor."""
    roots = []
    if len(grads) != len(tensors):
        raise RuntimeError(f"[{name}] one gradient a tensor is needed, came {len(grads)} for {len(tensors)}")
    for t, g in zip(tensors, grads):
        edge = engine.edge_of(t)
        if edge is None:
            raise RuntimeError(
                f"[{name}] the tensor must require grad, came one that does not and has no grad_fn: was it made under"
                " no_grad(), or from no tensor that requires grad?"
            )
        if g is None:
            if t.array.size != 1:
                raise RuntimeError(
                    f"[{name}] a gradient can be left out for one element only, came shape {list(t.array.shape)}:"
                    " reduce to a scalar, or pass gradient="
                )
            one = engine.wrap(engine.ones_beside(t.array))
            for maker in engine.makers:
                maker(one)
            roots.append((edge, one if create else one.array))
            continue
        if g.array.shape != t.array.shape:
            raise RuntimeError(
                f"[{name}] a gradient must have its tensor's shape {list(t.array.shape)}, came {list(g.array.shape)}"
            )
        roots.append((edge, g if create else g.array))
    return roots


def backward(
    tensors: Any,
    grad_tensors: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    grad_variables: Any = None,
    inputs: Any = None,
) -> None:
    """Adds the gradients of `tensors`, weighted by `grad_tensors`, to the `.grad` of leaves (or of `inputs`)."""
    tensors = _tuple(tensors)
    grads = _tuple(grad_tensors) if grad_tensors is not None else (None,) * len(tensors)
    roots = _roots("backward", tensors, grads, create_graph)
    keep = create_graph if retain_graph is None else retain_graph
    if inputs is None:
        del tensors, grads, grad_tensors  # the engine may then keep what it computes without a copy
        engine.backward(roots, keep, create_graph)
        return
    inputs = _tuple(inputs)
    edges = [engine.edge_of(t) for t in inputs]
    if not inputs or None in edges:
        raise RuntimeError("[backward] inputs must be tensors that require grad, at least one")
    for t, g in zip(inputs, engine.backward(roots, keep, create_graph, edges, accumulate=False)):
        if g is not None:
            engine.accumulate_grad(t, g, create_graph)


_ones: dict[Any, Any] = {}


def backward_scalar(t: Any, keep: bool) -> None:
    """The usual backward: from one number, whose gradient is 1."""
    edge = engine.edge_of(t)
    dtype = t.array.dtype
    one = _ones.get(dtype)
    if len(engine.array_namespace) > 1 and type(t.array) is not np.ndarray:
        one = engine.ones_beside(t.array)
    elif one is None:
        one = _ones[dtype] = np.ones((), dtype)
        one.flags.writeable = False  # shared by all
    if edge is None:
        _roots("backward", (t,), (None,), False)
    engine.backward([(edge, one)], keep, False)


def grad(
    outputs: Any,
    inputs: Any,
    grad_outputs: Any = None,
    retain_graph: bool | None = None,
    create_graph: bool = False,
    only_inputs: bool = True,
    allow_unused: bool | None = None,
    is_grads_batched: bool = False,
    materialize_grads: bool = False,
) -> tuple[Any, ...]:
    """The gradients of `outputs` (weighted by `grad_outputs`) with respect to `inputs`; `.grad` stays as it is."""
    outputs, inputs = _tuple(outputs), _tuple(inputs)
    grads = _tuple(grad_outputs) if grad_outputs is not None else (None,) * len(outputs)
    edges = [engine.edge_of(t) for t in inputs]
    for i, edge in enumerate(edges):
        if edge is None:
            raise RuntimeError(f"[grad] every input must require grad, came input {i} that does not")
    keep = create_graph if retain_graph is None else retain_graph
    found = engine.backward(
        _roots("grad", outputs, grads, create_graph), keep, create_graph, edges, accumulate=False
    )
    results = []
    for i, (t, g) in enumerate(zip(inputs, found)):
        if g is None:
            if materialize_grads:
                results.append(engine.wrap(np.zeros_like(t.array)))
                continue
            if not allow_unused:
                raise RuntimeError(
                    f"[grad] every input must have been used for the outputs, came input {i} that was not:"
                    " allow_unused=True returns None for it"
                )
            results.append(None)
        elif create_graph:
            results.append(g)
        else:
            own = g if type(g) in engine.array_namespace else np.asarray(g)
            if not engine.writable(own) or own.base is not None:
                own = own.copy()
            if engine.watch is not None:
                engine.watch.taken(g, own)
            results.append(engine.wrap(own))
    return tuple(results)


class Variable:
    """PyTorch's old wrapper: `Variable(t)` is the tensor itself."""

    def __new__(cls, data: Any, requires_grad: bool = False, volatile: bool = False) -> Any:
        return data.requires_grad_() if requires_grad else data


class set_multithreading_enabled:
    """Accepted, as a call or a context manager: backward runs in the thread that calls it."""

    def __init__(self, mode: bool) -> None:
        self.mode = mode

    def __enter__(self) -> None:
        pass

    def __exit__(self, *_: Any) -> None:
        pass


__all__ = [
    "Function",
    "Variable",
    "backward",
    "detect_anomaly",
    "enable_grad",
    "grad",
    "gradcheck",
    "gradgradcheck",
    "inference_mode",
    "is_grad_enabled",
    "is_inference_mode_enabled",
    "no_grad",
    "once_differentiable",
    "queue_callback",
    "set_detect_anomaly",
    "set_grad_enabled",
    "set_multithreading_enabled",
]


from .gradcheck import gradcheck, gradgradcheck  # noqa: E402  (they use grad, above)


def __getattr__(name: str) -> Any:
    if name in ("forward_ad", "functional", "graph", "profiler"):
        import importlib

        return importlib.import_module(f".{name}", __name__)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
