"""Constant padding; its gradient is padding by the negative widths."""

from __future__ import annotations

from typing import Any

from ...autograd.op import Op


def _pad(xp: Any, x: Any, *, widths: tuple[tuple[int, int], ...], value: float) -> Any:
    shape = tuple(n + a + b for n, (a, b) in zip(x.shape, widths))
    if min(shape, default=0) < 0:
        raise RuntimeError(
            f"[pad] no dimension may become negative, came shape {list(shape)} from {list(x.shape)}"
        )
    inner = tuple(slice(max(a, 0), n - max(b, 0)) for n, (a, b) in zip(shape, widths))
    source = tuple(slice(max(-a, 0), n - max(-b, 0)) for n, (a, b) in zip(x.shape, widths))
    y = xp.empty(shape, x.dtype)
    if any(a > 0 or b > 0 for a, b in widths):
        y[...] = value
    y[inner] = x[source]
    return y


def _negated(widths: tuple[tuple[int, int], ...]) -> tuple[tuple[int, int], ...]:
    return tuple((-a, -b) for a, b in widths)


pad = Op(
    "pad",
    _pad,
    [lambda ops, g, widths: ops.pad(g, widths=_negated(widths), value=0.0)],
    half="native",
)
