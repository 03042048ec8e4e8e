"""Sparse matrices, minimally: coordinates and values, made, read and multiplied by dense ones."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..autograd.engine import wrap
from . import creation, device, dtypes
from . import functions as f
from .ops import index as _index
from .ops import pointwise as _p
from .ops import scatter as _w
from .ops import shape as _s


class SparseTensor:
    """`values[k]` at `indices[:, k]` of a tensor of zeros; values may require grad."""

    is_sparse, layout = True, "sparse_coo"

    def __init__(self, indices: Any, values: Any, shape: tuple[int, ...], coalesced: bool = False) -> None:
        self._places, self._numbers, self.size_, self._coalesced = indices, values, shape, coalesced

    @property
    def shape(self) -> Any:
        from .tensor import Size

        return Size(self.size_)

    dtype = property(lambda self: self._numbers.dtype)
    device = property(lambda self: device.cpu)
    requires_grad = property(lambda self: self._numbers.requires_grad)
    ndim = property(lambda self: len(self.size_))

    def size(self, dim: int | None = None) -> Any:
        """The shape, or one size of it."""
        return self.shape if dim is None else self.shape[dim]

    def dim(self) -> int:
        """How many dimensions there are."""
        return len(self.size_)

    def _indices(self) -> Any:
        return self._places

    def _values(self) -> Any:
        return self._numbers

    def _nnz(self) -> int:
        return int(self._places.shape[1])

    def indices(self) -> Any:
        """[ndim, n] places of the values."""
        return self._places

    def values(self) -> Any:
        """The values."""
        return self._numbers

    def is_coalesced(self) -> bool:
        """Whether each place occurs once, in order."""
        return self._coalesced

    def coalesce(self) -> SparseTensor:
        """Each place once, in order; values of equal places are added."""
        if self._coalesced:
            return self
        flat = np.ravel_multi_index(tuple(self._places.array), self.size_)
        places, inverse = np.unique(flat, return_inverse=True)
        zeros = self._numbers.new_zeros((len(places),))
        values = _w.index_add(zeros, self._numbers, dim=0, index=wrap(inverse))
        rows = np.stack(np.unravel_index(places, self.size_)).astype(np.int64)
        return SparseTensor(wrap(rows), values, self.size_, True)

    def to_dense(self) -> Any:
        """The tensor with its zeros."""
        zeros = self._numbers.new_zeros(self.size_)
        return _w.index_accumulate(zeros, self._numbers, index=tuple(self._places.array))

    def t(self) -> SparseTensor:
        """The transposed matrix."""
        return SparseTensor(_s.flip(self._places, dims=(0,)), self._numbers, self.size_[::-1])

    def to(self, *args: Any, **kw: Any) -> SparseTensor:
        """With its values in another dtype or on another device."""
        return SparseTensor(self._places, self._numbers.to(*args, **kw), self.size_, self._coalesced)

    def cpu(self) -> SparseTensor:
        """The tensor itself."""
        return self

    def float(self) -> SparseTensor:
        """With float32 values."""
        return self.to(dtypes.float32)

    def __matmul__(self, other: Any) -> Any:
        return spmm(self, other)

    def mm(self, other: Any) -> Any:
        """The product with a dense or sparse matrix."""
        return spmm(self, other)

    matmul = mm

    def __mul__(self, number: Any) -> SparseTensor:
        return SparseTensor(self._places, _p.mul(self._numbers, number), self.size_, self._coalesced)

    def __add__(self, other: Any) -> Any:
        if isinstance(other, SparseTensor):
            places = f.cat([self._places, other._places], 1)
            return SparseTensor(places, f.cat([self._numbers, other._numbers]), self.size_).coalesce()
        return _p.add(self.to_dense(), other)

    __radd__, __rmul__ = __add__, __mul__

    def __repr__(self) -> str:
        return (
            f"tensor(indices={self._places!r},\n       values={self._numbers!r},\n       size={self.size_},"
            f" nnz={self._nnz()}, layout={dtypes.library[0]}.sparse_coo)"
        )


def sparse_coo_tensor(
    indices: Any,
    values: Any,
    size: Any = None,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    check_invariants: bool | None = None,
    is_coalesced: bool | None = None,
) -> SparseTensor:
    """A sparse tensor with `values[k]` at `indices[:, k]`; equal places add up."""
    places = creation.as_tensor(indices).long()
    numbers = creation.as_tensor(values, dtype=dtype, device=device)
    if places.ndim != 2 or numbers.ndim != 1 or places.shape[1] != numbers.shape[0]:
        raise RuntimeError(
            f"[sparse_coo_tensor] indices must be [ndim, n] and values [n], came {list(places.shape)} and"
            f" {list(numbers.shape)}"
        )
    if size is None:
        shape = (
            tuple(int(n) + 1 for n in places.array.max(axis=1)) if places.shape[1] else (0,) * places.shape[0]
        )
    else:
        shape = tuple(int(n) for n in size)
    limits = np.asarray(shape).reshape(-1, 1)
    if len(shape) != places.shape[0] or (places.array < 0).any() or (places.array >= limits).any():
        raise RuntimeError(f"[sparse_coo_tensor] indices must be inside of the size {list(shape)}")
    if requires_grad:
        numbers.requires_grad_()
    return SparseTensor(places, numbers, shape, bool(is_coalesced))


def to_sparse(self: Any, *args: Any, **kw: Any) -> SparseTensor:
    """The nonzero elements with their places."""
    places = np.nonzero(self.array)
    return SparseTensor(wrap(np.stack(places)), _index.index(self, index=places), self.array.shape, True)


def spmm(input: Any, mat2: Any) -> Any:
    """Sparse @ dense (dense), sparse @ sparse (sparse); gradients go to both."""
    if not isinstance(input, SparseTensor):
        return f.matmul(input, mat2)
    if isinstance(mat2, SparseTensor):
        return to_sparse(spmm(input, mat2.to_dense()))
    if mat2.ndim not in (1, 2) or input.ndim != 2 or input.size_[1] != mat2.shape[0]:
        raise RuntimeError(f"[sparse.mm] shapes must fit, came {list(input.size_)} and {list(mat2.shape)}")
    rows, columns = (wrap(part) for part in input._places.array)
    matrix = _s.unsqueeze(mat2, dim=1) if mat2.ndim == 1 else mat2
    taken = _p.mul(_index.index_select(matrix, dim=0, index=columns), _s.unsqueeze(input._numbers, dim=1))
    zeros = mat2.new_zeros((input.size_[0], matrix.shape[1]))
    y = _w.index_add(zeros, taken, dim=0, index=rows)
    return _s.squeeze(y, dim=1) if mat2.ndim == 1 else y


mm = spmm


def sum(input: SparseTensor, dim: Any = None, dtype: Any = None) -> Any:
    """The sum of all elements, or over `dim` as a dense tensor."""
    values = input._numbers if dtype is None else f.cast(input._numbers, dtype)
    return f.sum(values) if dim is None else f.sum(input.to_dense(), dim, dtype=dtype)


def _legacy(dtype: Any) -> Any:
    def make(indices: Any, values: Any, size: Any = None) -> SparseTensor:
        return sparse_coo_tensor(indices, values, size, dtype=dtype)

    return make


FloatTensor, DoubleTensor, LongTensor = (_legacy(d) for d in (dtypes.float32, dtypes.float64, dtypes.int64))
