"""From a model and example inputs to an ONNX file."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from ..autograd.engine import wrap
from ..jit.graph import Node, Ref
from . import (  # noqa: F401
    op_activation,
    op_adjoint,
    op_functions,
    op_index,
    op_linalg,
    op_loss,
    op_nn,
    op_order,
    op_pointwise,
    op_recurrent,
    op_reduce,
    op_shape,
    op_signs,
    op_special,
    op_write,
)  # fmt: skip
from .compare import Dim, Merged, Varying, contains, reached
from .graph import Graph, Val
from .table import emitters, sized
from .trace import ExportError, Trace, tensors_in

OPSETS = (17, 23)
Axes = Mapping[str, Mapping[int, str] | Sequence[int]]


def export(
    model: Callable[..., Any],
    args: Any,
    path: str | os.PathLike[str] | None = None,
    input_names: Sequence[str] | None = None,
    output_names: Sequence[str] | None = None,
    dynamic_axes: Axes | None = None,
    opset_version: int = 18,
) -> Any:
    """Writes what `model(*args)` computes, in evaluation mode, as an ONNX file; returns the onnx.ModelProto.

    args: a Tensor or a tuple of arguments; the Tensors in them, also in tuples, lists and dicts, become inputs, all
    else is fixed. path: None writes no file. dynamic_axes: {input name: {axis: name}} or {input name: [axes]}; the
    same name is the same size. Sizes that follow from them are found by running the model several times with other
    sizes and values, so the outputs need no entry. Parameters and buffers keep their state_dict names.

    Raises ExportError, which names the op and the line, for what has no ONNX form: values that steer Python, results
    that bypass the recorded ops, ops that ONNX lacks. Needs the package onnx.
    """
    onnx = require_onnx()
    if not isinstance(opset_version, int) or not OPSETS[0] <= opset_version <= OPSETS[1]:
        raise ValueError(f"[onnx] opset_version must be in {list(OPSETS)}, came {opset_version!r}")
    args = args if isinstance(args, tuple) else (args,)
    inputs = list(tensors_in(args))
    if not inputs:
        raise ValueError(
            "[onnx] args must hold at least one Tensor, came none: without inputs nothing is computed"
        )
    names = _names("input_names", input_names, len(inputs), "input")
    axes = _axes(dynamic_axes, names, inputs, output_names)
    training = getattr(model, "training", False)
    modes = [(m, m.training) for m in model.modules()] if hasattr(model, "modules") else []
    if training:
        model.eval()  # type: ignore[attr-defined]
    try:
        merged = _traced(model, args, inputs, names, axes)
    finally:
        for module, mode in modes:
            module.training = mode
    proto = _write(onnx, merged, names, axes, output_names, opset_version)
    if path is not None:
        big = sum(t.raw_data.__sizeof__() for t in proto.graph.initializer) > 2**31 - 2**20
        onnx.save(proto, os.fspath(path), save_as_external_data=big)
    return proto


def require_onnx() -> Any:
    """The package onnx, or an error that names the extra."""
    try:
        import onnx
    except ImportError:
        raise ImportError('[onnx] needs onnx, which is not installed: pip install "ringgrad[onnx]"') from None
    return onnx


def _names(what: str, given: Sequence[str] | None, count: int, default: str) -> list[str]:
    if given is None:
        return [default] if count == 1 else [f"{default}_{i}" for i in range(count)]
    names = list(given)
    if len(names) != count or len(set(names)) != count:
        raise ValueError(f"[onnx] {what} must be {count} distinct names, came {names}")
    return names


def _axes(
    given: Axes | None, names: list[str], inputs: list[Any], outputs: Sequence[str] | None
) -> dict[str, dict[int, str]]:
    """{input: {axis: name}}, checked; entries of outputs follow from those of the inputs."""
    found: dict[str, dict[int, str]] = {}
    for name, entry in (given or {}).items():
        if name not in names:
            if name in (outputs or ()):
                continue
            raise ValueError(f"[onnx] dynamic_axes must name inputs ({names}) or outputs, came {name!r}")
        ndim = inputs[names.index(name)].ndim
        pairs = entry.items() if isinstance(entry, Mapping) else [(a, f"{name}_{a}") for a in entry]
        for axis, label in pairs:
            if not -ndim <= axis < ndim:
                raise ValueError(
                    f"[onnx] dynamic axes of {name!r} must be in [{-ndim}, {ndim - 1}], came {axis}"
                )
            found.setdefault(name, {})[axis % ndim] = label
    return found


# ---- tracing


def _traced(
    model: Callable[..., Any], args: tuple[Any, ...], inputs: list[Any], names: list[str], axes: Any
) -> Merged:
    """The model run several times: as given, then with other values, and other sizes of the dynamic axes."""
    given: dict[str, int] = {}
    for name, tensor in zip(names, inputs):
        for axis, label in axes.get(name, {}).items():
            size = tensor.array.shape[axis]
            if given.setdefault(label, size) != size:
                raise ValueError(
                    f"[onnx] dynamic axis {label!r} must have one size, came {given[label]} and {size}"
                )
    if any(n < 1 for n in given.values()):
        raise ValueError(f"[onnx] dynamic axes must not be empty in args, came {given}")
    if not given:
        sizes = [given] * 3
        return Merged([_run(model, args, names, axes, run, i) for i, run in enumerate(sizes)], sizes)
    errors: list[Exception] = []
    for sizes in _other_sizes(given):
        try:
            return Merged([_run(model, args, names, axes, run, i) for i, run in enumerate(sizes)], sizes)
        except Exception as error:  # the model may have a largest size, or take multiples only: try others
            errors.append(error)
    known = [e for e in errors if isinstance(e, ExportError)]
    if known:
        raise known[0]
    raise ExportError(
        f"[onnx] the model must run with other sizes of {list(given)}, came {errors[0]!r}"
    ) from errors[0]


# Of the runs after the first, for each dynamic dimension. Chosen so that no dimension's sizes are a multiple of
# another's plus a constant: else a sum of both would look like one of them.
_FACTORS = ((2, 3, 5), (3, 2, 7), (5, 7, 2), (7, 5, 3))
_STEPS = ((1, 3, 2), (2, 5, 3), (5, 1, 3), (3, 6, 1))


def _other_sizes(given: dict[str, int]) -> list[list[dict[str, int]]]:
    """Sizes of the runs: multiples and some in between, which show how sizes are rounded; where the model takes no such
    sizes, only multiples, else a little more, else a little less.
    """
    items = list(given.items())
    turns = range(3)
    multiples = [{n: size * _FACTORS[i % 4][k] for i, (n, size) in enumerate(items)} for k in turns]
    more = [{n: size + _STEPS[i % 4][k] for i, (n, size) in enumerate(items)} for k in turns]
    less = [{n: size - _STEPS[i % 4][k] for i, (n, size) in enumerate(items)} for k in turns]
    found = [[given, *runs] for runs in ([*multiples[:2], *more], multiples, more, less)]
    for run in (run for runs in found for run in runs[1:]):
        run.update({name: size for name in run if (size := _named_sum(name, run)) is not None})
    return [runs for runs in found if all(n > 0 for run in runs for n in run.values())]


def _named_sum(name: str, run: dict[str, int]) -> int | None:
    """The size of a dimension whose name says that it is a sum of others: "past + new", "past + 1"."""
    parts = [part.strip() for part in name.split("+")]
    if len(parts) < 2 or not all(part in run or part.isdigit() for part in parts):
        return None
    return sum(run[part] if part in run else int(part) for part in parts)


def _run(
    model: Callable[..., Any], args: Any, names: list[str], axes: Any, sizes: dict[str, int], turn: int
) -> Trace:
    trace = Trace(lambda op, inputs, kw: not _writes(op, inputs, kw))
    changed = iter(
        [
            _varied(t, {a: sizes[label] for a, label in axes.get(n, {}).items()}, turn)
            for n, t in zip(names, tensors_in(args))
        ]
    )
    arguments = _replaced(args, changed)
    for name, tensor in zip(names, tensors_in(arguments)):
        trace.name(tensor, "input", name)
    for kind in ("named_parameters", "named_buffers"):
        for name, tensor in getattr(model, kind)() if hasattr(model, kind) else ():
            if tensor is not None:
                trace.name(tensor, "parameter", name)
    trace.run(model, arguments)
    for call in (trace.calls[i] for i in reached(trace)[0]):  # before other values may make such an op fail
        if call.op not in emitters:
            raise ExportError(f"[onnx] the op {call.op!r} has no ONNX form; called at {call.where}")
    return trace


def _writes(op: str, inputs: tuple[Any, ...], kw: dict[str, Any]) -> bool:
    """Whether an op that has a composite form has an ONNX form of its own for this call."""
    return op in emitters and (op not in op_recurrent.RECURRENT or op_recurrent.direct(inputs, kw))


def _varied(tensor: Any, sizes: dict[int, int], turn: int) -> Any:
    """A fresh input of other sizes, and in all but the first run of other values, out of those of the given one."""
    array = tensor.array
    for axis, size in sizes.items():
        array = np.take(array, np.arange(size) % array.shape[axis], axis=axis)
    array = array.copy()
    return wrap(_other_values(array, turn) if turn and array.size else array)


def _other_values(array: Any, turn: int) -> Any:
    """The elements in another order; where that changes nothing, whole numbers above 0 become smaller by one."""
    new = np.random.default_rng(turn).permutation(array.reshape(-1)).reshape(array.shape)
    if array.dtype.kind == "f":
        return np.asarray(new * array.dtype.type(1 + 1e-3 * turn))
    if (new == array).all():
        new = np.roll(array.reshape(-1), 1).reshape(array.shape)
    if array.dtype.kind == "i" and (new == array).all():
        new = np.where(array > 0, array - 1, array)
    return new


def _replaced(value: Any, tensors: Any) -> Any:
    if isinstance(value, dict):
        return {k: _replaced(v, tensors) for k, v in value.items()}
    if isinstance(value, tuple | list):
        return type(value)(_replaced(v, tensors) for v in value)
    return next(tensors) if next(iter(tensors_in(value)), None) is not None else value


# ---- writing


def _write(
    onnx: Any, merged: Merged, names: list[str], axes: Any, output_names: Sequence[str] | None, opset: int
) -> Any:
    g = Graph(onnx, merged, opset)
    outputs = _names("output_names", output_names, len(merged.outputs), "output")
    for name in (*names, *outputs):
        if g.unique(name) != name:
            raise ValueError(
                f"[onnx] inputs and outputs must have distinct names, came {names} and {outputs}"
            )
    for name, entry in axes.items():
        for axis, label in entry.items():
            g.symbols.setdefault(label, (name, axis))
    vals: dict[int, Val] = {}
    for call in merged.calls:
        _emit(g, call, vals)
    for name, id in zip(outputs, merged.outputs):
        g.label = "output"
        g.nodes.append(onnx.helper.make_node("Identity", [_val(g, id, vals).name], [name], name=name))
    graph = onnx.helper.make_graph(
        _reached(g.nodes, outputs),
        "ringgrad",
        [_info(onnx, n, merged, i) for i, n in enumerate(names)],
        [_info(onnx, n, merged, i) for n, i in zip(outputs, merged.outputs)],
    )
    used = {i for node in graph.node for i in node.input}
    for name, array in g.initializers.items():
        if name in used:
            graph.initializer.append(
                onnx.numpy_helper.from_array(np.ascontiguousarray(array).reshape(array.shape), name)
            )
    opsets = [onnx.helper.make_opsetid("", opset)]
    version = onnx.helper.find_min_ir_version_for(opsets)
    return onnx.helper.make_model(graph, opset_imports=opsets, ir_version=version, producer_name="ringgrad")


def _emit(g: Graph, call: Node, vals: dict[int, Val]) -> None:
    """Writes the nodes of one call."""
    emitter = emitters[call.op]
    if contains((call.args, *call.kw.values()), Varying):
        raise ExportError(
            f"[onnx] the arguments of {call.op!r} must not depend on the inputs' values, came"
            f" {[v for v in (*call.args, *call.kw.values()) if contains(v, Varying)]}; called at {call.where}"
        )
    for name, value in call.kw.items():
        if contains(value, Dim) and name not in sized[call.op]:
            raise ExportError(
                f"[onnx] {name} of {call.op!r} must not depend on a dynamic axis, came {value}; called at {call.where}"
            )
    if any(g.merged.values[i].dtype.kind == "c" for i in (*call.inputs(), *call.outputs)):
        raise ExportError(f"[onnx] {call.op!r} has no ONNX form for complex numbers; called at {call.where}")
    g.out = [Val("", g.merged.shapes[i], g.merged.values[i].dtype) for i in call.outputs]
    g.label = call.op
    args = _resolved(g, call.args, vals)
    kw = {k: _resolved(g, v, vals) for k, v in call.kw.items()}
    g.label = call.op
    try:
        names = emitter(g, *args, **kw)
    except ExportError as error:
        raise ExportError(f"{error}; {call.op!r} was called at {call.where}") from None
    for id, out, name in zip(call.outputs, g.out, [names] if isinstance(names, str) else names):
        vals[id] = Val(name, out.shape, out.dtype, dense=g.merged.values[id].dense)


def _resolved(g: Graph, value: Any, vals: dict[int, Val]) -> Any:
    if isinstance(value, Ref):
        return _val(g, value.id, vals)
    if isinstance(value, tuple):
        return tuple(_resolved(g, v, vals) for v in value)
    return value


def _val(g: Graph, id: int, vals: dict[int, Val]) -> Val:
    if id not in vals:
        value, array = g.merged.values[id], None
        assert value.kind != "result", "results are written before they are read"
        if value.kind == "parameter":
            name = g.parameter(value.name, value.array)
        elif value.kind == "constant":
            found = g.merged.contents[id]
            array = found if isinstance(found, np.ndarray) else None
            name = g.content(found, value.dtype)
        else:
            name = value.name
        vals[id] = Val(name, g.merged.shapes[id], value.dtype, array, value.dense)
    return vals[id]


def _reached(nodes: list[Any], outputs: list[str]) -> list[Any]:
    """The nodes that the outputs depend on."""
    needed, kept = set(outputs), []
    for node in reversed(nodes):
        if needed.intersection(node.output):
            needed.update(node.input)
            kept.append(node)
    return kept[::-1]


def _info(onnx: Any, name: str, merged: Merged, id: int) -> Any:
    kind = onnx.helper.np_dtype_to_tensor_dtype(merged.values[id].dtype)
    shape = [n.label if isinstance(n, Dim) else n for n in merged.shapes[id]]
    return onnx.helper.make_tensor_value_info(name, kind, shape)


__all__ = ["export", "require_onnx"]
