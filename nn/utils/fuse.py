"""Batch norm folded into the layer before it, for evaluation."""

from __future__ import annotations

import copy
from typing import Any

from ...autograd import no_grad
from ...tensor import creation, functions
from ..parameter import Parameter


def _scale_and_shift(bias: Any, mean: Any, var: Any, eps: float, weight: Any, shift: Any) -> tuple[Any, Any]:
    """The factor of each channel, and the new bias."""
    bias = creation.zeros_like(mean) if bias is None else bias
    weight = creation.ones_like(mean) if weight is None else weight
    shift = creation.zeros_like(mean) if shift is None else shift
    scale = weight * functions.rsqrt(var + eps)
    return scale, (bias - mean) * scale + shift


def fuse_conv_bn_weights(
    conv_w: Any,
    conv_b: Any,
    bn_rm: Any,
    bn_rv: Any,
    bn_eps: float,
    bn_w: Any,
    bn_b: Any,
    transpose: bool = False,
) -> tuple[Parameter, Parameter]:
    """Weight and bias of a convolution that does its batch norm's work too."""
    scale, bias = _scale_and_shift(conv_b, bn_rm, bn_rv, bn_eps, bn_w, bn_b)
    shape = [1, -1] if transpose else [-1, 1]
    with no_grad():
        weight = conv_w * scale.reshape(*shape, *[1] * (conv_w.ndim - 2))
    return Parameter(weight.to(conv_w.dtype), conv_w.requires_grad), Parameter(
        bias.detach(), conv_w.requires_grad
    )


def fuse_linear_bn_weights(
    linear_w: Any, linear_b: Any, bn_rm: Any, bn_rv: Any, bn_eps: float, bn_w: Any, bn_b: Any
) -> tuple[Parameter, Parameter]:
    """Weight and bias of a Linear that does its batch norm's work too."""
    return fuse_conv_bn_weights(linear_w, linear_b, bn_rm, bn_rv, bn_eps, bn_w, bn_b)


def _fused(layer: Any, bn: Any, transpose: bool) -> Any:
    if layer.training or bn.training:
        raise RuntimeError(
            "[fuse] fusion only for eval! Both modules must be in evaluation mode: call eval()"
        )
    fused = copy.deepcopy(layer)
    fused.weight, fused.bias = fuse_conv_bn_weights(
        fused.weight, fused.bias, bn.running_mean, bn.running_var, bn.eps, bn.weight, bn.bias, transpose
    )
    return fused


def fuse_conv_bn_eval(conv: Any, bn: Any, transpose: bool = False) -> Any:
    """A convolution that computes bn(conv(x)), both in evaluation mode."""
    return _fused(conv, bn, transpose)


def fuse_linear_bn_eval(linear: Any, bn: Any) -> Any:
    """A Linear that computes bn(linear(x)), both in evaluation mode."""
    if bn.num_features not in (linear.out_features, 1):
        raise RuntimeError(
            f"[fuse] the batch norm must have the Linear's {linear.out_features} features, came {bn.num_features}"
        )
    return _fused(linear, bn, False)
