"""SyncBatchNorm: batch norm by the moments of all ranks' batches together."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..autograd import no_grad
from ..autograd.engine import array_namespace, wrap
from ..autograd.function import Function, once_differentiable
from ..nn.layers.norm import _BatchNorm
from ..nn.module import Module
from ..tensor.ops import norm as ops
from ..tensor.ops.rows import row_sum
from . import process_group as dist
from .group import Group


class SyncBatchNorm(_BatchNorm):
    """Mean 0 and variance 1 of each channel of (N, C, ...) over the batches of all ranks (arXiv:1502.03167).

    Ranks may hold different numbers of samples; every rank must call it as often. Outside of training, and
    without a process group, it is batch norm. Under DistributedDataParallel its gradients are those of one
    process with the whole batch. Arguments as in torch.nn.SyncBatchNorm.
    """

    def __init__(
        self,
        num_features: int,
        eps: float = 1e-5,
        momentum: float | None = 0.1,
        affine: bool = True,
        track_running_stats: bool = True,
        process_group: Group | None = None,
        device: Any = None,
        dtype: Any = None,
        *,
        bias: bool = True,
    ) -> None:
        super().__init__(num_features, eps, momentum, affine, track_running_stats, device, dtype, bias=bias)
        self.process_group = process_group

    def _check_input_dim(self, input: Any) -> None:
        if input.ndim < 2:
            raise ValueError(f"[SyncBatchNorm] the input must be (N, C, ...), came shape {list(input.shape)}")

    def forward(self, input: Any) -> Any:
        group = self.process_group
        if group is None and dist.is_initialized():
            group = dist.world_group()
        if group is None or group.size == 1 or not self.training:
            return super().forward(input)
        self._check_input_dim(input)
        if input.array.shape[1] != self.num_features:
            raise RuntimeError(
                f"[SyncBatchNorm] the input must have {self.num_features} channels, came shape {list(input.shape)}"
            )
        mean, variance, count = whole_moments(group, input.array)
        if count == 1:
            raise ValueError("[SyncBatchNorm] more than one value a channel is needed in training, came one")
        if self.track_running_stats:
            self._move(mean, variance * (count / (count - 1)))
        return _Normalise.apply(group, mean, variance, count, self.eps, input, self.weight, self.bias)

    def _move(self, mean: np.ndarray, variance: np.ndarray) -> None:
        assert self.running_mean is not None and self.running_var is not None
        assert self.num_batches_tracked is not None
        with no_grad():
            self.num_batches_tracked.add_(1)
        share = 1.0 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
        for running, now in ((self.running_mean, mean), (self.running_var, variance)):
            running.array[...] = running.array * (1 - share) + share * now
            running._version[0] += 1

    @classmethod
    def convert_sync_batchnorm(cls, module: Module, process_group: Group | None = None) -> Module:
        """`module` with every batch norm in it replaced; parameters, buffers and hooks of the rest stay."""
        result = module
        if isinstance(module, _BatchNorm) and not isinstance(module, SyncBatchNorm):
            result = cls(
                module.num_features,
                module.eps,
                module.momentum,
                module.affine,
                module.track_running_stats,
                process_group,
            )
            for name in ("weight", "bias"):
                result.register_parameter(name, getattr(module, name))
            for name in ("running_mean", "running_var", "num_batches_tracked"):
                result.register_buffer(name, getattr(module, name))
            result.training = module.training
        for name, child in module.named_children():
            result.add_module(name, cls.convert_sync_batchnorm(child, process_group))
        return result


def _wide(x: np.ndarray) -> np.ndarray:
    return x.astype(np.float32) if x.dtype.itemsize == 2 else x


def whole_moments(group: Group, x: np.ndarray) -> tuple[np.ndarray, np.ndarray, int]:
    """Mean and variance (divided by the count) of each channel over all ranks, in float64, and the count.

    From each rank's own moments, not from sums of squares, which lose digits (Chan, Golub, LeVeque 1983).
    """
    x = _wide(x)
    xp = array_namespace[type(x)]
    channels = x.shape[1]
    own = np.zeros(2 * channels + 1)
    if x.size:
        mean, variance = ops.channel_moments(xp, ops.by_channel(xp, x))
        own[:] = np.concatenate([mean, variance, [x.size // channels]])
    rows = np.empty((group.size, own.size))
    group.all_gather(rows, own)
    counts, means, variances = rows[:, -1:], rows[:, :channels], rows[:, channels:-1]
    total = counts.sum()
    if not total:
        raise ValueError("[SyncBatchNorm] a batch with samples is needed on some rank, came none on all")
    mean = (counts * means).sum(axis=0) / total
    variance = (counts * (variances + (means - mean) ** 2)).sum(axis=0) / total
    return mean, variance, int(total)


class _Normalise(Function):
    """The same formulas as ops.batch_norm's, with the sums of the backward taken over all ranks."""

    @staticmethod
    def forward(
        ctx: Any,
        group: Group,
        mean: Any,
        variance: Any,
        count: int,
        eps: float,
        x: Any,
        weight: Any,
        bias: Any,
    ) -> Any:
        wide = _wide(x.array)
        xp, dtype = array_namespace[type(wide)], wide.dtype
        ctx.group, ctx.count, ctx.mean = group, count, mean.astype(dtype)
        w, b = (None if p is None else p.array.astype(dtype) for p in (weight, bias))
        y, ctx.scale = ops.batch_norm.forward(
            xp, wide, w, b, mean=ctx.mean, variance=variance.astype(dtype), eps=eps
        )
        ctx.save_for_backward(x, weight)
        return wrap(y.astype(x.array.dtype, copy=False))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, grad: Any) -> Any:
        x, weight = ctx.saved_tensors
        wide = _wide(x.array)
        xp = array_namespace[type(wide)]
        rows = ops.by_channel(xp, wide) - ctx.mean[:, None]
        rows *= ctx.scale[:, None]  # normalised
        g = ops.by_channel(xp, _wide(grad.array))
        n, c, length = rows.shape
        sums = np.zeros((2, c))
        if wide.size:
            sums[0] = row_sum(xp, g.reshape(n * c, length)).reshape(n, c).sum(axis=0)
            sums[1] = row_sum(xp, (g * rows).reshape(n * c, length)).reshape(n, c).sum(axis=0)
        own = sums.astype(wide.dtype)
        ctx.group.all_reduce(sums, "sum")
        shift, slope = (sums / ctx.count).astype(wide.dtype)
        factor = ctx.scale if weight is None else ctx.scale * weight.array.astype(wide.dtype)
        dx = factor[:, None] * (g - shift[:, None] - rows * slope[:, None])
        dx = ops._from_channels(xp, dx, x.array.shape).astype(x.array.dtype, copy=False)
        if weight is None:
            return (
                None,
                None,
                None,
                None,
                None,
                wrap(dx),
                None,
                wrap(own[0]) if ctx.needs_input_grad[7] else None,
            )
        dtype = weight.array.dtype
        dweight, dbias = wrap(own[1].astype(dtype)), wrap(own[0].astype(dtype))
        return None, None, None, None, None, wrap(dx), dweight, dbias if ctx.needs_input_grad[7] else None
