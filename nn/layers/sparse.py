"""Tables looked up by index."""

from __future__ import annotations

from typing import Any

from ...autograd import no_grad
from ...tensor import creation
from .. import functional as F
from .. import init
from ..module import Module
from ..parameter import Parameter


def _padding_row(who: str, padding_idx: int | None, rows: int) -> int | None:
    if padding_idx is None:
        return None
    if not -rows <= padding_idx < rows:
        raise ValueError(f"[{who}] padding_idx must be in [{-rows}, {rows}), came {padding_idx}")
    return padding_idx % rows


def _given_weight(who: str, weight: Any, rows: int, columns: int) -> None:
    if list(weight.array.shape) != [rows, columns]:
        raise ValueError(
            f"[{who}] the weight's shape must be [num_embeddings, embedding_dim] = [{rows}, {columns}],"
            f" came {list(weight.array.shape)}"
        )


class Embedding(Module):
    """Row i of `weight` (num_embeddings, embedding_dim) for each index i: (*) to (*, embedding_dim).

    padding_idx: a row that is zero at first and gets no gradient. max_norm: rows that are looked up are
    scaled in place to at most this norm.
    """

    weight: Parameter

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
        _weight: Any = None,
        _freeze: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.padding_idx = _padding_row("Embedding", padding_idx, num_embeddings)
        self.max_norm, self.norm_type = max_norm, norm_type
        self.scale_grad_by_freq, self.sparse = scale_grad_by_freq, sparse
        if _weight is None:
            empty = creation.empty((num_embeddings, embedding_dim), device=device, dtype=dtype)
            self.weight = Parameter(empty, requires_grad=not _freeze)
            self.reset_parameters()
        else:
            _given_weight("Embedding", _weight, num_embeddings, embedding_dim)
            self.weight = Parameter(_weight, requires_grad=not _freeze)

    def reset_parameters(self) -> None:
        """Standard normal, the padding row zero."""
        init.normal_(self.weight)
        _zero_row(self.weight, self.padding_idx)

    def forward(self, input: Any) -> Any:
        return F.embedding(
            input,
            self.weight,
            self.padding_idx,
            self.max_norm,
            self.norm_type,
            self.scale_grad_by_freq,
            self.sparse,
        )

    @classmethod
    def from_pretrained(
        cls,
        embeddings: Any,
        freeze: bool = True,
        padding_idx: int | None = None,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        sparse: bool = False,
    ) -> Embedding:
        """An Embedding over a given table; `freeze`: without gradient."""
        if embeddings.ndim != 2:
            raise ValueError(
                f"[Embedding.from_pretrained] the table must have 2 dimensions, came shape {list(embeddings.shape)}"
            )
        rows, columns = embeddings.array.shape
        settings = (padding_idx, max_norm, norm_type, scale_grad_by_freq, sparse)
        return cls(rows, columns, *settings, _weight=embeddings, _freeze=freeze)

    def extra_repr(self) -> str:
        text = f"{self.num_embeddings}, {self.embedding_dim}"
        if self.padding_idx is not None:
            text += f", padding_idx={self.padding_idx}"
        return text + _unusual(self)


def _unusual(layer: Any) -> str:
    text = f", max_norm={layer.max_norm}" if layer.max_norm is not None else ""
    text += f", norm_type={layer.norm_type}" if layer.norm_type != 2 else ""
    text += f", scale_grad_by_freq={layer.scale_grad_by_freq}" if layer.scale_grad_by_freq else ""
    return text + (", sparse=True" if layer.sparse else "")


def _zero_row(weight: Any, row: int | None) -> None:
    if row is not None:
        with no_grad():
            weight[row].fill_(0)


class EmbeddingBag(Module):
    """Sum, mean or max of the rows of each bag of indices: (B, N), or (N) with `offsets` where bags begin."""

    weight: Parameter

    def __init__(
        self,
        num_embeddings: int,
        embedding_dim: int,
        max_norm: float | None = None,
        norm_type: float = 2.0,
        scale_grad_by_freq: bool = False,
        mode: str = "mean",
        sparse: bool = False,
        _weight: Any = None,
        include_last_offset: bool = False,
        padding_idx: int | None = None,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        if mode not in ("sum", "mean", "max"):
            raise ValueError(f"[EmbeddingBag] mode must be 'sum', 'mean' or 'max', came {mode!r}")
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim
        self.max_norm, self.norm_type, self.scale_grad_by_freq = max_norm, norm_type, scale_grad_by_freq
        self.padding_idx = _padding_row("EmbeddingBag", padding_idx, num_embeddings)
        if _weight is None:
            self.weight = Parameter(
                creation.empty((num_embeddings, embedding_dim), device=device, dtype=dtype)
            )
            self.reset_parameters()
        else:
            _given_weight("EmbeddingBag", _weight, num_embeddings, embedding_dim)
            self.weight = Parameter(_weight)
        self.mode, self.sparse, self.include_last_offset = mode, sparse, include_last_offset

    def reset_parameters(self) -> None:
        """Standard normal, the padding row zero."""
        init.normal_(self.weight)
        _zero_row(self.weight, self.padding_idx)

    def forward(self, input: Any, offsets: Any = None, per_sample_weights: Any = None) -> Any:
        return F.embedding_bag(
            input,
            self.weight,
            offsets,
            self.max_norm,
            self.norm_type,
            self.scale_grad_by_freq,
            self.mode,
            self.sparse,
            per_sample_weights,
            self.include_last_offset,
            self.padding_idx,
        )

    @classmethod
    def from_pretrained(cls, embeddings: Any, freeze: bool = True, **settings: Any) -> EmbeddingBag:
        """An EmbeddingBag over a given table; `freeze`: without gradient."""
        if embeddings.ndim != 2:
            raise ValueError(
                f"[EmbeddingBag.from_pretrained] the table must have 2 dimensions, came shape {list(embeddings.shape)}"
            )
        rows, columns = embeddings.array.shape
        bag = cls(rows, columns, _weight=embeddings, **settings)
        bag.weight.requires_grad_(not freeze)
        return bag

    def extra_repr(self) -> str:
        text = f"{self.num_embeddings}, {self.embedding_dim}{_unusual(self)}, mode={self.mode!r}"
        return text + (f", padding_idx={self.padding_idx}" if self.padding_idx is not None else "")
