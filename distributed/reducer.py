"""What follows a backward of DistributedDataParallel: which gradients are whole, and when their bucket leaves."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import numpy as np

from ..autograd.engine import queue_callback
from .buckets import WHO, Bucket, Run, bucket_runs, unused_text
from .group import Group


class JoinTurn(NamedTuple):
    """This rank's part in a step within `Join`: whether it still has inputs, and who counts in the mean."""

    active: bool
    divide_by_initial_world_size: bool


class Reducer:
    """Follows a backward: launches buckets as they fill, in the same order on all ranks, and waits at its end.

    The first backward tells in which order gradients come; buckets are filled in rank 0's order from then on.
    """

    def __init__(
        self,
        group: Group,
        named: list[tuple[str, Any]],
        cap_bytes: int,
        find_unused: bool,
        first_bytes: int | None = None,
    ) -> None:
        """first_bytes: a lower limit than cap_bytes for the first bucket."""
        self.group, self.named, self.find_unused = group, named, find_unused
        self.cap_bytes, self.first_bytes = cap_bytes, first_bytes
        self.active = True  # whether the backward of the latest forward is to be reduced
        self.hook: tuple[object, Callable[[Any, Any], Any]] | None = None
        self.samples: float | None = None  # that the losses since the last reduction are sums over
        self.turn: JoinTurn | None = None
        self.optimizer: Any = None  # that updates a bucket's parameters when their means are there
        self._next = 0  # the bucket to launch next
        self._queued = False
        self._order: list[int] | None = []  # parameters as they came in the first backward; then None
        self.buckets: list[Bucket] = []
        self._adopt(bucket_runs(named, cap_bytes, first_bytes))
        self._handles = [
            parameter.register_post_accumulate_grad_hook(_Arrival(self, index))
            for index, (_, parameter) in enumerate(named)
        ]

    def detach(self) -> None:
        """Lets go of the parameters: another reducer may take them."""
        for handle, (_, parameter) in zip(self._handles, self.named):
            handle.remove()
            parameter._grad_home = None

    def _adopt(self, runs: list[Run]) -> None:
        """Make buckets of these runs, and move the gradients there."""
        left, self.buckets, self._places = self.buckets, [], []
        for run in runs:
            bucket = Bucket(len(self.buckets), run, self.group)
            for position, (_, parameter) in enumerate(run):
                parameter._grad_home = bucket.homes[position]
                if parameter._grad is not None:
                    bucket.settle(position)
            self.buckets.append(bucket)
            # Memory that all gradients have left is given back now: the old and the new together would be a copy.
            left = [old for old in left if old.is_home()]
        place = {id(p): (b, i) for b in self.buckets for i, (_, p) in enumerate(b.parameters)}
        self._places = [place[id(p)] for _, p in self.named]

    def arrived(self, index: int) -> None:
        """The gradient of a parameter is whole."""
        bucket, position = self._places[index]
        bucket.settle(position)
        if not self.active:
            return
        if not self._queued:
            self._queued = True
            queue_callback(self.finish)
        if self._order is not None:
            self._order.append(index)
        bucket.waiting.discard(position)
        self._launch_full()
        self.group.advance()

    def finish(self, shadow: bool = False) -> None:
        """The backward has ended: see to parameters without a gradient, and wait for the means."""
        self._queued = False
        missing = [(b, i) for b in self.buckets for i in sorted(b.waiting)]
        unused: list[Any] = []
        try:
            if missing and not self.find_unused and not shadow:
                raise RuntimeError(unused_text([b.parameters[i][0] for b, i in missing]))
            if self.find_unused:
                used = np.array([p._grad is not None for _, p in self.named], np.uint8)
            for bucket, position in missing:
                self._stand_in(bucket, position)
            self._launch_full()
            if early := self._may_step_early() and not shadow:
                self._start(self.buckets[-1], async_op=True)
                self._step_as_they_come()
            else:
                for bucket in self.buckets[:-1]:
                    bucket.finish()
                self._start(self.buckets[-1], async_op=False)
                self.buckets[-1].finish()
            self._weigh()
            if self.find_unused:
                # Behind all buckets: when they were launched differs from rank to rank, their order does not.
                self.group.all_reduce(used, "max", name="which parameters took part")
                unused = [p for (_, p), flag in zip(self.named, used) if not flag]
        finally:
            self._next, self.samples = 0, None
            for bucket in self.buckets:
                bucket.reset()
        for parameter in unused:  # on every rank: they keep no gradient, so optimizers leave them alone
            parameter.grad = None
        if self.optimizer is not None and not early and not shadow:
            self.optimizer.step()
        self._follow_order()

    def shadow(self) -> None:
        """Take part in a step of the others with gradients of zero, and get their means."""
        for _, parameter in self.named:
            parameter._grad = None
        self.finish(shadow=True)

    def _may_step_early(self) -> bool:
        """Whether a bucket that has been reduced is all that the optimizer needs to know."""
        whole = self.samples is None and self.turn is None and not self.find_unused
        return self.optimizer is not None and whole

    def _step_as_they_come(self) -> None:
        """Update each bucket's parameters while those behind it are on their way."""
        for bucket in self.buckets:
            bucket.finish()
            self.group.advance()
            step_only(self.optimizer, [p for _, p in bucket.parameters])

    def _launch_full(self) -> None:
        # The last one waits for the end of backward: nothing is left to overlap with, and a thread only costs.
        while self._next < len(self.buckets) - 1 and not self.buckets[self._next].waiting:
            self._start(self.buckets[self._next], async_op=True)
            self._next += 1

    def _start(self, bucket: Bucket, async_op: bool) -> None:
        with self.group.overlapping():
            self._reduce(bucket, async_op)

    def _reduce(self, bucket: Bucket, async_op: bool) -> None:
        if self.hook is None:
            bucket.work = self.group.all_reduce(bucket.flat, "avg", async_op=async_op, name=bucket.label)
        else:
            from .hooks import GradBucket

            state, hook = self.hook
            bucket.work = hook(state, GradBucket(bucket, bucket is self.buckets[-1]))
            if not hasattr(bucket.work, "wait"):
                raise TypeError(
                    f"{WHO} a communication hook must return a Future of a tensor (hooks.Future), got "
                    f"{type(bucket.work).__name__}"
                )

    def _weigh(self) -> None:
        """From the mean over ranks to that over samples, or over the ranks that still have inputs."""
        if self.samples is None and self.turn is None:
            return
        active = self.turn is None or self.turn.active
        sums = np.array([self.samples or 0.0, self.samples is not None, active])
        self.group.all_reduce(sums, "sum", name="numbers of samples")
        samples, counted, ranks = sums.tolist()
        if counted and (counted != ranks or not samples > 0):
            raise RuntimeError(
                f"{WHO} count() must be called on all ranks, with numbers that add up to more than 0: came "
                f"{samples} samples from {counted:.0f} of {ranks:.0f} ranks"
            )
        if counted:
            factor = self.group.size / samples
        elif self.turn is not None and not self.turn.divide_by_initial_world_size:
            factor = self.group.size / ranks
        else:
            return
        for bucket in self.buckets:
            if isinstance(bucket.flat, np.ndarray):
                np.multiply(bucket.flat, factor, out=bucket.flat, casting="unsafe")
            else:
                bucket.flat *= factor

    def _follow_order(self) -> None:
        if self._order is None:
            return
        order, self._order = self._order, None
        if self.find_unused or self.group.size == 1 or len(self.buckets) == 1:
            return
        # Without duplicates, which a first backward that failed leaves; what did not come keeps its order.
        agreed = np.array([*dict.fromkeys([*order, *reversed(range(len(self.named)))])], np.int64)
        self.group.broadcast(agreed, 0, name="order of gradients")
        runs = bucket_runs([self.named[i] for i in agreed[::-1]], self.cap_bytes, self.first_bytes)
        if _members(runs) != _members([bucket.parameters for bucket in self.buckets]):
            self._adopt(runs)

    @staticmethod
    def _stand_in(bucket: Bucket, position: int) -> None:
        """No gradient came in this backward: what earlier ones left counts, else zero."""
        parameter, home = bucket.parameters[position][1], bucket.homes[position]
        if parameter._grad is None:
            home.array[...] = 0
            parameter._grad = home
        else:
            bucket.settle(position)
        bucket.waiting.discard(position)


def _members(runs: list[Run]) -> list[set[str]]:
    return [{name for name, _ in run} for run in runs]


def step_only(optimizer: Any, some: Iterable[Any]) -> None:
    """Update these parameters and no others: what has no gradient an optimizer leaves alone."""
    chosen = set(map(id, some))
    every = [p for group in optimizer.param_groups for p in group["params"]]
    hidden = [(p, p._grad) for p in every if p._grad is not None and id(p) not in chosen]
    for parameter, _ in hidden:
        parameter._grad = None
    try:
        optimizer.step()
    finally:
        for parameter, grad in hidden:
            parameter._grad = grad


class _Arrival:
    """The hook of one parameter. A slotted object: there are as many as parameters, and they stay."""

    __slots__ = ("index", "reducer")

    def __init__(self, reducer: Reducer, index: int) -> None:
        self.reducer, self.index = reducer, index

    def __call__(self, parameter: Any) -> None:
        self.reducer.arrived(self.index)
