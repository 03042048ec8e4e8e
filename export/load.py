"""ONNX files as Modules: an interpreter of ONNX nodes over ringgrad's own ops."""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ..autograd.engine import wrap
from ..nn.module import Module
from .model import require_onnx
from .run_layers import nodes
from .trace import ExportError


class OnnxModule(Module):
    """A loaded ONNX graph. forward(*inputs) takes them in the file's order and returns its output, or a tuple of them.

    Initializers are buffers under their names (with a `_` where Module has an attribute of that name), so `state_dict`
    has those of the exported model.
    """

    def __init__(self, proto: Any) -> None:
        super().__init__()
        onnx = require_onnx()
        graph = proto.graph
        self._steps = [_step(onnx, node) for node in graph.node]
        _refuse_unknown(proto, self._steps)
        constants = {t.name for t in graph.initializer}
        self.input_names = [i.name for i in graph.input if i.name not in constants]
        self.output_names = [o.name for o in graph.output]
        self._sources: dict[str, tuple[Module, str]] = {}
        for tensor in graph.initializer:
            owner, name = _place(self, tensor.name)
            owner.register_buffer(name, wrap(onnx.numpy_helper.to_array(tensor).copy()))
            self._sources[tensor.name] = owner, name

    def forward(self, *inputs: Any) -> Any:
        if len(inputs) != len(self.input_names):
            raise TypeError(f"[onnx] the model takes the inputs {self.input_names}, came {len(inputs)}")
        values: dict[str, Any] = {name: getattr(owner, key) for name, (owner, key) in self._sources.items()}
        values |= zip(self.input_names, inputs)
        values[""] = None
        for kind, sources, targets, attributes in self._steps:
            result = nodes[kind](*(values[s] for s in sources), **attributes, **_count(kind, targets))
            results = result if isinstance(result, tuple | list) else (result,)
            if len(results) < len(targets):
                raise ExportError(f"[onnx] {kind} with {len(targets)} outputs cannot be run")
            values.update(zip(targets, results))
        found = tuple(values[name] for name in self.output_names)
        return found[0] if len(found) == 1 else found

    def extra_repr(self) -> str:
        return f"{len(self._steps)} nodes, inputs={self.input_names}, outputs={self.output_names}"


Step = tuple[str, tuple[str, ...], tuple[str, ...], dict[str, Any]]


def load(path: str | os.PathLike[str]) -> OnnxModule:
    """Reads an ONNX file of the node types that `export` writes (docs/onnx.md lists them) as a Module.

    Raises ExportError, which names them, for other node types and attributes. Needs the package onnx.
    """
    onnx = require_onnx()
    proto = onnx.load(os.fspath(path))
    onnx.checker.check_model(proto)
    return OnnxModule(proto)


def _step(onnx: Any, node: Any) -> Step:
    attributes = {a.name: _attribute(onnx, a) for a in node.attribute}
    kind = f"{node.domain}.{node.op_type}" if node.domain not in ("", "ai.onnx") else node.op_type
    return kind, tuple(node.input), tuple(node.output), attributes


def _attribute(onnx: Any, attribute: Any) -> Any:
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, onnx.TensorProto):
        return onnx.numpy_helper.to_array(value)
    if isinstance(value, list):
        return [v.decode() if isinstance(v, bytes) else v for v in value]
    return value.decode() if isinstance(value, bytes) else value


def _refuse_unknown(proto: Any, steps: list[Step]) -> None:
    opset = max((o.version for o in proto.opset_import if o.domain in ("", "ai.onnx")), default=0)
    if not 17 <= opset <= 23:
        raise ExportError(f"[onnx] files of opset 17 to 23 can be loaded, came {opset}")
    unknown = sorted({kind for kind, *_ in steps if kind not in nodes})
    if unknown:
        raise ExportError(f"[onnx] these node types cannot be run: {', '.join(unknown)}")
    for kind, _, _, attributes in steps:
        known: Mapping[str, Any] = nodes[kind].__kwdefaults__ or {}
        if extra := sorted(set(attributes) - set(known)):
            raise ExportError(f"[onnx] {kind} with the attributes {', '.join(extra)} cannot be run")


def _count(kind: str, targets: tuple[str, ...]) -> dict[str, int]:
    """For nodes that must know how many outputs they have."""
    return {"outputs": len(targets)} if "outputs" in (nodes[kind].__kwdefaults__ or {}) else {}


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
