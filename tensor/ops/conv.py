"""Convolutions in any number of dimensions, as products with columns of patches.

Convolution, its gradient for the input (which is transposed convolution) and for the weight are one trilinear form, so
each one's gradients are the other two. Shapes: input (N, C, ...), weight (O, C / groups, ...), output (N, O, ...).
Patches are laid out for a few images at a time, as many as make products worthwhile and buffers stay small.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...autograd.engine import Variable
from ...autograd.op import Op, describe
from .faster import faster
from .linear import same_dtype
from .pad import pad
from .rows import row_sum

Ints = tuple[int, ...]
Pairs = tuple[tuple[int, int], ...]


def images_at_once(count: int, depth: int, size: int) -> int:
    """So many that products are worthwhile (512 columns and more) and columns stay in the cache (1 MiB)."""
    columns = max(512, min(8192, (1 << 18) // max(depth, 1)))
    return max(1, min(count, columns // max(size, 1)))


def out_size(n: int, kernel: int, stride: int, pads: tuple[int, int], dilation: int) -> int:
    """Windows that fit a dimension of n."""
    return (n + sum(pads) - dilation * (kernel - 1) - 1) // stride + 1


def windows(xp: Any, x: Any, kernel: Ints, stride: Ints, dilation: Ints, out: Ints) -> Any:
    """View (N, C, *kernel, *out) of the patches of a padded input."""
    step = x.strides
    inner = tuple(s * d for s, d in zip(step[2:], dilation))
    outer = tuple(s * t for s, t in zip(step[2:], stride))
    shape = (*x.shape[:2], *kernel, *out)
    return xp.lib.stride_tricks.as_strided(x, shape, (*step[:2], *inner, *outer))


class Patches:
    """Columns of patches of an input (N, C, ...), a few images at a time: `columns(part)` is (C * kernel, n * out)."""

    def __init__(
        self, xp: Any, x: Any, kernel: Ints, out: Ints, stride: Ints, padding: Pairs, dilation: Ints
    ) -> None:
        self.xp, self.x, self.kernel, self.out, self.stride, self.dilation = (
            xp,
            x,
            kernel,
            out,
            stride,
            dilation,
        )
        self.padding = padding
        self.size = math.prod(out)
        self.depth = x.shape[1] * math.prod(kernel)
        self.step = images_at_once(x.shape[0], self.depth, self.size)
        self.plain = set(kernel) | set(stride) == {1} and not any(map(any, padding)) and self.step == 1
        if not self.plain:
            self.buffer = xp.empty((self.depth, self.step * self.size), x.dtype)
        if any(map(any, padding)):
            sizes = tuple(n + a + b for n, (a, b) in zip(x.shape[2:], padding))
            self.padded = xp.zeros((self.step, x.shape[1], *sizes), x.dtype)

    def parts(self) -> Any:
        for start in range(0, self.x.shape[0], self.step):
            yield slice(start, min(start + self.step, self.x.shape[0]))

    def columns(self, part: slice) -> Any:
        x = self.x[part]
        n = x.shape[0]
        if self.plain:
            return x.reshape(self.depth, self.size)
        if any(map(any, self.padding)):
            inner = tuple(slice(a, a + size) for size, (a, _) in zip(x.shape[2:], self.padding))
            self.padded[(slice(0, n), slice(None), *inner)] = x
            x = self.padded[:n]
        dims = len(self.kernel)
        patches = windows(self.xp, x, self.kernel, self.stride, self.dilation, self.out)
        order = (1, *range(2, 2 + dims), 0, *range(2 + dims, 2 + 2 * dims))
        columns = self.buffer.reshape(-1)[: self.depth * n * self.size]
        columns.reshape(x.shape[1], *self.kernel, n, *self.out)[...] = patches.transpose(order)
        return columns.reshape(self.depth, n * self.size)


def _by_group(xp: Any, g: Any, groups: int) -> Any:
    """Part of an output, (n, O, ...), as (groups, O / groups, n * ...)."""
    n, channels = g.shape[:2]
    if n == 1:
        return g.reshape(groups, channels // groups, -1)
    return xp.ascontiguousarray(g.reshape(n, channels, -1).swapaxes(0, 1)).reshape(
        groups, channels // groups, -1
    )


def channel_sum(xp: Any, g: Any) -> Any:
    """Sums of (N, C, ...) over all but the channels."""
    n, c = g.shape[:2]
    return row_sum(xp, xp.ascontiguousarray(g).reshape(n * c, -1)).reshape(n, c).sum(axis=0)


def _conv(
    xp: Any,
    x: Any,
    weight: Any,
    bias: Any = None,
    *,
    stride: Ints,
    padding: Pairs,
    dilation: Ints,
    groups: int,
) -> Any:
    fast = faster(
        "conv", xp, x, weight, bias, stride=stride, padding=padding, dilation=dilation, groups=groups
    )
    if fast is not None:
        return fast
    kernel = weight.shape[2:]
    sizes = zip(x.shape[2:], kernel, stride, padding, dilation)
    out = tuple(out_size(*size) for size in sizes)
    y = xp.empty((x.shape[0], weight.shape[0], *out), x.dtype)
    if not y.size:
        return y
    w = weight.reshape(groups, weight.shape[0] // groups, -1)
    patches = Patches(xp, xp.ascontiguousarray(x), kernel, out, stride, padding, dilation)
    for part in patches.parts():
        columns = patches.columns(part).reshape(groups, w.shape[2], -1)
        n = part.stop - part.start
        if n == 1:
            xp.matmul(w, columns, out=y[part].reshape(groups, w.shape[1], -1))
        else:
            product = xp.matmul(w, columns)
            y[part] = product.reshape(weight.shape[0], n, *out).swapaxes(0, 1)
    if bias is not None:
        y += bias.reshape(-1, *[1] * len(out))
    return y


def _conv_weight(
    xp: Any, gy: Any, x: Any, *, kernel: Ints, stride: Ints, padding: Pairs, dilation: Ints, groups: int
) -> Any:
    geometry = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    fast = faster("conv_weight", xp, gy, x, kernel=kernel, **geometry)
    if fast is not None:
        return fast
    outs, channels = gy.shape[1], x.shape[1] // groups
    out = gy.shape[2:]
    total = xp.zeros((groups, outs // groups, channels * math.prod(kernel)), gy.dtype)
    if gy.size and x.size:
        patches = Patches(xp, xp.ascontiguousarray(x), kernel, out, stride, padding, dilation)
        for part in patches.parts():
            columns = patches.columns(part).reshape(groups, total.shape[2], -1)
            total += xp.matmul(_by_group(xp, gy[part], groups), columns.swapaxes(-1, -2))
    return total.reshape(outs, channels, *kernel)


def _conv_input(
    xp: Any,
    gy: Any,
    weight: Any,
    bias: Any = None,
    *,
    size: Ints,
    stride: Ints,
    padding: Pairs,
    dilation: Ints,
    groups: int,
) -> Any:
    """The gradient for an input of spatial `size`. bias: of transposed convolution, one a channel of the result."""
    geometry = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    fast = faster("conv_input", xp, gy, weight, bias, size=size, **geometry)
    if fast is not None:
        return fast
    channels = weight.shape[1]
    # few channels make thin products of the turned kernel
    thin = channels * math.prod(gy.shape[2:]) < 16 * math.prod(size)
    body = _flipped if set(stride) == {1} and not thin else _scattered
    y = body(xp, gy, weight, size, stride, padding, dilation, groups)
    if bias is not None:
        y += bias.reshape(-1, *[1] * len(size))
    return y


def _flipped(
    xp: Any, gy: Any, weight: Any, size: Ints, stride: Ints, padding: Pairs, dilation: Ints, groups: int
) -> Any:
    """With stride 1: a convolution with the kernel turned around, which costs no more than the forward."""
    outs, channels, *kernel = weight.shape
    turned = weight.reshape(groups, outs // groups, channels, *kernel).swapaxes(1, 2)
    turned = xp.ascontiguousarray(xp.flip(turned, axis=tuple(range(3, turned.ndim))))
    turned = turned.reshape(groups * channels, outs // groups, *kernel)
    pads = []
    for n, m, k, d, (low, _) in zip(size, gy.shape[2:], kernel, dilation, padding):
        reach = d * (k - 1)
        pads.append((reach - low, n - m + low))
    if min(map(min, pads), default=0) < 0:
        cut = tuple((min(a, 0), min(b, 0)) for a, b in pads)
        gy = pad.forward(xp, gy, widths=((0, 0), (0, 0), *cut), value=0.0)
        pads = [(max(a, 0), max(b, 0)) for a, b in pads]
    return _conv(xp, gy, turned, stride=stride, padding=tuple(pads), dilation=dilation, groups=groups)


def _scattered(
    xp: Any, gy: Any, weight: Any, size: Ints, stride: Ints, padding: Pairs, dilation: Ints, groups: int
) -> Any:
    """Columns of the gradient, added up where the patches overlap."""
    outs, channels, *kernel = weight.shape
    n, out = gy.shape[0], gy.shape[2:]
    full = tuple(
        max(a + b + m, d * (k - 1) + s * (o - 1) + 1)
        for m, (a, b), k, d, s, o in zip(size, padding, kernel, dilation, stride, out)
    )
    x = xp.empty((n, groups * channels, *size), gy.dtype)
    turned = xp.ascontiguousarray(weight.reshape(groups, outs // groups, -1).swapaxes(1, 2))
    step = images_at_once(n, channels * groups * math.prod(kernel), math.prod(out))
    inner = tuple(slice(a, a + m) for m, (a, _) in zip(size, padding))
    for start in range(0, n, step):
        part = slice(start, min(start + step, n))
        count = part.stop - part.start
        columns = xp.matmul(turned, _by_group(xp, gy[part], groups))
        columns = columns.reshape(groups * channels, *kernel, count, *out)
        padded = xp.zeros((groups * channels, count, *full), gy.dtype)
        for offset in np.ndindex(*kernel):
            at = tuple(
                slice(i * d, i * d + s * (o - 1) + 1, s) for i, d, s, o in zip(offset, dilation, stride, out)
            )
            padded[(slice(None), slice(None), *at)] += columns[(slice(None), *offset)]
        x[part] = padded[(slice(None), slice(None), *inner)].swapaxes(0, 1)
    return x


def _check(name: str, x: Any, weight: Any, bias: Any, channels: int, groups: int, outs: int) -> None:
    same_dtype(name, x, weight, bias)
    if x.ndim != weight.ndim:
        raise RuntimeError(
            f"[{name}] the input (N, C, ...) and the weight must have equally many dimensions, came {describe(x)} and"
            f" {describe(weight)}"
        )
    if groups < 1 or x.shape[1] != channels or weight.shape[0] % groups:
        raise RuntimeError(
            f"[{name}] the input's channels must fit the weight and divide by the groups, came {describe(x)} with"
            f" weight {describe(weight)} and groups={groups}: expected {channels} channels"
        )
    if bias is not None and tuple(bias.shape) != (outs,):
        raise RuntimeError(
            f"[{name}] the bias must have one element an output channel, {outs}, came {describe(bias)}"
        )


def _conv_prepare(x: Any, weight: Any, bias: Any = None, **kw: Any) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(x, Variable):
        _check("conv", x, weight, bias, weight.shape[1] * kw["groups"], kw["groups"], weight.shape[0])
        sizes = zip(x.shape[2:], weight.shape[2:], kw["stride"], kw["padding"], kw["dilation"])
        out = [out_size(*size) for size in sizes]
        if min(out, default=1) < 1:
            raise RuntimeError(
                f"[conv] the kernel must not be larger than the padded input, came {describe(x)} with weight"
                f" {describe(weight)}, padding={kw['padding']}, dilation={kw['dilation']}"
            )
    return ((x, weight) if bias is None else (x, weight, bias)), kw


def _conv_input_prepare(
    gy: Any, weight: Any, bias: Any = None, **kw: Any
) -> tuple[tuple[Any, ...], dict[str, Any]]:
    if isinstance(gy, Variable):
        outs = weight.shape[1] * kw["groups"]
        _check("conv_transpose", gy, weight, bias, weight.shape[0], kw["groups"], outs)
    return ((gy, weight) if bias is None else (gy, weight, bias)), kw


def _bias_rule(ops: Any, g: Any) -> Any:
    return ops.channel_sum(g)


def _spread(xp: Any, x: Any, *, shape: Ints) -> Any:
    return xp.broadcast_to(x.reshape(-1, *[1] * (len(shape) - 2)), shape).copy()


channel_spread = Op("channel_spread", _spread, [lambda ops, g: ops.channel_sum(g)])
channel_sum_op = Op(
    "channel_sum",
    lambda xp, x: channel_sum(xp, x),
    [lambda ops, g, x_shape: ops.channel_spread(g, shape=tuple(x_shape))],
)
conv = Op(
    "conv",
    _conv,
    [
        lambda ops, g, x_shape, weight, stride, padding, dilation, groups: ops.conv_input(
            g,
            weight,
            size=tuple(x_shape[2:]),
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
        ),
        lambda ops, g, x, weight_shape, stride, padding, dilation, groups: ops.conv_weight(
            g,
            x,
            kernel=tuple(weight_shape[2:]),
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
        ),
        _bias_rule,
    ],
    prepare=_conv_prepare,
)
conv_weight = Op(
    "conv_weight",
    _conv_weight,
    [
        lambda ops, g, x, stride, padding, dilation, groups: ops.conv(
            x, g, stride=stride, padding=padding, dilation=dilation, groups=groups
        ),
        lambda ops, g, gy, x_shape, stride, padding, dilation, groups: ops.conv_input(
            gy, g, size=tuple(x_shape[2:]), stride=stride, padding=padding, dilation=dilation, groups=groups
        ),
    ],
)
conv_input = Op(
    "conv_input",
    _conv_input,
    [
        lambda ops, g, weight, stride, padding, dilation, groups: ops.conv(
            g, weight, stride=stride, padding=padding, dilation=dilation, groups=groups
        ),
        lambda ops, g, gy, weight_shape, stride, padding, dilation, groups: ops.conv_weight(
            gy,
            g,
            kernel=tuple(weight_shape[2:]),
            stride=stride,
            padding=padding,
            dilation=dilation,
            groups=groups,
        ),
        _bias_rule,
    ],
    prepare=_conv_input_prepare,
)

# ---- patches as tensors


def _unfold(xp: Any, x: Any, *, kernel: Ints, stride: Ints, padding: Pairs, dilation: Ints) -> Any:
    out = tuple(out_size(*size) for size in zip(x.shape[2:], kernel, stride, padding, dilation))
    x = pad.forward(xp, x, widths=((0, 0), (0, 0), *padding), value=0.0)
    patches = windows(xp, x, kernel, stride, dilation, out)
    return xp.ascontiguousarray(patches).reshape(x.shape[0], x.shape[1] * math.prod(kernel), math.prod(out))


def _fold(xp: Any, x: Any, *, size: Ints, kernel: Ints, stride: Ints, padding: Pairs, dilation: Ints) -> Any:
    out = tuple(out_size(*s) for s in zip(size, kernel, stride, padding, dilation))
    columns = x.reshape(x.shape[0], -1, *kernel, *out)
    full = tuple(n + a + b for n, (a, b) in zip(size, padding))
    padded = xp.zeros((*columns.shape[:2], *full), x.dtype)
    for offset in np.ndindex(*kernel):
        at = tuple(
            slice(i * d, i * d + s * (o - 1) + 1, s) for i, d, s, o in zip(offset, dilation, stride, out)
        )
        padded[(slice(None), slice(None), *at)] += columns[(slice(None), slice(None), *offset)]
    inner = tuple(slice(a, a + n) for n, (a, _) in zip(size, padding))
    return xp.ascontiguousarray(padded[(slice(None), slice(None), *inner)])


unfold = Op(
    "unfold_patches",
    _unfold,
    [
        lambda ops, g, x_shape, kernel, stride, padding, dilation: ops.fold_patches(
            g, size=tuple(x_shape[2:]), kernel=kernel, stride=stride, padding=padding, dilation=dilation
        )
    ],
)
fold = Op(
    "fold_patches",
    _fold,
    [
        lambda ops, g, kernel, stride, padding, dilation: ops.unfold_patches(
            g, kernel=kernel, stride=stride, padding=padding, dilation=dilation
        )
    ],
)
