"""Data-parallel training in which each rank keeps one part of the gradients and of the optimizer's state.

Stage 2 of S. Rajbhandari et al., "ZeRO: Memory Optimizations Toward Training Trillion Parameter Models", SC 2020: a
bucket of gradients is reduce-scattered as soon as it is full and given back; each rank updates its slice of the
parameters, and all-gathers the others'. As many bytes are sent as by an all-reduce.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from ..autograd.engine import queue_callback, wrap
from ..nn.module import Module
from ..tensor import Parameter
from . import sharded_state
from .buckets import broadcast_coalesced, bucket_runs, unused_text
from .ddp import check_same_model
from .group import Group
from .process_group import world_group
from .work import Work

IN_FLIGHT = 2  # buckets under reduction at once: what bounds the memory for whole gradients


class Piece:
    """A run of parameters of one dtype. shard: this rank's slice of all their elements, one after another."""

    def __init__(self, parameters: list[tuple[str, Any]], group: Group) -> None:
        self.parameters, self.group = parameters, group
        self.offsets = np.cumsum([0, *(p.array.size for _, p in parameters)]).tolist()
        self.length = -(-self.offsets[-1] // group.size)  # elements a rank
        self.dtype = parameters[0][1].array.dtype
        whole = np.zeros(self.length * group.size, self.dtype)
        self.gather_values(whole)
        self.shard = Parameter(wrap(whole[group.rank * self.length :][: self.length].copy()))
        self.flat: np.ndarray | None = None  # all gradients, while they come in and are reduced
        self.work: Work | None = None
        self.out = np.empty(0, self.dtype)
        self.waiting = set(range(len(parameters)))

    def slices(self, flat: np.ndarray) -> list[np.ndarray]:
        """For each parameter its part of a flat array, in its shape."""
        spans = zip(self.parameters, self.offsets, self.offsets[1:])
        return [flat[start:stop].reshape(p.array.shape) for (_, p), start, stop in spans]

    def gather_values(self, flat: np.ndarray) -> None:
        for (_, p), part in zip(self.parameters, self.slices(flat)):
            part[...] = p.array

    def spread(self, flat: np.ndarray) -> None:
        """Take the parameters' values from all ranks' shards. flat: room for them."""
        self.group.all_gather(flat, self.shard.array)
        for (_, p), part in zip(self.parameters, self.slices(flat)):
            p.array[...] = part
            p._version[0] += 1


class ShardedDataParallel(Module):
    """Wraps `module`; `optimizer` is an `optimizer_class` over this rank's slice of the parameters.

        model = ShardedDataParallel(Net(), optim.AdamW, lr=1e-3)
        model(x).backward()          # leaves the mean over ranks in the shards' gradients; p.grad is None
        model.optimizer.step()       # updates the slice, and gives all ranks all of it

    A rank keeps 1/N of the gradients and of the optimizer's state. Several backwards before a step add up.
    optimizer_class must update elementwise (SGD, Adam, AdamW, RMSprop ...): it sees flat slices and not parameters.
    bucket_cap_mb: as in DistributedDataParallel. find_unused_parameters: let parameters without a gradient count as
    zero; otherwise they are an error. step_in_backward: update each slice as soon as its gradient is there, and give
    that back too; do not call `optimizer.step` then. Schedulers and zero_grad work on `optimizer` as ever.
    param_groups: parameters with options of their own, as optimizers take them; those in none of them stay as they are.

    Raises CollectiveMismatch on every rank if the ranks built different models.
    """

    def __init__(
        self,
        module: Module,
        optimizer_class: Callable[..., Any],
        process_group: Group | None = None,
        *,
        bucket_cap_mb: float | None = None,
        broadcast_buffers: bool = True,
        find_unused_parameters: bool = False,
        step_in_backward: bool = False,
        param_groups: Sequence[dict[str, Any]] | None = None,
        **options: Any,
    ) -> None:
        super().__init__()
        self.module, self.broadcast_buffers = module, broadcast_buffers
        self.find_unused_parameters, self.step_in_backward = find_unused_parameters, step_in_backward
        self.process_group = group = world_group(process_group, "ShardedDataParallel")
        check_same_model(group, module)
        broadcast_coalesced(group, [*module.parameters(), *module.buffers()])
        self.param_groups = list(param_groups or [{"params": list(module.parameters())}])
        home = {id(p): i for i, given in enumerate(self.param_groups) for p in given["params"]}
        self.numbers = {id_: number for number, id_ in enumerate(home)}  # of parameters in a state_dict
        named = [(name, p) for name, p in module.named_parameters() if p.requires_grad and id(p) in home]
        cap = (
            group.tune().bucket_bytes(group.size) if bucket_cap_mb is None else int(bucket_cap_mb * (1 << 20))
        )
        self._pieces = [Piece(run, group) for run in bucket_runs(named, cap, apart=lambda p: home[id(p)])]
        self._free: dict[np.dtype, list[np.ndarray]] = {}
        self._backing: dict[int, np.ndarray] = {}  # what a bucket's memory is a part of
        self._flying: deque[Piece] = deque()
        self._next, self._queued = 0, False
        shards: list[list[Any]] = [[] for _ in self.param_groups]
        for piece in self._pieces:
            shards[home[id(piece.parameters[0][1])]].append(piece.shard)
        groups = [{**given, "params": own} for given, own in zip(self.param_groups, shards)]
        self.optimizer = optimizer_class(groups, **options)
        self.optimizer.register_step_post_hook(lambda *ignored: self._spread())
        self._handles = [
            parameter.register_post_accumulate_grad_hook(_Arrival(self, piece, position))
            for piece in self._pieces
            for position, (_, parameter) in enumerate(piece.parameters)
        ]

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        if self.training and self.broadcast_buffers:
            broadcast_coalesced(self.process_group, list(self.module.buffers()))
        return self.module(*inputs, **kwargs)

    def clip_grad_norm_(self, max_norm: float) -> Any:
        """Scale the gradients of all ranks to a 2-norm of at most max_norm; returns the norm that they had."""
        grads = [piece.shard.grad.array for piece in self._pieces if piece.shard.grad is not None]
        squares = np.array([sum(float(np.vdot(g, g)) for g in grads)])
        self.process_group.all_reduce(squares, name="norm of sharded gradients")
        norm = float(np.sqrt(squares[0]))
        scale = max_norm / (norm + 1e-6)
        if scale < 1:
            for g in grads:
                g *= g.dtype.type(scale)
        return wrap(np.array(norm, np.float32))

    def detach(self) -> None:
        """Lets go of the module's parameters: backward leaves each rank its own gradients, as without this wrapper."""
        for handle in self._handles:
            handle.remove()

    def take_parameters(self) -> None:
        """Gives all ranks rank 0's parameters and buffers, and the slices their values: after a change by hand."""
        broadcast_coalesced(self.process_group, [*self.module.parameters(), *self.module.buffers()])
        for piece in self._pieces:
            flat = self._take(piece)
            piece.gather_values(flat)
            piece.shard.array[...] = flat[self.process_group.rank * piece.length :][: piece.length]
            self._give_back(piece)

    def optimizer_state_dict(self) -> dict[str, Any]:
        """The state of all ranks, as optimizer_class over the module's parameters has it. All ranks call it."""
        return sharded_state.gathered(self)

    def local_optimizer_state_dict(self) -> dict[str, Any]:
        """What this rank holds of it, for `ringgrad.distributed.checkpoint`, to which every rank gives its own."""
        return sharded_state.held(self)

    def load_optimizer_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes on every rank the whole state, of any number of ranks, or all that local_optimizer_state_dict gave."""
        sharded_state.take(self, state_dict)

    # The backward.

    def _arrived(self, piece: Piece, position: int) -> None:
        if not self._queued:
            self._queued = True
            queue_callback(self._finish)
        parameter = piece.parameters[position][1]
        self._room(piece)[position][...] = parameter._grad.array
        parameter._grad = None
        piece.waiting.discard(position)
        self._launch_full()
        self.process_group.advance()

    def _room(self, piece: Piece) -> list[np.ndarray]:
        if piece.flat is None:
            piece.flat = self._take(piece)
            piece.flat[piece.offsets[-1] :] = 0
        return piece.slices(piece.flat)

    def _launch_full(self) -> None:
        while self._next < len(self._pieces) and not self._pieces[self._next].waiting:
            piece = self._pieces[self._next]
            self._next += 1
            if len(self._flying) == IN_FLIGHT:
                self._land()
            piece.out = np.empty(piece.length, piece.dtype)
            with self.process_group.overlapping():
                name = f"gradients from {piece.parameters[0][0]} on"
                piece.work = self.process_group.reduce_scatter(
                    piece.out, self._flat(piece), "avg", async_op=True, name=name
                )
            self._flying.append(piece)

    def _land(self) -> None:
        """The oldest reduction that is under way: wait for it, and keep this rank's part."""
        piece = self._flying.popleft()
        assert piece.work is not None
        piece.work.wait()
        self._give_back(piece)
        piece.work, piece.waiting = None, set(range(len(piece.parameters)))
        if piece.shard.grad is None:
            piece.shard.grad = wrap(piece.out)
        else:
            piece.shard.grad.array[...] += piece.out
        if self.step_in_backward:
            self.optimizer.step()  # the others have no gradient now
            piece.shard.grad = None

    def _finish(self) -> None:
        self._queued = False
        try:
            missing = [(piece, i) for piece in self._pieces[self._next :] for i in sorted(piece.waiting)]
            if missing and not self.find_unused_parameters:
                raise RuntimeError(unused_text([piece.parameters[i][0] for piece, i in missing]))
            for piece, position in missing:
                self._room(piece)[position][...] = 0
                piece.waiting.discard(position)
            self._launch_full()
            while self._flying:
                self._land()
        finally:
            self._next = 0
            self._flying.clear()
            self._backing.clear()
            for piece in self._pieces:
                piece.flat, piece.work, piece.waiting = None, None, set(range(len(piece.parameters)))

    def _spread(self) -> None:
        for piece in self._pieces:
            if piece.shard.grad is not None:
                piece.flat = self._take(piece)
                piece.spread(piece.flat)
                self._give_back(piece)

    # Memory for whole buckets, used in turn.

    def _take(self, piece: Piece) -> np.ndarray:
        # All of one length, so that any bucket can take the place of any other.
        free = self._free.setdefault(piece.dtype, [])
        longest = max(p.length for p in self._pieces if p.dtype == piece.dtype) * self.process_group.size
        flat = free.pop() if free else self.process_group.empty(longest, piece.dtype)
        self._backing[id(piece)] = flat
        return flat[: piece.length * self.process_group.size]

    def _give_back(self, piece: Piece) -> None:
        piece.flat = None
        self._free[piece.dtype].append(self._backing.pop(id(piece)))

    def _flat(self, piece: Piece) -> np.ndarray:
        assert piece.flat is not None
        return piece.flat


class _Arrival:
    """The hook of one parameter."""

    __slots__ = ("model", "piece", "position")

    def __init__(self, model: ShardedDataParallel, piece: Piece, position: int) -> None:
        self.model, self.piece, self.position = model, piece, position

    def __call__(self, parameter: Any) -> None:
        self.model._arrived(self.piece, self.position)
