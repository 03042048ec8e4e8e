"""`torch.autograd.graph`: what the graph keeps, seen and changed from outside."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .engine import wrap
from .op import OpNode, listeners

Pack, Unpack = Callable[[Any], Any], Callable[[Any], Any]


class _Packed:
    """What `pack` made of a saved array."""

    __slots__ = ("kept", "unpack")

    def __init__(self, kept: Any, unpack: Any) -> None:
        self.kept, self.unpack = kept, unpack


class _PackedNode(OpNode):
    """A node whose saved arrays went through hooks; they come back when backward reaches it."""

    __slots__ = ()

    def vjp(self, g: Any, create: bool) -> list[Any]:
        if self.saved is None:
            self.check_saved()
        kept = self.saved
        self.saved = {k: v.unpack(v.kept).array if isinstance(v, _Packed) else v for k, v in kept.items()}
        grads = super().vjp(g, create)
        if self.saved is not None:
            self.saved = kept
        return grads


class saved_tensors_hooks:
    """Within this context `pack_hook(tensor)` is called with what an op keeps for backward, and what it returns is
    kept instead; backward gets `unpack_hook` of that. Keeps activations on disk, say.

    The innermost context counts. Ops keep arrays that several of them share each for itself.
    """

    def __init__(self, pack_hook: Any, unpack_hook: Any) -> None:
        self.pack, self.unpack = pack_hook, unpack_hook

    def __enter__(self) -> None:
        _contexts.append(self)
        if len(_contexts) == 1:
            listeners.append(_pack)

    def __exit__(self, *_: Any) -> None:
        _contexts.remove(self)
        if not _contexts:
            listeners.remove(_pack)


_contexts: list[saved_tensors_hooks] = []
_packing: list[bool] = []


def _pack(op: Any, args: Any, kw: Any, out: Any) -> None:
    node = getattr(out[0] if isinstance(out, tuple | list) else out, "_node", None)
    node = getattr(node, "node", node)  # one of several outputs
    if _packing or type(node) is not OpNode or not node.saved:
        return
    hooks = _contexts[-1]
    _packing.append(True)
    try:
        for name, value in node.saved.items():
            if (
                hasattr(value, "dtype")
                and hasattr(value, "shape")
                and (name in node.positions or name == "y")
            ):
                node.saved[name] = _Packed(hooks.pack(wrap(value)), hooks.unpack)
    finally:
        _packing.pop()
    node.__class__ = _PackedNode


class save_on_cpu(saved_tensors_hooks):
    """Keeps what ops save in the CPU's memory. pin_memory: accepted."""

    def __init__(self, pin_memory: bool = False, device_type: str = "cuda") -> None:
        super().__init__(lambda t: (t.device, t.cpu()), lambda kept: kept[1].to(kept[0]))


class disable_saved_tensors_hooks:
    """Context manager: saved_tensors_hooks entered within it is an error with this message."""

    def __init__(self, error_message: str) -> None:
        self.message = error_message

    def __enter__(self) -> None:
        self.before = saved_tensors_hooks.__enter__
        message = self.message

        def refuse(_: Any) -> None:
            raise RuntimeError(message)

        saved_tensors_hooks.__enter__ = refuse  # type: ignore[method-assign]

    def __exit__(self, *_: Any) -> None:
        saved_tensors_hooks.__enter__ = self.before  # type: ignore[method-assign]


def increment_version(tensor: Any) -> None:
    """Counts a write to the tensors that autograd has not seen, so that backward notices it."""
    for t in tensor if isinstance(tensor, tuple | list) else (tensor,):
        t._version[0] += 1


__all__ = ["disable_saved_tensors_hooks", "increment_version", "save_on_cpu", "saved_tensors_hooks"]
