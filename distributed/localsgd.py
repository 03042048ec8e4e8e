"""Post-local SGD: ranks average gradients at first, then update for themselves and average parameters now and then.

T. Lin, S. Stich, K. Patel, M. Jaggi, "Don't Use Large Mini-Batches, Use Local SGD", ICLR 2020 (arXiv:1808.07217).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import numpy as np

from ..optim.optimizer import Optimizer
from .group import Group
from .hooks import Future, GradBucket, mean
from .process_group import world_group


class PostLocalSGDState:
    """State of post_localSGD_hook.

    process_group: ranks that average gradients in the first start_localSGD_iter steps (default all). subgroup:
    those that do later, such as the ranks of one host; None: each rank for itself.
    post_local_gradient_allreduce: False leaves gradients local later even with a subgroup.
    """

    def __init__(
        self,
        process_group: Group | None = None,
        subgroup: Group | None = None,
        start_localSGD_iter: int = 100,
        post_local_gradient_allreduce: bool = True,
    ) -> None:
        if start_localSGD_iter < 0:
            raise ValueError(
                f"[PostLocalSGDState] start_localSGD_iter must be at least 0, got {start_localSGD_iter}"
            )
        self.process_group, self.subgroup = process_group, subgroup
        self.start_localSGD_iter = start_localSGD_iter
        self.post_local_gradient_allreduce = post_local_gradient_allreduce
        self.iter = 0


def post_localSGD_hook(state: PostLocalSGDState, bucket: GradBucket) -> Future[Any]:
    """The mean over all ranks in the first steps, then over the subgroup. Needs a PeriodicModelAverager beside it."""
    step = state.iter
    if bucket.is_last():
        state.iter += 1
    if step < state.start_localSGD_iter:
        return mean(world_group(state.process_group), bucket.buffer().array)
    if state.subgroup is None or not state.post_local_gradient_allreduce:
        return Future.completed(bucket.buffer())
    return mean(state.subgroup, bucket.buffer().array)


class PeriodicModelAverager:
    """Averages parameters over ranks every `period` steps, from step warmup_steps on."""

    def __init__(self, period: int, warmup_steps: int = 0, process_group: Group | None = None) -> None:
        if period < 1 or warmup_steps < 0:
            raise ValueError(
                "[PeriodicModelAverager] period must be at least 1 and warmup_steps at least 0, got "
                f"{period} and {warmup_steps}"
            )
        self.period, self.warmup_steps, self.step = period, warmup_steps, 0
        self.process_group = world_group(process_group, "PeriodicModelAverager")

    def average_parameters(self, params: Iterable[Any]) -> None:
        """Call after each update. params: tensors, or an optimizer's groups of them."""
        if self.step >= self.warmup_steps and (self.step - self.warmup_steps) % self.period == 0:
            average(self.process_group, _tensors(params))
        self.step += 1


def _tensors(params: Iterable[Any]) -> list[Any]:
    return [p for item in params for p in (item["params"] if isinstance(item, dict) else [item])]


def average(group: Group, tensors: list[Any]) -> None:
    """Replace tensors by their mean over all ranks, in one message a dtype."""
    by_dtype: dict[np.dtype, list[Any]] = {}
    for tensor in tensors:
        by_dtype.setdefault(tensor.array.dtype, []).append(tensor)
    for same in by_dtype.values():
        flat, at = np.concatenate([t.array.reshape(-1) for t in same]), 0
        group.all_reduce(flat, "avg", name="parameters")
        for tensor in same:
            tensor.array[...] = flat[at : at + tensor.array.size].reshape(tensor.array.shape)
            tensor._version[0] += 1
            at += tensor.array.size


class PostLocalSGDOptimizer(Optimizer):
    """`optim`, with the parameters averaged by `averager` after its steps."""

    def __init__(self, optim: Optimizer, averager: PeriodicModelAverager) -> None:
        self.optim, self.averager = optim, averager
        super().__init__(optim.param_groups, optim.defaults)
        self.param_groups, self.state = optim.param_groups, optim.state

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Update, then average where it is time; returns what `closure` returns."""
        loss = self.optim.step(closure)
        self.averager.average_parameters(self.param_groups)
        return loss

    def state_dict(self) -> dict[str, Any]:
        """That of `optim`, and the averager's step."""
        return {**self.optim.state_dict(), "step": self.averager.step}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes a state_dict; one without a step starts the averager again."""
        self.optim.load_state_dict({k: v for k, v in state_dict.items() if k != "step"})
        self.param_groups, self.state = self.optim.param_groups, self.optim.state
        self.averager.step = state_dict.get("step", 0)
