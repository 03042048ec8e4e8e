"""Communication hooks: how DistributedDataParallel reduces a bucket, as torch.distributed's ddp_comm_hooks.

`model.register_comm_hook(state, hook)` has `hook(state, bucket)` called for each GradBucket as it fills, on all
ranks in the same order. A hook starts its collectives and returns a Future of the mean gradients.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import numpy as np

from ..autograd.engine import wrap
from ..tensor.dtypes import bfloat16, float16, to_numpy
from .buckets import Bucket
from .group import Group
from .process_group import world_group
from .work import Work

T = TypeVar("T")
U = TypeVar("U")
Hook = Callable[[Any, "GradBucket"], "Future[Any]"]


class Future(Generic[T]):
    """A value that is there once `wait` returns. What `then` adds runs in `wait`, so on all ranks in one order."""

    def __init__(self, get: Callable[[], T]) -> None:
        self._get: Callable[[], T] | None = get
        self._value: T

    @classmethod
    def of(cls, work: Work, value: T) -> Future[T]:
        """`value`, once `work` has ended."""

        def get() -> T:
            work.wait()
            return value

        return cls(get)

    @classmethod
    def completed(cls, value: T) -> Future[T]:
        """`value`, which is there already."""
        return cls(lambda: value)

    def wait(self) -> T:
        """Block until the value is there; raises what its making raised."""
        if self._get is not None:
            self._value, self._get = self._get(), None
        return self._value

    value = wait

    def done(self) -> bool:
        """Whether `wait` has made the value."""
        return self._get is None

    def then(self, after: Callable[[Future[T]], U]) -> Future[U]:
        """A Future of what `after(this future)` returns; a Future that it returns is waited for."""

        def get() -> Any:
            self.wait()
            result = after(self)
            return result.wait() if isinstance(result, Future) else result

        return Future(get)


class GradBucket:
    """What a hook sees of a bucket: gradients of several parameters in one flat tensor."""

    def __init__(self, bucket: Bucket, last: bool) -> None:
        self._bucket, self._last = bucket, last
        self._buffer = wrap(bucket.flat)

    def index(self) -> int:
        """The bucket's number: 0 fills first."""
        return self._bucket.index

    def buffer(self) -> Any:
        """All gradients as one tensor of one dimension. Written in place, it is the bucket."""
        return self._buffer

    def gradients(self) -> list[Any]:
        """Each parameter's gradient, in its shape: views of the buffer."""
        return self.views(self._buffer.array)

    def views(self, flat: np.ndarray) -> list[Any]:
        """For each parameter the Tensor over its part of an array as long as the buffer."""
        return self._bucket.views(flat)

    def parameters(self) -> list[Any]:
        """The parameters, in the order of their gradients."""
        return [p for _, p in self._bucket.parameters]

    def is_last(self) -> bool:
        """Whether it is the last to be reduced in this backward."""
        return self._last

    def set_buffer(self, tensor: Any) -> None:
        """Replace the buffer that the next hook sees by one of the same length."""
        if tensor.array.shape != self._buffer.array.shape:
            raise ValueError(
                f"[GradBucket] the buffer must have {self._buffer.array.size} elements in one dimension, got "
                f"{list(tensor.array.shape)}"
            )
        self._buffer = tensor


def mean(group: Group, array: np.ndarray, name: str = "") -> Future[Any]:
    """Start to average an array in place over a group: a Future of the tensor over it."""
    return Future.of(group.all_reduce(array, "avg", async_op=True, name=name), wrap(array))


def allreduce_hook(process_group: Group | None, bucket: GradBucket) -> Future[Any]:
    """What happens without a hook: the mean over all ranks."""
    return mean(world_group(process_group), bucket.buffer().array)


def noop_hook(_: object, bucket: GradBucket) -> Future[Any]:
    """No communication: local gradients, to measure what reducing costs."""
    return Future.completed(bucket.buffer())


def _compressed(dtype: Any, hook: Hook, state: Any, bucket: GradBucket) -> Future[Any]:
    whole = bucket.buffer()
    bucket.set_buffer(wrap(whole.array.astype(to_numpy(dtype))))

    def decompress(future: Future[Any]) -> Any:
        whole.array[...] = future.value().array
        return whole

    return hook(state, bucket).then(decompress)


def fp16_compress_hook(process_group: Group | None, bucket: GradBucket) -> Future[Any]:
    """Half the bytes: gradients travel as float16. The mean is taken in float32 and rounded once."""
    return _compressed(float16, allreduce_hook, process_group, bucket)


def bf16_compress_hook(process_group: Group | None, bucket: GradBucket) -> Future[Any]:
    """Half the bytes: gradients travel as bfloat16. The mean is taken in float32 and rounded once."""
    return _compressed(bfloat16, allreduce_hook, process_group, bucket)


def fp16_compress_wrapper(hook: Hook) -> Hook:
    """`hook` on gradients cast to float16."""
    return lambda state, bucket: _compressed(float16, hook, state, bucket)


def bf16_compress_wrapper(hook: Hook) -> Hook:
    """`hook` on gradients cast to bfloat16."""
    return lambda state, bucket: _compressed(bfloat16, hook, state, bucket)


class Residual:
    """For each bucket, what earlier steps did not send (Karimireddy et al. 2019, arXiv:1901.09847).

    Kept by parameter, so that it stays right where buckets are filled anew.
    """

    def __init__(self) -> None:
        self._of: dict[int, np.ndarray] = {}

    def add_to(self, bucket: GradBucket) -> None:
        for parameter, g in zip(bucket.parameters(), bucket.gradients()):
            held = self._of.get(id(parameter))
            if held is not None:
                g.array[...] += held

    def keep(self, bucket: GradBucket, unsent: np.ndarray) -> None:
        """unsent: flat, as long as the bucket's buffer."""
        at = 0
        for parameter in bucket.parameters():
            array = parameter.array
            held = self._of.setdefault(id(parameter), np.empty_like(array))
            held[...] = unsent[at : at + array.size].reshape(array.shape)
            at += array.size


class TopKState:
    """State of topk_hook. ratio: the part of a bucket's elements that each rank sends, in (0, 1]."""

    def __init__(
        self, process_group: Group | None = None, ratio: float = 0.01, use_error_feedback: bool = True
    ) -> None:
        if not 0 < ratio <= 1:
            raise ValueError(f"[TopKState] ratio must be above 0 and at most 1, got {ratio}")
        self.process_group, self.ratio, self.use_error_feedback = process_group, ratio, use_error_feedback
        self.residual = Residual()


def topk_hook(state: TopKState, bucket: GradBucket) -> Future[Any]:
    """Each rank sends its largest elements only, and keeps the rest for later steps (arXiv:1809.07599)."""
    group, flat = world_group(state.process_group), bucket.buffer().array
    if state.use_error_feedback:
        state.residual.add_to(bucket)
    count = max(1, int(flat.size * state.ratio))
    chosen = np.argpartition(np.abs(flat), flat.size - count)[flat.size - count :]
    chosen.sort()
    values = flat[chosen]
    if state.use_error_feedback:
        unsent = flat.copy()
        unsent[chosen] = 0
        state.residual.keep(bucket, unsent)
    places, parts = np.empty(group.size * count, np.int64), np.empty(group.size * count, flat.dtype)
    sent = group.all_gather(places, chosen, async_op=True), group.all_gather(parts, values, async_op=True)

    def add_up() -> Any:
        for work in sent:
            work.wait()
        flat[...] = 0
        np.add.at(flat, places, parts)  # in the order of ranks: the same bits on all
        flat[...] /= group.size
        return bucket.buffer()

    return Future(add_up)
