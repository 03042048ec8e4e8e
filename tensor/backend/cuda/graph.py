"""Captured graphs: a whole training step recorded once and launched as one.

What is captured works on fixed addresses, in a memory pool of the graph's own: nothing else is ever given that memory.
Random numbers and step counts are read from device memory, which the graph itself moves on; what the host knows of them
(a learning rate that a scheduler has changed, the number of draws) is settled before each replay.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

from . import flags, random
from .runtime import load

_current: list[CUDAGraph] = []  # the graph that is being captured
MACHINE = ("_current",)


def is_capturing() -> bool:
    """Whether a graph is being captured."""
    return bool(_current)


def on_replay(before: Callable[[], None], undo: Callable[[], None] | None = None) -> None:
    """While a graph is captured: `before` is to be called before each replay; `undo` once, when the capture ends.

    undo: takes back what the host counted while capturing, as nothing was done yet.
    """
    if _current:
        _current[-1]._before.append(before)
        if undo is not None:
            _current[-1]._undo.append(undo)


def constant(rows: Any) -> Any:
    """A host array in device memory that lives as long as the graph being captured; copied now, not at each replay."""
    cp, held = load(), _current[-1]
    out = cp.empty(rows.shape, rows.dtype)
    side = held._side
    cp.cuda.runtime.memcpyAsync(out.data.ptr, rows.ctypes.data, rows.nbytes, 1, side.ptr)
    side.synchronize()
    held._kept.append(out)
    return out


def workspace(size: int) -> Any:
    """Work space of libraries inside the graph being captured."""
    held = _current[-1]
    if held._workspace is None:
        held._workspace = load().empty(size, "uint8")
    return held._workspace


class CUDAGraph:
    """Recorded GPU work, as torch.cuda.CUDAGraph: capture with `ringgrad.cuda.graph(g)`, then `g.replay()`.

    Before the capture, run the same work a few times on a side stream: kernels are compiled and loaded, libraries make
    their workspaces, optimizers their state. Within it nothing may wait for the GPU (`.item()`, `print`, boolean
    indexing, copies to pageable memory), and inputs must be copied into the same tensors before each replay.
    """

    def __init__(self, keep_graph: bool = False) -> None:
        self._graph: Any = None
        self._pool: Any = None
        self._before: list[Callable[[], None]] = []
        self._undo: list[Callable[[], None]] = []
        self._kept: list[Any] = []
        self._workspace: Any = None
        self._draws = 0
        self._rng: tuple[int, int] | None = None

    def capture_begin(self, pool: Any = None, capture_error_mode: str = "global") -> None:
        """Starts recording what is queued on the current stream, which must not be the default one."""
        cp = load()
        if _current:
            raise RuntimeError("[CUDAGraph] one graph is captured at a time: end the other capture first")
        if self._graph is not None:
            raise RuntimeError("[CUDAGraph] a graph is captured once, came a second capture: reset() before")
        self._stream = cp.cuda.get_current_stream()
        if self._stream.ptr == 0:
            raise RuntimeError(
                "[CUDAGraph] the current stream must not be the default one: use `with ringgrad.cuda.graph(g):`"
            )
        flags.pointer()
        self._generator = random.default()
        self._generator.begin_capture()
        self._pool = pool if pool is not None else cp.cuda.MemoryPool()
        self._side = cp.cuda.Stream(non_blocking=True)
        cp.cuda.runtime.deviceSynchronize()
        self._stack = ExitStack()
        self._stack.enter_context(cp.cuda.using_allocator(self._pool.malloc))
        self._stream.begin_capture(cp.cuda.runtime.streamCaptureModeRelaxed)
        _current.append(self)

    def capture_end(self) -> None:
        """Ends the recording; the graph can be replayed from now on."""
        if not _current or _current[-1] is not self:
            raise RuntimeError("[CUDAGraph] capture_end must follow capture_begin of the same graph")
        try:
            self._draws = self._generator.end_capture()
            self._graph = self._stream.end_capture()
        finally:
            self._close()

    def _abandon(self) -> None:
        """Ends a capture that failed."""
        self._generator.end_capture_failed()
        try:
            self._stream.end_capture()
        except Exception:
            pass  # the capture is invalid already: that is why we are here
        finally:
            self._close()

    def _close(self) -> None:
        _current.remove(self)
        self._stack.close()
        for undo in self._undo:
            undo()

    def replay(self) -> None:
        """Queues the recorded work on the current stream."""
        if self._graph is None:
            raise RuntimeError("[CUDAGraph] a graph must be captured before it is replayed")
        for before in self._before:
            before()
        if self._draws:
            self._rng = self._generator.before_replay(self._draws, self._rng)
        self._graph.launch(load().cuda.get_current_stream())

    def reset(self) -> None:
        """Forgets the recording and gives its memory back when its tensors are gone."""
        self.__init__()  # type: ignore[misc]

    def pool(self) -> Any:
        """The graph's memory pool, which another graph that never runs at the same time may share."""
        return self._pool


def pool_handle() -> Any:
    """A memory pool that several graphs can share."""
    return load().cuda.MemoryPool()


class graph:
    """`with ringgrad.cuda.graph(g):` captures what is inside into g, on a stream of its own."""

    def __init__(
        self, cuda_graph: CUDAGraph, pool: Any = None, stream: Any = None, capture_error_mode: str = "global"
    ) -> None:
        from .streams import Stream

        self.graph, self.pool = cuda_graph, pool
        self.stream = Stream() if stream is None else stream

    def __enter__(self) -> None:
        load().cuda.runtime.deviceSynchronize()
        self.stream.__enter__()
        try:
            self.graph.capture_begin(self.pool)
        except BaseException:
            self.stream.__exit__()
            raise

    def __exit__(self, kind: Any, error: Any, _: Any) -> None:
        try:
            if kind is None:
                self.graph.capture_end()
                return
            self.graph._abandon()
        finally:
            self.stream.__exit__()
        text = str(error)
        if "StreamCapture" in text or isinstance(error, NotImplementedError):
            raise RuntimeError(
                "[CUDAGraph] what is captured must not wait for the GPU, allocate through another library or use the"
                f" default stream, came {kind.__name__}: {text}. Move .item(), print, boolean indexing and copies to"
                " the CPU out of the capture; matrix products of integers, which CuPy computes, cannot be captured"
            ) from error


def make_graphed_callables(
    callables: Any,
    sample_args: Any,
    num_warmup_iters: int = 3,
    allow_unused_input: bool = False,
    pool: Any = None,
) -> Any:
    """Functions or modules whose forward and backward are captured: each call copies its inputs and replays.

    sample_args: tensors of the shapes and dtypes that will come; those that want gradients must say so.
    """
    if not isinstance(callables, tuple):
        return _graphed(callables, tuple(sample_args), num_warmup_iters, pool)
    return tuple(_graphed(f, tuple(a), num_warmup_iters, pool) for f, a in zip(callables, sample_args))


def _graphed(call: Any, sample: tuple[Any, ...], warmups: int, pool: Any) -> Any:
    from ....autograd import Function, backward
    from .streams import Stream

    parameters = tuple(call.parameters()) if hasattr(call, "parameters") else ()
    inputs = tuple(t.detach().clone().requires_grad_(t.requires_grad) for t in sample)
    wanted = [t for t in (*inputs, *parameters) if t.requires_grad]

    def run() -> tuple[Any, ...]:
        out = call(*inputs)
        return out if isinstance(out, tuple) else (out,)

    side = Stream()
    side.wait_stream(_here())
    with side:
        for _ in range(warmups):
            outputs = run()
            backward(
                [o for o in outputs if o.requires_grad], [o.detach() * 0 for o in outputs if o.requires_grad]
            )
    _here().wait_stream(side)
    saved = [(t, t.grad) for t in wanted]
    for t in wanted:
        t.grad = None
    forward_graph, backward_graph = CUDAGraph(), CUDAGraph()
    with graph(forward_graph, pool):
        outputs = run()
    single = len(outputs) == 1
    ends = [o for o in outputs if o.requires_grad]
    seeds = [o.detach().clone() for o in ends]
    with graph(backward_graph, forward_graph.pool()):
        backward(ends, seeds)
    grads = [t.grad for t in wanted]
    for t, g in saved:
        t.grad = None if g is None else g.zero_()

    class Replay(Function):
        @staticmethod
        def forward(ctx: Any, *args: Any) -> Any:
            for static, given in zip(inputs, args):
                static.detach().copy_(given.detach())
            forward_graph.replay()
            return tuple(o.detach().clone() for o in outputs)

        @staticmethod
        def backward(ctx: Any, *gs: Any) -> Any:
            given = [g for g, o in zip(gs, outputs) if o.requires_grad]
            for static, g in zip(seeds, given):
                static.copy_(g)
            backward_graph.replay()
            found = iter(grads)
            return tuple(_copy_of(next(found)) if t.requires_grad else None for t in (*inputs, *parameters))

    def replayed(*args: Any) -> Any:
        out = Replay.apply(*args, *parameters)
        return out[0] if single else out

    return replayed


def _copy_of(t: Any) -> Any:
    return None if t is None else t.detach().clone()


def _here() -> Any:
    from .streams import current

    return current()
