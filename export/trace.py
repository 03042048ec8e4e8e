"""Recording what a model computes: the ops of one call, with the values that go in and come out.

A value is known by its array: address, shape, strides and dtype. Arrays that no recorded op made are constants; that
they do not depend on the inputs is found out by tracing several times (see compare.py).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from inspect import signature
from typing import Any

import numpy as np

from ..autograd import engine
from ..autograd.engine import Variable, array_namespace, call_site
from ..autograd.mode import no_grad
from ..autograd.op import listeners, tensor_namespace
from ..jit.graph import Node, Ref


class ExportError(RuntimeError):
    """A model holds something that ONNX, or this exporter, cannot say; the message names the op and the line."""


class Value:
    """An array of the trace. kind: input, parameter, constant or result; `array` is held by all but results.

    dense: whether its elements lay in memory in order.
    """

    __slots__ = ("array", "dense", "dtype", "kind", "name", "shape", "where")

    def __init__(self, array: Any, kind: str, name: str = "", where: str = "") -> None:
        self.shape, self.dtype, self.kind, self.name, self.where = array.shape, array.dtype, kind, name, where
        self.dense = bool(array.flags.c_contiguous)
        self.array = array if kind != "result" else None


def op_call(op: str, args: Any, kw: dict[str, Any], outputs: list[int], where: str) -> Node:
    """One executed op as a node of the jit's graphs: `Ref`s in place of arrays, ids of outputs, the user's line."""
    return Node("op", op, args, kw, outputs, where)


class Trace:
    """The calls of one run, in order, the values by number, and which of them the model returned."""

    def __init__(self, inlined: Callable[[str, Any, Any], bool]) -> None:
        self.calls: list[Node] = []
        self.values: list[Value] = []
        self.outputs: list[int] = []
        self._inlined = inlined
        self._places: dict[Any, tuple[int, Any, int]] = {}  # array -> value, its tensor, the tensor's version
        self._contents: dict[
            Any, tuple[int, Any, int]
        ] = {}  # the same without the shape, for contiguous arrays
        self._alive: list[Any] = []  # so that no address is used twice

    def name(self, tensor: Any, kind: str, name: str) -> None:
        """Makes an input or a parameter known before the run; the first name of a shared one stays."""
        if _key(tensor.array) not in self._places:
            self._bind(tensor, self._add(Value(tensor.array, kind, name)))

    def run(self, model: Callable[..., Any], args: tuple[Any, ...]) -> None:
        """Calls the model and records it."""
        listeners.append(self._listen)
        engine.makers.append(self._made)
        engine.wholes.append(self._whole)
        try:
            with no_grad():
                result = model(*args)
        finally:
            listeners.remove(self._listen)
            engine.makers.remove(self._made)
            engine.wholes.remove(self._whole)
        found = list(tensors_in(result))
        if not found:
            raise TypeError(f"[onnx] the model must return Tensors, came {type(result).__name__}")
        self.outputs = [self._ref(t, "the model's return value").id for t in found]

    def _add(self, value: Value) -> int:
        self.values.append(value)
        return len(self.values) - 1

    def _bind(self, holder: Any, id: int) -> None:
        array = holder.array if isinstance(holder, Variable) else holder
        counter = holder._version if isinstance(holder, Variable) else None
        entry = (id, counter, counter[0] if counter else 0)
        self._alive.append(holder)
        self._places[_key(array)] = entry
        if array.flags.c_contiguous:
            self._contents[_content(array)] = entry

    def _listen(self, op: Any, inputs: tuple[Any, ...], kw: dict[str, Any], output: Any) -> None:
        where = call_site()
        written = next((a for a in inputs if a is output), None)
        if written is not None:
            self._refuse_state(op.name, written, where)
        if op.name == "setitem" and all(self._is_constant(a) for a in inputs):
            return self._constant(output, where)  # a constant in the making
        args = tuple(
            self._argument(a, where, 1 if a is written and written is not None else 0) for a in inputs
        )
        if op.composite is not None and self._inlined(op.name, inputs, kw):
            if written is not None:
                raise ExportError(
                    f"[onnx] {op.name} in place has no ONNX form; called at {where}: call it out of place"
                )
            parts = op.composite(tensor_namespace, *inputs, **kw)
            for old, new in zip(_listed(output), _listed(parts)):
                self._bind(old, self._ref(new, where).id)
            return
        recorded = {name: self._argument(value, where) for name, value in kw.items()}
        outputs = []
        for t in _listed(output):
            outputs.append(self._add(Value(t.array, "result", where=where)))
            self._bind(t, outputs[-1])
        self.calls.append(op_call(op.name, args, recorded, outputs, where))

    def _whole(self, fn: Callable[..., Any], args: Any, kw: Any, output: Any) -> None:
        """A function that ONNX has as one node: what was recorded inside of it is then not needed."""
        where, given = call_site(), signature(fn).bind(*args, **kw)
        given.apply_defaults()
        recorded = {name: self._argument(value, where) for name, value in given.arguments.items()}
        id = self._add(Value(output.array, "result", where=where))
        self._bind(output, id)
        self.calls.append(op_call(fn.__name__, (), recorded, [id], where))

    def _made(self, tensor: Any) -> None:
        """A tensor made out of Python's numbers: its content now, should it be written later."""
        if _key(tensor.array) not in self._places:
            self._constant(tensor, call_site())

    def _constant(self, tensor: Any, where: str) -> None:
        self._bind(tensor, self._add(Value(tensor.array.copy(), "constant", where=where)))

    def _is_constant(self, holder: Any) -> bool:
        if not isinstance(holder, Variable) and type(holder) not in array_namespace:
            return True
        entry = self._places.get(_key(holder.array if isinstance(holder, Variable) else holder))
        return entry is None or self.values[entry[0]].kind == "constant"

    def _refuse_state(self, op: str, written: Any, where: str) -> None:
        entry = self._places.get(_key(written.array))
        if entry is not None and self.values[entry[0]].kind == "parameter":
            raise ExportError(
                f"[onnx] the model must not write to its own parameters and buffers, came {op!r} on"
                f" {self.values[entry[0]].name!r}; called at {where}: an ONNX file keeps nothing between calls"
            )

    def _argument(self, value: Any, where: str, written: int = 0) -> Any:
        """An argument with Refs in place of arrays, also inside of tuples."""
        if isinstance(value, Variable) or type(value) in array_namespace:
            return self._ref(value, where, written)
        if isinstance(value, tuple | list):
            return tuple(self._argument(v, where) for v in value)
        return value

    def _ref(self, holder: Any, where: str, written: int = 0) -> Ref:
        """The value that an array holds. written: by how much the op that is being recorded moved its version."""
        array = holder.array if isinstance(holder, Variable) else holder
        entry = self._places.get(_key(array))
        if entry is not None:
            return Ref(self._current(entry, holder, array, where, written))
        entry = self._contents.get(_content(array)) if array.flags.c_contiguous else None
        if entry is not None and array.size:
            id = self._add(Value(array, "result", where=where))
            source = self._current(entry, holder, array, where, written)
            self.calls.append(op_call("reshape", (Ref(source),), {"shape": array.shape}, [id], where))
        else:
            id = self._add(Value(array.copy(), "constant", where=where))
        self._bind(holder, id)
        return Ref(id)

    def _current(self, entry: tuple[int, Any, int], holder: Any, array: Any, where: str, written: int) -> int:
        """The value's number, where nothing was written over it unseen; a constant is read anew."""
        id, counter, version = entry
        if counter is None or counter[0] - written == version:
            return id
        if self.values[id].kind == "constant":
            id = self._add(Value(array.copy(), "constant", where=where))
            self._bind(holder, id)
            return id
        raise ExportError(
            f"[onnx] memory written in place through another tensor (at {counter[1]}) was read again at {where}:"
            " ONNX has no shared memory; write this part without in-place operations, with cat, where or scatter"
        )


def tensors_in(value: Any) -> Iterator[Any]:
    """The Tensors of nested tuples, lists and dicts, in order."""
    if isinstance(value, Variable):
        yield value
    elif isinstance(value, dict):
        for v in value.values():
            yield from tensors_in(v)
    elif isinstance(value, tuple | list):
        for v in value:
            yield from tensors_in(v)


def _listed(output: Any) -> list[Any]:
    return list(output) if isinstance(output, tuple | list) else [output]


def _content(array: Any) -> tuple[Any, ...]:
    return array.ctypes.data, array.size, array.dtype.str


def _key(array: Any) -> tuple[Any, ...]:
    return array.ctypes.data, array.shape, array.strides, array.dtype.str


def is_array(value: Any) -> bool:
    return isinstance(value, np.ndarray)
