"""The gamma distribution and its special cases."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..autograd import Function, once_differentiable
from ..autograd.engine import wrap
from ..autograd.op import tensor_namespace as ops
from ..tensor import Tensor
from ..tensor.generator import default_generator
from ..tensor.generator_sampling import by_loop
from ..tensor.ops.faster import faster
from . import constraints
from .distribution import Distribution
from .utils import broadcast_all, finfo, from_doubles, xlogy


def draw_gamma(generator: Any, alpha: float) -> float:
    """One number of shape `alpha` and rate 1: Marsaglia and Tsang 2000, doi:10.1145/358407.358414."""
    scale = 1.0
    if alpha < 1:
        if alpha == 0:
            return 0.0
        scale = (1 - generator.double()) ** (1 / alpha)
        alpha += 1
    d = alpha - 1 / 3
    c = 1 / math.sqrt(9 * d)
    while True:
        x = float(generator.normal(1, dtype=np.float64)[0])
        y = 1 + c * x
        if y <= 0:
            continue
        v, u = y * y * y, 1 - generator.double()
        if u < 1 - 0.0331 * x**4 or math.log(u) < 0.5 * x * x + d * (1 - v + math.log(v)):
            return scale * d * v


def draw_gammas(alpha: Tensor) -> Tensor:
    """float64 numbers of these shapes, drawn one after another: by `draw_gamma`, or by a compiled loop."""
    loop = faster("gamma_loop", np, alpha.array.size)
    if loop is None:
        return from_doubles(draw_gamma, alpha)
    drawn = by_loop(default_generator, loop, alpha.array.ravel().astype(np.float64), words=5)
    return wrap(drawn.reshape(alpha.array.shape))


def gamma_slope(alpha: Any, x: Any, tolerance: float = 1e-16) -> Any:
    """dx / dalpha of a gamma number, its quantile held: -(dP/dalpha) / density (float64 arrays).

    The sum over x^n / ((alpha)(alpha + 1) ... (alpha + n)) of the lower incomplete gamma function,
    differentiated term by term; it needs about 9 sqrt(alpha) terms.
    """
    digamma = ops.digamma(wrap(alpha)).array + 1 / alpha  # of alpha + 1
    term, n = x / alpha, 0
    total = np.zeros_like(x)
    log_x = np.log(x)
    while True:
        step = term * (log_x - digamma)
        total -= step
        n += 1
        if n > 100 and n > 10 * np.max(alpha, initial=1) + 10 * np.max(x, initial=1):
            break
        below = np.abs(step) <= tolerance * np.abs(total)
        if np.all(below & (alpha + n > x)):
            break
        term = term * x / (alpha + n)
        digamma = digamma + 1 / (alpha + n)
    return total


class StandardGamma(Function):
    """Gamma numbers of rate 1 as a differentiable function of their shape parameter."""

    @staticmethod
    def forward(ctx: Any, alpha: Tensor) -> Tensor:
        drawn = draw_gammas(alpha).to(alpha.dtype).clamp(min=float(finfo(alpha).tiny))
        ctx.save_for_backward(alpha, drawn)
        return drawn

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        alpha, drawn = ctx.saved_tensors
        slope = gamma_slope(alpha.array.astype(np.float64), drawn.array.astype(np.float64))
        return grad * wrap(slope).to(grad.dtype)


class Gamma(Distribution):
    """rate^a x^(a - 1) exp(-rate x) / Gamma(a) with a = concentration, for x > 0."""

    arg_constraints = {"concentration": constraints.positive, "rate": constraints.positive}
    support = constraints.nonnegative
    has_rsample = True
    concentration: Tensor
    rate: Tensor

    def __init__(self, concentration: Any, rate: Any, validate_args: bool | None = None) -> None:
        self.concentration, self.rate = broadcast_all(concentration, rate)
        super().__init__(self.concentration.shape, validate_args=validate_args)

    @property
    def mean(self) -> Tensor:
        return self.concentration / self.rate

    @property
    def mode(self) -> Tensor:
        return ((self.concentration - 1) / self.rate).clamp(min=0)

    @property
    def variance(self) -> Tensor:
        return self.concentration / self.rate.pow(2)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        shape = self._extended_shape(sample_shape)
        value = StandardGamma.apply(self.concentration.expand(shape)) / self.rate.expand(shape)
        return value.clamp(min=float(finfo(value).tiny))

    def log_prob(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        a = self.concentration
        return xlogy(a, self.rate) + xlogy(a - 1, value) - self.rate * value - ops.lgamma(a)

    def entropy(self) -> Tensor:
        a = self.concentration
        return a - self.rate.log() + ops.lgamma(a) + (1.0 - a) * ops.digamma(a)


class Chi2(Gamma):
    """The sum of `df` squared standard normal numbers."""

    arg_constraints = {"df": constraints.positive}

    def __init__(self, df: Any, validate_args: bool | None = None) -> None:
        super().__init__(0.5 * df, 0.5, validate_args=validate_args)

    @property
    def df(self) -> Tensor:
        return self.concentration * 2
