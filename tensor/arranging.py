"""Rearranging under PyTorch's names: stacking, splitting, turning, diagonals, grids, views by strides."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from operator import index as whole
from typing import TYPE_CHECKING, Any

import numpy as np

from ..autograd.engine import Variable, as_array, wrap
from . import functions as f
from .checks import refuse
from .checks import tensors as check_tensors
from .creation import finish
from .dtypes import I64, to_numpy
from .functions import _dims
from .ops import pointwise as _p
from .ops import scan as _v
from .ops import shape as _s
from .ops.declare import axes_of, axis_of

if TYPE_CHECKING:
    from .tensor import Tensor


def _listed(tensors: tuple[Any, ...]) -> Sequence[Any]:
    """Tensors given one by one or as one sequence."""
    return tensors[0] if len(tensors) == 1 and isinstance(tensors[0], tuple | list) else tensors


# ---- order of elements and dimensions


def movedim(input: Tensor, source: Any, destination: Any) -> Tensor:
    """A view with some dimensions at other places, the rest in their order."""
    if source is None or destination is None:
        raise TypeError(f"[movedim] dimensions must be ints, came {source} and {destination}")
    n = input.ndim
    from_, to = axes_of("movedim", source, n), axes_of("movedim", destination, n)
    if len(from_) != len(to):
        raise RuntimeError(f"[movedim] must name equally many dimensions, came {source} and {destination}")
    order: list[Any] = [None] * n
    for a, b in zip(from_, to):
        order[b] = a
    rest = iter(d for d in range(n) if d not in from_)
    return _s.permute(input, dims=tuple(next(rest) if d is None else d for d in order))


moveaxis = movedim


def rot90(input: Tensor, k: int = 1, dims: Sequence[int] = (0, 1)) -> Tensor:
    """Turned `k` times by 90 degrees in the plane of two dimensions, from the first to the second."""
    if input.ndim < 2:
        raise RuntimeError(f"[rot90] the input must have at least 2 dimensions, came {list(input.shape)}")
    k = whole(k)
    a, b = (axis_of("rot90", d, input.ndim) for d in dims)
    if a == b:
        raise RuntimeError(f"[rot90] needs two distinct dimensions, came {list(dims)}")
    k %= 4
    if k == 0:
        return input.clone()
    if k == 2:
        return _s.flip(input, dims=(a, b))
    turned = _s.transpose(input, dim0=a, dim1=b)
    return _s.flip(turned, dims=(a if k == 1 else b,))


def fliplr(input: Tensor) -> Tensor:
    """The second dimension reversed."""
    if input.ndim < 2:
        raise RuntimeError(f"[fliplr] must have at least 2 dimensions, came shape {list(input.shape)}")
    return _s.flip(input, dims=(1,))


def flipud(input: Tensor) -> Tensor:
    """The first dimension reversed."""
    if input.ndim < 1:
        raise RuntimeError("[flipud] must have at least 1 dimension, came a 0-d tensor")
    return _s.flip(input, dims=(0,))


def ravel(input: Tensor) -> Tensor:
    """One row of all elements."""
    return _s.reshape(input, shape=(-1,))


def adjoint(input: Tensor) -> Tensor:
    """The last two dimensions exchanged, complex numbers conjugated."""
    if not input.ndim:
        return input
    if input.ndim == 1:
        raise RuntimeError(f"[adjoint] must be matrices, came shape {list(input.shape)}")
    turned = _s.transpose(input, dim0=-2, dim1=-1)
    return turned.conj() if input.is_complex() else turned


def tile(input: Tensor, *times: Any, dims: Any = None) -> Tensor:
    """Copies laid side by side; counts for leading dimensions may be left out."""
    counts = _dims(times) if dims is None else dims
    return input.repeat((1,) * (input.ndim - len(counts)) + tuple(counts))


# ---- stacks


def atleast_1d(*tensors: Any) -> Any:
    """0-d tensors as vectors."""
    found = [_s.reshape(t, shape=(1,)) if not t.ndim else t for t in _listed(tensors)]
    return found[0] if len(tensors) == 1 and isinstance(tensors[0], Variable) else tuple(found)


def atleast_2d(*tensors: Any) -> Any:
    """At least matrices: vectors are rows."""
    found = [_s.unsqueeze(atleast_1d(t), dim=0) if t.ndim < 2 else t for t in _listed(tensors)]
    return found[0] if len(tensors) == 1 and isinstance(tensors[0], Variable) else tuple(found)


def atleast_3d(*tensors: Any) -> Any:
    """At least 3 dimensions: a matrix becomes [rows, columns, 1]."""
    found = [_s.unsqueeze(atleast_2d(t), dim=-1) if t.ndim < 3 else t for t in _listed(tensors)]
    return found[0] if len(tensors) == 1 and isinstance(tensors[0], Variable) else tuple(found)


def hstack(tensors: Sequence[Tensor]) -> Tensor:
    """Joined side by side: along the second dimension, vectors along the first."""
    parts = atleast_1d(list(tensors))
    return f.cat(parts, 0 if parts[0].ndim == 1 else 1)


def vstack(tensors: Sequence[Tensor]) -> Tensor:
    """Joined one below the other, vectors as rows."""
    return f.cat(atleast_2d(_some("vstack", tensors)), 0)


row_stack = vstack


def dstack(tensors: Sequence[Tensor]) -> Tensor:
    """Joined along the third dimension."""
    return f.cat(atleast_3d(_some("dstack", tensors)), 2)


def _some(name: str, tensors: Sequence[Tensor]) -> list[Tensor]:
    if tensors is not None and not tensors:
        raise RuntimeError(f"[{name}] at least one tensor must be given, came none")
    return list(tensors)


def column_stack(tensors: Sequence[Tensor]) -> Tensor:
    """Vectors as columns and matrices, joined side by side."""
    return hstack([_s.reshape(t, shape=(-1, 1)) if t.ndim < 2 else t for t in tensors])


# ---- splits


def tensor_split(
    input: Tensor, indices_or_sections: Any = None, dim: int = 0, **kw: Any
) -> tuple[Tensor, ...]:
    """Views of parts along `dim`: so many nearly equal ones, or cut at the positions listed."""
    given = kw.get("sections", kw.get("indices", indices_or_sections))
    if isinstance(given, Variable):
        given = given.tolist()
    d = axis_of("tensor_split", dim, input.ndim)
    if not input.ndim:
        raise RuntimeError("[tensor_split] must have at least 1 dimension, came a 0-d tensor")
    n = input.shape[d]
    if isinstance(given, int):
        if given <= 0:
            raise RuntimeError(f"[tensor_split] the number of parts must be positive, came {given}")
        sizes = [n // given + (i < n % given) for i in range(given)]
        return _s.split(input, sizes=sizes, dim=d)
    cuts = [slice(a, b).indices(n)[:2] for a, b in zip([None, *given], [*given, None])]
    return tuple(_s.narrow(input, dim=d, start=a, length=max(b - a, 0)) for a, b in cuts)


def _split_along(name: str, input: Tensor, given: Any, dim: int, least: int) -> tuple[Tensor, ...]:
    if input.ndim < least:
        raise RuntimeError(f"[{name}] must have at least {least} dimensions, came shape {list(input.shape)}")
    if isinstance(given, int) and (given <= 0 or input.shape[dim] % given):
        raise RuntimeError(
            f"[{name}] {input.shape[dim]} must be a multiple of the number of parts, came {given}"
        )
    return tensor_split(input, given, dim)


def hsplit(input: Tensor, indices_or_sections: Any) -> tuple[Tensor, ...]:
    """Parts side by side: along the second dimension, of a vector along the first."""
    return _split_along("hsplit", input, indices_or_sections, 0 if input.ndim == 1 else 1, 1)


def vsplit(input: Tensor, indices_or_sections: Any) -> tuple[Tensor, ...]:
    """Parts along the first dimension."""
    return _split_along("vsplit", input, indices_or_sections, 0, 2)


def dsplit(input: Tensor, indices_or_sections: Any) -> tuple[Tensor, ...]:
    """Parts along the third dimension."""
    return _split_along("dsplit", input, indices_or_sections, 2, 3)


def split_with_sizes(input: Tensor, split_sizes: Sequence[int], dim: int = 0) -> tuple[Tensor, ...]:
    """Views of parts of the sizes listed."""
    return _s.split(input, sizes=tuple(split_sizes), dim=dim)


# ---- shapes that fit


def broadcast_tensors(*tensors: Any) -> tuple[Tensor, ...]:
    """Views in the one shape to which all broadcast."""
    parts = _listed(tensors)
    shape = broadcast_shapes(*[t.array.shape for t in parts])
    return tuple(_s.expand(t, shape=shape) for t in parts)


def broadcast_shapes(*shapes: Any) -> Any:
    """The shape to which all broadcast."""
    from .tensor import Size

    try:
        return Size(np.broadcast_shapes(*[(s,) if isinstance(s, int) else tuple(s) for s in shapes]))
    except ValueError:
        raise RuntimeError(
            f"[broadcast_shapes] shapes must broadcast, came {[list(s) for s in shapes]}"
        ) from None


def meshgrid(*tensors: Any, indexing: str | None = None) -> tuple[Tensor, ...]:
    """Coordinates of a grid: "ij" varies the first vector along dimension 0 (the default), "xy" along 1."""
    parts = list(_listed(tensors))
    if indexing not in (None, "ij", "xy"):
        raise RuntimeError(f"[meshgrid] indexing must be 'ij' or 'xy', came {indexing!r}")
    for t in parts:
        if t.ndim > 1:
            raise RuntimeError(f"[meshgrid] must be vectors or 0-d, came shape {list(t.shape)}")
    if len({t.array.dtype for t in parts}) > 1:
        raise RuntimeError(f"[meshgrid] dtypes must be equal, came {[t.dtype for t in parts]}")
    swap = indexing == "xy" and len(parts) > 1
    if swap:
        parts[:2] = parts[1], parts[0]
    shape = tuple(t.array.size for t in parts)
    grids = []
    for i, t in enumerate(parts):
        column = _s.reshape(t, shape=tuple(n if k == i else 1 for k, n in enumerate(shape)))
        grids.append(_s.expand(column, shape=shape))
    if swap:
        grids[:2] = grids[1], grids[0]
    return tuple(grids)


def cartesian_prod(*tensors: Tensor) -> Tensor:
    """All combinations of elements of the vectors, one row each."""
    parts = _listed(tensors)
    check_tensors("cartesian_prod", *parts)
    if any(part.ndim != 1 for part in parts):
        raise RuntimeError(f"[cartesian_prod] must be vectors, came shapes {[list(p.shape) for p in parts]}")
    if len(parts) == 1:
        return parts[0]
    return _s.stack(*[_s.reshape(g, shape=(-1,)) for g in meshgrid(*parts, indexing="ij")], dim=1)


def combinations(input: Tensor, r: int = 2, with_replacement: bool = False) -> Tensor:
    """All choices of `r` elements of a vector, one row each."""
    if input.ndim != 1:
        raise RuntimeError(f"[combinations] must be a vector, came shape {list(input.shape)}")
    if r == 0:
        return input.new_empty((0,))
    choose = itertools.combinations_with_replacement if with_replacement else itertools.combinations
    rows = np.asarray(list(choose(range(input.shape[0]), r)), I64).reshape(-1, r)
    return input[wrap(rows)]


# ---- diagonals and triangles


def diag_embed(input: Tensor, offset: int = 0, dim1: int = -2, dim2: int = -1) -> Tensor:
    """The last dimension on the diagonal of new matrices."""
    ndim = input.ndim + 1
    a, b = axis_of("diag_embed", dim1, ndim), axis_of("diag_embed", dim2, ndim)
    n = input.shape[-1] + abs(offset)
    if a == b:
        raise RuntimeError(f"[diag_embed] needs two distinct dimensions, came {dim1} and {dim2}")
    rest = iter(input.array.shape[:-1])
    shape = tuple(n if d in (a, b) else next(rest) for d in range(ndim))
    return _s.diagonal_adjoint(input, shape=shape, offset=offset, dim1=a, dim2=b)


def diag(input: Tensor, diagonal: int = 0) -> Tensor:
    """The diagonal of a matrix, or a matrix with the vector on its diagonal."""
    if input.ndim not in (1, 2):
        raise RuntimeError(f"[diag] must be a vector or a matrix, came shape {list(input.shape)}")
    return diag_embed(input, diagonal) if input.ndim == 1 else f.diagonal(input, diagonal).clone()


def diagflat(input: Tensor, offset: int = 0) -> Tensor:
    """A matrix with all elements on its diagonal."""
    return diag_embed(ravel(input), offset)


def trace(input: Tensor) -> Tensor:
    """The sum of the diagonal of a matrix."""
    refuse("trace", "b", input)
    if input.ndim != 2:
        raise RuntimeError(f"[trace] must be a matrix, came shape {list(input.shape)}")
    return f.diagonal(input).sum()


def block_diag(*tensors: Tensor) -> Tensor:
    """A matrix with the given matrices along its diagonal."""
    parts = atleast_2d(list(tensors))
    for t in parts:
        if t.ndim > 2:
            raise RuntimeError(f"[block_diag] must have at most 2 dimensions, came shape {list(t.shape)}")
    width, before, rows = sum(t.shape[1] for t in parts), 0, []
    for t in parts:
        n, m = t.array.shape
        rows.append(_s.narrow_adjoint(t, shape=(n, width), dim=1, start=before))
        before += m
    return f.cat(rows, 0)


def tril_indices(
    row: int, col: int, offset: int = 0, *, dtype: Any = I64, device: Any = None, **_: Any
) -> Tensor:
    """Rows and columns of the lower triangle of a matrix, as [2, n]."""
    return finish(np.stack(np.tril_indices(row, offset, col)).astype(to_numpy(dtype)), False, device)


def triu_indices(
    row: int, col: int, offset: int = 0, *, dtype: Any = I64, device: Any = None, **_: Any
) -> Tensor:
    """Rows and columns of the upper triangle of a matrix, as [2, n]."""
    return finish(np.stack(np.triu_indices(row, offset, col)).astype(to_numpy(dtype)), False, device)


def unravel_index(indices: Tensor, shape: Any) -> tuple[Tensor, ...]:
    """Flat positions as one tensor a dimension."""
    shape = (shape,) if isinstance(shape, int) else tuple(int(n) for n in shape)
    return tuple(wrap(as_array(i, I64)) for i in np.unravel_index(indices.array, shape))


def vander(x: Tensor, N: int | None = None, increasing: bool = False) -> Tensor:
    """Columns of powers of a vector."""
    if x.ndim != 1:
        raise RuntimeError(f"[vander] must be a vector, came shape {list(x.shape)}")
    n = x.shape[-1] if N is None else N
    powers = np.arange(n) if increasing else np.arange(n)[::-1]
    kind = x.array.dtype if x.array.dtype != bool else powers.dtype
    return _p.pow(_s.unsqueeze(x, dim=-1), wrap(powers.astype(kind)))


# ---- views by strides


def unfold(input: Tensor, dimension: int, size: int, step: int) -> Tensor:
    """A view of windows along a dimension; the place within a window is a new last dimension."""
    return _v.unfold(input, dimension=dimension, size=size, step=step)


def as_strided(input: Tensor, size: Any, stride: Any, storage_offset: int | None = None) -> Tensor:
    """A view of the memory with the given sizes and steps, both in elements; the offset counts from its start."""
    start = input.storage_offset()
    offset = start if storage_offset is None else storage_offset
    if input.array.flags.c_contiguous:
        offset -= start
    elif input.requires_grad:
        raise RuntimeError("[as_strided] a tensor that requires grad must be contiguous: use contiguous()")
    return _v.as_strided(input, size=size, stride=stride, storage_offset=offset)


def sum_to_size(input: Tensor, *sizes: Any, size: Any = None) -> Tensor:
    """Summed over what broadcasting from `size` would have spread."""
    shape = tuple(_dims(sizes) if size is None else size)
    if np.broadcast_shapes(shape, input.array.shape) != input.array.shape:
        raise RuntimeError(f"[sum_to_size] {list(shape)} must broadcast to {list(input.shape)}")
    return _s.sum_to_shape(input, shape=shape)


def gradient(input: Tensor, *, spacing: Any = 1, dim: Any = None, edge_order: int = 1) -> tuple[Tensor, ...]:
    """Central differences along each dimension, one-sided at the ends (order 1)."""
    if edge_order != 1:
        raise RuntimeError(f"[gradient] edge_order must be 1, came {edge_order}")
    axes = axes_of("gradient", dim, input.ndim)
    steps = spacing if isinstance(spacing, tuple | list) else (spacing,) * len(axes)
    return tuple(_central(input, d, h) for d, h in zip(axes, steps))


def _central(x: Tensor, d: int, h: Any) -> Tensor:
    n = x.shape[d]
    if n < 2:
        raise RuntimeError(f"[gradient] dimension {d} must have at least 2 elements, came {n}")
    ahead, behind = np.minimum(np.arange(n) + 1, n - 1), np.maximum(np.arange(n) - 1, 0)
    width = (ahead - behind).astype(x.array.dtype) * (1 if isinstance(h, Variable) else h)
    if isinstance(h, Variable):
        width = h.array[ahead] - h.array[behind]
    difference = _p.sub(f.index_select(x, d, wrap(ahead)), f.index_select(x, d, wrap(behind)))
    return _p.div(difference, wrap(width.reshape((-1,) + (1,) * (x.ndim - d - 1))))
