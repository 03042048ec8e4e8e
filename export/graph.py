"""Writing ONNX nodes: names, shared initializers, sizes that are known only when the model runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from .compare import Dim, Merged, Range, Uniform
from .trace import ExportError


class Val:
    """A value as emitters see it: name in the graph, shape (ints and Dims), dtype, and content where it is fixed.

    dense: whether its elements lay in memory in order when it was traced.
    """

    __slots__ = ("array", "dense", "dtype", "name", "shape")

    def __init__(
        self, name: str, shape: tuple[Any, ...], dtype: Any, array: Any = None, dense: bool = True
    ) -> None:
        self.name, self.shape, self.dtype, self.array, self.dense = name, shape, dtype, array, dense

    @property
    def ndim(self) -> int:
        return len(self.shape)

    def __str__(self) -> str:
        return self.name


class Graph:
    """Nodes and initializers under construction. `out` are the outputs of the call that is being written."""

    def __init__(self, onnx: Any, merged: Merged, opset: int) -> None:
        self.onnx, self.merged, self.opset = onnx, merged, opset
        self.nodes: list[Any] = []
        self.initializers: dict[str, Any] = {}
        self.out: list[Val] = []
        self.label = "graph"
        self._names: set[str] = set()
        self._constants: dict[Any, str] = {}
        self._dims: dict[Any, str] = {}
        self.symbols: dict[str, tuple[str, int]] = {}  # a dynamic dimension -> an input and its axis

    # ---- nodes

    def unique(self, wanted: str) -> str:
        name, n = wanted, 0
        while name in self._names:
            n += 1
            name = f"{wanted}_{n}"
        self._names.add(name)
        return name

    def node(self, kind: str, *inputs: Any, **attributes: Any) -> str:
        """Adds a node of one output; inputs are names, Vals, or None for one that is left out."""
        return self.nodes_out(kind, 1, *inputs, **attributes)[0]

    def nodes_out(self, kind: str, count: int, *inputs: Any, **attributes: Any) -> list[str]:
        """Adds a node of `count` outputs."""
        names = ["" if i is None else str(i) for i in inputs]
        while names and not names[-1]:
            names.pop()
        outputs = [self.unique(f"{self.label}_{kind}" if self.label != kind else kind) for _ in range(count)]
        given = {k: v for k, v in attributes.items() if v is not None}
        self.nodes.append(self.onnx.helper.make_node(kind, names, outputs, name=outputs[0], **given))
        return outputs

    # ---- constants

    def constant(self, value: Any, dtype: Any = None) -> str:
        """The name of an initializer with this content; equal ones are one."""
        array = np.ascontiguousarray(np.asarray(value, dtype)).reshape(np.shape(value))
        key = (array.dtype.str, array.shape, array.tobytes())
        if key not in self._constants:
            name = self.unique("constant")
            self._constants[key] = name
            self.initializers[name] = array
        return self._constants[key]

    def parameter(self, name: str, array: Any) -> str:
        name = self.unique(name)
        self.initializers[name] = array
        return name

    def ints(self, values: Sequence[Any]) -> str:
        """A 1-d int64 tensor of ints and Dims."""
        if not any(isinstance(v, Dim) for v in values):
            return self.constant(np.array(values, np.int64).reshape(len(values)))
        parts = [self.dim(v) if isinstance(v, Dim) else self.constant([v], np.int64) for v in values]
        return parts[0] if len(parts) == 1 else self.node("Concat", *parts, axis=0)

    def dim(self, dim: Dim) -> str:
        """A size computed while the model runs: an int64 tensor of shape [1]."""
        if dim not in self._dims:
            label, self.label = self.label, "size"
            total = self._symbol(dim.names[0])
            for name in dim.names[1:]:
                total = self.node("Add" if dim.kind == "sum" else "Mul", total, self._symbol(name))
            bottom = int(np.lcm(dim.factor.denominator, dim.offset.denominator))
            for kind, by in (("Mul", dim.factor * bottom), ("Add", dim.offset * bottom), ("Div", bottom)):
                if by != (0 if kind == "Add" else 1):
                    total = self.node(kind, total, self.constant([int(by)], np.int64))
            self.label = label
            self._dims[dim] = total
        return self._dims[dim]

    def _symbol(self, name: str) -> str:
        if name in self.merged.sizes.atoms:
            return self.dim(self.merged.sizes.atoms[name])
        key = ("symbol", name)
        if key not in self._dims:
            source, axis = self.symbols[name]
            shape = self.node("Shape", source)
            self._dims[key] = self.node("Gather", shape, self.constant([axis], np.int64), axis=0)
        return self._dims[key]

    def content(self, found: Any, dtype: Any) -> str:
        """A constant of the traces: fixed, or made anew from the dynamic sizes."""
        if isinstance(found, Uniform):
            return self.node("Expand", self.constant(found.array), self.ints(found.shape))
        if isinstance(found, Dim):
            return self.cast(self.node("Squeeze", self.dim(found), self.constant([0], np.int64)), dtype)
        if isinstance(found, Range):
            count = next(n for n in found.shape if isinstance(n, Dim))
            scalar = self.node("Squeeze", self.dim(count), self.constant([0], np.int64))
            row = self.node("Range", self.constant(0, np.int64), scalar, self.constant(1, np.int64))
            row = self.node("Mul", self.cast(row, dtype), self.constant(found.step, dtype))
            row = self.node("Add", row, self.content(found.start, dtype))
            return self.reshape(row, found.shape)
        return self.constant(found, dtype)

    # ---- what many ops are made of

    def cast(self, x: Any, dtype: Any) -> str:
        return self.node("Cast", x, to=self.onnx.helper.np_dtype_to_tensor_dtype(np.dtype(dtype)))

    def like(self, value: Any, x: Val) -> str:
        """A number as a 0-d constant of x's dtype; a Val as it is."""
        if isinstance(value, Val):
            return value.name
        if isinstance(value, Dim):
            return self.content(value, x.dtype)
        return self.constant(value, x.dtype)

    def reshape(self, x: Any, shape: Sequence[Any]) -> str:
        """x in another shape of ints and Dims."""
        fixed = [n for n in shape if not isinstance(n, Dim)]
        if len(fixed) == len(shape) - 1 and 0 not in fixed:
            shape = [-1 if isinstance(n, Dim) else n for n in shape]
        return self.node("Reshape", x, self.ints(shape), allowzero=1 if 0 in fixed else None)

    def reduce(self, kind: str, x: Any, dims: Sequence[int] | None, keepdim: bool) -> str:
        """A reduction; before opset 18 the dimensions are an attribute of all but ReduceSum."""
        if dims is not None and not len(dims):
            return self.node("Identity", x)
        if dims is None:
            return self.node(kind, x, keepdims=int(keepdim))
        if self.opset < 18 and kind != "ReduceSum":
            return self.node(kind, x, axes=list(dims), keepdims=int(keepdim))
        return self.node(kind, x, self.ints(dims), keepdims=int(keepdim))

    def slice(self, x: Any, axis: int, start: Any, stop: Any, step: int = 1) -> str:
        return self.node("Slice", x, *(self.ints([v]) for v in (start, stop, axis, step)))

    def needs(self, opset: int, what: str) -> None:
        if self.opset < opset:
            raise ExportError(f"[onnx] {what} needs opset_version {opset} or later, came {self.opset}")


__all__ = ["Graph", "Val"]
