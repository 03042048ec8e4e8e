"""Special functions on arrays: gamma and its kin, the inverse error function, Bessel functions.

All are computed in float64, whatever comes in, and rounded once by the caller.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

from .pointwise import _C2, _C3, _D2, _D3, _ratio

Array = Any
# B_2k / (2k (2k - 1)) and B_2k / 2k for k = 1, 2, ...: Stirling's series of lgamma and digamma.
_BERNOULLI = (1 / 6, -1 / 30, 1 / 42, -1 / 30, 5 / 66, -691 / 2730, 7 / 6, -3617 / 510)
SHIFT = 8  # the series are used from here on; smaller arguments are moved up by the recurrence
BLOCK = 8192  # elements that are worked on at a time, so that what comes between stays in the cache


def blocks(function: Callable[[Any, Array], Array], dtype: Any) -> Callable[[Any, Array], Array]:
    """A function of many steps, block by block in `dtype`; the result in the dtype of the argument."""

    def call(xp: Any, x: Array) -> Array:
        if x.size <= BLOCK:
            return function(xp, x.astype(dtype)).astype(x.dtype)
        flat, y = x.reshape(-1), xp.empty(x.size, x.dtype)
        for start in range(0, x.size, BLOCK):
            part = slice(start, start + BLOCK)
            y[part] = function(xp, flat[part].astype(dtype))
        return y.reshape(x.shape)

    return call


def _polynomial(xp: Any, coefficients: tuple[float, ...], x: Array) -> Array:
    y = x * coefficients[0]
    for c in coefficients[1:-1]:
        y += c
        y *= x
    y += coefficients[-1]
    return y


def _series(xp: Any, x: Array, divide: Any) -> Array:
    z = 1 / (x * x)
    total = xp.zeros_like(x)
    for k in range(len(_BERNOULLI), 0, -1):
        total = total * z + _BERNOULLI[k - 1] / divide(k)
    return total


def lgamma(xp: Any, x: Array) -> Array:
    """log |gamma(x)|: Stirling's series; reflection for negative x."""
    x = xp.asarray(x, xp.float64)
    low = x < 0.5
    y = xp.where(low, 1 - x, x)
    small = y < SHIFT
    product = y.copy()
    for k in range(1, SHIFT):
        product *= y + k
    moved = xp.where(small, y + SHIFT, y)
    value = (moved - 0.5) * xp.log(moved) - moved + 0.5 * math.log(2 * math.pi)
    value = value + _series(xp, moved, lambda k: 2 * k * (2 * k - 1)) / moved
    value = xp.where(small, value - xp.log(product), value)
    value = xp.where(xp.isinf(y), xp.inf, value)
    whole = low & (x == xp.floor(x))
    turned = math.log(math.pi) - xp.log(xp.abs(xp.sin(math.pi * (x - xp.floor(x))))) - value
    return xp.where(whole | xp.isinf(x), xp.inf, xp.where(low, turned, value))


def digamma(xp: Any, x: Array) -> Array:
    """The derivative of lgamma; NaN at negative integers, -inf at 0."""
    x = xp.asarray(x, xp.float64)
    low = x < 0
    y = xp.where(low, 1 - x, x)
    small = y < SHIFT
    taken = 1 / y
    for k in range(1, SHIFT):
        taken += 1 / (y + k)
    taken = xp.where(small, taken, 0.0)
    moved = xp.where(small, y + SHIFT, y)
    value = xp.log(moved) - 0.5 / moved - _series(xp, moved, lambda k: 2 * k) / (moved * moved) - taken
    turned = value - math.pi / xp.tan(math.pi * (x - xp.floor(x)))
    y = xp.where(low, xp.where(x == xp.floor(x), xp.nan, turned), value)
    return xp.where(x == 0, xp.copysign(xp.inf, -x), xp.where(x == xp.inf, xp.inf, y))


def zeta(xp: Any, s: Array, q: Array) -> Array:
    """Hurwitz's zeta function, the sum of (q + k)^-s: ten terms and the Euler-Maclaurin series."""
    s, q = xp.broadcast_arrays(xp.asarray(s, xp.float64), xp.asarray(q, xp.float64))
    total = xp.zeros_like(q)
    for k in range(10):
        total = total + (q + k) ** -s
    a = q + 10
    total = total + a ** (1 - s) / (s - 1) + 0.5 * a**-s
    factor, power = s, a ** (-s - 1)
    for k, b in enumerate(_BERNOULLI, 1):
        total = total + b / math.factorial(2 * k) * factor * power
        factor = factor * (s + 2 * k - 1) * (s + 2 * k)
        power = power / (a * a)
    pole = (q <= 0) & (q == xp.floor(q))
    total = xp.where(pole, xp.inf, xp.where((q < 0) & (s != xp.floor(s)), xp.nan, total))
    return xp.where(s < 1, xp.nan, xp.where(s == 1, xp.inf, total))


def polygamma(xp: Any, n: int, x: Array) -> Array:
    """The n-th derivative of digamma."""
    if n == 0:
        return digamma(xp, x)
    x = xp.asarray(x, xp.float64)
    if n == 1:
        low = x < 0.5
        value = zeta(xp, 2.0, xp.where(low, 1 - x, x))
        turned = (math.pi / xp.sin(math.pi * (x - xp.floor(x)))) ** 2 - value
        return xp.where(low, turned, value)
    return (-1) ** (n + 1) * math.factorial(n) * zeta(xp, n + 1.0, x)


# M. J. Wichura, Algorithm AS 241: the percentage points of the normal distribution (1988), highest power first.
_A: tuple[float, ...] = (2.5090809287301226727e3, 3.3430575583588128105e4, 6.7265770927008700853e4)
_A += (4.5921953931549871457e4, 1.3731693765509461125e4, 1.9715909503065514427e3, 1.3314166789178437745e2)
_A += (3.3871328727963666080e0,)
_B: tuple[float, ...] = (5.2264952788528545610e3, 2.8729085735721942674e4, 3.9307895800092710610e4)
_B += (
    2.1213794301586595867e4,
    5.3941960214247511077e3,
    6.8718700749205790830e2,
    4.2313330701600911252e1,
    1.0,
)
_C: tuple[float, ...] = (7.74545014278341407640e-4, 2.27238449892691845833e-2, 2.41780725177450611770e-1)
_C += (1.27045825245236838258e0, 3.64784832476320460504e0, 5.76949722146069140550e0, 4.63033784615654529590e0)
_C += (1.42343711074968357734e0,)
_D: tuple[float, ...] = (1.05075007164441684324e-9, 5.47593808499534494600e-4, 1.51986665636164571966e-2)
_D += (
    1.48103976427480074590e-1,
    6.89767334985100004550e-1,
    1.67638483018380384940e0,
    2.05319162663775882187e0,
    1.0,
)
_E: tuple[float, ...] = (2.01033439929228813265e-7, 2.71155556874348757815e-5, 1.24266094738807843860e-3)
_E += (
    2.65321895265761230930e-2,
    2.96560571828504891230e-1,
    1.78482653991729133580e0,
    5.46378491116411436990e0,
)
_E += (6.65790464350110377720e0,)
_F: tuple[float, ...] = (2.04426310338993978564e-15, 1.42151175831644588870e-7, 1.84631831751005468180e-5)
_F += (
    7.86869131145613259100e-4,
    1.48753612908506148525e-2,
    1.36929880922735805310e-1,
    5.99832206555887937690e-1,
    1.0,
)


def _quantile(xp: Any, q: Array, tail: Array) -> Array:
    """The normal quantile at 0.5 + q, where `tail` = 0.5 - |q| is given for its precision."""
    centre = q * _ratio(xp, _A, _B, 0.180625 - q * q)
    r = xp.sqrt(-xp.log(xp.where(tail > 0, tail, 1.0)))
    far = xp.where(r <= 5, _ratio(xp, _C, _D, r - 1.6), _ratio(xp, _E, _F, r - 5.0))
    y = xp.where(xp.abs(q) <= 0.425, centre, xp.copysign(far, q))
    y = xp.where(tail == 0, xp.copysign(xp.inf, q), y)
    return xp.where(tail >= 0, y, xp.nan)


def ndtri(xp: Any, p: Array) -> Array:
    """The normal quantile function."""
    p = xp.asarray(p, xp.float64)
    return _quantile(xp, p - 0.5, xp.minimum(p, 1 - p))


def erfinv(xp: Any, x: Array) -> Array:
    """The inverse of erf on [-1, 1]."""
    x = xp.asarray(x, xp.float64)
    return _quantile(xp, x / 2, (1 - xp.abs(x)) / 2) / math.sqrt(2)


# M. Giles, Approximating the erfinv function (2010), in single precision: near and far from 0.
_NEAR: tuple[float, ...] = (2.81022636e-08, 3.43273939e-07, -3.5233877e-06, -4.39150654e-06, 0.00021858087)
_NEAR += (-0.00125372503, -0.00417768164, 0.246640727, 1.50140941)
_FAR: tuple[float, ...] = (-0.000200214257, 0.000100950558, 0.00134934322, -0.00367342844, 0.00573950773)
_FAR += (-0.0076224613, 0.00943887047, 1.00167406, 2.83297682)


def erfinv_single(xp: Any, x: Array) -> Array:
    """erfinv to the precision of float32."""
    w = -xp.log1p(-x * x)
    y = _polynomial(xp, _NEAR, xp.minimum(w, 5.0) - 2.5)
    if (w >= 5).any():
        y = xp.where(w < 5, y, _polynomial(xp, _FAR, xp.sqrt(xp.maximum(w, 5.0)) - 3))
    return xp.where(xp.abs(x) == 1, xp.copysign(xp.inf, x), y * x)


# W. Press et al., Numerical Recipes in C (1992), section 6.2: erfc to a relative error of 1.2e-7.
_ERFC: tuple[float, ...] = (
    0.17087277,
    -0.82215223,
    1.48851587,
    -1.13520398,
    0.27886807,
    -0.18628806,
    0.09678418,
)
_ERFC += (0.37409196, 1.00002368, -1.26551223)


def erfc_single(xp: Any, x: Array) -> Array:
    """erfc to the precision of float32."""
    ax = xp.abs(x)
    t = 1 / (1 + 0.5 * ax)
    y = t * xp.exp(_polynomial(xp, _ERFC, t) - ax * ax)
    return xp.where(x < 0, 2 - y, y)


def _scaled_erfc(xp: Any, ax: Array) -> Array:
    """exp(x^2) erfc(x) for x >= 0.46875 (Cody's rational functions)."""
    z = 1 / xp.maximum(ax, 4.0) ** 2
    far = (1 / math.sqrt(math.pi) - z * _ratio(xp, _C3, _D3, z)) / xp.maximum(ax, 4.0)
    return xp.where(ax > 4.0, far, _ratio(xp, _C2, _D2, xp.clip(ax, 0.46875, 4.0)))


def erfc(xp: Any, x: Array, erf: Any) -> Array:
    """1 - erf(x) without cancellation."""
    x = xp.asarray(x, xp.float64)
    ax = xp.abs(x)
    cut = xp.trunc(xp.minimum(ax, 30.0) * 16) / 16  # exp(-x^2) in two factors keeps its relative precision
    tail = xp.exp(-cut * cut) * xp.exp(-(ax - cut) * (ax + cut)) * _scaled_erfc(xp, ax)
    tail = xp.where(ax > 30, 0.0, tail)
    y = xp.where(ax <= 0.46875, 1 - erf(xp, x), xp.where(x < 0, 2 - tail, tail))
    return xp.where(xp.isnan(x), x, y)


def erfcx(xp: Any, x: Array, erf: Any) -> Array:
    """exp(x^2) erfc(x)."""
    x = xp.asarray(x, xp.float64)
    near = xp.exp(x * x) * erfc(xp, x, erf)
    return xp.where(x > 0.5, _scaled_erfc(xp, xp.abs(x)), near)


def log_ndtr(xp: Any, x: Array, erf: Any) -> Array:
    """log of the normal distribution function."""
    x = xp.asarray(x, xp.float64)
    z = x / math.sqrt(2)
    low = xp.log(erfcx(xp, xp.maximum(-z, -1.0), erf) / 2) - z * z
    return xp.where(x < -1, low, xp.log1p(-erfc(xp, xp.maximum(z, -1.0), erf) / 2))


_NODES = 64


def bessel_ie(xp: Any, order: int, x: Array) -> Array:
    """exp(-|x|) I_n(x) for n = 0 or 1: the integral over one period by the trapezoid rule, or the asymptotic series."""
    x = xp.asarray(x, xp.float64)
    ax = xp.abs(x)
    near, total = xp.minimum(ax, 30.0), xp.zeros_like(x)
    for k in range(_NODES + 1):
        angle = math.pi * k / _NODES
        weight = (0.5 if k in (0, _NODES) else 1.0) / _NODES * math.cos(order * angle)
        total = total + weight * xp.exp(near * (math.cos(angle) - 1))
    far, term, series = xp.maximum(ax, 30.0), xp.ones_like(x), xp.ones_like(x)
    for k in range(1, 20):
        term = term * -(4 * order * order - (2 * k - 1) ** 2) / (k * 8 * far)
        series = series + term
    y = xp.where(ax <= 30, total, series / xp.sqrt(2 * math.pi * far))
    return xp.copysign(y, x) if order == 1 else y
