"""The Dirichlet and beta distributions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..autograd import Function, once_differentiable
from ..autograd.engine import wrap
from ..autograd.op import tensor_namespace as ops
from ..tensor import Tensor, functions
from . import constraints
from .distribution import Distribution
from .gamma import draw_gammas, gamma_slope
from .utils import broadcast_all, xlogy


class Shares(Function):
    """Gamma numbers divided by their sum along the last dimension.

    The gradient is that of the gamma numbers at fixed quantiles. PyTorch differentiates the beta marginals
    instead: another estimate of the same expected gradient, so single numbers differ.
    """

    @staticmethod
    def forward(ctx: Any, alpha: Tensor) -> Tensor:
        drawn = draw_gammas(alpha).array
        drawn = np.maximum(drawn, np.finfo(np.float64).tiny)
        total = drawn.sum(-1, keepdims=True)
        y = wrap((drawn / total).astype(alpha.array.dtype))
        limits = np.finfo(y.array.dtype)
        y = y.clamp(min=float(limits.tiny), max=1 - float(limits.epsneg))
        ctx.save_for_backward(alpha, wrap(drawn), wrap(total), y)
        return y

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        alpha, drawn, total, y = (t.array for t in ctx.saved_tensors)
        slope = gamma_slope(alpha.astype(np.float64), drawn) / total
        g = grad.array
        return wrap((slope * (g - (g * y).sum(-1, keepdims=True))).astype(g.dtype))


class Dirichlet(Distribution):
    """Points of the simplex, with density proportional to the product of x_i^(a_i - 1), a = concentration."""

    arg_constraints = {"concentration": constraints.independent(constraints.positive, 1)}
    support = constraints.simplex
    has_rsample = True
    concentration: Tensor

    def __init__(self, concentration: Tensor, validate_args: bool | None = None) -> None:
        if concentration.dim() < 1:
            raise ValueError("[Dirichlet] concentration must have at least one dimension, came a 0-d tensor")
        self.concentration = concentration
        super().__init__(concentration.shape[:-1], concentration.shape[-1:], validate_args)

    @property
    def mean(self) -> Tensor:
        return self.concentration / self.concentration.sum(-1, keepdim=True)

    @property
    def mode(self) -> Tensor:
        less = (self.concentration - 1).clamp(min=0.0)
        found = less / less.sum(-1, keepdim=True)
        corner = (self.concentration < 1).all(-1, keepdim=True)
        first = wrap(np.arange(self.concentration.shape[-1]) == 0)  # all corners are modes: PyTorch's choice
        return ops.where(corner, first.to(found.dtype), found)

    @property
    def variance(self) -> Tensor:
        total = self.concentration.sum(-1, keepdim=True)
        return self.concentration * (total - self.concentration) / (total.pow(2) * (total + 1))

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return Shares.apply(self.concentration.expand(self._extended_shape(sample_shape)))

    def log_prob(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        a = self.concentration
        return xlogy(a - 1.0, value).sum(-1) + ops.lgamma(a.sum(-1)) - ops.lgamma(a).sum(-1)

    def entropy(self) -> Tensor:
        a, k = self.concentration, self.concentration.shape[-1]
        total = a.sum(-1)
        end = ((a - 1.0) * ops.digamma(a)).sum(-1)
        return ops.lgamma(a).sum(-1) - ops.lgamma(total) - (k - total) * ops.digamma(total) - end


class Beta(Distribution):
    """x^(a - 1) (1 - x)^(b - 1) / B(a, b) in [0, 1], with a = concentration1 and b = concentration0."""

    arg_constraints = {"concentration1": constraints.positive, "concentration0": constraints.positive}
    support = constraints.unit_interval
    has_rsample = True

    def __init__(self, concentration1: Any, concentration0: Any, validate_args: bool | None = None) -> None:
        both = broadcast_all(concentration1, concentration0)
        self._dirichlet = Dirichlet(functions.stack(both, -1), validate_args=False)
        super().__init__(self._dirichlet.batch_shape, validate_args=validate_args)
        if self._validate_args and not (self._dirichlet.concentration > 0).all():
            raise ValueError(
                f"[Beta] both concentrations must be positive, came {concentration1} and {concentration0}"
            )

    @property
    def concentration1(self) -> Tensor:
        return self._dirichlet.concentration[..., 0]

    @property
    def concentration0(self) -> Tensor:
        return self._dirichlet.concentration[..., 1]

    @property
    def mean(self) -> Tensor:
        return self.concentration1 / (self.concentration1 + self.concentration0)

    @property
    def mode(self) -> Tensor:
        return self._dirichlet.mode[..., 0]

    @property
    def variance(self) -> Tensor:
        total = self.concentration1 + self.concentration0
        return self.concentration1 * self.concentration0 / (total.pow(2) * (total + 1))

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return self._dirichlet.rsample(sample_shape).select(-1, 0)

    def log_prob(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        return self._dirichlet.log_prob(functions.stack((value, 1.0 - value), -1))

    def entropy(self) -> Tensor:
        return self._dirichlet.entropy()

    def __repr__(self) -> str:
        return f"Beta(concentration1: {self.concentration1}, concentration0: {self.concentration0})"
