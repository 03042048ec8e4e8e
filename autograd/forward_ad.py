"""`torch.autograd.forward_ad`: dual numbers, a tensor with a tangent.

The engine goes backward only, so a tangent is found when it is asked for, by walking back twice: the gradient of
<v, y> by the inputs is linear in v, and its derivative by v in the direction of the tangents is the tangent of y.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from . import engine
from .mode import set_grad_enabled


class UnpackedDualTensor(NamedTuple):
    """A tensor and its tangent, None where it depends on no dual tensor."""

    primal: Any
    tangent: Any


_levels: list[list[tuple[Any, Any]]] = []  # for each level the dual tensors and their tangents


def enter_dual_level() -> int:
    """Opens a level, and returns its number. Levels do not nest, as in PyTorch."""
    if _levels:
        raise RuntimeError("[forward_ad] nested forward mode is not supported: leave the level that is open")
    _levels.append([])
    return 0


def exit_dual_level(*, level: int | None = None) -> None:
    """Closes the level: its tensors lose their tangents."""
    if not _levels or level not in (None, 0):
        raise RuntimeError(f"[forward_ad] a level that is open must be left, came {level}")
    _levels.pop()


class dual_level:
    """Context manager: a level in which dual tensors can be made."""

    def __enter__(self) -> int:
        self.grad = set_grad_enabled(True)
        return enter_dual_level()

    def __exit__(self, *_: Any) -> None:
        exit_dual_level()
        self.grad.__exit__(None, None, None)


def make_dual(tensor: Any, tangent: Any, *, level: int | None = None) -> Any:
    """The tensor with a tangent of the same shape and dtype."""
    if not _levels:
        raise RuntimeError("[make_dual] dual tensors must be made within dual_level()")
    if tensor.array.shape != tangent.array.shape or (
        not tensor.is_floating_point() and not tensor.is_complex()
    ):
        raise ValueError(
            f"[make_dual] a tangent must have the shape of its floating point tensor, came {list(tangent.array.shape)}"
            f" for {list(tensor.array.shape)} of {tensor.dtype}"
        )
    dual = tensor.view_as(tensor) if tensor._needs else engine.wrap(tensor.array).requires_grad_()
    _levels[-1].append((dual, tangent))
    return dual


def unpack_dual(tensor: Any, *, level: int | None = None) -> UnpackedDualTensor:
    """The tensor and its tangent."""
    from . import grad

    inputs = _levels[-1] if _levels else []
    own = [tangent for dual, tangent in inputs if dual is tensor]
    if own or not inputs or not tensor._needs:
        return UnpackedDualTensor(tensor, own[0] if own else None)
    v = engine.wrap(np.zeros_like(tensor.array)).requires_grad_()
    back = grad(tensor, [dual for dual, _ in inputs], v, create_graph=True, allow_unused=True)
    used = [(g, t) for g, (_, t) in zip(back, inputs) if g is not None]
    if not used:
        return UnpackedDualTensor(tensor, None)
    if not any(g._needs for g, _ in used):
        return UnpackedDualTensor(tensor, engine.wrap(np.zeros_like(tensor.array)))
    linear = [(g, t) for g, t in used if g._needs]
    tangent = grad(
        [g for g, _ in linear], v, [t for _, t in linear], create_graph=tensor._needs, allow_unused=True
    )[0]
    return UnpackedDualTensor(tensor, tangent)
