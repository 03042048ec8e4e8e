"""ONNX files as Modules: an interpreter of ONNX nodes over ringgrad's own ops."""

from __future__ import annotations

import os
from collections.abc import Iterator
from functools import partial
from typing import Any

from ..autograd.engine import wrap
from ..nn.module import Module
from . import run_control, run_layers, run_norms, run_quantized, run_recurrent, run_resize, run_shape  # noqa: F401
from .model import require_onnx
from .run_nodes import attributes_of, nodes
from .trace import ExportError

OPSETS = (7, 28)


class OnnxModule(Module):
    """A loaded ONNX graph. forward(*inputs) takes them in the file's order and returns its output, or a tuple of them.

    Initializers are buffers under their names (with a `_` where Module has an attribute of that name), so `state_dict`
    has those of the exported model.
    """

    def __init__(self, proto: Any) -> None:
        super().__init__()
        onnx = require_onnx()
        self._opset = _opset(proto)
        proto = _inlined(onnx, proto)
        graph = proto.graph
        self._steps = [_step(onnx, node) for node in graph.node]
        _refuse_unknown(self._steps)
        for kind, _, targets, attributes in _all(self._steps):
            given = {"outputs": len(targets), "opset": self._opset}
            attributes.update((k, v) for k, v in given.items() if k in attributes_of(kind))
        constants = {t.name for t in graph.initializer}
        self.input_names = [i.name for i in graph.input if i.name not in constants]
        self.output_names = [o.name for o in graph.output]
        self._sources: dict[str, tuple[Module, str]] = {}
        for tensor in graph.initializer:
            owner, name = _place(self, tensor.name)
            owner.register_buffer(name, wrap(_array(onnx, tensor)))
            self._sources[tensor.name] = owner, name

    def forward(self, *inputs: Any) -> Any:
        if len(inputs) != len(self.input_names):
            raise TypeError(f"[onnx] the model takes the inputs {self.input_names}, came {len(inputs)}")
        values: dict[str, Any] = {name: getattr(owner, key) for name, (owner, key) in self._sources.items()}
        values |= zip(self.input_names, inputs)
        values[""] = None
        for step in self._steps:
            self._run(step, values)
        found = tuple(values[name] for name in self.output_names)
        return found[0] if len(found) == 1 else found

    def _run(self, step: Step, values: dict[str, Any]) -> None:
        kind, sources, targets, attributes = step
        for name, value in attributes.items():
            if isinstance(value, Subgraph):
                attributes = attributes | {name: partial(self._call, value, values)}
        try:
            result = nodes[kind](*(values[s] for s in sources), **attributes)
        except Exception as error:
            error.add_note(f"[onnx] in the node {kind} that makes {', '.join(targets)}")
            raise
        results = result if isinstance(result, tuple | list) else (result,)
        if len(results) < len(targets):
            raise ExportError(f"[onnx] {kind} with {len(targets)} outputs cannot be run")
        values.update(zip(targets, results))

    def _call(self, graph: Subgraph, outside: dict[str, Any], *inputs: Any) -> list[Any]:
        """The outputs of a branch or of the body of a loop, which sees the values around it."""
        values = outside | graph.constants
        values |= zip(graph.inputs, inputs)
        for step in graph.steps:
            self._run(step, values)
        return [values[name] for name in graph.outputs]

    def extra_repr(self) -> str:
        return f"{len(self._steps)} nodes, inputs={self.input_names}, outputs={self.output_names}"


Step = tuple[str, tuple[str, ...], tuple[str, ...], dict[str, Any]]


class Subgraph:
    """A branch, or the body of a loop."""

    def __init__(self, onnx: Any, graph: Any) -> None:
        self.steps = [_step(onnx, node) for node in graph.node]
        self.constants = {t.name: wrap(_array(onnx, t)) for t in graph.initializer}
        self.inputs = [i.name for i in graph.input]
        self.outputs = [o.name for o in graph.output]


def load(path: str | os.PathLike[str]) -> OnnxModule:
    """Reads an ONNX file of opset 7 to 28 as a Module; docs/onnx.md lists the node types.

    Weights that lie in files beside it are read too, from its own folder only. Raises ExportError for what is no valid
    ONNX file, and, naming them, for node types and attributes that are not run. Needs the package onnx.
    """
    onnx = require_onnx()
    file = os.fspath(path)
    with open(file, "rb"):  # OSError as for any other file
        pass
    try:
        onnx.checker.check_model(file)
        return OnnxModule(onnx.load(file))
    except ExportError:
        raise
    except Exception as error:  # of protobuf, the checker, NumPy: there is no common class
        reason = str(error).strip().split("\n")[0]
        raise ExportError(f"[onnx] {file} must be a valid ONNX file, came {reason}") from error


def _opset(proto: Any) -> int:
    version = max((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), default=0)
    if not OPSETS[0] <= version <= OPSETS[1]:
        raise ExportError(f"[onnx] files of opset {OPSETS[0]} to {OPSETS[1]} can be loaded, came {version}")
    return int(version)


def _inlined(onnx: Any, proto: Any) -> Any:
    """The model with its own functions, and node types that ONNX defines by others, written out."""
    opset = _opset(proto)
    missing = [n for n in proto.graph.node if n.domain in ("", "ai.onnx") and n.op_type not in nodes]
    if not proto.functions and not missing:
        return proto
    from onnx import inliner

    filled = onnx.ModelProto()
    filled.CopyFrom(proto)
    for node in filled.graph.node:
        if node.domain in ("", "ai.onnx") and node.op_type not in nodes:
            _with_defaults(onnx, node, opset)
    known = [("", kind) for kind in nodes]
    try:
        return inliner.inline_selected_functions(filled, known, exclude=True, inline_schema_functions=True)
    except Exception:  # what it cannot write out is named as unknown
        return proto


def _with_defaults(onnx: Any, node: Any, opset: int) -> None:
    """Attributes that are left out, for the inliner, which does not know their defaults."""
    try:
        schema = onnx.defs.get_schema(node.op_type, opset, "")
    except onnx.defs.SchemaError:
        return
    given = {a.name for a in node.attribute}
    for name, attribute in schema.attributes.items():
        if name not in given and attribute.default_value.name:
            node.attribute.append(attribute.default_value)


def _step(onnx: Any, node: Any) -> Step:
    attributes = {a.name: _attribute(onnx, a) for a in node.attribute}
    kind = f"{node.domain}.{node.op_type}" if node.domain not in ("", "ai.onnx") else node.op_type
    return kind, tuple(node.input), tuple(node.output), attributes


def _attribute(onnx: Any, attribute: Any) -> Any:
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, onnx.TensorProto):
        return _array(onnx, value)
    if isinstance(value, onnx.GraphProto):
        return Subgraph(onnx, value)
    if isinstance(value, list):
        return [v.decode() if isinstance(v, bytes) else v for v in value]
    return value.decode() if isinstance(value, bytes) else value


def _array(onnx: Any, tensor: Any) -> Any:
    if tensor.data_type == onnx.TensorProto.STRING:
        raise ExportError(f"[onnx] texts cannot be loaded, came the tensor {tensor.name!r}")
    return onnx.numpy_helper.to_array(tensor).copy()


def _all(steps: list[Step]) -> Iterator[Step]:
    for step in steps:
        yield step
        for value in step[3].values():
            if isinstance(value, Subgraph):
                yield from _all(value.steps)


def _refuse_unknown(steps: list[Step]) -> None:
    steps = list(_all(steps))
    unknown = sorted({kind for kind, *_ in steps if kind not in nodes})
    if unknown:
        raise ExportError(f"[onnx] these node types cannot be run: {', '.join(unknown)}")
    for kind, _, _, attributes in steps:
        if extra := sorted(set(attributes) - (attributes_of(kind) - {"outputs", "opset"})):
            raise ExportError(f"[onnx] {kind} with the attributes {', '.join(extra)} cannot be run")


def _place(root: Module, name: str) -> tuple[Module, str]:
    """The submodule and key of a dotted name; submodules are made on the way, names that are taken get a `_`."""
    *folders, key = name.split(".")
    for folder in folders:
        if folder not in root._modules:
            folder = _free(root, folder)
            root.add_module(folder, Module())
        root = root._modules[folder]  # type: ignore[assignment]
    return root, _free(root, key)


def _free(owner: Module, name: str) -> str:
    """A name that is not one of Module's own attributes."""
    while hasattr(owner, name) or not name:
        name += "_"
    return name


__all__ = ["OnnxModule", "load"]
