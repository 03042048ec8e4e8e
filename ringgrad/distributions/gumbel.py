"""The Gumbel distribution."""

from __future__ import annotations

import math
from typing import Any

from ..tensor import Tensor, creation
from . import constraints
from .transformed_distribution import TransformedDistribution
from .transforms import AffineTransform, ExpTransform
from .uniform import Uniform
from .utils import EULER, broadcast_all, finfo


class Gumbel(TransformedDistribution):
    """loc - scale log(-log u) with u uniform in (0, 1)."""

    arg_constraints = {"loc": constraints.real, "scale": constraints.positive}
    support: Any = constraints.real
    loc: Tensor
    scale: Tensor

    def __init__(self, loc: Any, scale: Any, validate_args: bool | None = None) -> None:
        self.loc, self.scale = broadcast_all(loc, scale)
        limits = finfo(self.loc)
        low = creation.full_like(self.loc.detach(), float(limits.tiny))
        base = Uniform(low, creation.full_like(low, 1 - float(limits.eps)), validate_args=validate_args)
        log = ExpTransform().inv
        steps = [log, AffineTransform(0, -creation.ones_like(self.scale.detach())), log]
        super().__init__(base, [*steps, AffineTransform(self.loc, -self.scale)], validate_args)

    def expand(self, batch_shape: Any, _instance: Any = None) -> Gumbel:
        return Gumbel(self.loc.expand(batch_shape), self.scale.expand(batch_shape), self._validate_args)

    @property
    def mean(self) -> Tensor:
        return self.loc + self.scale * EULER

    @property
    def mode(self) -> Tensor:
        return self.loc

    @property
    def stddev(self) -> Tensor:
        return math.pi / math.sqrt(6) * self.scale

    @property
    def variance(self) -> Tensor:
        return self.stddev.pow(2)

    def log_prob(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        y = (self.loc - value) / self.scale
        return (y - y.exp()) - self.scale.log()

    def entropy(self) -> Tensor:
        return self.scale.log() + (1 + EULER)
