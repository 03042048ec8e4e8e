"""Several traces of one model as one: what is equal in all is fixed, what differs follows from the dynamic dimensions.

The runs have other values in their inputs, and other sizes of the dynamic dimensions. An int that differs must be
`factor * (product of dimensions) + offset` in all runs, maybe rounded down, where sums and rounded sizes that were
found count as dimensions. A constant that differs in other ways depends on the inputs' values outside of the recorded
ops: that cannot be exported.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from fractions import Fraction
from itertools import combinations, combinations_with_replacement
from typing import Any

import numpy as np

from ..jit.graph import Node, Ref
from .trace import ExportError, Trace, Value, op_call


class Sizes(list[dict[str, int]]):
    """Of each run: the dynamic dimensions by name. Sums and rounded sizes that were found join them under their
    labels; `atoms` says how they are computed.
    """

    def __init__(self, runs: Sequence[dict[str, int]]) -> None:
        super().__init__(dict(run) for run in runs)
        self.atoms: dict[str, Dim] = {}

    def learn(self, dim: Dim) -> None:
        """Lets a size count as a dimension."""
        self.atoms[dim.label] = dim
        for run, value in zip(self, dim.values):
            run[dim.label] = value


class Dim:
    """A size that depends on dynamic dimensions: factor * total + offset, rounded down.

    total: the product of `names`; their sum, or the size of one that is rounded, where kind says so.
    """

    def __init__(
        self,
        names: tuple[str, ...],
        factor: Fraction,
        offset: Fraction,
        values: tuple[int, ...],
        kind: str = "product",
    ) -> None:
        self.names, self.factor, self.offset, self.values, self.kind = names, factor, offset, values, kind

    @property
    def label(self) -> str:
        """As it stands in the file for the shape of an input or output."""
        if self.kind == "sum":
            return f"({'+'.join(self.names)})"
        text = "*".join(self.names)
        if self.factor != 1:
            text = f"{self.factor.numerator}*{text}" if self.factor.numerator != 1 else text
            text += f"/{self.factor.denominator}" if self.factor.denominator != 1 else ""
        text = text if not self.offset else f"{text}{'+' if self.offset > 0 else '-'}{abs(self.offset)}"
        return f"floor({text})" if self.kind == "rounded" else text

    def __repr__(self) -> str:
        return f"<{self.label}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Dim) and self._key() == other._key()

    def __hash__(self) -> int:
        return hash(self._key())

    def _key(self) -> tuple[Any, ...]:
        return self.names, self.factor, self.offset, self.kind


class Repeated:
    """A tuple of `count` equal items, where the count is a Dim."""

    def __init__(self, item: Any, count: Dim) -> None:
        self.item, self.count = item, count


class Varying:
    """Arguments that differ from run to run and are no size: they depend on the inputs' values."""

    def __init__(self, values: tuple[Any, ...]) -> None:
        self.values = values

    def __repr__(self) -> str:
        return " or ".join(map(str, self.values[:2]))


def explained(values: Sequence[Any], sizes: Sizes) -> Dim | None:
    """The Dim that gives these ints in these runs; the simplest one."""
    if any(isinstance(v, bool) or not isinstance(v, int | np.integer) for v in values) or len(values) < 3:
        return None
    found: list[tuple[Any, Dim]] = []
    given = [name for name in sizes[0] if name not in sizes.atoms]
    for n in (1, 2, 3):
        chosen = [(names, "product") for names in combinations_with_replacement(sizes[0], n)]
        chosen += [(names, "sum") for names in combinations(given, n) if n > 1]
        for names, kind in chosen:
            if (dim := _fit(values, sizes, names, kind)) is not None:
                found.append(((dim.offset != 0, n, dim.factor != 1, kind), dim))
        if any(dim.offset == 0 for _, dim in found):
            break
    best = min(found, key=lambda pair: pair[0])[1] if found else _rounded(values, sizes)
    if best is None or best.kind == "product":
        return best
    if best.kind == "rounded" or (best.factor, best.offset) == (1, 0):
        sizes.learn(best)
        return best
    totals = [sum(run[name] for name in best.names) for run in sizes]
    sizes.learn(whole := Dim(best.names, Fraction(1), Fraction(0), tuple(totals), "sum"))
    return Dim((whole.label,), best.factor, best.offset, best.values)


def _rounded(values: Sequence[Any], sizes: Sizes) -> Dim | None:
    """The Dim of one dimension that gives the values rounded down: (p * size + b) // q, the smallest q."""
    for q in (2, 3, 4, 8, 16, 32):
        for name in sizes[0]:
            totals = [run[name] for run in sizes]
            apart = max(totals, key=lambda t: abs(t - totals[0])) - totals[0]
            far = totals.index(apart + totals[0])
            if not apart:
                continue
            p = round((int(values[far]) - int(values[0])) * q / apart)
            rests = [q * int(v) - p * t for v, t in zip(values, totals)]
            if p > 0 and max(rests) < min(rests) + q:
                offset = Fraction(max(rests), q)
                return Dim((name,), Fraction(p, q), offset, tuple(int(v) for v in values), "rounded")
    return None


def _fit(values: Sequence[Any], sizes: Sizes, names: tuple[str, ...], kind: str) -> Dim | None:
    """The Dim of these names that gives the values exactly, if there is one."""
    combine: Any = sum if kind == "sum" else math.prod
    totals = [int(combine(run[name] for name in names)) for run in sizes]
    if totals[0] == totals[1]:
        return None
    factor = Fraction(int(values[1]) - int(values[0]), totals[1] - totals[0])
    offset = int(values[0]) - factor * totals[0]
    if not factor or any(factor * t + offset != int(v) for t, v in zip(totals, values)):
        return None
    return Dim(names, factor, offset, tuple(int(v) for v in values), kind)


def merged(values: Sequence[Any], sizes: Sizes) -> Any:
    """One argument out of those of all runs: itself where they are equal, with Dims and Varyings where not."""
    first = values[0]
    if isinstance(first, Ref):
        same = all(isinstance(v, Ref) and v.id == first.id for v in values)
        return first if same else Varying(tuple(values))
    if isinstance(first, tuple | list) and all(isinstance(v, tuple | list) for v in values):
        if any(len(v) != len(first) for v in values):
            count = explained([len(v) for v in values], sizes)
            alike = count is not None and all(len(set(v)) == 1 for v in values)
            return (
                Repeated(merged([v[0] for v in values], sizes), count)
                if count and alike
                else Varying(tuple(values))
            )
        return tuple(merged(parts, sizes) for parts in zip(*values))
    if isinstance(first, slice) and all(isinstance(v, slice) for v in values):
        return slice(*(merged([getattr(v, n) for v in values], sizes) for n in ("start", "stop", "step")))
    if all(type(v) is type(first) and (v == first or v != v) for v in values):
        return first
    return explained(values, sizes) or Varying(tuple(values))


def reached(trace: Trace) -> tuple[list[int], set[int]]:
    """Which calls of a trace its outputs depend on, in order, and which values; inputs count always."""
    wanted = {*trace.outputs, *(i for i, v in enumerate(trace.values) if v.kind == "input")}
    calls = []
    for i in reversed(range(len(trace.calls))):
        call = trace.calls[i]
        if wanted.intersection(call.outputs):
            calls.append(i)
            wanted.update(call.outputs)
            wanted.update(call.inputs())
    return calls[::-1], wanted


def contains(value: Any, kind: type) -> bool:
    """Whether a merged argument has a part of this kind."""
    if isinstance(value, tuple):
        return any(contains(v, kind) for v in value)
    if isinstance(value, slice):
        return contains((value.start, value.stop, value.step), kind)
    if isinstance(value, Repeated):
        return kind is Dim or contains(value.item, kind)
    return isinstance(value, kind)


class Uniform:
    """A constant that is one array, stretched along dynamic dimensions."""

    def __init__(self, array: Any, shape: tuple[Any, ...]) -> None:
        self.array, self.shape = array, shape


class Range:
    """A constant that counts: start (a number or a Dim) + step * i along one dynamic dimension."""

    def __init__(self, start: Any, step: Any, shape: tuple[Any, ...]) -> None:
        self.start, self.step, self.shape = start, step, shape


class Merged:
    """The model as all runs saw it. `values` keeps the first run's arrays; `contents` says what a constant becomes.

    What no output needs is left out: `calls`, and the shapes and contents of other values, hold only the rest.
    """

    def __init__(self, traces: list[Trace], runs: list[dict[str, int]]) -> None:
        self.sizes = sizes = Sizes(runs)
        self.outputs = traces[0].outputs
        self.values: list[Value] = traces[0].values
        self.shapes: dict[int, tuple[Any, ...]] = {}
        self.contents: dict[int, Any] = {}
        self._same_ops(traces)
        needed, wanted = reached(traces[0])
        for i in sorted(wanted):
            together = [t.values[i] for t in traces]
            shape = merged([v.shape for v in together], sizes)
            if contains(shape, Varying) or isinstance(shape, Varying):
                seen = [list(v.shape) for v in together]
                raise ExportError(
                    f"[onnx] shapes must depend on the dynamic axes alone, came {seen} at {together[0].where} for"
                    f" sizes {sizes}: this shape depends on the inputs' values, or in no simple way on their sizes"
                )
            self.shapes[i] = shape
            if together[0].kind == "constant":
                self.contents[i] = self._constant([v.array for v in together], shape, together[0].where)
        self.calls = [self._call([t.calls[i] for t in traces]) for i in needed]

    def _same_ops(self, traces: list[Trace]) -> None:
        for together in zip(*(t.calls for t in traces)):
            first = together[0]
            if any(c.op != first.op or c.outputs != first.outputs for c in together):
                names = " or ".join(sorted({f"{c.op} at {c.where}" for c in together}))
                raise ExportError(
                    f"[onnx] every call must run the same ops, came {names}: control flow that depends on the inputs'"
                    " values or on a dynamic size has no ONNX form"
                )
        lengths = [len(t.calls) for t in traces]
        if len(set(lengths)) > 1:
            raise ExportError(
                f"[onnx] every call must run the same ops, came {lengths} ops for sizes {self.sizes}: a loop over a"
                " dynamic dimension cannot be exported; leave that dimension fixed"
            )

    def _call(self, together: list[Node]) -> Node:
        first = together[0]
        args = merged([c.args for c in together], self.sizes)
        kw = {k: merged([c.kw[k] for c in together], self.sizes) for k in first.kw}
        return op_call(first.op, args, kw, first.outputs, first.where)

    def _constant(self, arrays: list[Any], shape: tuple[Any, ...], where: str) -> Any:
        first = arrays[0]
        if all(
            a.shape == first.shape and np.array_equal(a, first, equal_nan=a.dtype.kind == "f") for a in arrays
        ):
            return first
        if first.ndim == 0 and (dim := explained([_whole(a) for a in arrays], self.sizes)) is not None:
            return dim
        axes = [i for i, n in enumerate(shape) if isinstance(n, Dim)]
        cut = tuple(slice(0, 1) if i in axes else slice(None) for i in range(len(shape)))
        parts = [a[cut] for a in arrays]
        if (
            axes
            and all(np.array_equal(p, parts[0]) for p in parts)
            and all((a == p).all() for a, p in zip(arrays, parts))
        ):
            return Uniform(parts[0], shape)
        found = _counting(arrays, axes, shape, self.sizes)
        if found is None:
            raise ExportError(
                f"[onnx] a tensor of shape {list(first.shape)}, made outside of the recorded ops and used at {where},"
                " differs from run to run: it depends on the inputs' values (through .item(), .numpy(), item"
                " assignment, or a function whose result's shape depends on values), is random, or depends on a"
                " dynamic size"
            )
        return found


def _whole(array: Any) -> Any:
    value = array.item()
    return (
        int(value)
        if isinstance(value, int | float) and value == value and abs(value) < 2**53 and value == int(value)
        else None
    )


def _counting(arrays: list[Any], axes: list[int], shape: tuple[Any, ...], sizes: Sizes) -> Range | None:
    """A Range where the arrays are one: a single dynamic axis, all others of size 1."""
    if (
        len(axes) != 1
        or any(n != 1 for i, n in enumerate(shape) if i not in axes)
        or arrays[0].dtype.kind == "b"
    ):
        return None
    rows = [a.reshape(-1) for a in arrays]
    longest = max(rows, key=len)
    if len(longest) < 3 or min(map(len, rows)) < 1:
        return None
    step = longest[1] - longest[0]
    if not all(np.array_equal(r, r[0] + step * np.arange(len(r))) for r in rows):
        return None
    starts = [r[0] for r in rows]
    same = all(v == starts[0] for v in starts)
    start = starts[0] if same else explained([_whole(v) for v in starts], sizes)
    return None if start is None else Range(start, step, shape)


__all__ = [
    "Dim",
    "Merged",
    "Range",
    "Repeated",
    "Uniform",
    "Varying",
    "contains",
    "explained",
    "merged",
    "reached",
]
