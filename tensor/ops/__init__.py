"""Every op, declared once. Importing this package registers them all."""

from . import (
    activation,
    attention,
    conv,
    dropout,
    embedding,
    index,
    linear,
    loss,
    norm,
    pad,
    pointwise,
    pool,
    reduce,
    shape,
)

__all__ = [
    "activation",
    "attention",
    "conv",
    "dropout",
    "embedding",
    "index",
    "linear",
    "loss",
    "norm",
    "pad",
    "pointwise",
    "pool",
    "reduce",
    "shape",
]
