"""Data-parallel training: every rank holds the model, and gradients are averaged while backward goes on.

After S. Li et al., "PyTorch Distributed: Experiences on Accelerating Data Parallel Training", VLDB 2020.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..autograd import engine, is_grad_enabled
from ..nn.module import Module
from .buckets import SHOWN, WHO, broadcast_coalesced, first_bucket_bytes
from .errors import CollectiveMismatch
from .group import Group
from .join import Join, Joinable, JoinHook
from .process_group import world_group
from .reducer import JoinTurn, Reducer

if TYPE_CHECKING:
    from .reproducible import ShardedStep


class DistributedDataParallel(Module, Joinable):
    """Wraps `module` so that backward leaves in every `.grad` the mean over all ranks.

    Ranks start from rank 0's parameters and buffers, and stay equal as long as each applies the same update.
    With loss averaged over equal local batches, the gradients are those of the whole batch on one process.

    bucket_cap_mb: MiB of gradients reduced at once; None: so many that latency, which is measured, takes a tenth of
    their time.
    find_unused_parameters: let parameters that took no part in the loss count as zero; otherwise they are an
    error that names them. static_graph: the same set of parameters takes part in every step, which allows unused
    ones too.
    broadcast_buffers: give all ranks rank 0's buffers before each training forward. Gradients are always
    views of buckets (gradient_as_bucket_view). Arguments as in torch.nn.parallel.DistributedDataParallel, but for
    reproducible: the number of shards that a batch is cut into so that training has the same bits on any number
    of ranks (24 suits 1, 2, 3, 4, 6, 8, 12 and 24); see `shards` and docs/reproducible.md.

    Raises CollectiveMismatch (a RuntimeError) on every rank if the ranks built different models.
    """

    def __init__(
        self,
        module: Module,
        device_ids: list[Any] | None = None,
        output_device: Any = None,
        dim: int = 0,
        broadcast_buffers: bool = True,
        process_group: Group | None = None,
        bucket_cap_mb: float | None = None,
        find_unused_parameters: bool = False,
        check_reduction: bool = False,
        gradient_as_bucket_view: bool = True,
        static_graph: bool = False,
        *,
        reproducible: int | None = None,
    ) -> None:
        super().__init__()
        named = [(name, p) for name, p in module.named_parameters() if p.requires_grad]
        _check_arguments(
            named, device_ids, output_device, bucket_cap_mb, check_reduction, gradient_as_bucket_view
        )
        self.module = module
        self.dim, self.broadcast_buffers = dim, broadcast_buffers
        self.find_unused_parameters, self.static_graph = find_unused_parameters, static_graph
        self.gradient_as_bucket_view = True
        self.require_backward_grad_sync = True
        self.process_group = group = world_group(process_group, "DistributedDataParallel")
        check_same_model(group, module)
        with np.errstate(all="ignore"):
            broadcast_coalesced(group, [*module.parameters(), *module.buffers()])
        unused = find_unused_parameters or static_graph
        # Small buckets leave less for after backward, and each costs a latency.
        if bucket_cap_mb is None:
            cap_bytes = group.tune().bucket_bytes(group.size)
            first_bytes = first_bucket_bytes(cap_bytes, group)
        else:
            cap_bytes = first_bytes = int(bucket_cap_mb * (1 << 20))
        self._sharded: ShardedStep | None = None
        if reproducible is not None:
            from .reproducible import ShardedStep

            self._sharded = ShardedStep(group, module, named, cap_bytes, reproducible, unused)
        else:
            self._reducer = Reducer(group, named, cap_bytes, unused, first_bytes)

    _compiled: Any = None  # the module's compiled form, where compile() was given this one

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        if is_grad_enabled():
            if engine.watch is not None:
                engine.watch.stop(
                    "DistributedDataParallel talks to other ranks: compile the model, not the step"
                )
            if self._sharded is not None:
                self._sharded.check_within(self.training)
            elif self.require_backward_grad_sync:
                Join.notify_join_context(self)
                root = self._take_turn(active=True)
                if self.training and self.broadcast_buffers:
                    broadcast_coalesced(self.process_group, list(self.module.buffers()), root)
            if self._sharded is None:
                self._reducer.active = self.require_backward_grad_sync
        return (self._compiled or self.module)(*inputs, **kwargs)

    def detach(self) -> None:
        """Lets go of the module's parameters: backward leaves each rank its own gradients, as without this wrapper."""
        (self._reducer if self._sharded is None else self._sharded.reducer).detach()

    @contextlib.contextmanager
    def no_sync(self) -> Iterator[None]:
        """Forwards in here leave local gradients; the next forward and backward outside reduce them.

        With reproducible= it changes nothing: each loop over `shards` adds its mean to the gradients.
        """
        before, self.require_backward_grad_sync = self.require_backward_grad_sync, False
        try:
            yield
        finally:
            self.require_backward_grad_sync = before

    def shards(self, *batch: Any, step: int | None = None) -> Iterator[Any]:
        """With reproducible=: this rank's shards of its part of a batch, to call backward for one by one:

            for x, y in model.shards(x, y):
                loss_of(model(x), y).backward()

        After the loop every `.grad` holds the mean over all shards of all ranks. Tensors and arrays (also within
        lists, tuples and dicts) are cut along dimension 0 into the equal shards that this rank owns: a batch must
        be this rank's contiguous part of the global one, as ShardSampler gives it. In the loop, random numbers
        follow from the initial seed of rank 0, the step and the shard; running statistics move by the mean over
        shards. step: for these random numbers, where training goes on from a checkpoint; None counts on.
        """
        return self._needs_shards("shards").shards(batch, step)

    def shard_mean(self, values: Sequence[Any]) -> Any:
        """With reproducible=: the mean over all shards, the same bits on any number of ranks.

        values: one number or Tensor for each shard of this rank, such as its loss.
        """
        return self._needs_shards("shard_mean").mean(values)

    def count(self, samples: float) -> None:
        """Have the next reduction divide by the number of samples of all ranks, instead of by the number of ranks.

        For ranks that hold different numbers of samples (or tokens): let the loss be a sum (reduction="sum"), and
        tell of how many. The gradient is then that of the mean over all of them. Several calls, for several
        micro-batches under no_sync, add up. Call it on all ranks, before backward; 0 is allowed.
        """
        if self._sharded is not None:
            raise RuntimeError(f"{WHO} count() does not go with reproducible=: all shards have the same size")
        if not samples >= 0:
            raise ValueError(f"{WHO} count() needs a number of samples, got {samples}")
        self._reducer.samples = (self._reducer.samples or 0.0) + float(samples)

    def register_comm_hook(self, state: object, hook: Callable[[Any, Any], Any]) -> None:
        """Have `hook(state, bucket)` reduce each bucket (a GradBucket) instead of averaging it.

        It returns a Future of a tensor with the bucket's mean gradients, as long as the bucket. hooks.py has some.
        Raises RuntimeError for a second hook, TypeError for what cannot be called.
        """
        if self._sharded is not None:
            raise RuntimeError(
                f"{WHO} a communication hook does not go with reproducible=: sums must be exact"
            )
        if not callable(hook):
            raise TypeError(f"{WHO} the communication hook must be callable, got {type(hook).__name__}")
        if self._reducer.hook is not None:
            raise RuntimeError(f"{WHO} register_comm_hook must be called once, got a second hook")
        self._reducer.hook = (state, hook)

    def step_in_backward(self, optimizer: Any) -> None:
        """Have `optimizer` update each bucket's parameters as soon as their mean is there, and call `step` no more.

        The update of the first buckets so overlaps with the reduction of the last. The optimizer must treat
        parameters apart, as all but LBFGS do; clipping by the norm of all gradients does not go with it. Its `step`
        runs once a bucket, and once for all of them where the mean is known only after the last: with
        find_unused_parameters, static_graph, count() and join(). Backwards under no_sync update nothing.
        """
        if self._sharded is not None:
            raise RuntimeError(f"{WHO} step_in_backward() does not go with reproducible=: sums must be exact")
        if not hasattr(optimizer, "param_groups"):
            raise TypeError(
                f"{WHO} step_in_backward() needs an optimizer, as optim.AdamW(model.parameters()), got "
                f"{type(optimizer).__name__}"
            )
        self._reducer.optimizer = optimizer

    def _register_fused_optim(
        self, optim: Callable[..., Any], *args: Any, optim_params: Any = None, **kwargs: Any
    ) -> None:
        """PyTorch's name for `step_in_backward(optim(parameters, ...))`."""
        parameters = self.module.parameters() if optim_params is None else optim_params
        self.step_in_backward(optim(parameters, *args, **kwargs))

    def join(
        self,
        divide_by_initial_world_size: bool = True,
        enable: bool = True,
        throw_on_early_termination: bool = False,
    ) -> Join:
        """A context for a loop over inputs of which ranks have different numbers.

        A rank that has left its loop answers the others' reductions with zeros until all have. With
        divide_by_initial_world_size it still counts in the mean, otherwise only ranks with inputs do. At the end
        all have the model of one that left last. throw_on_early_termination: raise instead on all ranks.
        """
        kwargs = {"divide_by_initial_world_size": divide_by_initial_world_size}
        return Join([self], enable, throw_on_early_termination, **kwargs)

    def join_hook(self, **kwargs: Any) -> JoinHook:
        """What a rank does that has left its loop; see Join."""
        if self._sharded is not None:
            raise RuntimeError(
                f"{WHO} join() does not go with reproducible=: ShardSampler gives all as many batches"
            )
        self._divide_by_initial = bool(kwargs.get("divide_by_initial_world_size", True))
        return _JoinHook(self)

    @property
    def join_device(self) -> str:
        return "cpu"

    @property
    def join_process_group(self) -> Group:
        return self.process_group

    def _take_turn(self, active: bool) -> int:
        """Tell the reducer of this step within Join; the rank whose buffers count."""
        if self._join is None:
            self._reducer.turn = None
            return 0
        self._reducer.turn = JoinTurn(active, self._divide_by_initial)
        return self._join.first_active

    def _needs_shards(self, method: str) -> ShardedStep:
        if self._sharded is None:
            raise RuntimeError(
                f"{WHO} {method}() needs the model to be wrapped with reproducible=, as 24; got None"
            )
        return self._sharded


class _JoinHook(JoinHook):
    def __init__(self, ddp: DistributedDataParallel) -> None:
        self.ddp = ddp

    def main_hook(self) -> None:
        ddp = self.ddp
        root = ddp._take_turn(active=False)
        if ddp.training and ddp.broadcast_buffers:
            broadcast_coalesced(ddp.process_group, list(ddp.module.buffers()), root)
        ddp._reducer.shadow()

    def post_hook(self, is_last_joiner: bool) -> None:
        ddp = self.ddp
        last = np.empty(ddp.process_group.size, np.uint8)
        ddp.process_group.all_gather(last, np.array([is_last_joiner], np.uint8))
        tensors = [*ddp.module.parameters(), *ddp.module.buffers()]
        broadcast_coalesced(ddp.process_group, tensors, int(last.argmax()))


def check_same_model(group: Group, module: Module) -> None:
    """Raise CollectiveMismatch, with the same text on all ranks, if parameters or buffers differ between
    ranks.
    """
    rows = [_row("parameter", name, p) for name, p in module.named_parameters()]
    rows += [_row("buffer", name, b) for name, b in module.named_buffers()]
    digest = hashlib.sha256(json.dumps(rows).encode()).hexdigest()
    if len(set(group.all_gather_object(digest))) == 1:
        return
    everybody = group.all_gather_object(rows)
    raise CollectiveMismatch(
        "[DistributedDataParallel] all ranks must build the same model, but these parts differ:\n"
        + "\n".join(_differences(everybody, group.members))
        + "\nBuild the model from values that are the same on every rank."
    )


def _row(kind: str, name: str, tensor: Any) -> list[str]:
    grad = ", requires_grad" if tensor.requires_grad else ""
    return [f"{kind} {name}", f"{tensor.array.dtype.name}{list(tensor.array.shape)}{grad}"]


def _differences(everybody: list[list[list[str]]], members: list[int]) -> list[str]:
    tables = [{name: what for name, what in rows} for rows in everybody]
    names = list(dict.fromkeys(name for table in tables for name in table))
    lines = []
    for name in names:
        sides: dict[str, list[int]] = {}
        for rank, table in zip(members, tables):
            sides.setdefault(table.get(name, "missing"), []).append(rank)
        if len(sides) > 1:
            told = "; ".join(f"rank {', '.join(map(str, ranks))}: {what}" for what, ranks in sides.items())
            lines.append(f"  {name}: {told}")
    if not lines:  # the same parts in another order
        at = next(i for i, row in enumerate(zip(*everybody)) if any(r != row[0] for r in row))
        lines = [
            f"  place {at}: " + "; ".join(f"rank {r}: {rows[at][0]}" for r, rows in zip(members, everybody))
        ]
    return lines[:SHOWN] + ([f"  and {len(lines) - SHOWN} more"] if len(lines) > SHOWN else [])


def _check_arguments(
    named: list[tuple[str, Any]],
    device_ids: list[Any] | None,
    output_device: Any,
    bucket_cap_mb: float | None,
    check_reduction: bool,
    as_view: bool,
) -> None:
    who = WHO
    if not named:
        raise RuntimeError(f"{who} the module must have a parameter that requires grad, got none")
    if device_ids is not None and len(device_ids) > 1:
        raise ValueError(
            f"{who} device_ids must hold one device, as each process drives one, got {device_ids}"
        )
    if (device_ids or output_device is not None) and isinstance(named[0][1].array, np.ndarray):
        raise ValueError(
            f"{who} device_ids and output_device must be None for a module on the CPU, "
            f"got {device_ids} and {output_device}"
        )
    if bucket_cap_mb is not None and not bucket_cap_mb > 0:
        raise ValueError(f"{who} bucket_cap_mb must be positive, got {bucket_cap_mb}")
    if check_reduction:
        warnings.warn(f"{who} check_reduction changes nothing: reductions are always checked", stacklevel=3)
    if not as_view:
        warnings.warn(
            f"{who} gradient_as_bucket_view=False changes nothing: gradients are views", stacklevel=3
        )
