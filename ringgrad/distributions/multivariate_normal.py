"""The multivariate normal distribution."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..autograd.op import tensor_namespace as ops
from ..tensor import Size, Tensor, creation
from . import constraints
from .distribution import Distribution
from .utils import LOG_2PI, lazy_property, one_of, standard_normal


def times(matrix: Tensor, vector: Tensor) -> Tensor:
    """Matrix times vector, both with batch dimensions."""
    return ops.matmul(matrix, vector.unsqueeze(-1)).squeeze(-1)


def solve_lower(lower: Tensor, right: Tensor) -> Tensor:
    """X of lower X = right, for lower triangular matrices with batch dimensions."""
    from .. import linalg

    return linalg.solve_triangular(lower, right, upper=False)


def cholesky(a: Tensor) -> Tensor:
    """The lower triangular L with L L^T = a."""
    from .. import linalg

    return linalg.cholesky(a)


class MultivariateNormal(Distribution):
    """Mean `loc` [..., n] and one of: covariance, its inverse, or its lower Cholesky factor, [..., n, n]."""

    arg_constraints = {
        "loc": constraints.real_vector,
        "covariance_matrix": constraints.positive_definite,
        "precision_matrix": constraints.positive_definite,
        "scale_tril": constraints.lower_cholesky,
    }
    support = constraints.real_vector
    has_rsample = True
    loc: Tensor

    def __init__(
        self,
        loc: Tensor,
        covariance_matrix: Any = None,
        precision_matrix: Any = None,
        scale_tril: Any = None,
        validate_args: bool | None = None,
    ) -> None:
        if loc.dim() < 1:
            raise ValueError("[MultivariateNormal] loc must have at least one dimension, came a 0-d tensor")
        forms: dict[str, Any] = {
            "covariance_matrix": covariance_matrix,
            "precision_matrix": precision_matrix,
            "scale_tril": scale_tril,
        }
        name = one_of("MultivariateNormal", **forms)
        matrix = forms[name]
        if matrix.dim() < 2:
            raise ValueError(
                f"[MultivariateNormal] {name} must have at least two dimensions, came {matrix.dim()}"
            )
        batch = Size(np.broadcast_shapes(tuple(matrix.shape[:-2]), tuple(loc.shape[:-1])))
        self.loc = loc.expand(batch + (-1,))
        self.__dict__[name] = matrix.expand(batch + (-1, -1))
        super().__init__(batch, loc.shape[-1:], validate_args)

    @lazy_property
    def scale_tril(self) -> Tensor:
        if "covariance_matrix" in self.__dict__:
            return cholesky(self.covariance_matrix)
        # P = L L^T with the order of rows and columns turned gives the factor of the inverse directly
        turned = cholesky(self.precision_matrix.flip((-2, -1)))
        inverse = turned.flip((-2, -1)).transpose(-2, -1)
        return solve_lower(inverse, self._identity())

    @lazy_property
    def covariance_matrix(self) -> Tensor:
        return ops.matmul(self.scale_tril, self.scale_tril.transpose(-2, -1))

    @lazy_property
    def precision_matrix(self) -> Tensor:
        inverse = solve_lower(self.scale_tril, self._identity())
        return ops.matmul(inverse.transpose(-2, -1), inverse)

    def _identity(self) -> Tensor:
        n = self._event_shape[0]
        return creation.eye(n, dtype=self.loc.dtype).expand(self._batch_shape + (n, n))

    @property
    def mean(self) -> Tensor:
        return self.loc

    mode = mean

    @property
    def variance(self) -> Tensor:
        return self.scale_tril.pow(2).sum(-1)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        return self.loc + times(
            self.scale_tril, standard_normal(self._extended_shape(sample_shape), self.loc)
        )

    def _half_log_det(self) -> Tensor:
        return self.scale_tril.diagonal(dim1=-2, dim2=-1).log().sum(-1)

    def log_prob(self, value: Tensor) -> Tensor:
        self._validate_sample(value)
        difference = (value - self.loc).unsqueeze(-1)
        n = self._event_shape[0]
        shape = (*difference.shape[:-2], n, n)
        distance = solve_lower(self.scale_tril.expand(shape), difference).pow(2).sum((-2, -1))
        return -0.5 * (n * LOG_2PI + distance) - self._half_log_det()

    def entropy(self) -> Tensor:
        return 0.5 * self._event_shape[0] * (1.0 + LOG_2PI) + self._half_log_det()
