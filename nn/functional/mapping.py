"""Linear maps, lookups, attention and distances."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...autograd.engine import array_namespace, whole, wrap
from ...autograd.op import describe, tensor_ops
from ...tensor import Tensor, functions
from ...tensor.checks import one_dtype
from ...tensor.dtypes import BOOL, I64, category
from ...tensor.ops import attention as _attention
from ...tensor.ops import dropout as _dropout
from ...tensor.ops import embedding as _embedding
from ...tensor.ops import index as _index
from ...tensor.ops import linear as _linear
from ...tensor.ops import pointwise, shape
from .dropouts import dropout


def linear(input: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """input @ weight.T + bias, weight of shape (out, in)."""
    try:
        return _linear.linear(input, weight, bias)
    except RuntimeError:  # PyTorch also takes a row for the weight, and any bias that can be added
        row = isinstance(weight, Tensor) and weight.ndim == 1
        if not row and (not isinstance(bias, Tensor) or bias.ndim == 1 or bias.ndim > input.ndim):
            raise
        one_dtype("linear", input, weight, bias)
        y = functions.matmul(input, weight if row else weight.t())
        return y if bias is None else y + bias
    except AttributeError:
        if all(isinstance(t, Tensor) for t in (input, weight, bias if bias is not None else weight)):
            raise
        came = ", ".join(type(t).__name__ for t in (input, weight, bias))
        raise TypeError(f"[linear] input, weight and bias must be Tensors, came {came}") from None


def bilinear(input1: Tensor, input2: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """x1^T W_k x2 + b_k for each output k, weight of shape (out, in1, in2)."""
    if input1.shape[:-1] != input2.shape[:-1]:
        raise RuntimeError(
            f"[bilinear] the inputs' leading dimensions must be equal, came {describe(input1)} and {describe(input2)}"
        )
    out, n1, n2 = weight.shape
    if (input1.shape[-1], input2.shape[-1]) != (n1, n2):
        raise RuntimeError(
            f"[bilinear] the weight (out, in1, in2) must fit the inputs, came {describe(weight)},"
            f" {describe(input1)} and {describe(input2)}"
        )
    lead = tuple(input1.shape[:-1])
    a, b = input1.reshape((-1, n1)), input2.reshape((-1, 1, n2))
    y = functions.matmul(a, weight.permute((1, 0, 2)).reshape((n1, out * n2))).reshape((-1, out, n2))
    y = (y * b).sum(-1).reshape((*lead, out))
    return y if bias is None else y + bias


def embedding(
    input: Tensor,
    weight: Tensor,
    padding_idx: int | None = None,
    max_norm: float | None = None,
    norm_type: float = 2.0,
    scale_grad_by_freq: bool = False,
    sparse: bool = False,
) -> Tensor:
    """Rows of `weight` by their numbers.

    padding_idx: a row that gets no gradient. max_norm: rows that are looked up and longer are scaled down
    in place first. scale_grad_by_freq: divides each row's gradient by how often it was looked up.
    sparse: accepted, the gradient is dense and has the same numbers.
    """
    if padding_idx is not None:
        rows = weight.array.shape[0]
        if not -rows <= padding_idx < rows:
            raise AssertionError(
                f"[embedding] padding_idx must be in [{-rows}, {rows - 1}], came {padding_idx}"
            )
        padding_idx %= rows
    if max_norm is not None:
        _renormalise(input, weight, max_norm, norm_type)
    if not scale_grad_by_freq:
        return _embedding.embedding(input, weight, padding_idx=padding_idx)
    index = input.array.reshape(-1)
    counts = np.bincount(index, minlength=weight.array.shape[0])[input.array]
    share = wrap((1 / counts).astype(weight.array.dtype)[..., None])
    y = _embedding.embedding(input, weight, padding_idx=padding_idx)
    return y.detach() * (1 - share) + y * share


def _renormalise(input: Tensor, weight: Tensor, max_norm: float, norm_type: float) -> None:
    rows = np.unique(input.array)
    table = weight.array
    lengths = (np.abs(table[rows]) ** norm_type).sum(axis=1) ** (1 / norm_type)
    long = lengths > max_norm
    table[rows[long]] *= (max_norm / (lengths[long] + 1e-7))[:, None].astype(table.dtype)
    weight._version[0] += 1


@whole
def one_hot(tensor: Tensor, num_classes: int = -1) -> Tensor:
    """int64 of shape (*, num_classes), 1 at each index; the number of classes from the largest index if -1."""
    index = tensor.array
    if index.dtype != I64:
        raise RuntimeError(f"[one_hot] the index must be int64, came {describe(tensor)}: use .long()")
    if not index.size and num_classes <= 0:
        raise RuntimeError("[one_hot] num_classes must be given for an empty tensor, came none")
    if index.size and index.min() < 0:
        raise RuntimeError(f"[one_hot] class values must be >= 0, came {int(index.min())}")
    if num_classes == -1:
        num_classes = int(index.max()) + 1
    if num_classes < 1:
        raise RuntimeError(f"[one_hot] num_classes must be positive, or -1, came {num_classes}")
    if index.size and index.max() >= num_classes:
        raise RuntimeError(
            f"[one_hot] class values must be smaller than num_classes {num_classes}, came {int(index.max())}"
        )
    xp = array_namespace[type(index)]
    hot = xp.zeros((index.size, num_classes), I64)
    hot[xp.arange(index.size), index.reshape(-1)] = 1
    return wrap(hot.reshape(*index.shape, num_classes))


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | None = None,
    dropout_p: float = 0.0,
    is_causal: bool = False,
    scale: float | None = None,
    enable_gqa: bool = False,
) -> Tensor:
    """softmax(scale query key^T + mask) value, for (..., L, E), (..., S, E), (..., S, Ev) (arXiv:1706.03762).

    attn_mask: bool (True may be seen) or added to the scores, broadcast to (..., L, S). scale: 1 / sqrt(E) by
    default. enable_gqa: fewer heads (dimension -3) of key and value, each shared by several queries.
    A query that may see nothing gives zeros.
    """
    if not 0.0 <= dropout_p <= 1.0:
        raise ValueError(f"[scaled_dot_product_attention] dropout_p must be in [0, 1], came {dropout_p}")
    if is_causal and attn_mask is not None:
        raise RuntimeError(
            "[scaled_dot_product_attention] attn_mask must not be given with is_causal=True, came both"
        )
    if enable_gqa:
        key, value = _repeat_heads(query, key), _repeat_heads(query, value)
    query, key, value = _same_batch(query, key, value)
    if attn_mask is not None:
        attn_mask = _additive(attn_mask, query, key)
    keep = None
    if dropout_p > 0:
        drawn = (*query.array.shape[:-1], key.array.shape[-2])
        dtype = query.array.dtype
        if query.is_cuda:
            keep = dropout(query.new_ones(drawn), dropout_p)
        else:
            keep = wrap(
                np.zeros(drawn, dtype) if dropout_p == 1 else _dropout.dropout_noise(drawn, dropout_p, dtype)
            )
    factor = 1 / math.sqrt(query.array.shape[-1]) if scale is None else scale
    return _attention.attention(query, key, value, attn_mask, keep, causal=is_causal, scale=factor)


def _same_batch(*tensors: Tensor) -> list[Tensor]:
    """Leading dimensions broadcast to a common shape."""
    leads = [t.array.shape[:-2] for t in tensors]
    if leads[0] == leads[1] == leads[2]:
        return list(tensors)
    try:
        lead = np.broadcast_shapes(*leads)
    except ValueError:
        return list(tensors)  # the op raises with its words
    return [shape.expand(t, shape=(*lead, *t.array.shape[-2:])) for t in tensors]


def _repeat_heads(query: Tensor, t: Tensor) -> Tensor:
    heads, have = query.shape[-3], t.shape[-3]
    if heads % have:
        raise RuntimeError(
            f"[scaled_dot_product_attention] the query's heads must be a multiple of the key's, came {heads} and {have}"
        )
    if heads == have:
        return t
    lead, rest = tuple(t.shape[:-2]), tuple(t.shape[-2:])
    spread = shape.expand(shape.unsqueeze(t, dim=-3), shape=(*lead, heads // have, *rest))
    return spread.reshape((*lead[:-1], heads, *rest))


def _additive(mask: Tensor, query: Tensor, key: Tensor) -> Tensor:
    dtype = query.array.dtype
    if mask.array.dtype == BOOL:
        bias = array_namespace[type(mask.array)].zeros(mask.array.shape, dtype)
        bias[~mask.array] = -math.inf
        return wrap(bias)
    if category(mask.array.dtype) != 2:
        raise RuntimeError(
            f"[scaled_dot_product_attention] attn_mask must be bool or floating, came {describe(mask)}"
        )
    return functions.cast(mask, query.dtype)


def normalize(
    input: Tensor, p: Any = 2.0, dim: Any = 1, eps: float = 1e-12, out: Tensor | None = None
) -> Tensor:
    """input divided by its p-norm along `dim`, or by eps where that is larger."""
    length = pointwise.clamp(functions.norm(input, p, dim, True), eps, None)
    y = input / length
    return y if out is None else out.copy_(y)


def cosine_similarity(x1: Tensor, x2: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """x1 . x2 / (max(|x1|, eps) max(|x2|, eps)) along `dim`."""
    lengths = [pointwise.clamp(tensor_ops["norm2"](x, dim=dim, keepdim=True), eps, None) for x in (x1, x2)]
    return ((x1 / lengths[0]) * (x2 / lengths[1])).sum(dim)


def pairwise_distance(
    x1: Tensor, x2: Tensor, p: float = 2.0, eps: float = 1e-6, keepdim: bool = False
) -> Tensor:
    """p-norm of x1 - x2 + eps along the last dimension."""
    return functions.norm(x1 - x2 + eps, p, -1, keepdim)


def pdist(input: Tensor, p: float = 2.0) -> Tensor:
    """p-norms of the differences of all pairs of rows i < j."""
    if input.ndim != 2:
        raise RuntimeError(f"[pdist] the input must be a matrix, came {describe(input)}")
    first, second = np.triu_indices(input.array.shape[0], 1)
    rows = (_index.index_select(input, dim=0, index=wrap(i)) for i in (first, second))
    return functions.norm(next(rows) - next(rows), p, -1)
