"""Sums over the shards of a batch by a fixed tree, which is the same for any number of ranks.

Pairs of neighbours are added up, then pairs of pairs and so on, by the numbers of the shards. A rank adds up the
subtrees within its own run of shards; then each rank gets its slice of all ranks' subtrees, adds these up by the
same tree, and all gather the slices: as many bytes as a ring for a run that is one subtree, at most a few
times as many where it is several.
"""

from __future__ import annotations

from itertools import pairwise
from typing import Any

import numpy as np

from .buckets import WHO, Bucket, make_buckets, unused_text
from .group import Group
from .plan import bounds
from .reduction import accumulator
from .work import Work


class Tree:
    """Sums arrays that come in order of their place: two halves of an aligned block as soon as both are there.

    An array at (level, index) stands for the places from index * 2**level up to (index + 1) * 2**level.
    """

    def __init__(self) -> None:
        self.nodes: list[tuple[int, int, np.ndarray]] = []

    def push(self, level: int, index: int, array: np.ndarray) -> list[np.ndarray]:
        """Take `array` and give back those that are not needed any more; sums are made in place."""
        self.nodes.append((level, index, array))
        free = []
        while len(self.nodes) > 1 and index % 2 and self.nodes[-2][:2] == (level, index - 1):
            free.append(self._merge())
            level, index = level + 1, index // 2
            self.nodes[-1] = level, index, self.nodes[-1][2]
        return free

    def total(self) -> tuple[np.ndarray, list[np.ndarray]]:
        """The sum of all, and the arrays that are free. A block whose right half is missing is its left half."""
        free = []
        while len(self.nodes) > 1:
            free.append(self._merge())
        return self.nodes.pop()[2], free

    def _merge(self) -> np.ndarray:
        right, left = self.nodes.pop()[2], self.nodes[-1][2]
        np.add(left, right, out=left)
        return right


def subtrees(first: int, last: int) -> list[tuple[int, int]]:
    """(level, index) of what a Tree holds after places first to last - 1."""
    tree, nothing = Tree(), np.empty(0)
    for place in range(first, last):
        tree.push(0, place, nothing)
    return [node[:2] for node in tree.nodes]


class ShardSum:
    """The mean over all shards of flat arrays of one length, left in `out`, whose length the ranks divide."""

    def __init__(self, group: Group, shards: int, out: np.ndarray) -> None:
        self.group, self.shards, self.out = group, shards, out
        self.dtype = accumulator("sum", out.dtype)
        self.roots = [subtrees(a, b) for a, b in pairwise(bounds(shards, group.size))]
        self.rounds = max(map(len, self.roots)) if group.size > 1 else 0
        self.tree = Tree()
        self._free: list[np.ndarray] = []
        self._works: list[tuple[Work, np.ndarray]] = []

    def take(self) -> np.ndarray:
        """An array for the next shard, with any content."""
        return self._free.pop() if self._free else self.group.empty(self.out.size, self.dtype)

    def push(self, shard: int, array: np.ndarray) -> None:
        """Add an array from `take`. This rank's shards come in ascending order."""
        self._free += self.tree.push(0, shard, array)

    def launch(self) -> None:
        """All of this rank's shards are there: start to exchange slices of subtrees."""
        size, nodes = self.out.size // self.group.size, self.tree.nodes
        for turn in range(self.rounds):
            own = nodes[turn][2] if turn < len(nodes) else np.empty(0, self.dtype)
            came = [size if turn < len(roots) else 0 for roots in self.roots]
            sent = [own.size // self.group.size] * self.group.size
            parts = np.empty(sum(came), self.dtype)
            with self.group.overlapping():
                work = self.group.all_to_all(parts, own, came, sent, async_op=True)
            self._works.append((work, parts))

    def combine(self, add: bool) -> Work:
        """Wait for what `launch` started, then set `out` to the mean (or add it) on all ranks: wait for the Work."""
        free = []
        if self.group.size > 1:
            for work, _ in self._works:
                work.wait()
            free, self.tree = [node[2] for node in self.tree.nodes], self._received()
            self._works = []
        total, rest = self.tree.total()
        total /= self.shards
        size = self.out.size // self.group.size
        slice_ = self.out[self.group.rank * size : (self.group.rank + 1) * size]
        if add:
            total += slice_
        np.copyto(slice_, total, casting="unsafe")
        self._free += free if self.group.size > 1 else [total, *rest]
        with self.group.overlapping():
            return self.group.all_gather(self.out, slice_, async_op=True)

    def reset(self, taken: np.ndarray | None = None) -> None:
        """Forget a sum that was broken off, with the array taken for the shard that was under way."""
        self._free += [node[2] for node in self.tree.nodes] + ([] if taken is None else [taken])
        self.tree, self._works = Tree(), []

    def _received(self) -> Tree:
        tree, size = Tree(), self.out.size // self.group.size
        at = [0] * self.rounds
        for roots in self.roots:
            for turn, (level, index) in enumerate(roots):
                tree.push(level, index, self._works[turn][1][at[turn] : at[turn] + size])
                at[turn] += size
        return tree


class ShardBucket:
    """A bucket of gradients: those of a shard are written into an array of its ShardSum."""

    def __init__(self, bucket: Bucket, group: Group, shards: int) -> None:
        self.bucket, self.sum = bucket, ShardSum(group, shards, bucket.flat)
        self.add = False  # whether there were gradients before this step, to which its mean is added
        self.array: np.ndarray | None = None  # the gradients of the shard that is under way
        self._views: dict[int, list[Any]] = {}  # by id of an array, which the sum keeps

    def begin(self) -> None:
        """Put by the gradients of earlier steps, if there are any."""
        self.add = any(p._grad is not None for _, p in self.bucket.parameters)
        for position, (_, parameter) in enumerate(self.bucket.parameters):
            if parameter._grad is not None:
                self.bucket.settle(position)
            elif self.add:
                self.bucket.homes[position].array[...] = 0

    def open(self) -> None:
        """Have the next gradients written into an array of their own."""
        self.array = array = self.sum.take()
        if id(array) not in self._views:
            array[sum(p.array.size for _, p in self.bucket.parameters) :] = 0
            self._views[id(array)] = self.bucket.views(array)
        self.bucket.reset()
        for (_, parameter), home in zip(self.bucket.parameters, self._views[id(array)]):
            parameter._grad, parameter._grad_home = None, home

    def close(self, shard: int) -> None:
        """The gradients of a shard are there; missing ones count as zero."""
        assert self.array is not None
        for position in self.bucket.waiting:
            self._views[id(self.array)][position].array[...] = 0
        for position, (_, parameter) in enumerate(self.bucket.parameters):
            if parameter._grad is not None:  # also one that a user's hook has put elsewhere
                home = self._views[id(self.array)][position]
                if parameter._grad is not home:
                    home.array[...] = parameter._grad.array
                parameter._grad = None
            parameter._grad_home = None
        self.sum.push(shard, self.array)
        self.array = None

    def deliver(self) -> None:
        """Hand the means to the parameters."""
        for (_, parameter), home in zip(self.bucket.parameters, self.bucket.homes):
            home._version[0] += 1
            parameter._grad = home

    def reset(self) -> None:
        self.sum.reset(self.array)
        self.array = None
        for _, parameter in self.bucket.parameters:
            parameter._grad = parameter._grad_home = None


class ShardReducer:
    """Follows the backwards of this rank's shards, and reduces over all ranks in that of the last."""

    def __init__(
        self, group: Group, named: list[tuple[str, Any]], cap_bytes: int, shards: int, find_unused: bool
    ) -> None:
        self.group, self.find_unused = group, find_unused
        self.first, self.last = bounds(shards, group.size)[group.rank : group.rank + 2]
        buckets = make_buckets(named, cap_bytes, group, multiple=group.size)
        self.buckets = [ShardBucket(b, group, shards) for b in buckets]
        self.used = [np.zeros(len(b.parameters), np.uint8) for b in buckets]
        self.shard: int | None = None  # the one under way
        self._next = 0  # the bucket to fill next
        self._handles = [
            parameter.register_post_accumulate_grad_hook(_Arrival(self, k, position))
            for k, bucket in enumerate(buckets)
            for position, (_, parameter) in enumerate(bucket.parameters)
        ]

    def detach(self) -> None:
        """Lets go of the parameters: another reducer may take them."""
        for handle in self._handles:
            handle.remove()
        for bucket in self.buckets:
            for _, parameter in bucket.bucket.parameters:
                parameter._grad_home = None

    def begin(self) -> None:
        for used, bucket in zip(self.used, self.buckets):
            used[:] = 0
            bucket.begin()

    def open(self, shard: int) -> None:
        self.shard, self._next = shard, 0
        for bucket in self.buckets:
            bucket.open()

    def arrived(self, k: int, position: int) -> None:
        """The gradient of a parameter is whole."""
        if self.shard is None:
            raise RuntimeError(
                f"{WHO} with reproducible=, backward must be called within `for shard in model.shards(batch)`, "
                "came one outside"
            )
        waiting = self.buckets[k].bucket.waiting
        if position not in waiting:
            name = self.buckets[k].bucket.parameters[position][0]
            raise RuntimeError(
                f"{WHO} with reproducible=, backward must be called once a shard, on the sum of all losses: "
                f"came a second gradient of {name}"
            )
        waiting.discard(position)
        self.used[k][position] = 1
        while self._next < len(self.buckets) and not self.buckets[self._next].bucket.waiting:
            self._fill(self.buckets[self._next])
        self.group.advance()

    def close(self) -> None:
        """The shard's loop body has ended: see to parameters without a gradient."""
        missing = [b.bucket.parameters[i][0] for b in self.buckets for i in sorted(b.bucket.waiting)]
        if missing and not self.find_unused:
            raise RuntimeError(unused_text(missing))
        while self._next < len(self.buckets):
            self._fill(self.buckets[self._next])
        self.shard = None

    def finish(self, agreed: str) -> None:
        """Wait for the means. Raises CollectiveMismatch if `agreed` differs between ranks."""
        used = np.concatenate(self.used)
        self.group.all_reduce(used, "max", name=agreed)
        for work in [bucket.sum.combine(bucket.add) for bucket in self.buckets]:
            work.wait()
        flags = iter(used)
        for bucket in self.buckets:
            bucket.deliver()
            for (_, parameter), flag in zip(bucket.bucket.parameters, flags):
                if not flag and not bucket.add:  # on every rank: optimizers leave these alone
                    parameter._grad = None

    def reset(self) -> None:
        """Forget a step that was broken off."""
        self.shard = None
        for bucket in self.buckets:
            bucket.reset()

    def _fill(self, bucket: ShardBucket) -> None:
        assert self.shard is not None
        self._next += 1
        bucket.close(self.shard)
        if self.shard == self.last - 1:
            bucket.sum.launch()


class _Arrival:
    """The hook of one parameter."""

    __slots__ = ("k", "position", "reducer")

    def __init__(self, reducer: ShardReducer, k: int, position: int) -> None:
        self.reducer, self.k, self.position = reducer, k, position

    def __call__(self, parameter: Any) -> None:
        self.reducer.arrived(self.k, self.position)
