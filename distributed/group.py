"""Group: some ranks of a job that talk to each other. Works on arrays; Tensors come in process_group."""

from __future__ import annotations

import contextlib
import os
import platform
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from ..autograd.op import doors
from . import objects, profiling
from .call import Call, caller
from .collectives import Runner, Steps
from .errors import DistributedError
from .hierarchy import runner_for
from .messages import Job, Messages, Talk, readable, text_of, writable
from .reduction import combiner
from .transport import Pace, Transport
from .tuner import ONE_HOST, Cache, Costs, shape
from .work import Work

DEFAULT_TIMEOUT = (
    600.0  # s, for a rank that lives but is late; the dead and the silent are noticed much sooner
)
CHANNELS_PER_GROUP = 2  # collectives, and messages between pairs


class Group(Messages):
    """Ranks that call collectives together, in the same order.

    Every verb works in place or into `out`, and returns a Work: done already, or with async_op=True under
    way. All ranks must pass equal sizes, dtypes and ops, else each raises CollectiveMismatch. A rank that
    dies makes the others raise PeerFailure, one that stays away makes them raise CollectiveTimeout after
    `timeout` seconds. A group of size 1 does nothing and returns at once.
    """

    def __init__(
        self,
        transport: Transport | None = None,
        members: Sequence[int] | None = None,
        *,
        number: int = 0,
        timeout: float = DEFAULT_TIMEOUT,
    ) -> None:
        """transport: None for a group of this process alone. members: transport ranks, by group rank."""
        self.transport, self.timeout = transport, timeout
        world = 1 if transport is None else transport.world_size
        self.members = list(range(world)) if members is None else list(members)
        self.rank = 0 if transport is None else self.members.index(transport.rank)
        self.size = len(self.members)
        self._error: BaseException | None = None
        self._device: Any = None
        self._stepwise = False
        self._costs: Costs | None = None
        self._next_number = number + CHANNELS_PER_GROUP
        self._talks: dict[tuple[str, int, int], Talk] = {}
        self._lock = threading.Lock()
        self._number, self._collective = number, None
        self._pairs: dict[int, Runner] = {}  # by tag
        if self.size > 1 and transport is not None:
            self._collective = runner_for(transport, number, self.members)
        self._main = self._talk("collective", 0, 0)

    def __repr__(self) -> str:
        name = "alone" if self.transport is None else self.transport.name
        return f"Group(rank={self.rank}, size={self.size}, transport={name!r})"

    def all_reduce(
        self, array: np.ndarray, op: str = "sum", *, async_op: bool = False, name: str = ""
    ) -> Work:
        """array = reduction over all ranks, the same bits on each. op: see ReduceOp."""
        if self._on_gpu(array):
            return self.on_device.all_reduce(array, op, async_op=async_op, name=name)
        combiner(op, array.dtype)
        flat, back = writable("all_reduce", array)
        text = text_of("all_reduce", flat.dtype, flat.size, op, name)
        return self._do(text, lambda r, call, pace: r.all_reduce(call, flat, op, pace), async_op, back)

    def reduce(self, array: np.ndarray, root: int = 0, op: str = "sum", *, async_op: bool = False) -> Work:
        """Root's array = reduction over all ranks; the other ranks' arrays keep their values."""
        combiner(op, array.dtype)
        self._check_peer("reduce", root)
        flat, back = writable("reduce", array)
        text = text_of("reduce", flat.dtype, flat.size, op, root=root)
        return self._do(text, lambda r, call, pace: r.reduce(call, flat, root, op, pace), async_op, back)

    def broadcast(self, array: np.ndarray, root: int = 0, *, async_op: bool = False, name: str = "") -> Work:
        """array = root's array."""
        self._check_peer("broadcast", root)
        if self._on_gpu(array):
            return self.on_device.broadcast(array, root, async_op=async_op, name=name)
        flat, back = readable(array) if self.rank == root else writable("broadcast", array)
        text = text_of("broadcast", flat.dtype, flat.size, "", name, root)
        return self._do(text, lambda r, call, pace: r.broadcast(call, flat, root, pace), async_op, back)

    def all_gather(self, out: np.ndarray, array: np.ndarray, *, async_op: bool = False) -> Work:
        """out [size * n] = the arrays [n] of all ranks in the order of ranks."""
        if self._on_gpu(out):
            return self.on_device.all_gather(out, array, async_op=async_op)
        source, _ = readable(array)
        target, back = self._blocks("all_gather", out, source)
        text = text_of("all_gather", source.dtype, source.size)
        if self.size == 1:
            target[...] = source
        return self._do(text, lambda r, call, pace: r.all_gather(call, source, target, pace), async_op, back)

    def reduce_scatter(
        self, out: np.ndarray, array: np.ndarray, op: str = "sum", *, async_op: bool = False, name: str = ""
    ) -> Work:
        """out [n] = reduction over ranks of block `rank` of array [size * n], which keeps its values."""
        if self._on_gpu(out):
            return self.on_device.reduce_scatter(out, array, op, async_op=async_op)
        combiner(op, array.dtype)
        source, _ = readable(array)
        target, back = writable("reduce_scatter", out)
        self._check_blocks("reduce_scatter", source, target)
        text = text_of("reduce_scatter", source.dtype, source.size, op, name)
        if self.size == 1:
            target[...] = source
        return self._do(
            text, lambda r, call, pace: r.reduce_scatter(call, source, target, op, pace), async_op, back
        )

    def gather(
        self, array: np.ndarray, out: np.ndarray | None = None, root: int = 0, *, async_op: bool = False
    ) -> Work:
        """Root's out [size * n] = the arrays [n] of all ranks; out is given on the root only."""
        self._check_root("gather", root, out, "out")
        source, _ = readable(array)
        target, back = (None, None) if out is None else self._blocks("gather", out, source)
        text = text_of("gather", source.dtype, source.size, root=root)
        if self.size == 1 and target is not None:
            target[...] = source
        return self._do(
            text, lambda r, call, pace: r.gather(call, source, target, root, pace), async_op, back
        )

    def scatter(
        self, out: np.ndarray, array: np.ndarray | None = None, root: int = 0, *, async_op: bool = False
    ) -> Work:
        """out [n] = block `rank` of the root's array [size * n]; array is given on the root only."""
        self._check_root("scatter", root, array, "array")
        source = None if array is None else readable(array)[0]
        target, back = writable("scatter", out)
        if source is not None:
            self._check_blocks("scatter", source, target)
        text = text_of("scatter", target.dtype, target.size, root=root)
        if self.size == 1 and source is not None:
            target[...] = source
        return self._do(
            text, lambda r, call, pace: r.scatter(call, source, target, root, pace), async_op, back
        )

    def all_to_all(
        self,
        out: np.ndarray,
        array: np.ndarray,
        out_splits: Sequence[int] | None = None,
        in_splits: Sequence[int] | None = None,
        *,
        async_op: bool = False,
    ) -> Work:
        """Part p of array's rows goes to rank p, part p of out's rows comes from rank p.

        Splits are numbers of rows (dimension 0) by rank; None cuts equally.
        """
        source, _ = readable(array)
        target, back = writable("all_to_all", out)
        send_at = self._offsets("array", array, in_splits)
        recv_at = self._offsets("out", out, out_splits)
        if source.dtype != target.dtype:
            raise TypeError(
                f"[all_to_all] out and array must have one dtype, got {out.dtype} and {array.dtype}"
            )
        if send_at[self.rank + 1] - send_at[self.rank] != recv_at[self.rank + 1] - recv_at[self.rank]:
            raise ValueError("[all_to_all] a rank's part for itself must have the same size in array and out")
        # Sizes may differ by rank here, so only the dtype is compared; each message is checked against its
        # place.
        text = f"all_to_all {source.dtype.name}"
        if self.size == 1:
            target[...] = source
        return self._do(
            text,
            lambda r, call, pace: r.all_to_all(call, source, target, send_at, recv_at, pace),
            async_op,
            back,
        )

    def barrier(self, *, async_op: bool = False) -> Work:
        """Return when all ranks have called it."""
        return self._do("barrier", lambda r, call, pace: r.barrier(call, pace), async_op)

    def all_gather_object(self, value: object) -> list[Any]:
        """The values of all ranks. Numbers, strings, bytes, None, lists, tuples (as lists), dicts of such."""
        return objects.all_gather(self, value)

    def broadcast_object(self, value: object = None, root: int = 0) -> Any:
        """Root's value, of the kinds that all_gather_object takes."""
        return objects.broadcast(self, value, root)

    def gather_object(self, value: object, root: int = 0) -> list[Any] | None:
        """On the root the values of all ranks, elsewhere None."""
        values = objects.all_gather(self, value)
        return values if self.rank == root else None

    def scatter_object(self, values: Sequence[object] | None = None, root: int = 0) -> Any:
        """Value `rank` of the root's `values`, which are given on the root only."""
        return objects.scatter(self, values, root)

    def split(self, color: int | None, key: int = 0) -> Group | None:
        """New groups of the ranks with equal color, ordered by (key, rank). All ranks call it; None joins
        none.
        """
        rows = self.all_gather_object([color, key, self._next_number])
        number = max(row[2] for row in rows)
        self._next_number = number + CHANNELS_PER_GROUP
        if color is None:
            return None
        chosen = sorted((row[1], rank) for rank, row in enumerate(rows) if row[0] == color)
        members = [self.members[rank] for _, rank in chosen]
        return Group(self.transport, members, number=number, timeout=self.timeout)

    def empty(self, shape: int | Sequence[int], dtype: np.typing.DTypeLike = np.float32) -> np.ndarray:
        """An uninitialised array that the transport can reduce without copying it first."""
        dtype, count = np.dtype(dtype), int(np.prod(shape))
        flat = (
            np.empty(count, dtype)
            if self.size == 1 or self.transport is None
            else self.transport.empty(count, dtype)
        )
        return flat.reshape(shape)

    @contextlib.contextmanager
    def overlapping(self) -> Iterator[None]:
        """What is started in here with async_op overlaps with its caller's work on as many cores as there are.

        Where each rank has one core, a thread would take it from that work, and change places with it at moments
        of its own choosing: there what is started makes progress in `advance`, on the caller's thread.
        """
        before, self._stepwise = self._stepwise, self.transport is not None and not self.transport.spare_cores
        try:
            yield
        finally:
            self._stepwise = before

    def advance(self) -> None:
        """Take what was started under `overlapping` further, as far as it goes without waiting."""
        lane = self._main.lane
        if lane._begun:
            lane.advance()

    def tune(self) -> Costs:
        """What messages cost in this group: plans are chosen by it from then on. All ranks call it.

        Measured at the first call, or read from the user's cache where a job of the same shape has measured before.
        """
        if self._costs is None:
            self._costs = Costs(*self._agreed_costs().tolist()) if self._collective is not None else ONE_HOST
            if self._collective is not None:
                self._collective.use(self._costs)
        return self._costs

    def _agreed_costs(self) -> np.ndarray:
        assert self.transport is not None
        figures, key, cache = np.zeros(len(Costs._fields)), "", Cache()
        if not self.transport.one_host:  # in one memory it takes no time to speak of
            hosts = self.all_gather_object([platform.node(), os.cpu_count()])
            key = shape(self.transport.name, hosts)
            kept = cache.find(key) if self.rank == 0 else None
            figures = np.array(kept if kept is not None else figures)
            self.broadcast(figures, 0)
        if not figures.any():
            self._do("tune", lambda r, call, pace: r.measure(call, figures, pace), False)
            self.all_reduce(figures, "max", name="costs of messages")
            if key and self.rank == 0:
                cache.keep(key, Costs(*figures.tolist()))
        return figures

    def plan_of(self, nbytes: int) -> str:
        """Which plan an all-reduce of `nbytes` takes."""
        return "none" if self._collective is None else self._collective.plan_of(nbytes)

    def abort(self, text: str) -> None:
        """Tell the other ranks that this one fails, and why; their waits raise PeerFailure. At most 2 s."""
        if self.transport is not None and self.size > 1:
            self.transport.abort(text)

    @property
    def on_device(self) -> Any:
        """The verbs on GPU arrays; made with the first one, by all ranks together."""
        if self._device is None:
            from .device import DeviceGroup

            self._device = DeviceGroup(self)
        return self._device

    def _on_gpu(self, array: Any) -> bool:
        return self.size > 1 and not isinstance(array, np.ndarray)

    def close(self) -> None:
        """End the group's threads. The transport lives on: other groups may use it."""
        if self._device is not None:
            self._device.close()
        for talk in self._talks.values():
            talk.lane.close()
        for runner in (self._collective, *self._pairs.values()):
            if runner is not None:
                runner.channel.close()

    def _call(self, text: str, talk: Talk, site: str) -> Call:
        assert self.transport is not None
        return Call(text, site, talk.sequence, self.transport.job, self.transport.generation)

    def _do(
        self,
        text: str,
        job: Job,
        async_op: bool,
        back: Callable[[], None] | None = None,
        pair: tuple[str, int, int] | None = None,
    ) -> Work:
        if self.size == 1:
            if back is not None:
                back()
            return Work(text, done=True)
        if self._error is not None:
            raise self._error
        runner = self._collective if pair is None else self._pair_runner(pair[2])
        talk = self._main if pair is None else self._talk(*pair)
        assert runner is not None and self.transport is not None
        talk.sequence += 1
        call = self._call(text, talk, caller())
        pace = Pace()
        steps = self._steps(job, runner, call, pace, back)
        if not async_op:
            return talk.lane.run(text, steps, pace)
        return (talk.lane.begin if self._stepwise else talk.lane.submit)(text, steps, pace)

    def _steps(
        self, job: Job, runner: Runner, call: Call, pace: Pace, back: Callable[[], None] | None
    ) -> Steps:
        if self._error is not None:
            raise self._error
        pace.deadline = time.monotonic() + self.timeout
        try:
            yield from job(runner, call, pace)
        except BaseException as error:
            # A conversation cut off in the middle cannot go on: later calls would take earlier calls'
            # messages.
            if isinstance(error, DistributedError):
                self._error = error
                raise error.with_traceback(None) from None  # our own frames say nothing about the cause
            self._error = _interrupted(call, error)
            raise
        if back is not None:
            back()

    def _check_root(self, verb: str, root: int, array: np.ndarray | None, what: str) -> None:
        self._check_peer(verb, root)
        if (array is not None) != (self.rank == root):
            word = "must" if self.rank == root else "must not"
            raise ValueError(
                f"[{verb}] rank {self.rank} {word} give `{what}`: it belongs to the root, rank {root}"
            )

    def _blocks(
        self, verb: str, out: np.ndarray, source: np.ndarray
    ) -> tuple[np.ndarray, Callable[[], None] | None]:
        target, back = writable(verb, out)
        self._check_blocks(verb, target, source)
        return target, back

    def _check_blocks(self, verb: str, whole: np.ndarray, part: np.ndarray) -> None:
        if whole.dtype != part.dtype:
            raise TypeError(f"[{verb}] both arrays must have one dtype, got {whole.dtype} and {part.dtype}")
        if whole.size != part.size * self.size:
            raise ValueError(
                f"[{verb}] the larger array must hold {self.size} (ranks) x {part.size} elements, got "
                f"{whole.size}"
            )

    def _offsets(self, what: str, array: np.ndarray, splits: Sequence[int] | None) -> list[int]:
        rows = array.shape[0] if array.ndim else 1
        if splits is None:
            if rows % self.size:
                raise ValueError(
                    f"[all_to_all] {what}'s {rows} rows must divide by {self.size} ranks, or give splits"
                )
            splits = [rows // self.size] * self.size
        if len(splits) != self.size or sum(splits) != rows or min(splits) < 0:
            raise ValueError(
                f"[all_to_all] splits of {what} must be {self.size} counts that add up to {rows}, got "
                f"{list(splits)}"
            )
        width, at = array.size // rows if rows else 0, [0]
        for count in splits:
            at.append(at[-1] + count * width)
        return at


def _interrupted(call: Call, error: BaseException) -> DistributedError:
    broken = DistributedError(
        f"[distributed] the group is unusable since {call} ended by {type(error).__name__}: {error}"
    )
    broken.__cause__ = error
    return broken


doors.append(lambda note: profiling.watch(Group, note))
