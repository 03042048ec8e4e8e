"""The base class of probability distributions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..autograd import no_grad
from ..autograd.engine import Variable
from ..tensor import Size, Tensor
from . import constraints


class Distribution:
    """A distribution over events of `event_shape`, one for each element of `batch_shape`.

    A sample has the shape [*sample_shape, *batch_shape, *event_shape]. Subclasses name their parameters in
    `arg_constraints` and keep them, as tensors that start with the batch shape, under the same names.
    """

    has_rsample = False
    has_enumerate_support = False
    _validate_args: bool = __debug__
    arg_constraints: Any = {}
    support: Any = None

    @staticmethod
    def set_default_validate_args(value: bool) -> None:
        """Whether distributions check their parameters and values unless told otherwise."""
        if not isinstance(value, bool):
            raise ValueError(f"[set_default_validate_args] value must be a bool, came {value!r}")
        Distribution._validate_args = value

    def __init__(
        self,
        batch_shape: Sequence[int] = (),
        event_shape: Sequence[int] = (),
        validate_args: bool | None = None,
    ) -> None:
        self._batch_shape, self._event_shape = Size(batch_shape), Size(event_shape)
        if validate_args is not None:
            self._validate_args = validate_args
        if not self._validate_args:
            return
        for name, constraint in self.arg_constraints.items():
            value = self.__dict__.get(name)  # a parameter that follows from another is not checked
            if constraints.is_dependent(constraint) or not isinstance(value, Variable):
                continue
            if not constraint.check(value).all():
                raise ValueError(
                    f"[{type(self).__name__}] parameter {name} must satisfy {constraint} everywhere, came {value}"
                )

    # ---- what it is

    @property
    def batch_shape(self) -> Size:
        return self._batch_shape

    @property
    def event_shape(self) -> Size:
        return self._event_shape

    @property
    def mean(self) -> Tensor:
        raise NotImplementedError(f"[{type(self).__name__}] has no mean in closed form")

    @property
    def mode(self) -> Tensor:
        raise NotImplementedError(f"[{type(self).__name__}] has no mode in closed form")

    @property
    def variance(self) -> Tensor:
        raise NotImplementedError(f"[{type(self).__name__}] has no variance in closed form")

    @property
    def stddev(self) -> Tensor:
        return self.variance.sqrt()

    def expand(self, batch_shape: Sequence[int], _instance: Any = None) -> Any:
        """The same distribution for a larger batch; parameters are views."""
        new: Any = object.__new__(type(self)) if _instance is None else _instance
        old, size = self._batch_shape, Size(batch_shape)
        for name, value in self.__dict__.items():
            if isinstance(value, Variable):
                value = value.expand(size + tuple(value.shape)[len(old) :])
            elif isinstance(value, Distribution):
                value = value.expand(size + value.batch_shape[len(old) :])
            new.__dict__[name] = value
        new._batch_shape = size
        return new

    # ---- what it does

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Values drawn from the distribution, without gradients."""
        with no_grad():
            return self.rsample(sample_shape)

    def rsample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        """Values drawn as a differentiable function of the parameters."""
        raise NotImplementedError(f"[{type(self).__name__}] draws cannot be differentiated: use sample()")

    def sample_n(self, n: int) -> Tensor:
        """`sample((n,))`, its older name."""
        return self.sample((n,))

    def log_prob(self, value: Tensor) -> Tensor:
        """The logarithm of the density or probability at `value`: shape [*sample_shape, *batch_shape]."""
        raise NotImplementedError(f"[{type(self).__name__}] has no log_prob")

    def cdf(self, value: Tensor) -> Tensor:
        """The probability of at most `value`."""
        raise NotImplementedError(f"[{type(self).__name__}] has no cdf in closed form")

    def icdf(self, value: Tensor) -> Tensor:
        """The value at which the cdf is `value`."""
        raise NotImplementedError(f"[{type(self).__name__}] has no icdf in closed form")

    def entropy(self) -> Tensor:
        """The differential or Shannon entropy in nats: shape `batch_shape`."""
        raise NotImplementedError(f"[{type(self).__name__}] has no entropy in closed form")

    def perplexity(self) -> Tensor:
        """exp of the entropy."""
        return self.entropy().exp()

    def enumerate_support(self, expand: bool = True) -> Tensor:
        """All values of a discrete distribution along a new first dimension."""
        raise NotImplementedError(f"[{type(self).__name__}] does not enumerate its values")

    # ---- for subclasses

    def _extended_shape(self, sample_shape: Sequence[int] = ()) -> Size:
        return Size((*sample_shape, *self._batch_shape, *self._event_shape))

    def _enumerated(self, values: Tensor, expand: bool) -> Tensor:
        values = values.reshape(-1, *(1,) * len(self._batch_shape))
        return values.expand((-1, *self._batch_shape)) if expand else values

    def _validate_sample(self, value: Any) -> None:
        """ValueError unless `value` fits the shapes and lies in the support."""
        if not self._validate_args:
            return
        who = type(self).__name__
        if not isinstance(value, Variable):
            raise ValueError(f"[{who}] value must be a Tensor, came {type(value).__name__}")
        shape, mine = tuple(value.shape), self._batch_shape + self._event_shape
        events = len(self._event_shape)
        try:
            fits = shape[len(shape) - events :] == tuple(self._event_shape)
            np.broadcast_shapes(shape, mine)
        except ValueError:
            fits = False
        if not fits:
            raise ValueError(
                f"[{who}] value must fit batch shape {list(self._batch_shape)} and event shape"
                f" {list(self._event_shape)}, came {list(shape)}"
            )
        support = self.support
        if support is not None and not constraints.is_dependent(support) and not support.check(value).all():
            raise ValueError(f"[{who}] value must lie in the support {support}, came {value}")

    def __repr__(self) -> str:
        found = [(n, self.__dict__[n]) for n in self.arg_constraints if n in self.__dict__]
        texts = [f"{n}: {v if v.numel() == 1 else v.size()}" for n, v in found]
        return f"{type(self).__name__}({', '.join(texts)})"
