"""Fourier transforms. `forward` False is the inverse; `norm` says where 1/n stands, as in numpy.fft."""

from __future__ import annotations

from typing import Any

from ...autograd.op import Op

Array = Any
# The adjoint of a transform runs the other way with the same scaling.
ADJOINT = {"backward": "forward", "forward": "backward", "ortho": "ortho"}


def _single(xp: Any, y: Array, like: Any) -> Array:
    """NumPy keeps float32 as complex64; float16 was widened before."""
    return (
        y
        if (like.itemsize >= 8 and like.kind == "f") or like.itemsize == 16
        else y.astype("complex64", copy=False)
    )


def _laid_out(xp: Any, y: Array, x: Array, last: tuple[int, ...]) -> Array:
    """In memory as PyTorch lays it out, which what draws random numbers for it follows: transformed dimensions last."""
    rest = sorted((d for d in range(x.ndim) if d not in last), key=lambda d: -x.strides[d])
    order = (*rest, *last)
    inverse = [order.index(d) for d in range(x.ndim)]
    return xp.ascontiguousarray(y.transpose(order)).transpose(inverse) if y.ndim else y


def _by_stride(x: Array, dim: tuple[int, ...]) -> tuple[int, ...]:
    return tuple(sorted(dim, key=lambda d: -x.strides[d]))


def _c2c(xp: Any, x: Array, *, dim: tuple[int, ...], norm: str, forward: bool) -> Array:
    transform = xp.fft.fftn if forward else xp.fft.ifftn
    return _laid_out(xp, _single(xp, transform(x, axes=dim, norm=norm), x.dtype), x, _by_stride(x, dim))


fft_c2c = Op(
    "fft_c2c",
    _c2c,
    [
        lambda ops, g, dim, norm, forward: ops.fft_c2c(g, dim=dim, norm=ADJOINT[norm], forward=not forward),
    ],
)


def _r2c(xp: Any, x: Array, *, dim: tuple[int, ...], norm: str) -> Array:
    y = _single(xp, xp.fft.rfftn(x, axes=dim, norm=norm), x.dtype)
    return _laid_out(xp, y, x, (*_by_stride(x, dim[:-1]), dim[-1]))


def _r2c_rule(ops: Any, g: Any, x_shape: tuple[int, ...], dim: tuple[int, ...], norm: str) -> Any:
    last, n = dim[-1], x_shape[dim[-1]]
    full = ops.narrow_adjoint(g, shape=(*g.shape[:last], n, *g.shape[last + 1 :]), dim=last, start=0)
    return ops.clone(ops.real(ops.fft_c2c(full, dim=dim, norm=ADJOINT[norm], forward=False)))


fft_r2c = Op("fft_r2c", _r2c, [_r2c_rule])


def _c2r(xp: Any, x: Array, *, dim: tuple[int, ...], norm: str, n: int) -> Array:
    y = xp.fft.irfftn(x, s=[*(x.shape[d] for d in dim[:-1]), n], axes=dim, norm=norm)
    y = y.astype("float64" if x.dtype.name == "complex128" else "float32", copy=False)
    return _laid_out(xp, y, x, (*_by_stride(x, dim[:-1]), dim[-1]))


def _c2r_rule(ops: Any, g: Any, dim: tuple[int, ...], norm: str, n: int) -> Any:
    """Each frequency but the first (and the middle one of an even n) also stands for its mirror image."""
    half = ops.fft_r2c(g, dim=dim, norm=ADJOINT[norm])
    last, twice = dim[-1], n - (n // 2 + 1)
    inner = ops.narrow(half, dim=last, start=1, length=twice)
    return half + ops.narrow_adjoint(inner, shape=tuple(half.shape), dim=last, start=1)


fft_c2r = Op("fft_c2r", _c2r, [_c2r_rule])
