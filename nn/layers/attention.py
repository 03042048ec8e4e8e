"""Multi-head attention."""

from __future__ import annotations

import math
from typing import Any

from ...tensor import creation, functions
from .. import functional as F
from .. import init
from ..module import Module
from ..parameter import Parameter
from .linear import NonDynamicallyQuantizableLinear


def additive_mask(name: str, mask: Any, like: Any) -> Any:
    """A mask that is added to the scores: a bool one becomes -inf where it is True."""
    if mask is None:
        return None
    if mask.array.dtype == bool:
        return like.new_zeros(mask.array.shape).masked_fill(mask, float("-inf"))
    if not mask.dtype.is_floating_point:
        raise RuntimeError(
            f"[attention] only bool and floating types of {name} are supported, came {mask.dtype}"
        )
    return mask


class MultiheadAttention(Module):
    """Attention in `num_heads` parts of the features, each with its own projections (Vaswani et al. 2017).

    query (L, N, embed_dim), key (S, N, kdim), value (S, N, vdim); with batch_first the first two dimensions are
    exchanged, without a batch N is left out. Returns the output like query, and the weights (N, L, S), which are
    averaged over the heads (or (N, heads, L, S)), or None.

    key_padding_mask (N, S) and attn_mask (L, S) or (N * heads, L, S): bool, True where attention is forbidden,
    or numbers that are added to the scores.
    """

    in_proj_weight: Any
    in_proj_bias: Parameter | None
    bias_k: Parameter | None
    bias_v: Parameter | None

    def __init__(
        self,
        embed_dim: int,
        num_heads: int,
        dropout: float = 0.0,
        bias: bool = True,
        add_bias_kv: bool = False,
        add_zero_attn: bool = False,
        kdim: int | None = None,
        vdim: int | None = None,
        batch_first: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        if embed_dim <= 0 or num_heads <= 0 or embed_dim % num_heads:
            raise ValueError(
                f"[MultiheadAttention] num_heads must divide embed_dim, came {num_heads} and {embed_dim}"
            )
        self.embed_dim, self.num_heads, self.dropout, self.batch_first = (
            embed_dim,
            num_heads,
            dropout,
            batch_first,
        )
        self.kdim, self.vdim = kdim or embed_dim, vdim or embed_dim
        self.head_dim, self.add_zero_attn = embed_dim // num_heads, add_zero_attn
        self._qkv_same_embed_dim = self.kdim == embed_dim and self.vdim == embed_dim

        def parameter(wanted: bool, *shape: int) -> Parameter | None:
            return Parameter(creation.empty(shape, device=device, dtype=dtype)) if wanted else None

        same = self._qkv_same_embed_dim
        for name, width in (("q", embed_dim), ("k", self.kdim), ("v", self.vdim)):
            self.register_parameter(f"{name}_proj_weight", parameter(not same, embed_dim, width))
        self.register_parameter("in_proj_weight", parameter(same, 3 * embed_dim, embed_dim))
        self.register_parameter("in_proj_bias", parameter(bias, 3 * embed_dim))
        self.out_proj = NonDynamicallyQuantizableLinear(
            embed_dim, embed_dim, bias=bias, device=device, dtype=dtype
        )
        self.register_parameter("bias_k", parameter(add_bias_kv, 1, 1, embed_dim))
        self.register_parameter("bias_v", parameter(add_bias_kv, 1, 1, embed_dim))
        self._reset_parameters()

    def _reset_parameters(self) -> None:
        """Xavier for the projections in, zero for the biases; the projection out is a Linear's."""
        if self._qkv_same_embed_dim:
            init.xavier_uniform_(self.in_proj_weight)
        else:
            for name in "qkv":
                init.xavier_uniform_(getattr(self, f"{name}_proj_weight"))
        if self.in_proj_bias is not None:
            init.zeros_(self.in_proj_bias)
            init.zeros_(self.out_proj.bias)
        if self.bias_k is not None:
            init.xavier_normal_(self.bias_k)
        if self.bias_v is not None:
            init.xavier_normal_(self.bias_v)

    def forward(
        self,
        query: Any,
        key: Any,
        value: Any,
        key_padding_mask: Any = None,
        need_weights: bool = True,
        attn_mask: Any = None,
        average_attn_weights: bool = True,
        is_causal: bool = False,
    ) -> tuple[Any, Any]:
        """is_causal: a hint that attn_mask is the causal one; attn_mask must be given with it."""
        if is_causal and attn_mask is None:
            raise RuntimeError("[MultiheadAttention] need attn_mask if specifying the is_causal hint")
        single = query.ndim == 2
        same = key is value, query is key
        if single:
            query, key, value = (t.unsqueeze(0) for t in (query, key, value))
            key_padding_mask = None if key_padding_mask is None else key_padding_mask.unsqueeze(0)
        elif not self.batch_first:
            query, key, value = (t.transpose(0, 1) for t in (query, key, value))
        self._check(query, key, value)
        q, k, v = self._project(query, key, value, all(same))
        batch, length = query.array.shape[:2]
        mask = self._mask(attn_mask, key_padding_mask, q, batch, length, key.array.shape[1])
        k, v, mask = self._extended(k, v, mask, batch)
        q, k, v = (self._heads(t) for t in (q, k, v))
        drop = self.dropout if self.training else 0.0
        weights = None
        if need_weights:
            scores = functions.matmul(q * math.sqrt(1.0 / self.head_dim), k.transpose(-2, -1))
            weights = F.softmax(scores if mask is None else scores + mask, -1)
            weights = F.dropout(weights, drop) if drop > 0 else weights
            y = functions.matmul(weights, v)
            weights = weights.mean(1) if average_attn_weights else weights
        else:
            causal = is_causal and key_padding_mask is None and k.shape[-2] == key.shape[1]
            y = F.scaled_dot_product_attention(q, k, v, None if causal else mask, drop, causal)
        # (length, batch, width) in memory, as in PyTorch: dropout draws in the order of memory
        y = self.out_proj(y.permute(2, 0, 1, 3).reshape(length, batch, self.embed_dim))
        if single:
            return y.squeeze(1), None if weights is None else weights.squeeze(0)
        return y.transpose(0, 1) if self.batch_first else y, weights

    def _check(self, query: Any, key: Any, value: Any) -> None:
        for name, t, width in (
            ("query", query, self.embed_dim),
            ("key", key, self.kdim),
            ("value", value, self.vdim),
        ):
            if t.ndim != 3 or t.shape[-1] != width:
                raise RuntimeError(
                    f"[MultiheadAttention] {name} must have 2 or 3 dimensions, the last of size {width},"
                    f" came {list(t.shape)}"
                )
        if key.shape[:2] != value.shape[:2] or key.shape[0] != query.shape[0]:
            raise RuntimeError(
                "[MultiheadAttention] key and value must have one length, and all three one batch size, came"
                f" {list(query.shape)}, {list(key.shape)} and {list(value.shape)}"
            )

    def _project(self, query: Any, key: Any, value: Any, same: bool) -> tuple[Any, ...]:
        if same and self._qkv_same_embed_dim:
            return functions.chunk(F.linear(query, self.in_proj_weight, self.in_proj_bias), 3, -1)
        if self._qkv_same_embed_dim:
            weights: Any = functions.chunk(self.in_proj_weight, 3)
        else:
            weights = [getattr(self, f"{name}_proj_weight") for name in "qkv"]
        biases: Any = [None] * 3 if self.in_proj_bias is None else functions.chunk(self.in_proj_bias, 3)
        return tuple(F.linear(t, w, b) for t, w, b in zip((query, key, value), weights, biases))

    def _mask(self, attn_mask: Any, padding: Any, like: Any, batch: int, length: int, keys: int) -> Any:
        """Both masks as one, which broadcasts to (N, heads, L, S)."""
        mask = additive_mask("attn_mask", attn_mask, like)
        if mask is not None:
            if mask.array.shape == (batch * self.num_heads, length, keys):
                mask = mask.reshape(batch, self.num_heads, length, keys)
            elif mask.array.shape != (length, keys):
                raise RuntimeError(
                    f"[MultiheadAttention] attn_mask must have shape {[length, keys]} or"
                    f" {[batch * self.num_heads, length, keys]}, came {list(mask.shape)}"
                )
        padding = additive_mask("key_padding_mask", padding, like)
        if padding is None:
            return mask
        if padding.array.shape != (batch, keys):
            raise RuntimeError(
                f"[MultiheadAttention] key_padding_mask must have shape {[batch, keys]}, came {list(padding.shape)}"
            )
        padding = padding.reshape(batch, 1, 1, keys)
        return padding if mask is None else mask + padding

    def _extended(self, k: Any, v: Any, mask: Any, batch: int) -> tuple[Any, Any, Any]:
        """Keys and values with the learnt ones and the zeros that the settings add; nothing masks them."""
        before = k.array.shape[1]
        if self.bias_k is not None and self.bias_v is not None:
            k = functions.cat([k, self.bias_k.expand(batch, 1, self.embed_dim)], 1)
            v = functions.cat([v, self.bias_v.expand(batch, 1, self.embed_dim)], 1)
        if self.add_zero_attn:
            zeros = k.new_zeros(batch, 1, self.embed_dim)
            k, v = functions.cat([k, zeros], 1), functions.cat([v, zeros], 1)
        added = k.array.shape[1] - before
        if mask is not None and added:
            free = mask.new_zeros((*mask.array.shape[:-1], added))
            mask = functions.cat([mask, free], -1)
        return k, v, mask

    def _heads(self, t: Any) -> Any:
        """(N, L, E) as (N, heads, L, head_dim)."""
        batch, length, _ = t.array.shape
        return t.reshape(batch, length, self.num_heads, self.head_dim).transpose(1, 2)
