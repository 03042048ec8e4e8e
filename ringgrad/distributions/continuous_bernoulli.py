"""The continuous Bernoulli distribution (Loaiza-Ganem and Cunningham 2019, arXiv:1907.06845)."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..autograd.op import tensor_namespace as ops
from ..nn import functional as F
from ..tensor import Tensor
from . import constraints
from .distribution import Distribution
from .utils import (
    broadcast_all,
    clamp_probs,
    lazy_property,
    logits_to_probs,
    one_of,
    probs_to_logits,
    standard_uniform,
)


class ContinuousBernoulli(Distribution):
    """C(p) p^x (1 - p)^(1 - x) for x in [0, 1]. Between the two `lims`, where C is 0/0, series stand in."""

    arg_constraints = {"probs": constraints.unit_interval, "logits": constraints.real}
    support = constraints.unit_interval
    has_rsample = True

    def __init__(
        self,
        probs: Any = None,
        logits: Any = None,
        lims: tuple[float, float] = (0.499, 0.501),
        validate_args: bool | None = None,
    ) -> None:
        name = one_of("ContinuousBernoulli", probs=probs, logits=logits)
        (given,) = broadcast_all(probs if logits is None else logits)
        if probs is not None:
            if validate_args is not False and not constraints.unit_interval.check(given).all():
                raise ValueError(f"[ContinuousBernoulli] probs must lie in [0, 1], came {probs}")
            given = clamp_probs(given)
        self.__dict__[name] = given
        self._lims = lims
        super().__init__(given.shape, validate_args=validate_args)

    @lazy_property
    def probs(self) -> Tensor:
        return clamp_probs(logits_to_probs(self.logits, is_binary=True))

    @lazy_property
    def logits(self) -> Tensor:
        return probs_to_logits(self.probs, is_binary=True)

    @property
    def _outside(self) -> Tensor:
        return (self.probs <= self._lims[0]) | (self.probs > self._lims[1])

    @property
    def _cut(self) -> Tensor:
        """probs, moved off the middle where the closed forms fail."""
        return ops.where(self._outside, self.probs, self._lims[0] * self.probs.detach() / self.probs.detach())

    def _log_constant(self) -> Tensor:
        cut = self._cut
        low = cut.clamp(max=0.5)
        high = cut.clamp(min=0.5)
        size = ((-cut).log1p() - cut.log()).abs().log()
        size = size - ops.where(cut <= 0.5, (-2.0 * low).log1p(), (2.0 * high - 1.0).log())
        x = (self.probs - 0.5) ** 2
        return ops.where(self._outside, size, math.log(2.0) + (4.0 / 3.0 + 104.0 / 45.0 * x) * x)

    @property
    def mean(self) -> Tensor:
        cut = self._cut
        mean = cut / (2.0 * cut - 1.0) + 1.0 / ((-cut).log1p() - cut.log())
        x = self.probs - 0.5
        return ops.where(self._outside, mean, 0.5 + (1.0 / 3.0 + 16.0 / 45.0 * x**2) * x)

    @property
    def variance(self) -> Tensor:
        cut = self._cut
        found = cut * (cut - 1.0) / (1.0 - 2.0 * cut) ** 2 + 1.0 / ((-cut).log1p() - cut.log()) ** 2
        x = (self.probs - 0.5) ** 2
        return ops.where(self._outside, found, 1.0 / 12.0 - (1.0 / 15.0 - 128.0 / 945.0 * x) * x)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return self.icdf(standard_uniform(self._extended_shape(sample_shape), self.probs))

    def log_prob(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        logits, value = broadcast_all(self.logits, value)
        return -F.binary_cross_entropy_with_logits(logits, value, reduction="none") + self._log_constant()

    def cdf(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        cut = self._cut
        found = (cut**value * (1.0 - cut) ** (1.0 - value) + cut - 1.0) / (2.0 * cut - 1.0)
        inner = ops.where(self._outside, found, value)
        return ops.where(value <= 0, value * 0, ops.where(value >= 1, value * 0 + 1, inner))

    def icdf(self, value: Tensor) -> Tensor:
        cut = self._cut
        top = (-cut + value * (2.0 * cut - 1.0)).log1p() - (-cut).log1p()
        return ops.where(self._outside, top / (cut.log() - (-cut).log1p()), value)

    def entropy(self) -> Tensor:
        failure = (-self.probs).log1p()
        return self.mean * (failure - self.probs.log()) - self._log_constant() - failure
