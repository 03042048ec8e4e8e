"""Padding."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...autograd.engine import wrap
from ...autograd.op import describe
from ...tensor import Tensor
from ...tensor.ops import index
from ...tensor.ops import pad as ops


def pad(input: Tensor, pad: Sequence[int], mode: str = "constant", value: float | None = None) -> Tensor:
    """Adds elements around the last dimensions.

    pad: (before, after) of the last dimension, then of the last but one, and so on; negative ones cut off.
    mode: "constant", "reflect", "replicate" or "circular"; all but constant need inputs with channels.
    """
    widths = [int(n) for n in pad]
    if len(widths) % 2 or len(widths) > 2 * input.ndim:
        raise RuntimeError(
            f"[pad] pad must hold two numbers for at most {input.ndim} dimensions, came {widths} for {describe(input)}"
        )
    pairs = [(0, 0)] * (input.ndim - len(widths) // 2)
    pairs += [(widths[i], widths[i + 1]) for i in range(len(widths) - 2, -1, -2)]
    if mode == "constant":
        return ops.pad(input, widths=tuple(pairs), value=0.0 if value is None else value)
    if mode not in ("reflect", "replicate", "circular"):
        raise NotImplementedError(
            f"[pad] mode must be constant, reflect, replicate or circular, came {mode!r}"
        )
    if value is not None and value != 0:
        raise ValueError(f"[pad] value must not be given with mode {mode!r}, came {value}")
    if len(widths) // 2 not in (input.ndim - 1, input.ndim - 2):
        raise NotImplementedError(
            f"[pad] mode {mode!r} pads all dimensions but those of batch and channels, came {widths} for"
            f" {describe(input)}"
        )
    for dim, (before, after) in enumerate(pairs):
        if before or after:
            source = wrap(_source(input.array.shape[dim], before, after, mode))
            input = index.index_select(input, dim=dim, index=source)
    return input


def _source(n: int, before: int, after: int, mode: str) -> np.ndarray:
    """Which element stands at each position of the padded dimension."""
    longest = max(before, after)
    limit = n - 1 if mode == "reflect" else n if mode == "circular" else longest
    if longest > limit:
        raise RuntimeError(
            f"[pad] mode {mode!r} can add at most {limit} elements to a dimension of {n}, came {(before, after)}"
        )
    at = np.arange(-before, n + after)
    if mode == "replicate":
        return at.clip(0, n - 1)
    if mode == "circular":
        return at % n
    at = np.abs(at)
    return np.where(at >= n, 2 * (n - 1) - at, at)
