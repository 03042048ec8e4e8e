"""Every op, declared once. Importing this package registers them all."""

from . import (
    activation,
    attention,
    dropout,
    embedding,
    index,
    linear,
    loss,
    norm,
    pad,
    pointwise,
    reduce,
    shape,
)

__all__ = [
    "activation",
    "attention",
    "dropout",
    "embedding",
    "index",
    "linear",
    "loss",
    "norm",
    "pad",
    "pointwise",
    "reduce",
    "shape",
]
