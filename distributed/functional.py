"""Collectives with gradients, as torch.distributed.nn.functional: each one's gradient is another collective.

All ranks must call them, and go backward through them, alike: also a rank whose result does not matter for its
loss (let it add the result times zero), and with inputs that require grad on all ranks or on none.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ..autograd.engine import wrap
from ..autograd.function import Function
from .group import Group
from .process_group import get_group_rank, world_group
from .reduction import ReduceOp

__all__ = [
    "all_gather",
    "all_reduce",
    "all_to_all",
    "all_to_all_single",
    "broadcast",
    "gather",
    "reduce",
    "reduce_scatter",
    "scatter",
]


def _linear(who: str, op: str) -> None:
    if op not in (ReduceOp.SUM, ReduceOp.AVG):
        raise ValueError(f"[{who}] op must be sum or avg to have a gradient, got {op!r}")


def _copy(tensor: Any) -> np.ndarray:
    return np.array(tensor.array, order="C")


def _stacked(who: str, tensors: Sequence[Any], group: Group) -> np.ndarray:
    if len(tensors) != group.size:
        raise ValueError(f"[{who}] the list must have {group.size} tensors, one a rank, got {len(tensors)}")
    shapes = {tuple(t.array.shape) for t in tensors}
    if len(shapes) > 1:
        raise ValueError(f"[{who}] all tensors of the list must have one shape, got {sorted(shapes)}")
    return np.stack([t.array for t in tensors])


class _AllReduce(Function):
    @staticmethod
    def forward(ctx: Any, group: Group, op: str, tensor: Any) -> Any:
        ctx.group, ctx.op = group, op
        array = _copy(tensor)
        group.all_reduce(array, op)
        return wrap(array)

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        return None, None, _AllReduce.apply(ctx.group, ctx.op, g)


class _Broadcast(Function):
    @staticmethod
    def forward(ctx: Any, group: Group, root: int, tensor: Any) -> Any:
        ctx.group, ctx.root = group, root
        array = _copy(tensor)
        group.broadcast(array, root)
        return wrap(array)

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        return None, None, _Reduce.apply(ctx.group, ctx.root, ReduceOp.SUM, g)


class _Reduce(Function):
    @staticmethod
    def forward(ctx: Any, group: Group, root: int, op: str, tensor: Any) -> Any:
        ctx.group, ctx.root, ctx.op = group, root, op
        array = _copy(tensor)
        group.reduce(array, root, op)
        return wrap(array if group.rank == root else np.zeros_like(array))

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        g = _Broadcast.apply(ctx.group, ctx.root, g)
        return None, None, None, g / ctx.group.size if ctx.op == ReduceOp.AVG else g


class _AllGather(Function):
    """[...] of each rank to [world, ...]."""

    @staticmethod
    def forward(ctx: Any, group: Group, tensor: Any) -> Any:
        ctx.group = group
        out = np.empty((group.size, *tensor.array.shape), tensor.array.dtype)
        group.all_gather(out, tensor.array)
        return wrap(out)

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        return None, _ReduceScatter.apply(ctx.group, ReduceOp.SUM, g)


class _ReduceScatter(Function):
    """[world, ...] of each rank to its own [...]."""

    @staticmethod
    def forward(ctx: Any, group: Group, op: str, stacked: Any) -> Any:
        ctx.group, ctx.op = group, op
        out = np.empty(stacked.array.shape[1:], stacked.array.dtype)
        group.reduce_scatter(out, stacked.array, op)
        return wrap(out)

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        g = _AllGather.apply(ctx.group, g)
        return None, None, g / ctx.group.size if ctx.op == ReduceOp.AVG else g


class _Gather(Function):
    """[...] of each rank to [world, ...] on the root; zeros elsewhere."""

    @staticmethod
    def forward(ctx: Any, group: Group, root: int, tensor: Any) -> Any:
        ctx.group, ctx.root = group, root
        out = np.zeros((group.size, *tensor.array.shape), tensor.array.dtype)
        group.gather(tensor.array, out if group.rank == root else None, root)
        return wrap(out)

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        return None, None, _Scatter.apply(ctx.group, ctx.root, g)


class _Scatter(Function):
    """The root's [world, ...] to [...] of each rank."""

    @staticmethod
    def forward(ctx: Any, group: Group, root: int, stacked: Any) -> Any:
        ctx.group, ctx.root = group, root
        out = np.empty(stacked.array.shape[1:], stacked.array.dtype)
        group.scatter(out, stacked.array if group.rank == root else None, root)
        return wrap(out)

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        return None, None, _Gather.apply(ctx.group, ctx.root, g)


class _AllToAll(Function):
    @staticmethod
    def forward(ctx: Any, group: Group, outs: Any, ins: Any, tensor: Any) -> Any:
        ctx.group, ctx.outs, ctx.ins = group, outs, ins
        ctx.rows = tensor.array.shape[0]
        rows = ctx.rows if outs is None else sum(outs)
        out = np.empty((rows, *tensor.array.shape[1:]), tensor.array.dtype)
        group.all_to_all(out, tensor.array, outs, ins)
        return wrap(out)

    @staticmethod
    def backward(ctx: Any, g: Any) -> Any:
        ins = ctx.ins if ctx.outs is None or ctx.ins else [ctx.rows // ctx.group.size] * ctx.group.size
        return None, None, None, _AllToAll.apply(ctx.group, ins, ctx.outs, g)


def all_reduce(tensor: Any, op: str = ReduceOp.SUM, group: Group | None = None) -> Any:
    """The sum (or mean) over all ranks, as a new tensor. Raises ValueError for other ops."""
    _linear("all_reduce", op)
    return _AllReduce.apply(world_group(group, "all_reduce"), op, tensor)


def broadcast(tensor: Any, src: int, group: Group | None = None) -> Any:
    """Rank src's tensor, as a new tensor. Its gradient is the sum of all ranks' and goes to rank src."""
    group = world_group(group, "broadcast")
    return _Broadcast.apply(group, get_group_rank(group, src), tensor)


def reduce(tensor: Any, dst: int, op: str = ReduceOp.SUM, group: Group | None = None) -> Any:
    """On rank dst the sum (or mean) over all ranks, elsewhere zeros."""
    _linear("reduce", op)
    group = world_group(group, "reduce")
    return _Reduce.apply(group, get_group_rank(group, dst), op, tensor)


def all_gather(tensor: Any, group: Group | None = None) -> tuple[Any, ...]:
    """The tensors of all ranks, by rank; all have one shape."""
    return tuple(_AllGather.apply(world_group(group, "all_gather"), tensor).unbind(0))


def reduce_scatter(
    output: Any, input_list: Sequence[Any], op: str = ReduceOp.SUM, group: Group | None = None
) -> Any:
    """The sum (or mean) over ranks of their input_list[rank], as a new tensor; `output` tells its shape."""
    from ..tensor.functions import stack

    _linear("reduce_scatter", op)
    group = world_group(group, "reduce_scatter")
    shape = _stacked("reduce_scatter", input_list, group).shape[1:]
    if tuple(output.array.shape) != shape:
        raise ValueError(
            f"[reduce_scatter] output must have the inputs' shape {shape}, got {output.array.shape}"
        )
    return _ReduceScatter.apply(group, op, stack(list(input_list)))


def gather(tensor: Any, dst: int = 0, group: Group | None = None) -> tuple[Any, ...]:
    """On rank dst the tensors of all ranks, elsewhere as many zeros."""
    group = world_group(group, "gather")
    return tuple(_Gather.apply(group, get_group_rank(group, dst), tensor).unbind(0))


def scatter(tensors: Sequence[Any], src: int = 0, group: Group | None = None) -> Any:
    """tensors[rank] of rank src; the other ranks' lists tell the shape."""
    from ..tensor.functions import stack

    group = world_group(group, "scatter")
    _stacked("scatter", tensors, group)
    return _Scatter.apply(group, get_group_rank(group, src), stack(list(tensors)))


def all_to_all_single(
    output: Any,
    input: Any,
    output_split_sizes: Sequence[int] | None = None,
    input_split_sizes: Sequence[int] | None = None,
    group: Group | None = None,
) -> Any:
    """Part p of the input's rows goes to rank p; part p of the result comes from it. `output` tells its shape."""
    group = world_group(group, "all_to_all_single")
    outs = list(output_split_sizes) if output_split_sizes is not None else None
    ins = list(input_split_sizes) if input_split_sizes is not None else None
    if outs is None and ins is not None:
        outs = [output.array.shape[0] // group.size] * group.size
    return _AllToAll.apply(group, outs, ins, input)


def all_to_all(
    output_tensor_list: Sequence[Any], input_tensor_list: Sequence[Any], group: Group | None = None
) -> tuple[Any, ...]:
    """input_tensor_list[p] goes to rank p; result p comes from it. output_tensor_list tells the shapes."""
    from ..tensor.functions import cat, split

    group = world_group(group, "all_to_all")
    for name, tensors in (("output", output_tensor_list), ("input", input_tensor_list)):
        if len(tensors) != group.size:
            raise ValueError(
                f"[all_to_all] the {name} list must have {group.size} tensors, got {len(tensors)}"
            )
    outs, ins = ([t.array.size for t in tensors] for tensors in (output_tensor_list, input_tensor_list))
    flat = _AllToAll.apply(group, outs, ins, cat([t.reshape(-1) for t in input_tensor_list]))
    return tuple(part.reshape(t.array.shape) for part, t in zip(split(flat, outs), output_tensor_list))
