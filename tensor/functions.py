"""Functions on tensors under PyTorch's names and signatures; as methods of Tensor they take `input` as self."""

from __future__ import annotations

import math
import warnings
from collections.abc import Sequence
from operator import index as whole
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from ..autograd.engine import Variable, array_namespace, as_array, read, wrap
from ..autograd.op import tensor_ops
from . import ops as _ops  # noqa: F401  (declares all ops)
from .checks import one_dtype, tensors
from .dtypes import BOOL, F32, F64, category, to_numpy
from .ops import index as _index
from .ops import linear as _linear
from .ops import pointwise as _p
from .ops import reduce as _r
from .ops import shape as _s

if TYPE_CHECKING:
    from .tensor import Tensor

Number = bool | int | float | complex

# ---- arithmetic


def in_order(name: str, number: Any, *tensors: Any) -> tuple[Any, ...]:
    """The arguments in PyTorch's older order (`add(x, alpha, y)`) as (tensors..., number)."""
    if not isinstance(number, Number | np.generic) or not isinstance(tensors[-1], Variable | Number):
        raise TypeError(f"[{name}] too many positional arguments: alpha and value are keywords")
    warnings.warn(
        f"[{name}] the number is a keyword now (alpha=, value=), it came before a tensor", stacklevel=3
    )
    return (*tensors, number)


def add(input: Any, other: Any, older: Any = None, *, alpha: Number = 1) -> Tensor:
    """input + alpha * other, broadcast."""
    if older is not None:
        other, alpha = in_order("add", other, older)
    return _p.add(
        input, other if alpha == 1 else _p.mul(other, alpha) if isinstance(other, Variable) else other * alpha
    )


def sub(input: Any, other: Any, older: Any = None, *, alpha: Number = 1) -> Tensor:
    """input - alpha * other, broadcast."""
    if older is not None:
        other, alpha = in_order("sub", other, older)
    return _p.sub(
        input, other if alpha == 1 else _p.mul(other, alpha) if isinstance(other, Variable) else other * alpha
    )


mul = _p.mul


def div(input: Any, other: Any, *, rounding_mode: str | None = None) -> Tensor:
    """input / other; `rounding_mode` "floor" or "trunc" rounds the quotient."""
    if rounding_mode is None:
        return _p.div(input, other)
    if rounding_mode == "floor":
        return _p.floor_divide(input, other)
    if rounding_mode == "trunc":
        quotient = _p.trunc(_p.div(input, other))
        kinds = [category(t.array.dtype) for t in (input, other) if isinstance(t, Variable)]
        integers = not {2, 3} & {*kinds} and not isinstance(other, float)
        return quotient.to(input.array.dtype) if integers else quotient
    raise RuntimeError(f"[div] rounding_mode must be None, 'floor' or 'trunc', came {rounding_mode!r}")


pow = _p.pow
multiply, subtract, divide, true_divide = mul, sub, div, div
floor_divide, remainder, fmod = _p.floor_divide, _p.remainder, _p.fmod
atan2 = arctan2 = _p.atan2
maximum, minimum = _p.maximum, _p.minimum
neg = negative = _p.neg
abs = absolute = _p.abs
sign, square, exp, expm1, exp2 = _p.sign, _p.square, _p.exp, _p.expm1, _p.exp2
log, log2, log10, log1p = _p.log, _p.log2, _p.log10, _p.log1p
sqrt, rsqrt, reciprocal = _p.sqrt, _p.rsqrt, _p.reciprocal
sin, cos, tan, sinh, cosh, tanh = _p.sin, _p.cos, _p.tan, _p.sinh, _p.cosh, _p.tanh
asin = arcsin = _p.asin
acos = arccos = _p.acos
atan = arctan = _p.atan
floor, ceil, trunc, fix = _p.floor, _p.ceil, _p.trunc, _p.trunc
sigmoid, erf = _p.sigmoid, _p.erf
isnan, isinf, isfinite = _p.isnan, _p.isinf, _p.isfinite
logical_and, logical_or, logical_xor, logical_not = (
    _p.logical_and,
    _p.logical_or,
    _p.logical_xor,
    _p.logical_not,
)
bitwise_and, bitwise_or, bitwise_xor, bitwise_not = (
    _p.bitwise_and,
    _p.bitwise_or,
    _p.bitwise_xor,
    _p.bitwise_not,
)
bitwise_left_shift, bitwise_right_shift = _p.lshift, _p.rshift
eq, ne, lt, le, gt, ge = _p.eq, _p.ne, _p.lt, _p.le, _p.gt, _p.ge
not_equal, less, less_equal, greater, greater_equal = ne, lt, le, gt, ge


def round(input: Tensor, *, decimals: int = 0) -> Tensor:
    """To the nearest integer, halves to even."""
    tensors("round", input)
    return _p.round(input, decimals=decimals)


def clamp(input: Tensor, min: Any = None, max: Any = None) -> Tensor:
    """Each element moved into [min, max]; a bound may be a number, a tensor or None."""
    return _p.clamp(input, min, max)


clip = clamp


def masked_fill(input: Tensor, mask: Tensor, value: Any) -> Tensor:
    """A copy with `value` where `mask` is True; the mask broadcasts."""
    if value is None:
        raise TypeError("[masked_fill] the value must be a number, came None")
    return _p.masked_fill(input, mask, value)


def where(condition: Tensor, input: Any = None, other: Any = None) -> Any:
    """`input` where `condition` holds, else `other`; with the condition alone, its nonzero indices."""
    if input is None and other is None:
        return nonzero(condition, as_tuple=True)
    return _p.where(condition, input, other)


def lerp(input: Tensor, end: Tensor, weight: Any) -> Tensor:
    """input + weight * (end - input)."""
    one_dtype("lerp", input, end, weight)
    return _p.add(input, _p.mul(_p.sub(end, input), weight))


def addcmul(input: Tensor, tensor1: Any, tensor2: Any, *older: Any, value: Number = 1) -> Tensor:
    """input + value * tensor1 * tensor2."""
    if older:
        tensor1, tensor2, value = in_order("addcmul", tensor1, tensor2, *older)
    product = _p.mul(tensor1, tensor2)
    return _p.add(input, product if value == 1 else _p.mul(product, value))


def addcdiv(input: Tensor, tensor1: Any, tensor2: Any, *older: Any, value: Number = 1) -> Tensor:
    """input + value * tensor1 / tensor2."""
    if older:
        tensor1, tensor2, value = in_order("addcdiv", tensor1, tensor2, *older)
    if category(tensor1.array.dtype) < 2 and category(tensor2.array.dtype) < 2:
        raise RuntimeError(
            f"[addcdiv] one of the tensors divided must be floating, came {tensor1.dtype} and {tensor2.dtype}"
        )
    quotient = _p.div(tensor1, tensor2)
    return _p.add(input, quotient if value == 1 else _p.mul(quotient, value))


def relu(input: Tensor) -> Tensor:
    """max(input, 0)."""
    return tensor_ops["relu"](input)


def softmax(input: Tensor, dim: int, dtype: Any = None) -> Tensor:
    """exp(input) divided by its sum along `dim`."""
    return tensor_ops["softmax"](input if dtype is None else _p.cast(input, dtype=dtype), dim=dim)


def log_softmax(input: Tensor, dim: int, dtype: Any = None) -> Tensor:
    """log(softmax(input)), computed without overflow."""
    return tensor_ops["log_softmax"](input if dtype is None else _p.cast(input, dtype=dtype), dim=dim)


# ---- reductions

SHORT = {F32, F64}  # dtypes of the short ways


class Extreme(NamedTuple):
    """Values and where they stand, as `max`, `min`, `sort`, `topk`, `median` along a dimension return."""

    values: Any
    indices: Any


def _array(name: str, input: Any) -> Any:
    try:
        return input.array
    except AttributeError:
        raise TypeError(f"[{name}] must be called with a Tensor, came {type(input).__name__}") from None


def sum(input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """Sum over `dim` (an int, several, or None for all)."""
    if dim is None and dtype is None and not keepdim and _array("sum", input).dtype in SHORT:
        return _r.sum_all(input)
    return _r.sum(input, dim=dim, keepdim=keepdim, dtype=dtype)


def mean(input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """Mean over `dim`."""
    if dim is None and dtype is None and not keepdim and _array("mean", input).dtype in SHORT:
        return _r.mean_all(input)
    return _r.mean(input, dim=dim, keepdim=keepdim, dtype=dtype)


def prod(input: Tensor, dim: Any = None, keepdim: bool = False, *, dtype: Any = None) -> Tensor:
    """Product over `dim`."""
    return _r.prod(input, dim=dim, keepdim=keepdim, dtype=dtype)


def _correction(dim: Any, unbiased: bool | None, correction: Any) -> tuple[Any, float]:
    if isinstance(dim, bool):
        dim, unbiased = None, dim
    return dim, (correction if unbiased is None else int(unbiased))


def var(
    input: Tensor,
    dim: Any = None,
    unbiased: bool | None = None,
    keepdim: bool = False,
    *,
    correction: float = 1,
) -> Tensor:
    """Variance over `dim`, divided by n - correction."""
    dim, correction = _correction(dim, unbiased, correction)
    if input.array.dtype.kind == "c":
        parts = (tensor_ops[part](input) for part in ("real", "imag"))
        return _p.add(*(_r.var(part, dim=dim, correction=correction, keepdim=keepdim) for part in parts))
    return _r.var(input, dim=dim, correction=correction, keepdim=keepdim)


def std(
    input: Tensor,
    dim: Any = None,
    unbiased: bool | None = None,
    keepdim: bool = False,
    *,
    correction: float = 1,
) -> Tensor:
    """Standard deviation over `dim` (see var)."""
    dim, correction = _correction(dim, unbiased, correction)
    if input.array.dtype.kind == "c":
        return _p.sqrt(var(input, dim, keepdim=keepdim, correction=correction))
    return _r.std(input, dim=dim, correction=correction, keepdim=keepdim)


def amax(input: Tensor, dim: Any = (), keepdim: bool = False) -> Tensor:
    """Largest element over `dim`; equal ones share the gradient."""
    return _r.amax(input, dim=dim, keepdim=keepdim)


def amin(input: Tensor, dim: Any = (), keepdim: bool = False) -> Tensor:
    """Smallest element over `dim`; equal ones share the gradient."""
    return _r.amin(input, dim=dim, keepdim=keepdim)


def argmax(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """Index of the largest element (the first of equals), in the flattened tensor or along `dim`."""
    return _r.argmax(_no_bool("argmax", input), dim=dim, keepdim=keepdim)


def argmin(input: Tensor, dim: int | None = None, keepdim: bool = False) -> Tensor:
    """Index of the smallest element (the first of equals), in the flattened tensor or along `dim`."""
    return _r.argmin(_no_bool("argmin", input), dim=dim, keepdim=keepdim)


def _no_bool(name: str, input: Tensor) -> Tensor:
    if input.array.dtype == BOOL:
        raise NotImplementedError(f"[{name}] is not implemented for bool, came {input.dtype}: use .int()")
    return input


def _extreme(name: str, input: Tensor, dim: Any, keepdim: bool) -> Any:
    best, arg = (_r.amax, _r.argmax) if name == "max" else (_r.amin, _r.argmin)
    if dim is None:
        return best(input, dim=None, keepdim=False)
    if isinstance(dim, Variable):
        return (_p.maximum if name == "max" else _p.minimum)(input, dim)
    indices = arg(input, dim=dim, keepdim=keepdim)
    ndim = input.array.ndim
    if not ndim:
        return Extreme(input.clone(), indices)
    d = _s.axis_of(name, dim, ndim)
    if keepdim:
        return Extreme(_index.gather(input, dim=d, index=indices.array, sure=True), indices)
    return Extreme(_index.pick(input, dim=d, index=indices.array), indices)


def max(input: Tensor, dim: Any = None, keepdim: bool = False, other: Any = None) -> Any:
    """Largest element; along `dim` (values, indices); with another tensor, elementwise."""
    return _extreme("max", input, dim if other is None else other, keepdim)


def min(input: Tensor, dim: Any = None, keepdim: bool = False, other: Any = None) -> Any:
    """Smallest element; along `dim` (values, indices); with another tensor, elementwise."""
    return _extreme("min", input, dim if other is None else other, keepdim)


def all(input: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
    """Whether all elements are nonzero."""
    return _r.all(input, dim=dim, keepdim=keepdim)


def any(input: Tensor, dim: Any = None, keepdim: bool = False) -> Tensor:
    """Whether any element is nonzero."""
    return _r.any(input, dim=dim, keepdim=keepdim)


def logsumexp(input: Tensor, dim: Any, keepdim: bool = False) -> Tensor:
    """log of the sum of exponentials over `dim`, computed without overflow."""
    return _r.logsumexp(input, dim=dim, keepdim=keepdim)


def cumsum(input: Tensor, dim: int, *, dtype: Any = None) -> Tensor:
    """Running sum along `dim`."""
    return _r.cumsum(input, dim=dim, dtype=dtype)


def cumprod(input: Tensor, dim: int, *, dtype: Any = None) -> Tensor:
    """Running product along `dim`."""
    return _r.cumprod(input, dim=dim, dtype=dtype)


def norm(input: Tensor, p: Any = "fro", dim: Any = None, keepdim: bool = False, dtype: Any = None) -> Tensor:
    """Vector norm of order `p` over `dim` (all elements if None); "fro" and None are 2."""
    x = input if dtype is None else _p.cast(input, dtype=dtype)
    kind = category(x.array.dtype)
    if kind != 2:
        if kind < 2:
            raise RuntimeError(f"[norm] the dtype must be floating or complex, came {x.dtype}: use .float()")
        x = _p.abs(x)
    if isinstance(p, str) and p != "fro":
        from .linalg import matrix_norm

        return matrix_norm(x, p, (-2, -1) if dim is None else dim, keepdim)
    if p is None or p == "fro" or p == 2:
        return tensor_ops["norm2"](x, dim=dim, keepdim=keepdim)
    if p == float("inf"):
        return _r.amax(_p.abs(x), dim=dim, keepdim=keepdim)
    if p == float("-inf"):
        return _r.amin(_p.abs(x), dim=dim, keepdim=keepdim)
    if p == 0:
        return _r.sum(_p.cast(_p.ne(x, 0), dtype=x.array.dtype), dim=dim, keepdim=keepdim)
    if p == 1:
        return _r.sum(_p.abs(x), dim=dim, keepdim=keepdim)
    return _p.pow(_r.sum(_p.pow(_p.abs(x), p), dim=dim, keepdim=keepdim), 1.0 / p)


# ---- shapes


def _dims(args: tuple[Any, ...]) -> tuple[Any, ...]:
    return tuple(args[0]) if len(args) == 1 and isinstance(args[0], tuple | list) else args


def reshape(input: Tensor, *sizes: Any, shape: Any = None) -> Tensor:
    """The same elements in another shape, in the same memory where that is possible; one size may be -1."""
    return _s.reshape(input, shape=_dims(sizes) if shape is None else shape)


def transpose(input: Tensor, dim0: int, dim1: int) -> Tensor:
    """A view with two dimensions exchanged."""
    return _s.transpose(input, dim0=dim0, dim1=dim1)


swapaxes = swapdims = transpose


def t(input: Tensor) -> Tensor:
    """A view of a matrix, transposed; vectors and 0-d tensors come back as they are."""
    if input.ndim > 2:
        raise RuntimeError(f"[t] the tensor must have at most 2 dimensions, came shape {list(input.shape)}")
    return _s.transpose(input, dim0=0, dim1=1) if input.ndim == 2 else _s.alias(input)


def permute(input: Tensor, *order: Any, dims: Any = None) -> Tensor:
    """A view with dimensions in another order."""
    return _s.permute(input, dims=_dims(order) if dims is None else dims)


def unsqueeze(input: Tensor, dim: int) -> Tensor:
    """A view with a dimension of size 1 put in."""
    return _s.unsqueeze(input, dim=dim)


def squeeze(input: Tensor, dim: Any = None) -> Tensor:
    """A view without dimensions of size 1: all of them, or those named."""
    return _s.squeeze(input, dim=dim)


def flatten(input: Tensor, start_dim: int = 0, end_dim: int = -1) -> Tensor:
    """Dimensions from `start_dim` to `end_dim` joined into one."""
    n = input.ndim
    if n == 0:
        _s.axis_of("flatten", start_dim, 0), _s.axis_of("flatten", end_dim, 0)
        return _s.reshape(input, shape=(1,))
    a, b = _s.axis_of("flatten", start_dim, n), _s.axis_of("flatten", end_dim, n)
    if a > b:
        raise RuntimeError(f"[flatten] start_dim must not come after end_dim, came {start_dim} and {end_dim}")
    shape = input.array.shape
    return _s.reshape(input, shape=(*shape[:a], math.prod(shape[a : b + 1]), *shape[b + 1 :]))


def unflatten(input: Tensor, dim: int, sizes: Sequence[int]) -> Tensor:
    """One dimension split into several."""
    d = _s.axis_of("unflatten", dim, input.ndim)
    shape = input.array.shape
    inner = _s.shape_of("unflatten", sizes, shape[d])
    return _s.reshape(input, shape=(*shape[:d], *inner, *shape[d + 1 :]))


def narrow(input: Tensor, dim: int, start: Any, length: int) -> Tensor:
    """A view of `length` elements along `dim`."""
    return _s.narrow(
        input,
        dim=dim,
        start=int(start) if isinstance(start, Variable) else whole(start),
        length=whole(length),
    )


def select(input: Tensor, dim: int, index: int) -> Tensor:
    """A view at one position of `dim`, without that dimension."""
    if index is None:
        raise TypeError("[select] the index must be an int, came None")
    d = _s.axis_of("select", dim, input.ndim)
    return input[(slice(None),) * d + (index,)]


def split(input: Tensor, split_size_or_sections: Any, dim: int = 0) -> tuple[Tensor, ...]:
    """Views of parts along `dim`: of one size (the last may be smaller), or of the sizes listed."""
    return _s.split(input, sizes=split_size_or_sections, dim=dim)


def chunk(input: Tensor, chunks: int, dim: int = 0) -> tuple[Tensor, ...]:
    """At most `chunks` views of equal parts along `dim`."""
    if chunks < 1:
        raise RuntimeError(f"[chunk] the number of chunks must be positive, came {chunks}")
    n = input.array.shape[_s.axis_of("chunk", dim, input.array.ndim)]
    if not n:
        return tuple(input.view(input.shape) for _ in range(chunks))
    return _s.split(input, sizes=-(-n // chunks), dim=dim)


def unbind(input: Tensor, dim: int = 0) -> tuple[Tensor, ...]:
    """Views at each position of `dim`."""
    return _s.unbind(input, dim=dim)


def cat(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Tensors joined along a dimension that they have."""
    return _s.cat(*tensors, dim=dim)


concat = concatenate = cat


def stack(tensors: Sequence[Tensor], dim: int = 0) -> Tensor:
    """Tensors of one shape joined along a new dimension."""
    return _s.stack(*tensors, dim=dim)


def flip(input: Tensor, *axes: Any, dims: Any = None) -> Tensor:
    """A copy with the order along `dims` reversed."""
    return _s.flip(input, dims=_dims(axes) if dims is None else dims)


def roll(input: Tensor, shifts: Any, dims: Any = None) -> Tensor:
    """Elements moved along `dims`, what leaves at the end comes in at the front."""
    tensors("roll", input)
    return _s.roll(input, shifts=shifts, dims=dims)


def tril(input: Tensor, diagonal: int = 0) -> Tensor:
    """A copy with zeros above a diagonal."""
    return _s.tril(input, diagonal=whole(diagonal))


def triu(input: Tensor, diagonal: int = 0) -> Tensor:
    """A copy with zeros below a diagonal."""
    return _s.triu(input, diagonal=whole(diagonal))


def diagonal(input: Tensor, offset: int = 0, dim1: int = 0, dim2: int = 1) -> Tensor:
    """A view of a diagonal; it becomes the last dimension."""
    return _s.diagonal(input, offset=offset, dim1=dim1, dim2=dim2)


def broadcast_to(input: Tensor, size: Sequence[int]) -> Tensor:
    """A view in a larger shape, without copies of the elements."""
    return _s.expand(input, shape=tuple(size))


# ---- indexing


def gather(input: Tensor, dim: int, index: Tensor, *, sparse_grad: bool = False) -> Tensor:
    """out[i][j] = input[index[i][j]][j] for dim 0, and so on for the others."""
    return _index.gather(input, dim=dim, index=index)


def index_select(input: Tensor, dim: int, index: Tensor) -> Tensor:
    """The named positions of `dim`, in the order of the index."""
    return _index.index_select(input, dim=dim, index=index)


def masked_select(input: Tensor, mask: Tensor) -> Tensor:
    """A 1-d tensor of the elements at which the mask is True."""
    if mask.array.dtype != BOOL:
        raise RuntimeError(f"[masked_select] the mask must be bool, came {mask.dtype}")
    shape = np.broadcast_shapes(input.array.shape, mask.array.shape)
    return broadcast_to(input, shape)[broadcast_to(mask, shape)]


def _nonzero(xp: Any, x: Any) -> tuple[Any, ...]:
    """numpy.nonzero, by the flat positions: several times faster than NumPy's own for more than one dimension."""
    if xp is not np or x.ndim < 2 or x.size < 64:
        return xp.nonzero(x)
    rest = np.flatnonzero(x if x.dtype == bool else x != 0)
    found = []
    for n in x.shape[:0:-1]:
        above = rest // n
        found.append(rest - above * n)
        rest = above
    return (rest, *reversed(found))


def nonzero(input: Tensor, *, as_tuple: bool = False) -> Any:
    """Indices of the elements that are not zero: one row each, or one tensor a dimension."""
    xp = array_namespace[type(input.array)]
    found = _nonzero(xp, input.array if input.ndim else input.array.reshape(1))
    if as_tuple:
        return tuple(wrap(i) for i in found)
    rows = xp.stack(found, axis=1) if input.ndim else xp.zeros((len(found[0]), 0), np.int64)
    return wrap(as_array(rows))


# ---- products


def matmul(input: Tensor, other: Tensor) -> Tensor:
    """Matrix product; vectors and batches as in NumPy's matmul."""
    try:
        return _linear.matmul(input, other)
    except RuntimeError:
        if not getattr(input, "is_sparse", False):
            raise
        return input @ other


def mm(input: Tensor, mat2: Tensor) -> Tensor:
    """Product of two matrices."""
    if input.ndim != 2 or mat2.ndim != 2:
        raise RuntimeError(
            f"[mm] both must be matrices, came shapes {list(input.shape)} and {list(mat2.shape)}"
        )
    return matmul(input, mat2)


def bmm(input: Tensor, mat2: Tensor) -> Tensor:
    """Products of two batches of matrices."""
    if input.ndim != 3 or mat2.ndim != 3 or input.shape[0] != mat2.shape[0]:
        raise RuntimeError(
            f"[bmm] both must be batches of equally many matrices, came {list(input.shape)} and {list(mat2.shape)}"
        )
    return _linear.matmul(input, mat2)


def mv(input: Tensor, vec: Tensor) -> Tensor:
    """Product of a matrix and a vector."""
    if input.ndim != 2 or vec.ndim != 1:
        raise (RuntimeError if input.ndim else IndexError)(
            f"[mv] needs a matrix and a vector, came {list(input.shape)} and {list(vec.shape)}"
        )
    return _linear.matmul(input, vec)


def dot(input: Tensor, tensor: Tensor) -> Tensor:
    """Inner product of two vectors."""
    if input.ndim != 1 or tensor.ndim != 1:
        raise RuntimeError(
            f"[dot] both must be vectors, came shapes {list(input.shape)} and {list(tensor.shape)}"
        )
    return _linear.matmul(input, tensor)


def outer(input: Tensor, vec2: Tensor) -> Tensor:
    """All products of elements of two vectors."""
    if input.ndim != 1 or vec2.ndim != 1:
        raise RuntimeError(
            f"[outer] both must be vectors, came shapes {list(input.shape)} and {list(vec2.shape)}"
        )
    return _p.mul(_s.unsqueeze(input, dim=1), vec2)


def addmm(input: Tensor, mat1: Tensor, mat2: Tensor, *, beta: Number = 1, alpha: Number = 1) -> Tensor:
    """beta * input + alpha * (mat1 @ mat2)."""
    one_dtype("addmm", input, mat1, mat2)
    if input.ndim > 2:
        raise RuntimeError(f"[addmm] the input must have at most 2 dimensions, came {list(input.shape)}")
    product = mm(mat1, mat2)
    return _p.add(
        input if beta == 1 else _p.mul(input, beta), product if alpha == 1 else _p.mul(product, alpha)
    )


# ---- comparisons of whole tensors


def equal(input: Tensor, other: Tensor) -> bool:
    """Whether shapes and all elements are equal."""
    read(input, "equal()")
    return bool(np.array_equal(input.array, other.array))


def isclose(
    input: Tensor, other: Tensor, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False
) -> Tensor:
    """|input - other| <= atol + rtol * |other|, element by element."""
    one_dtype("isclose", input, other)
    return wrap(as_array(np.isclose(input.array, other.array, rtol, atol, equal_nan)))


def allclose(
    input: Tensor, other: Tensor, rtol: float = 1e-5, atol: float = 1e-8, equal_nan: bool = False
) -> bool:
    """Whether `isclose` holds for all elements."""
    one_dtype("allclose", input, other)
    read(input, "allclose()")
    return bool(np.allclose(input.array.astype(F64), other.array.astype(F64), rtol, atol, equal_nan))


def numel(input: Tensor) -> int:
    """How many elements there are."""
    return int(input.array.size)


def is_tensor(obj: Any) -> bool:
    """Whether something is a tensor."""
    return isinstance(obj, Variable)


def is_floating_point(input: Tensor) -> bool:
    """Whether the dtype is a floating one."""
    return input.dtype.is_floating_point


def cast(input: Tensor, dtype: Any) -> Tensor:
    """The elements in another dtype; the same tensor where it is that already."""
    n = to_numpy(dtype)
    return input if input.array.dtype == n else _p.cast(input, dtype=n)
