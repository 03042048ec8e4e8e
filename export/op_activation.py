"""Activations as ONNX nodes."""

from __future__ import annotations

import math

from .graph import Graph, Val
from .table import emits


@emits("silu")
def _silu(g: Graph, x: Val) -> str:
    return g.node("Mul", x, g.node("Sigmoid", x))


@emits("gelu")
def _gelu(g: Graph, x: Val) -> str:
    if g.opset >= 20:
        return g.node("Gelu", x)
    half = g.node("Mul", x, g.like(0.5, x))
    t = g.node("Erf", g.node("Mul", x, g.like(math.sqrt(0.5), x)))
    return g.node("Mul", half, g.node("Add", t, g.like(1, x)))


@emits("gelu_tanh")
def _gelu_tanh(g: Graph, x: Val) -> str:
    if g.opset >= 20:
        return g.node("Gelu", x, approximate="tanh")
    cube = g.node("Mul", g.node("Mul", x, x), x)
    inner = g.node("Add", x, g.node("Mul", cube, g.like(0.044715, x)))
    t = g.node("Tanh", g.node("Mul", inner, g.like(math.sqrt(2 / math.pi), x)))
    return g.node("Mul", g.node("Mul", x, g.like(0.5, x)), g.node("Add", t, g.like(1, x)))


@emits("mish")
def _mish(g: Graph, x: Val) -> str:
    return g.node("Mul", x, g.node("Tanh", g.node("Softplus", x)))


@emits("logsigmoid")
def _logsigmoid(g: Graph, x: Val) -> str:
    return g.node("Neg", g.node("Softplus", g.node("Neg", x)))


@emits("softplus")
def _softplus(g: Graph, x: Val, beta: float, threshold: float) -> str:
    z = x.name if beta == 1 else g.node("Mul", x, g.like(beta, x))
    y = g.node("Softplus", z)
    y = y if beta == 1 else g.node("Div", y, g.like(beta, x))
    return g.node("Where", g.node("Greater", z, g.like(threshold, x)), x, y)


@emits("elu")
def _elu(g: Graph, x: Val, alpha: float, scale: float, input_scale: float) -> str:
    if input_scale == 1:
        y = g.node("Elu", x, alpha=float(alpha))
    else:
        low = g.node("Mul", g.node("Min", x, g.like(0, x)), g.like(input_scale, x))
        y = g.node("Where", g.node("Greater", x, g.like(0, x)), x, g.node("Elu", low, alpha=float(alpha)))
    return y if scale == 1 else g.node("Mul", y, g.like(scale, x))


@emits("hardsigmoid")
def _hardsigmoid(g: Graph, x: Val) -> str:
    return g.node("HardSigmoid", x, alpha=1 / 6, beta=0.5)


@emits("hardtanh")
def _hardtanh(g: Graph, x: Val, low: float, high: float) -> str:
    return g.node("Clip", x, g.like(low, x), g.like(high, x))


@emits("hardshrink")
def _hardshrink(g: Graph, x: Val, lambd: float) -> str:
    small = g.node("LessOrEqual", g.node("Abs", x), g.like(lambd, x))
    return g.node("Where", small, g.like(0, x), x)


@emits("softshrink")
def _softshrink(g: Graph, x: Val, lambd: float) -> str:
    return g.node("Shrink", x, lambd=float(lambd), bias=float(lambd))


@emits("leaky_relu")
def _leaky_relu(g: Graph, x: Val, negative_slope: float) -> str:
    return g.node("LeakyRelu", x, alpha=float(negative_slope))


@emits("threshold")
def _threshold(g: Graph, x: Val, threshold: float, value: float) -> str:
    return g.node("Where", g.node("Greater", x, g.like(threshold, x)), x, g.like(value, x))


@emits("softmax", "log_softmax")
def _softmax(g: Graph, x: Val, dim: int) -> str:
    kind = "Softmax" if g.label == "softmax" else "LogSoftmax"
    return g.node(kind, x, axis=dim)
