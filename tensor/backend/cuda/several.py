"""Several GPUs in one process: an op runs on the GPU of its arrays, whichever is current.

CuPy runs on the current GPU and reads arrays of others through peer access. PyTorch's scripts write
`x = randn(3, device="cuda:1"); y = x * 2` and find y on cuda:1, so in a process that sees more than one GPU the calls
of ops and their gradients are wrapped here. A process with one GPU, as launchers give them, pays nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ....autograd import engine
from ....autograd.engine import Variable
from ....autograd.op import Op, OpNode, describe, tensor_ops


def guard(cp: Any) -> None:
    """Wraps the calls, once."""
    for call in tensor_ops.values():
        general = getattr(call, "general", None)
        if general is not None:
            general()
    setattr(Op, "compute", _on_device(cp, Op.compute))  # noqa: B010
    setattr(OpNode, "vjp", _stay_on_device(cp, OpNode.vjp, 1))  # noqa: B010
    engine._send = _stay_on_device(cp, engine._send, 3)
    engine.accumulate_grad = _stay_on_device(cp, engine.accumulate_grad, 1)
    engine.backward = _return_after(cp, engine.backward)


def _on_device(cp: Any, compute: Callable[..., Any]) -> Callable[..., Any]:
    def on_device(self: Any, arrays: Any, kw: dict[str, Any]) -> Any:
        place = None
        for a in arrays:
            if type(a) is cp.ndarray:
                if place is None:
                    place = a.device.id
                elif a.device.id != place:
                    raise RuntimeError(
                        "[device] all tensors must be on one device, came"
                        f" {', '.join(describe(b) for b in arrays)}"
                    )
        before = cp.cuda.runtime.getDevice()
        if place is None or place == before:
            return compute(self, arrays, kw)
        cp.cuda.runtime.setDevice(place)
        try:
            return compute(self, arrays, kw)
        finally:
            cp.cuda.runtime.setDevice(before)

    return on_device


def _stay_on_device(cp: Any, act: Callable[..., Any], which: int) -> Callable[..., Any]:
    """The GPU of a gradient, argument `which`, is made current; `backward` goes back to the one before."""

    def on_device(*args: Any) -> Any:
        g = args[which]
        first: Any = next((part for part in g if part is not None), None) if isinstance(g, list) else g
        first = first.array if isinstance(first, Variable) else first
        if type(first) is cp.ndarray:
            cp.cuda.runtime.setDevice(first.device.id)
        return act(*args)

    return on_device


def _return_after(cp: Any, backward: Callable[..., Any]) -> Callable[..., Any]:
    def returning(*args: Any, **kw: Any) -> Any:
        before = cp.cuda.runtime.getDevice()
        try:
            return backward(*args, **kw)
        finally:
            cp.cuda.runtime.setDevice(before)

    return returning
