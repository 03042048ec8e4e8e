"""Custom differentiable functions, written by users: `class MyFunction(Function)`."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from functools import wraps
from typing import Any

import numpy as np

from .engine import Node, Output, Variable, array_namespace, edge_of, mode, wrap
from .inplace import written
from .mode import no_grad
from .op import is_floating, on_edge


class FunctionCtx:
    """What forward leaves for backward: `ctx.save_for_backward(...)`, and any attribute."""

    needs_input_grad: tuple[bool, ...] = ()
    materialize_grads = True

    def __init__(self) -> None:
        self.to_save: tuple[Any, ...] = ()
        self.dirty_tensors: tuple[Any, ...] = ()
        self.not_differentiable: tuple[Any, ...] = ()
        self._node: Any = None  # weakly: the node holds the context

    def save_for_backward(self, *tensors: Any) -> None:
        """Keeps inputs and outputs (or None) for backward, checked there for overwriting."""
        self.to_save = tensors

    @property
    def saved_tensors(self) -> tuple[Any, ...]:
        node = self._node() if self._node is not None else None
        return self.to_save if node is None else node.unpack()

    def mark_dirty(self, *tensors: Any) -> None:
        """Names inputs that forward wrote in place; they must be returned."""
        self.dirty_tensors = tensors

    def mark_non_differentiable(self, *tensors: Any) -> None:
        """Names outputs that have no gradient."""
        self.not_differentiable = tensors

    def set_materialize_grads(self, value: bool) -> None:
        """Whether backward is given zeros (True) or None for outputs without a gradient."""
        self.materialize_grads = value


class FunctionNode(Node):
    """The recorded call of a Function."""

    __slots__ = ("cls", "ctx", "dtypes", "namespace", "saved", "shapes")

    def __init__(self, cls: Any, ctx: FunctionCtx, edges: Any, outputs: list[Any]) -> None:
        super().__init__(edges, len(outputs))
        self.cls, self.ctx = cls, ctx
        self.namespace = array_namespace[type(outputs[0].array)] if outputs else np
        self.shapes = [t.array.shape for t in outputs]
        self.dtypes = [t.array.dtype for t in outputs]
        self.saved: Any = ()

    def save(self, inputs: tuple[Any, ...], outputs: list[Any]) -> None:
        """Turns saved tensors into arrays with a place in the graph, so that no node holds its own output."""
        saved: list[Any] = []
        for t in self.ctx.to_save:
            if not isinstance(t, Variable):
                saved.append((t, None, None, 0))
                continue
            own = next((i for i, out in enumerate(outputs) if out is t), None)
            saved.append((t.array, own if own is not None else edge_of(t), t._version, t._version[0]))
        self.saved = saved
        self.ctx.to_save = ()
        self.ctx._node = weakref.ref(self)

    def unpack(self) -> tuple[Any, ...]:
        if self.saved is None:
            raise RuntimeError(
                f"[{self.cls.__name__}] a graph can be walked back once, then what was saved is freed; came a second"
                " time. Call the first backward with retain_graph=True"
            )
        found = []
        for array, place, counter, version in self.saved:
            if counter is None:
                found.append(array)
                continue
            if counter[0] != version:
                raise RuntimeError(
                    f"[{self.cls.__name__}] saved tensors must not be overwritten, came one at version {counter[0]}"
                    f" that was saved at version {version}; last written by {counter[1]}"
                )
            if isinstance(place, int):
                place = self if self.outputs == 1 else Output(self, place)
            found.append(on_edge(array, place))
        return tuple(found)

    def release(self) -> None:
        self.saved = None

    def name(self) -> str:
        return self.cls.__name__ + "Backward"

    def vjp(self, g: Any, create: bool) -> list[Any]:
        grads = [g] if self.outputs == 1 else list(g)
        for i, part in enumerate(grads):
            if part is None and self.ctx.materialize_grads:
                part = wrap(self.namespace.zeros(self.shapes[i], self.dtypes[i]))
            elif part is not None and not create:
                part = wrap(part if type(part) in array_namespace else np.asarray(part))
            grads[i] = part
        results = self.cls.backward(self.ctx, *grads)
        results = list(results) if isinstance(results, tuple) else [results]
        while len(results) > len(self.edges) and results[-1] is None:
            results.pop()
        if len(results) != len(self.edges):
            raise RuntimeError(
                f"[{self.cls.__name__}] backward must return one gradient an input of forward: {len(self.edges)},"
                f" came {len(results)}"
            )
        for i, (result, edge) in enumerate(zip(results, self.edges)):
            if edge is None or result is None:
                results[i] = None
            elif not isinstance(result, Variable):
                raise TypeError(
                    f"[{self.cls.__name__}] backward must return Tensors or None, came {type(result).__name__}"
                )
            else:
                want = edge.array.shape if isinstance(edge, Variable) else self.input_shapes[i]
                if result.array.shape != want:
                    raise RuntimeError(
                        f"[{self.cls.__name__}] backward must return gradients of the inputs' shapes: input {i} has"
                        f" {list(want)}, came {list(result.array.shape)}"
                    )
                results[i] = result if create else result.array
        return results

    @property
    def input_shapes(self) -> Any:
        return self.extra


class Function:
    """Subclass with static methods `forward(ctx, *args)` and `backward(ctx, *grads)`; call `apply`.

    The newer form `forward(*args)` with `setup_context(ctx, inputs, output)` works too.
    """

    @staticmethod
    def forward(*args: Any, **kw: Any) -> Any:
        raise NotImplementedError("[Function] a subclass must define the static method forward(ctx, ...)")

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Any:
        raise NotImplementedError("[Function] a subclass must define the static method backward(ctx, ...)")

    setup_context: Any = None

    @classmethod
    def apply(cls, *args: Any) -> Any:
        """Runs forward unrecorded, and records the whole as one node."""
        ctx = FunctionCtx()
        edges = [edge_of(a) if isinstance(a, Variable) else None for a in args]
        recording = mode.grad and any(edge is not None for edge in edges)
        ctx.needs_input_grad = tuple(edge is not None for edge in edges)
        with no_grad():
            if cls.setup_context is not None:
                result = cls.forward(*args)
                cls.setup_context(ctx, args, result)
            else:
                result = cls.forward(ctx, *args)
        several = isinstance(result, tuple)
        outputs = list(result) if several else [result]
        for t in ctx.dirty_tensors:
            written(t)
        if not recording:
            return result
        tensors = [t for t in outputs if isinstance(t, Variable)]
        node = FunctionNode(cls, ctx, edges, tensors)
        node.extra = [a.array.shape if isinstance(a, Variable) else None for a in args]
        fresh: list[Any] = []
        for t in tensors:  # an input handed through is a tensor of its own
            same = any(t is a for a in args) and not any(t is d for d in ctx.dirty_tensors)
            fresh.append(wrap(t.array) if same else t)
        node.save(args, tensors)
        for i, t in enumerate(fresh):
            if is_floating(t.array) and not any(tensors[i] is n for n in ctx.not_differentiable):
                t._node, t._needs = (node if len(tensors) == 1 else Output(node, i)), True
        replaced = iter(fresh)
        outputs = [next(replaced) if isinstance(t, Variable) else t for t in outputs]
        return tuple(outputs) if several else outputs[0]


def once_differentiable(fn: Callable[..., Any]) -> Callable[..., Any]:
    """For a backward that must not be differentiated again: its results are cut off the graph."""

    @wraps(fn)
    def wrapped(ctx: Any, *grads: Any) -> Any:
        with no_grad():
            results = fn(ctx, *grads)
        if not mode.grad:
            return results
        many = results if isinstance(results, tuple) else (results,)
        cut = tuple(r if r is None else _Barrier.apply(r.requires_grad_()) for r in many)
        return cut if isinstance(results, tuple) else cut[0]

    return wrapped


class _Barrier(Function):
    """Passes a tensor on, and refuses to be walked back through."""

    @staticmethod
    def forward(ctx: Any, x: Any) -> Any:
        return x.clone()

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        raise RuntimeError("[once_differentiable] this gradient must not be differentiated a second time")
