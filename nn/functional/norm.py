"""Normalisation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...tensor import Tensor
from ...tensor.ops import norm as ops


def layer_norm(
    input: Tensor,
    normalized_shape: Sequence[int],
    weight: Tensor | None = None,
    bias: Tensor | None = None,
    eps: float = 1e-5,
) -> Tensor:
    """Mean 0 and variance 1 over the last dimensions, then weight and bias (arXiv:1607.06450)."""
    return ops.layer_norm(input, weight, bias, shape=normalized_shape, eps=eps)


def rms_norm(
    input: Tensor, normalized_shape: Sequence[int], weight: Tensor | None = None, eps: float | None = None
) -> Tensor:
    """Divided by the root mean square of the last dimensions, then times weight (arXiv:1910.07467).

    eps: the resolution of the dtype when None.
    """
    if eps is None:
        dtype = input.array.dtype
        eps = (
            float(np.finfo(dtype).eps)
            if dtype.kind == "f" and dtype.itemsize > 2
            else float(np.finfo(np.float32).eps)
        )
    return ops.rms_norm(input, weight, shape=normalized_shape, eps=eps)
