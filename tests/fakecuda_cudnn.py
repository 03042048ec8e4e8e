"""A stand-in for cudnn-frontend 1.18: graphs of one node, executed by the CPU's ops on the addresses given."""

from __future__ import annotations

import ctypes
from enum import Enum
from typing import Any

import fakecuda_device as machine
import ml_dtypes
import numpy as np

data_type = Enum("data_type", "FLOAT HALF BFLOAT16 NOT_SET")
heur_mode = Enum("heur_mode", "A B FALLBACK")
build_plan_policy = Enum("build_plan_policy", "HEURISTICS_CHOICE ALL")
numerical_note = Enum("numerical_note", "NONDETERMINISTIC TENSOR_CORE")
KINDS = {"FLOAT": np.float32, "HALF": np.float16, "BFLOAT16": ml_dtypes.bfloat16}
stream_of: dict[int, int] = {}


class cudnnGraphNotSupportedError(Exception):
    pass


def backend_version() -> int:
    return 91900


def create_handle() -> int:
    return 42


def set_stream(handle: int, stream: int) -> None:
    machine.forbid("a cuDNN handle was made") if handle != 42 else None
    stream_of[handle] = stream


class Tensor:
    def __init__(self, dim: Any, stride: Any, kind: Any) -> None:
        self.dim, self.stride, self.kind, self.output = dim, stride, kind, False

    def set_output(self, on: bool) -> Tensor:
        self.output = on
        return self

    def set_dim(self, dim: list[int]) -> Tensor:
        self.dim = dim
        return self

    def set_stride(self, stride: list[int]) -> Tensor:
        self.stride = stride
        return self

    def set_data_type(self, kind: Any) -> Tensor:
        self.kind = kind
        return self

    def at(self, address: int) -> np.ndarray[Any, Any]:
        """The array that lies at an address, all of it inside a live allocation."""
        dtype = np.dtype(KINDS[self.kind.name])
        memory = machine.memory_at(address)
        last = sum((n - 1) * s for n, s in zip(self.dim, self.stride)) * dtype.itemsize
        assert memory is not None and address + last + dtype.itemsize <= memory.ptr + memory.size
        raw = (ctypes.c_char * (last + dtype.itemsize)).from_address(address)
        strides = [s * dtype.itemsize for s in self.stride]
        return np.ndarray(self.dim, dtype, raw, 0, strides)


class pygraph:
    """One node; `unsupported` (by tests) makes every graph fail its check."""

    unsupported = False

    def __init__(
        self, io_data_type: Any, intermediate_data_type: Any, compute_data_type: Any, handle: int
    ) -> None:
        self.kind, self.steps = io_data_type, []  # type: tuple[Any, list[str]]
        assert compute_data_type is data_type.FLOAT

    def tensor(self, dim: list[int], stride: list[int], data_type: Any = None) -> Tensor:
        assert len(dim) == len(stride) and all(isinstance(n, int) for n in (*dim, *stride))
        return Tensor(dim, stride, data_type or self.kind)

    def _node(self, name: str, ins: list[Tensor], outs: int, **kw: Any) -> Any:
        made = [Tensor(None, None, self.kind) for _ in range(outs)]
        self.node = name, ins, made, kw
        return made[0] if outs == 1 else made

    def conv_fprop(self, image: Tensor, weight: Tensor, **kw: Any) -> Tensor:
        return self._node("fprop", [image, weight], 1, **kw)

    def conv_dgrad(self, loss: Tensor, filter: Tensor, **kw: Any) -> Tensor:
        return self._node("dgrad", [loss, filter], 1, **kw)

    def conv_wgrad(self, image: Tensor, loss: Tensor, **kw: Any) -> Tensor:
        return self._node("wgrad", [loss, image], 1, **kw)

    def sdpa(self, q: Tensor, k: Tensor, v: Tensor, is_inference: bool, **kw: Any) -> Any:
        assert is_inference is False
        return self._node("sdpa", [q, k, v], 2, **kw)

    def sdpa_backward(
        self, q: Tensor, k: Tensor, v: Tensor, o: Tensor, dO: Tensor, stats: Tensor, **kw: Any
    ) -> Any:
        assert isinstance(kw.pop("use_deterministic_algorithm"), bool)
        return self._node("sdpa_backward", [q, k, v, o, dO, stats], 3, **kw)

    def _step(self, name: str, *after: str) -> None:
        assert self.steps[-1:] == list(after), f"{name} came after {self.steps}"
        self.steps.append(name)

    def validate(self) -> None:
        self._step("validate")
        for t in self.node[2]:
            assert t.output and t.dim and len(t.dim) == len(t.stride)

    def build_operation_graph(self) -> None:
        self._step("operations", "validate")

    def create_execution_plans(self, modes: Any) -> None:
        self._step("plans", "operations")

    def deselect_workspace_greater_than(self, size: int) -> None:
        assert self.steps[-1] == "plans"

    def deselect_numeric_notes(self, notes: Any) -> None:
        assert self.steps[-1] == "plans"

    def check_support(self) -> None:
        self._step("support", "plans")
        if self.unsupported:
            raise cudnnGraphNotSupportedError("no engine")

    def build_plans(self, policy: Any) -> None:
        self._step("built", "support")

    def get_workspace_size(self) -> int:
        return 1024

    def execute(self, addresses: dict[Any, int], workspace: int, handle: int) -> None:
        name, ins, outs, kw = self.node
        assert self.steps[-1] == "built" and set(addresses) == {*ins, *outs}
        space = machine.memory_at(workspace)
        assert space is not None and space.size >= 1024
        reads, writes = ([machine.memory_at(addresses[t]) for t in ts] for ts in (ins, outs))
        arrays = [[t.at(addresses[t]) for t in ts] for ts in (ins, outs)]
        on = machine.stream_at(stream_of[handle])
        machine.launch(f"cudnn {name}", reads, [*writes, space], lambda: _compute(name, *arrays, kw), on=on)


def _compute(name: str, ins: list[Any], outs: list[Any], kw: dict[str, Any]) -> None:
    ins = [np.ascontiguousarray(a.astype(np.float32)) for a in ins]
    made = _attention(name, ins, kw) if "sdpa" in name else [_convolution(name, ins, outs[0].shape, kw)]
    for target, result in zip(outs, made, strict=True):
        target[...] = result


def _convolution(name: str, ins: list[Any], shape: Any, kw: dict[str, Any]) -> Any:
    from ringgrad.autograd.op import registry

    pads = tuple(zip(kw["pre_padding"], kw["post_padding"]))
    rest: dict[str, Any] = {"stride": tuple(kw["stride"]), "padding": pads, "dilation": tuple(kw["dilation"])}
    if name == "fprop":
        rest["groups"] = ins[0].shape[1] // ins[1].shape[1]
        return registry["conv"].forward(np, *ins, **rest)
    if name == "dgrad":
        rest["groups"] = shape[1] // ins[1].shape[1]
        return registry["conv_input"].forward(np, *ins, size=tuple(shape[2:]), **rest)
    rest["groups"] = ins[1].shape[1] // shape[1]
    return registry["conv_weight"].forward(np, *ins, kernel=tuple(shape[2:]), **rest)


def _attention(name: str, ins: list[Any], kw: dict[str, Any]) -> list[Any]:
    q, k, v = (a.astype(np.float64) for a in ins[:3])
    scores = kw["attn_scale"] * q @ k.swapaxes(-1, -2)
    if kw["use_causal_mask"]:
        scores += np.triu(np.full(scores.shape[-2:], -np.inf), 1)
    top = scores.max(-1, keepdims=True)
    stats = top + np.log(np.exp(scores - top).sum(-1, keepdims=True))
    p = np.exp(scores - stats)
    if name == "sdpa":
        return [p @ v, stats]
    y, g = ins[3].astype(np.float64), ins[4].astype(np.float64)
    np.testing.assert_allclose(ins[5], stats, rtol=1e-3, atol=1e-3)
    ds = p * (g @ v.swapaxes(-1, -2) - (g * y).sum(-1, keepdims=True)) * kw["attn_scale"]
    return [ds @ k, ds.swapaxes(-1, -2) @ q, p.swapaxes(-1, -2) @ g]
