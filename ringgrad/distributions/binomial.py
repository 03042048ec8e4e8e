"""The binomial distribution."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ..autograd import no_grad
from ..autograd.op import tensor_namespace as ops
from ..tensor import Tensor, creation, functions
from . import constraints
from .distribution import Distribution
from .utils import (
    broadcast_all,
    from_doubles,
    lazy_property,
    logits_to_probs,
    one_of,
    probs_to_logits,
)


def draw_binomial(generator: Any, count: float, p: float) -> float:
    """Successes of `count` trials; PyTorch's number with the same generator."""
    if count <= 0 or p <= 0:
        return 0.0
    if p >= 1:
        return count
    if p > 0.5:
        return count - draw_binomial(generator, count, 1 - p)
    return (_by_rejection if count * p >= 10 else _by_waiting)(generator, count, p)


def _by_waiting(generator: Any, count: float, p: float) -> float:
    """Adds up geometric waiting times until the trials are used up."""
    trials, successes, log_failure = 0.0, 0.0, math.log1p(-p)
    while True:
        u = generator.double()
        trials += math.ceil(math.log(u) / log_failure) if u > 0 else math.inf
        if trials > count:
            return successes
        successes += 1


def _by_rejection(generator: Any, count: float, p: float) -> float:
    """Transformed rejection: BTRS of Hoermann 1993, doi:10.1080/00949659308811496."""
    stddev = math.sqrt(count * p * (1 - p))
    b = 1.15 + 2.53 * stddev
    a = -0.0873 + 0.0248 * b + 0.01 * p
    c, v_r, alpha = count * p + 0.5, 0.92 - 4.2 / b, (2.83 + 5.1 / b) * stddev
    mode = math.floor((count + 1) * p)

    def log_mass(k: float) -> float:
        ways = -math.lgamma(k + 1) - math.lgamma(count - k + 1)
        return ways + k * math.log(p / (1 - p))

    while True:
        u, v = generator.double() - 0.5, generator.double()
        distance = 0.5 - abs(u)
        if distance == 0:
            continue
        k = math.floor((2 * a / distance + b) * u + c)
        if k < 0 or k > count:
            continue
        if distance >= 0.07 and v <= v_r:
            return k
        ratio = v * alpha / (a / distance**2 + b)
        if ratio <= 0 or math.log(ratio) <= log_mass(k) - log_mass(mode):
            return k


class Binomial(Distribution):
    """Successes of `total_count` trials that succeed with probability `probs` = sigmoid(logits) each."""

    arg_constraints = {
        "total_count": constraints.nonnegative_integer,
        "probs": constraints.unit_interval,
        "logits": constraints.real,
    }
    has_enumerate_support = True
    total_count: Tensor

    def __init__(
        self, total_count: Any = 1, probs: Any = None, logits: Any = None, validate_args: bool | None = None
    ) -> None:
        name = one_of("Binomial", probs=probs, logits=logits)
        both = broadcast_all(total_count, probs if logits is None else logits)
        self.__dict__[name] = both[1]
        self.total_count = both[0].type_as(both[1])
        super().__init__(both[1].shape, validate_args=validate_args)

    @lazy_property
    def probs(self) -> Tensor:
        return logits_to_probs(self.logits, is_binary=True)

    @lazy_property
    def logits(self) -> Tensor:
        return probs_to_logits(self.probs, is_binary=True)

    @constraints.dependent_property(is_discrete=True)
    def support(self) -> Any:
        return constraints.integer_interval(0, self.total_count)

    @property
    def mean(self) -> Tensor:
        return self.total_count * self.probs

    @property
    def mode(self) -> Tensor:
        return functions.minimum(((self.total_count + 1) * self.probs).floor(), self.total_count)

    @property
    def variance(self) -> Tensor:
        return self.total_count * self.probs * (1 - self.probs)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        shape = self._extended_shape(sample_shape)
        with no_grad():
            drawn = from_doubles(draw_binomial, self.total_count.expand(shape), self.probs.expand(shape))
            return drawn.to(self.probs.dtype)

    def log_prob(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        n, x = self.total_count, self.logits
        ways = ops.lgamma(n + 1) - ops.lgamma(value + 1) - ops.lgamma(n - value + 1)
        normalizer = n * (x.clamp(min=0) + (-x.abs()).exp().log1p())  # n log(1 + exp(x)) without overflow
        return value * x + ways - normalizer

    def entropy(self) -> Tensor:
        values = self.enumerate_support(expand=False)
        log_prob = self.log_prob(values)
        return -(log_prob.exp() * log_prob).sum(0)

    def enumerate_support(self, expand: bool = True) -> Tensor:
        n = int(self.total_count.max())
        if int(self.total_count.min()) != n:
            raise NotImplementedError("[Binomial] values can be enumerated where all total_count are equal")
        return self._enumerated(creation.arange(n + 1, dtype=self.total_count.dtype), expand)
