"""Mixtures of distributions of one kind."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..autograd import no_grad
from ..tensor import Tensor
from .categorical import Categorical
from .distribution import Distribution


class MixtureSameFamily(Distribution):
    """One of the distributions along the last batch dimension of `component_distribution`, chosen by a Categorical."""

    def __init__(
        self,
        mixture_distribution: Categorical,
        component_distribution: Distribution,
        validate_args: bool | None = None,
    ) -> None:
        for name, value, kind in (
            ("mixture_distribution", mixture_distribution, Categorical),
            ("component_distribution", component_distribution, Distribution),
        ):
            if not isinstance(value, kind):
                raise ValueError(
                    f"[MixtureSameFamily] {name} must be a {kind.__name__}, came {type(value).__name__}"
                )
        batch = component_distribution.batch_shape
        count = mixture_distribution._num_events
        if not batch or batch[-1] != count:
            raise ValueError(
                f"[MixtureSameFamily] the last batch dimension of the components must be the {count} of the"
                f" mixture, came batch shape {list(batch)}"
            )
        self.mixture_distribution, self.component_distribution = mixture_distribution, component_distribution
        events = component_distribution.event_shape
        self._num_component, self._event_ndims = count, len(events)
        super().__init__(batch[:-1], events, validate_args)

    @property
    def support(self) -> Any:
        return self.component_distribution.support

    def _weights(self) -> Tensor:
        probs = self.mixture_distribution.probs
        return probs.reshape(*probs.shape, *(1,) * self._event_ndims)

    @property
    def mean(self) -> Tensor:
        return (self._weights() * self.component_distribution.mean).sum(-1 - self._event_ndims)

    @property
    def variance(self) -> Tensor:
        dim = -1 - self._event_ndims
        within = (self._weights() * self.component_distribution.variance).sum(dim)
        distance = self.component_distribution.mean - self.mean.unsqueeze(dim)
        return within + (self._weights() * distance.pow(2)).sum(dim)

    def _spread(self, value: Tensor) -> Tensor:
        return value.unsqueeze(-1 - self._event_ndims)

    def cdf(self, value: Tensor) -> Tensor:
        return (self.component_distribution.cdf(self._spread(value)) * self.mixture_distribution.probs).sum(
            -1
        )

    def log_prob(self, value: Tensor) -> Tensor:
        log_prob = self.component_distribution.log_prob(self._spread(value))
        return (log_prob + self.mixture_distribution.logits.log_softmax(-1)).logsumexp(-1)

    def sample(self, sample_shape: Sequence[int] = ()) -> Tensor:
        with no_grad():
            dim = len(tuple(sample_shape)) + len(self._batch_shape)
            chosen = self.mixture_distribution.sample(sample_shape)
            drawn = self.component_distribution.sample(sample_shape)
            index = chosen.reshape(*chosen.shape, *(1,) * (self._event_ndims + 1))
            shape = (*drawn.shape[:dim], 1, *drawn.shape[dim + 1 :])
            return drawn.gather(dim, index.expand(shape)).squeeze(dim)

    def __repr__(self) -> str:
        return f"MixtureSameFamily(\n  {self.mixture_distribution},\n  {self.component_distribution})"
