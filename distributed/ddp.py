"""Data-parallel training: every rank holds the model, and gradients are averaged while backward goes on.

After S. Li et al., "PyTorch Distributed: Experiences on Accelerating Data Parallel Training", VLDB 2020.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import warnings
from collections.abc import Iterator
from typing import Any

import numpy as np

from ..autograd import is_grad_enabled
from ..autograd.engine import queue_callback
from ..nn.module import Module
from .buckets import Bucket, broadcast_coalesced, make_buckets
from .errors import CollectiveMismatch
from .group import Group
from .process_group import world_group

SHOWN = 5  # differences in an error


class DistributedDataParallel(Module):
    """Wraps `module` so that backward leaves in every `.grad` the mean over all ranks.

    Ranks start from rank 0's parameters and buffers, and stay equal as long as each applies the same update.
    With loss averaged over equal local batches, the gradients are those of the whole batch on one process.

    bucket_cap_mb: MiB of gradients reduced at once; None: 4 where each rank has a second core, else 25.
    find_unused_parameters: let parameters that took no part in the loss count as zero; otherwise they are an
    error that names them. static_graph: the same set of parameters takes part in every step, which allows unused
    ones too.
    broadcast_buffers: give all ranks rank 0's buffers before each training forward. Gradients are always
    views of buckets (gradient_as_bucket_view). Arguments as in torch.nn.parallel.DistributedDataParallel.

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
        if bucket_cap_mb is None:
            # Small buckets leave less for after backward; without a core of its own, though, communication takes
            # as much from computation as it hides, and each bucket costs a change of threads.
            bucket_cap_mb = 4 if group.transport is not None and group.transport.spare_cores else 25
        self._reducer = Reducer(
            group, named, int(bucket_cap_mb * (1 << 20)), find_unused_parameters or static_graph
        )

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        if is_grad_enabled():
            self._reducer.active = self.require_backward_grad_sync
            if self.training and self.broadcast_buffers and self.require_backward_grad_sync:
                broadcast_coalesced(self.process_group, list(self.module.buffers()))
        return self.module(*inputs, **kwargs)

    @contextlib.contextmanager
    def no_sync(self) -> Iterator[None]:
        """Forwards in here leave local gradients; the next forward and backward outside reduce them."""
        before, self.require_backward_grad_sync = self.require_backward_grad_sync, False
        try:
            yield
        finally:
            self.require_backward_grad_sync = before


class Reducer:
    """Follows a backward: launches buckets as they fill, in the same order on all ranks, and waits at its
    end.
    """

    def __init__(self, group: Group, named: list[tuple[str, Any]], cap_bytes: int, find_unused: bool) -> None:
        self.group, self.find_unused = group, find_unused
        self.active = True  # whether the backward of the latest forward is to be reduced
        self.buckets = make_buckets(named, cap_bytes, group)
        self._next = 0  # the bucket to launch next
        self._queued = False
        for bucket in self.buckets:
            for position, (_, parameter) in enumerate(bucket.parameters):
                parameter._grad_home = bucket.homes[position]
                if parameter.grad is not None:
                    bucket.settle(position)
                parameter.register_post_accumulate_grad_hook(_Arrival(self, bucket, position))

    def arrived(self, bucket: Bucket, position: int) -> None:
        """The gradient of a parameter is whole."""
        bucket.settle(position)
        if not self.active:
            return
        if not self._queued:
            self._queued = True
            queue_callback(self.finish)
        bucket.waiting.discard(position)
        self._launch_full()

    def finish(self) -> None:
        """The backward has ended: see to parameters without a gradient, and wait for the means."""
        self._queued = False
        missing = [(b, i) for b in self.buckets for i in sorted(b.waiting)]
        unused: list[Any] = []
        try:
            if missing and not self.find_unused:
                raise RuntimeError(_unused_text([b.parameters[i][0] for b, i in missing]))
            if self.find_unused:
                parameters = [p for bucket in self.buckets for _, p in bucket.parameters]
                used = np.array([p.grad is not None for p in parameters], np.uint8)
            for bucket, position in missing:
                self._stand_in(bucket, position)
            self._launch_full()
            for bucket in self.buckets[:-1]:
                bucket.finish()
            self.buckets[-1].reduce(self.group)
            if self.find_unused:
                # Behind all buckets: when they were launched differs from rank to rank, their order does not.
                self.group.all_reduce(used, "max", name="which parameters took part")
                unused = [p for p, flag in zip(parameters, used) if not flag]
        finally:
            self._next = 0
            for bucket in self.buckets:
                bucket.reset()
        for parameter in unused:  # on every rank: they keep no gradient, so optimizers leave them alone
            parameter.grad = None

    def _launch_full(self) -> None:
        # The last one waits for the end of backward: nothing is left to overlap with, and a thread only costs.
        while self._next < len(self.buckets) - 1 and not self.buckets[self._next].waiting:
            self.buckets[self._next].launch(self.group)
            self._next += 1

    @staticmethod
    def _stand_in(bucket: Bucket, position: int) -> None:
        """No gradient came in this backward: what earlier ones left counts, else zero."""
        parameter, home = bucket.parameters[position][1], bucket.homes[position]
        if parameter.grad is None:
            home.array[...] = 0
            parameter.grad = home
        else:
            bucket.settle(position)
        bucket.waiting.discard(position)


class _Arrival:
    """The hook of one parameter. A slotted object: there are as many as parameters, and they stay."""

    __slots__ = ("bucket", "position", "reducer")

    def __init__(self, reducer: Reducer, bucket: Bucket, position: int) -> None:
        self.reducer, self.bucket, self.position = reducer, bucket, position

    def __call__(self, parameter: Any) -> None:
        self.reducer.arrived(self.bucket, self.position)


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


def _unused_text(names: list[str]) -> str:
    shown = ", ".join(names[:SHOWN]) + (f" and {len(names) - SHOWN} more" if len(names) > SHOWN else "")
    return (
        "[DistributedDataParallel] every parameter must take part in the loss, but no gradient came for "
        f"{shown}. Pass find_unused_parameters=True to let them count as zero, set requires_grad=False on "
        "those never used, or call backward once on the sum of all losses."
    )


def _check_arguments(
    named: list[tuple[str, Any]],
    device_ids: list[Any] | None,
    output_device: Any,
    bucket_cap_mb: float | None,
    check_reduction: bool,
    as_view: bool,
) -> None:
    who = "[DistributedDataParallel]"
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
