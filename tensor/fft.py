"""Fourier transforms under the names of `torch.fft`, and short-time ones.

norm: where 1/n stands: "backward" (the default), "ortho" or "forward".
"""

from __future__ import annotations

from collections.abc import Sequence
from operator import index as whole
from typing import TYPE_CHECKING, Any

import numpy as np

from ..autograd.engine import wrap
from . import functions as f
from .creation import finish
from .dtypes import F64, category, default_float, to_numpy
from .elementwise import conj, real
from .ops import complex as _c
from .ops import fft as _f
from .ops import pointwise as _p
from .ops import scan as _v
from .ops import shape as _s
from .ops.declare import axes_of

if TYPE_CHECKING:
    from .tensor import Tensor

FLIPPED = {"backward": "forward", "forward": "backward", "ortho": "ortho"}


def _norm(name: str, norm: str | None) -> str:
    norm = norm or "backward"
    if norm not in FLIPPED:
        raise RuntimeError(f"[fft.{name}] norm must be 'backward', 'ortho' or 'forward', came {norm!r}")
    return norm


def _floating(x: Tensor) -> Tensor:
    return f.cast(x, default_float()) if category(x.array.dtype) < 2 else x


def _complex(x: Tensor) -> Tensor:
    x = _floating(x)
    return x if x.is_complex() else _c.make_complex(x, _p.mul(x, 0))


def _resized(name: str, x: Any, d: int, n: int | None) -> Any:
    """Cut off or filled with zeros to `n` along a dimension."""
    have = x.shape[d]
    n = have if n is None else n
    if n < 1:
        raise RuntimeError(f"[fft.{name}] the number of points must be positive, came {n}")
    if n < have:
        return _s.narrow(x, dim=d, start=0, length=n)
    return (
        x if n == have else _s.narrow_adjoint(x, shape=(*x.shape[:d], n, *x.shape[d + 1 :]), dim=d, start=0)
    )


def _axes(name: str, x: Any, s: Any, dim: Any) -> tuple[tuple[int, ...], list[Any]]:
    s = [s] if isinstance(s, int) else s
    if dim is None:
        axes = tuple(range(x.ndim)) if s is None else tuple(range(x.ndim - len(s), x.ndim))
    else:
        if not x.ndim and dim:
            raise IndexError(
                f"[fft.{name}] the input must have the dimensions {list(dim)}, came a 0-d tensor"
            )
        axes = axes_of(f"fft.{name}", dim, x.ndim)
    sizes = list(s) if s is not None else [None] * len(axes)
    if len(sizes) != len(axes):
        raise RuntimeError(f"[fft.{name}] s and dim must be of one length, came {s} and {dim}")
    return axes, [None if n is None or n == -1 else whole(n) for n in sizes]


def _full(name: str, x: Any, s: Any, dim: Any, norm: Any, forward: bool) -> Any:
    norm = _norm(name, norm)
    axes, sizes = _axes(name, x, s, dim)
    x = _complex(x)
    for d, n in zip(axes, sizes):
        x = _resized(name, x, d, n)
    return _f.fft_c2c(x, dim=axes, norm=norm, forward=forward) if axes else x


def _real_in(name: str, x: Any, s: Any, dim: Any, norm: Any) -> Any:
    if x.is_complex():
        raise RuntimeError(f"[fft.{name}] the input must be real, came {x.dtype}")
    norm = _norm(name, norm)
    axes, sizes = _axes(name, x, s, dim)
    if not axes:
        raise RuntimeError(f"[fft.{name}] at least one dimension must be transformed, came {list(x.shape)}")
    x = _floating(x)
    for d, n in zip(axes, sizes):
        x = _resized(name, x, d, n)
    return _f.fft_r2c(x, dim=axes, norm=norm)


def _real_out(name: str, x: Any, s: Any, dim: Any, norm: Any) -> Any:
    norm = _norm(name, norm)
    axes, sizes = _axes(name, x, s, dim)
    x = _complex(x)
    last = 2 * (x.shape[axes[-1]] - 1) if sizes[-1] is None else sizes[-1]
    if last < 1:
        raise RuntimeError(f"[fft.{name}] the number of points must be positive, came {last}")
    for d, n in zip(axes[:-1], sizes[:-1]):
        x = _resized(name, x, d, n)
    x = _resized(name, x, axes[-1], last // 2 + 1)
    return _f.fft_c2r(x, dim=axes, norm=norm, n=last)


def fft(input: Tensor, n: int | None = None, dim: int = -1, norm: str | None = None) -> Tensor:
    """The discrete Fourier transform along one dimension, of `n` points."""
    return _full("fft", input, [n], [dim], norm, True)


def ifft(input: Tensor, n: int | None = None, dim: int = -1, norm: str | None = None) -> Tensor:
    """The inverse of `fft`."""
    return _full("ifft", input, [n], [dim], norm, False)


def fft2(input: Tensor, s: Any = None, dim: Any = (-2, -1), norm: str | None = None) -> Tensor:
    """The transform over two dimensions."""
    return _full("fft2", input, s, dim, norm, True)


def ifft2(input: Tensor, s: Any = None, dim: Any = (-2, -1), norm: str | None = None) -> Tensor:
    """The inverse of `fft2`."""
    return _full("ifft2", input, s, dim, norm, False)


def fftn(input: Tensor, s: Any = None, dim: Any = None, norm: str | None = None) -> Tensor:
    """The transform over several dimensions, all by default."""
    return _full("fftn", input, s, dim, norm, True)


def ifftn(input: Tensor, s: Any = None, dim: Any = None, norm: str | None = None) -> Tensor:
    """The inverse of `fftn`."""
    return _full("ifftn", input, s, dim, norm, False)


def rfft(input: Tensor, n: int | None = None, dim: int = -1, norm: str | None = None) -> Tensor:
    """The non-negative frequencies of a real signal: n // 2 + 1 of them."""
    return _real_in("rfft", input, [n], [dim], norm)


def irfft(input: Tensor, n: int | None = None, dim: int = -1, norm: str | None = None) -> Tensor:
    """The real signal of `n` points (default 2 (m - 1)) with the given non-negative frequencies."""
    return _real_out("irfft", input, [n], [dim], norm)


def rfft2(input: Tensor, s: Any = None, dim: Any = (-2, -1), norm: str | None = None) -> Tensor:
    """`rfft` along the last of two dimensions, `fft` along the other."""
    return _real_in("rfft2", input, s, dim, norm)


def irfft2(input: Tensor, s: Any = None, dim: Any = (-2, -1), norm: str | None = None) -> Tensor:
    """The inverse of `rfft2`."""
    return _real_out("irfft2", input, s, dim, norm)


def rfftn(input: Tensor, s: Any = None, dim: Any = None, norm: str | None = None) -> Tensor:
    """`rfft` along the last dimension, `fft` along the others."""
    return _real_in("rfftn", input, s, dim, norm)


def irfftn(input: Tensor, s: Any = None, dim: Any = None, norm: str | None = None) -> Tensor:
    """The inverse of `rfftn`."""
    return _real_out("irfftn", input, s, dim, norm)


def hfft(input: Tensor, n: int | None = None, dim: int = -1, norm: str | None = None) -> Tensor:
    """The real spectrum of a Hermitian signal of which one half is given."""
    return _real_out("hfft", conj(_complex(input)), [n], [dim], FLIPPED[_norm("hfft", norm)])


def ihfft(input: Tensor, n: int | None = None, dim: int = -1, norm: str | None = None) -> Tensor:
    """The inverse of `hfft`."""
    return conj(_real_in("ihfft", input, [n], [dim], FLIPPED[_norm("ihfft", norm)]))


def _shift(x: Any, dim: Any, sign: int) -> Any:
    axes = axes_of("fft.fftshift", dim, x.ndim)
    steps = tuple(x.shape[d] // 2 if sign > 0 else -(x.shape[d] // 2) for d in axes)
    return _s.roll(x, shifts=steps, dims=axes)


def fftshift(input: Tensor, dim: Any = None) -> Tensor:
    """Frequency 0 moved to the middle."""
    return _shift(input, dim, 1)


def ifftshift(input: Tensor, dim: Any = None) -> Tensor:
    """The inverse of `fftshift`."""
    return _shift(input, dim, -1)


def _grid(array: Any, dtype: Any, device: Any, requires_grad: bool) -> Any:
    n = default_float() if dtype is None else to_numpy(dtype)
    return finish(array.astype(n), requires_grad, device)


def fftfreq(
    n: int, d: float = 1.0, *, dtype: Any = None, device: Any = None, requires_grad: bool = False, **_: Any
) -> Tensor:
    """The frequencies of `fft` in cycles per unit, for `n` samples `d` apart."""
    return _grid(np.fft.fftfreq(n, d), dtype, device, requires_grad)


def rfftfreq(
    n: int, d: float = 1.0, *, dtype: Any = None, device: Any = None, requires_grad: bool = False, **_: Any
) -> Tensor:
    """The frequencies of `rfft` in cycles per unit."""
    return _grid(np.fft.rfftfreq(n, d), dtype, device, requires_grad)


# ---- short-time transforms

PADDINGS = {"reflect": "reflect", "constant": "constant", "replicate": "edge", "circular": "wrap"}


def _centred(x: Any, pad: int, pad_mode: str) -> Any:
    if pad_mode not in PADDINGS:
        raise RuntimeError(f"[stft] pad_mode must be one of {', '.join(PADDINGS)}, came {pad_mode!r}")
    n = x.shape[-1]
    if pad_mode == "constant":
        return _s.narrow_adjoint(x, shape=(*x.shape[:-1], n + 2 * pad), dim=x.ndim - 1, start=pad)
    if pad_mode == "reflect" and pad >= n:
        raise RuntimeError(f"[stft] the padding must be smaller than the signal, came {pad} and {n}")
    mode: Any = PADDINGS[pad_mode]
    return f.index_select(x, -1, wrap(np.pad(np.arange(n), pad, mode)))


def _window(window: Any, win_length: int, n_fft: int, like: Any) -> Any:
    """The window of `win_length` points in the middle of `n_fft`."""
    if window is None:
        window = like.new_ones((win_length,), dtype=like.dtype.to_real())
    if window.ndim != 1 or window.shape[0] != win_length or not 0 < win_length <= n_fft:
        raise RuntimeError(
            f"[stft] the window must be a vector of win_length = {win_length} <= {n_fft}, came {list(window.shape)}"
        )
    return _s.narrow_adjoint(window, shape=(n_fft,), dim=0, start=(n_fft - win_length) // 2)


def stft(
    input: Tensor,
    n_fft: int,
    hop_length: int | None = None,
    win_length: int | None = None,
    window: Tensor | None = None,
    center: bool = True,
    pad_mode: str = "reflect",
    normalized: bool = False,
    onesided: bool | None = None,
    return_complex: bool | None = None,
    align_to_window: bool | None = None,
) -> Tensor:
    """Spectra of overlapping windows of a signal [..., time]: [..., frequency, window]."""
    x, hop = input, n_fft // 4 if hop_length is None else hop_length
    if return_complex is None and not x.is_complex():
        raise RuntimeError("[stft] return_complex must be given for real inputs, came None")
    if hop <= 0 or n_fft <= 0:
        raise RuntimeError(f"[stft] n_fft and hop_length must be positive, came {n_fft} and {hop}")
    if center:
        x = _centred(x, n_fft // 2, pad_mode)
    if x.shape[-1] < n_fft:
        raise RuntimeError(f"[stft] n_fft must be at most the signal's length {x.shape[-1]}, came {n_fft}")
    frames = _p.mul(
        _v.unfold(x, dimension=-1, size=n_fft, step=hop), _window(window, win_length or n_fft, n_fft, input)
    )
    norm = "ortho" if normalized else "backward"
    half = not frames.is_complex() if onesided is None else onesided
    spectra = rfft(frames, norm=norm) if half else fft(frames, norm=norm)
    y = _s.transpose(spectra, dim0=-1, dim1=-2)
    return y if return_complex or return_complex is None else _c.view_as_real(y.contiguous())


def istft(
    input: Tensor,
    n_fft: int,
    hop_length: int | None = None,
    win_length: int | None = None,
    window: Tensor | None = None,
    center: bool = True,
    normalized: bool = False,
    onesided: bool | None = None,
    length: int | None = None,
    return_complex: bool = False,
) -> Tensor:
    """The signal whose `stft` is nearest to the given one."""
    if not input.is_complex():
        raise RuntimeError(f"[istft] the input must be complex, came {input.dtype}")
    hop = n_fft // 4 if hop_length is None else hop_length
    half = input.shape[-2] != n_fft if onesided is None else onesided
    norm = "ortho" if normalized else "backward"
    spectra = _s.transpose(input, dim0=-1, dim1=-2)
    frames = irfft(spectra, n_fft, norm=norm) if half else ifft(spectra, norm=norm)
    if not half and not return_complex:
        frames = real(frames)
    w = _window(window, win_length or n_fft, n_fft, input)
    count = frames.shape[-2]
    total = n_fft + hop * (count - 1)
    where = {"dimension": frames.ndim - 2, "size": n_fft, "step": hop}
    y = _v.unfold_adjoint(_p.mul(frames, w), shape=(*frames.shape[:-2], total), **where)
    squares = _s.expand(_p.mul(w, w), shape=(count, n_fft))
    weight = _v.unfold_adjoint(squares, shape=(total,), dimension=0, size=n_fft, step=hop)
    start = n_fft // 2 if center else 0
    end = total - start if length is None else min(start + length, total)
    y, weight = (_s.narrow(t, dim=-1, start=start, length=end - start) for t in (y, weight))
    if float(f.amin(_p.abs(weight))) < 1e-11:
        raise RuntimeError("[istft] the windows must cover every point, came sums of squares of 0")
    y = _p.div(y, weight)
    if length is not None and length > y.shape[-1]:
        y = _s.narrow_adjoint(y, shape=(*y.shape[:-1], length), dim=y.ndim - 1, start=0)
    return y


# ---- windows


def _cosines(
    n: int, periodic: bool, weights: Sequence[float], dtype: Any, device: Any, requires_grad: bool
) -> Any:
    if n < 0:
        raise RuntimeError(f"[window] the length must not be negative, came {n}")
    phase = 2 * np.pi * np.arange(n, dtype=F64) / max(n if periodic else n - 1, 1)
    total = sum((-1) ** k * a * np.cos(k * phase) for k, a in enumerate(weights))
    array = np.ones(1) if n == 1 else np.asarray(total)
    return _grid(array, dtype, device, requires_grad)


def hann_window(
    window_length: int,
    periodic: bool = True,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    **_: Any,
) -> Tensor:
    """sin(pi k / N)^2."""
    return _cosines(window_length, periodic, (0.5, 0.5), dtype, device, requires_grad)


def hamming_window(
    window_length: int,
    periodic: bool = True,
    alpha: float = 0.54,
    beta: float = 0.46,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    **_: Any,
) -> Tensor:
    """alpha - beta cos(2 pi k / N)."""
    return _cosines(window_length, periodic, (alpha, beta), dtype, device, requires_grad)


def blackman_window(
    window_length: int,
    periodic: bool = True,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    **_: Any,
) -> Tensor:
    """0.42 - 0.5 cos(2 pi k / N) + 0.08 cos(4 pi k / N)."""
    return _cosines(window_length, periodic, (0.42, 0.5, 0.08), dtype, device, requires_grad)


def bartlett_window(
    window_length: int,
    periodic: bool = True,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    **_: Any,
) -> Tensor:
    """A triangle."""
    n = window_length if periodic else window_length - 1
    array = 1 - np.abs(2 * np.arange(window_length) / max(n, 1) - 1)
    return _grid(np.ones(1) if window_length == 1 else array, dtype, device, requires_grad)


def kaiser_window(
    window_length: int,
    periodic: bool = True,
    beta: float = 12.0,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    **_: Any,
) -> Tensor:
    """I0(beta sqrt(1 - (2 k / N - 1)^2)) / I0(beta)."""
    array = np.kaiser(window_length + int(periodic), beta)[:window_length]
    return _grid(np.ones(1) if window_length == 1 else array, dtype, device, requires_grad)
