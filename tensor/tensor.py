"""The Tensor: an array with a place in the autograd graph, and PyTorch's methods."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import count
from types import NoneType
from typing import Any

import numpy as np

from ..autograd import backward as _backward
from ..autograd import backward_scalar, engine
from ..autograd.engine import LEAF, OUTPUT, Variable, array_namespace, edge_of, refresh, wrap
from ..autograd.inplace import apply_inplace, assign, check_writable, write, written
from ..autograd.op import tensor_ops
from . import creation, device, dtypes, methods
from . import functions as f
from . import random as _random
from .dtypes import dtype
from .ops import index as _index
from .ops import pointwise as _p
from .ops import shape as _s
from .ops.declare import promoted

_tokens = count()


class Size(tuple[int, ...]):
    """A shape: a tuple of ints that also counts its elements."""

    __slots__ = ()

    def numel(self) -> int:
        return math.prod(self)

    def __repr__(self) -> str:
        return f"{dtypes.library[0]}.Size({list(self)})"

    def __add__(self, other: Any) -> Size:
        return Size(tuple.__add__(self, tuple(other)))

    def __getitem__(self, i: Any) -> Any:
        found = tuple.__getitem__(self, i)
        return Size(found) if type(i) is slice else found


class Handle:
    """Takes a hook away again: `handle.remove()`, or as a context manager."""

    def __init__(self, hooks: dict[int, Any], hook: Any) -> None:
        self.hooks, self.token = hooks, next(_tokens)
        hooks[self.token] = hook

    def remove(self) -> None:
        self.hooks.pop(self.token, None)

    def __enter__(self) -> Handle:
        return self

    def __exit__(self, *_: Any) -> None:
        self.remove()


def _inplace(op: Callable[..., Any]) -> Callable[..., Any]:
    def method(self: Any, *args: Any, **kw: Any) -> Any:
        return apply_inplace(op, self, *args, **kw)

    return method


def _inplace_scaled(op: Callable[..., Any]) -> Callable[..., Any]:
    """add_ and sub_, which take alpha."""

    def method(self: Any, other: Any, older: Any = None, *, alpha: Any = 1) -> Any:
        if older is not None:
            other, alpha = f.in_order(op.__name__ + "_", other, older)
        if alpha != 1:
            other = _p.mul(other, alpha) if isinstance(other, Variable) else other * alpha
        return apply_inplace(op, self, other)

    return method


def _reflected(op: Callable[..., Any]) -> Callable[..., Any]:
    def method(self: Any, other: Any) -> Any:
        return op(*promoted(op.__name__, (other, self)))

    return method


class Tensor(Variable):
    """An n-dimensional array that records what is done with it.

    `array` is the NumPy (or CuPy) array underneath; writing into it directly goes past autograd.
    """

    __array_priority__ = 1000.0

    def __new__(cls, *data: Any, device: Any = None) -> Any:
        """PyTorch's legacy constructor: sizes (a Size too), or data, as float32."""
        if len(data) == 1 and isinstance(data[0], Size):
            made = creation.empty(tuple(data[0]), dtype=dtypes.get_default_dtype())
        elif data and all(isinstance(d, int) for d in data):
            made = creation.empty(*data, dtype=dtypes.get_default_dtype())
        else:
            made = creation.tensor(data[0] if data else [], dtype=dtypes.get_default_dtype())
        self = object.__new__(cls)
        self.array, self._version = made.array, [0, None]
        return self

    # ---- what it is

    @property
    def shape(self) -> Size:
        return Size(self.array.shape)

    @property
    def ndim(self) -> int:
        return self.array.ndim

    @property
    def dtype(self) -> dtype:
        return dtypes.of_numpy(self.array.dtype)

    @property
    def device(self) -> device.device:
        return device.cpu if len(array_namespace) == 1 else device.of(self.array)

    def size(self, dim: int | None = None) -> Any:
        """The shape, or one size of it."""
        return self.shape if dim is None else self.shape[dim]

    def dim(self) -> int:
        """How many dimensions there are."""
        return self.array.ndim

    ndimension = dim
    numel = nelement = f.numel
    is_floating_point = f.is_floating_point

    def is_complex(self) -> bool:
        return self.dtype.is_complex

    def element_size(self) -> int:
        """Bytes an element takes."""
        return self.array.itemsize

    itemsize = property(element_size)
    nbytes = property(lambda self: self.array.nbytes)

    def stride(self, dim: int | None = None) -> Any:
        """Steps in elements between neighbours of each dimension."""
        strides = tuple(s // self.array.itemsize for s in self.array.strides)
        return strides if dim is None else strides[dim]

    def storage_offset(self) -> int:
        """Where the first element stands in the memory of the base, in elements."""
        base, root = self.array.base, None
        while base is not None:  # what NumPy's as_strided leaves on the way is no array
            root = base if type(base) in array_namespace else root
            base = getattr(base, "base", None)
        return 0 if root is None else (self.data_ptr() - wrap(root).data_ptr()) // self.array.itemsize

    def data_ptr(self) -> int:
        """Address of the first element."""
        array = self.array
        return array.__array_interface__["data"][0] if isinstance(array, np.ndarray) else int(array.data.ptr)

    def is_contiguous(self, memory_format: Any = None) -> bool:
        """Whether the elements lie in row-major order without gaps."""
        return self.array.flags.c_contiguous

    is_sparse = is_meta = is_quantized = is_nested = is_mps = is_xpu = is_mkldnn = False
    layout = "strided"

    @property
    def is_cuda(self) -> bool:
        return not isinstance(self.array, np.ndarray)

    def is_pinned(self, device: Any = None) -> bool:
        """Whether the elements lie in page-locked memory, from which copies to a GPU do not wait."""
        return methods.is_pinned(self)

    def pin_memory(self, device: Any = None) -> Tensor:
        """A copy in page-locked memory; without a GPU memory needs no pinning: the tensor itself."""
        return methods.pin_memory(self)

    def record_stream(self, stream: Any) -> None:
        """Keeps the memory from being reused before what is queued on a CUDA stream now is done."""
        methods.record_stream(self, stream)

    is_shared, share_memory_ = methods.late("shared", "is_shared"), methods.late("shared", "share_memory_")

    @property
    def T(self) -> Tensor:
        return self.t() if self.ndim <= 2 else self.permute(*reversed(range(self.ndim)))

    @property
    def mT(self) -> Tensor:
        return _s.transpose(self, dim0=-2, dim1=-1)

    # ---- autograd

    @property
    def requires_grad(self) -> bool:
        if self._base is not None:
            refresh(self)
        return self._needs

    @requires_grad.setter
    def requires_grad(self, value: bool) -> None:
        self.requires_grad_(value)

    def requires_grad_(self, requires_grad: bool = True) -> Tensor:
        """Lets autograd record what is done with this leaf, or no longer."""
        if requires_grad and not self._needs:
            d = self.dtype
            if not (d.is_floating_point or d.is_complex):
                raise RuntimeError(f"[requires_grad_] the dtype must be floating or complex, came {d}")
            self._needs = True
        elif not requires_grad and self._needs:
            if self._node is not None:
                raise RuntimeError(
                    "[requires_grad_] gradients can be switched off for leaves only, came the result of"
                    f" {self.grad_fn.name()}: use detach()"
                )
            self._needs = False
        return self

    @property
    def is_leaf(self) -> bool:
        if self._base is not None:
            refresh(self)
        return self._node is None

    @property
    def grad(self) -> Any:
        return self._grad

    @grad.setter
    def grad(self, value: Any) -> None:
        if value is not None:
            if not isinstance(value, Variable):
                raise TypeError(f"[grad] must be a Tensor or None, came {type(value).__name__}")
            if value.array.shape != self.array.shape or value.array.dtype != self.array.dtype:
                raise RuntimeError(
                    f"[grad] shape and dtype must be the tensor's {self.array.dtype.name}{list(self.array.shape)},"
                    f" came {value.array.dtype.name}{list(value.array.shape)}"
                )
        self._grad = value

    @grad.deleter
    def grad(self) -> None:
        self._grad = None

    @property
    def grad_fn(self) -> Any:
        if self._base is not None:
            refresh(self)
        node = self._node
        if node is None:
            return None
        return GradFn(node.node if node.kind == OUTPUT else node)

    @property
    def output_nr(self) -> int:
        return self._node.index if self._node is not None and self._node.kind == OUTPUT else 0

    @property
    def data(self) -> Tensor:
        """The same memory outside of autograd, whose writes autograd does not see."""
        return wrap(self.array)

    @data.setter
    def data(self, value: Tensor) -> None:
        self.array = value.array
        self._version = [0, None]

    def detach(self) -> Tensor:
        """The same memory, without a graph."""
        t = wrap(self.array)
        t._version = self._version
        return t

    def detach_(self) -> Tensor:
        """Forgets how the tensor came about."""
        if self._base is not None:
            raise RuntimeError("[detach_] a view cannot be detached in place: use detach()")
        self._node, self._needs = None, False
        return self

    @property
    def _is_view_of(self) -> Any:
        return self._base

    def backward(
        self,
        gradient: Any = None,
        retain_graph: bool | None = None,
        create_graph: bool = False,
        inputs: Any = None,
    ) -> None:
        """Adds the gradients of this tensor to the `.grad` of the leaves (or of `inputs` alone).

        gradient: weights of the elements, of this tensor's shape; may be left out for one element.
        """
        if gradient is None and inputs is None and not create_graph and not self.array.ndim:
            backward_scalar(self, bool(retain_graph))
        else:
            _backward(self, gradient, retain_graph, create_graph, inputs=inputs)

    def register_hook(self, hook: Callable[[Tensor], Any]) -> Handle:
        """Calls `hook(gradient)` when the gradient of this tensor is computed; what it returns replaces it."""
        edge = edge_of(self)
        if edge is None:
            raise RuntimeError("[register_hook] the tensor must require grad, came one that does not")
        if edge.kind == LEAF:
            if self._hooks is None:
                self._hooks = {}
            return Handle(self._hooks, hook)
        return Handle(_node_hooks(edge), hook)

    def register_post_accumulate_grad_hook(self, hook: Callable[[Tensor], None]) -> Handle:
        """Calls `hook(tensor)` when the gradient of this leaf is whole and stands in `.grad`."""
        if not self._needs or self._node is not None:
            raise RuntimeError("[register_post_accumulate_grad_hook] must be a leaf that requires grad")
        if self._whole_hooks is None:
            self._whole_hooks = {}
        return Handle(self._whole_hooks, hook)

    def retain_grad(self) -> None:
        """Lets a tensor that is not a leaf keep its gradient in `.grad`."""
        edge = edge_of(self)
        if edge is None:
            raise RuntimeError("[retain_grad] the tensor must require grad, came one that does not")
        if edge.kind == LEAF or self.__dict__.get("_retains"):
            return
        import weakref

        target = weakref.ref(self)  # the node must not hold its output

        def keep(g: Tensor) -> None:
            tensor = target()
            if tensor is not None:
                tensor._grad = g.clone() if tensor._grad is None else tensor._grad + g

        self._retains = True
        Handle(_node_hooks(edge), keep)

    @property
    def retains_grad(self) -> bool:
        return bool(self.__dict__.get("_retains"))

    # ---- out of the engine

    def item(self) -> Any:
        """The one element as a Python number."""
        if self.array.size != 1:
            raise RuntimeError(
                f"[item] the tensor must have one element, came {self.array.size} in {list(self.shape)}"
            )
        if engine.readers:
            engine.read(self, "item()")
        return self.array.item() if self.array.dtype.kind != "V" else float(self.array.reshape(()))

    def tolist(self) -> Any:
        """Nested lists of Python numbers."""
        engine.read(self, "tolist()")
        return (self.array if self.array.dtype.kind != "V" else self.array.astype(np.float32)).tolist()

    def numpy(self, *, force: bool = False) -> np.ndarray[Any, Any]:
        """The NumPy array underneath (shared memory); `force` copies from a GPU."""
        if self.requires_grad and not force:
            raise RuntimeError("[numpy] the tensor must not require grad: use .detach().numpy()")
        if engine.readers:
            engine.read(self, "numpy()")
        if not isinstance(self.array, np.ndarray):
            if not force:
                raise TypeError(
                    f"[numpy] the tensor must be on the CPU, came {self.device}: use .cpu().numpy()"
                )
            return device.move(self.array, device.cpu)
        return self.array

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray[Any, Any]:
        array = self.numpy()
        if dtype is not None and array.dtype != dtype:
            return array.astype(dtype)
        return array.copy() if copy else array

    def __dlpack__(self, **kw: Any) -> Any:
        return (self.array if self.is_cuda else self.numpy()).__dlpack__(**kw)

    @property
    def __cuda_array_interface__(self) -> Any:
        if not self.is_cuda:
            raise AttributeError("[__cuda_array_interface__] the tensor must be on a CUDA device, came cpu")
        return self.array.__cuda_array_interface__

    def __dlpack_device__(self) -> Any:
        return self.array.__dlpack_device__()

    def __bool__(self) -> bool:
        if self.array.size != 1:
            raise RuntimeError(
                f"[bool] the truth of a tensor is defined for one element, came {self.array.size}: use any() or all()"
            )
        if engine.readers:
            engine.read(self, "bool()")
        return bool(self.array)

    def _scalar(self, name: str) -> Any:
        if self.array.size != 1:
            raise ValueError(
                f"[{name}] the tensor must have one element, came {self.array.size} in {list(self.shape)}"
            )
        return self.item()

    def __float__(self) -> float:
        return float(self._scalar("float"))

    def __int__(self) -> int:
        return int(self._scalar("int"))

    def __index__(self) -> int:
        value = self.item()
        if isinstance(value, float | complex):
            raise TypeError(f"[index] only integer tensors can be used as an index, came {self.dtype}")
        return int(value)

    def __complex__(self) -> complex:
        return complex(self._scalar("complex"))

    def __len__(self) -> int:
        if not self.ndim:
            raise TypeError("[len] a 0-d tensor has no length")
        return len(self.array)

    def __iter__(self) -> Iterator[Tensor]:
        if not self.ndim:
            raise TypeError("[iter] a 0-d tensor cannot be iterated over")
        return iter(self.unbind(0))

    def __contains__(self, value: Any) -> bool:
        return bool((self == value).any())

    __hash__ = object.__hash__  # by identity, as == compares elements

    def __repr__(self) -> str:
        from .printing import text

        engine.read(self, "repr()")
        return text(self)

    def __format__(self, spec: str) -> str:
        return format(self.item(), spec) if spec or not self.ndim else repr(self)

    def __deepcopy__(self, memo: dict[int, Any]) -> Any:
        if self._node is not None:
            raise RuntimeError("[deepcopy] only leaves can be copied deeply: use clone(), or detach() first")
        new = object.__new__(type(self))
        memo[id(self)] = new
        new.__dict__.update({k: v for k, v in self.__dict__.items() if k not in ENGINE_STATE})
        new.array, new._version, new._needs = self.array.copy(order="K"), [0, None], self._needs
        if self._grad is not None:
            new._grad = self._grad.detach().clone()
        return new

    def __reduce_ex__(self, protocol: Any) -> Any:
        array = device.move(self.array, device.cpu) if self.is_cuda else self.array
        return _rebuild, (type(self), array, self._needs and self._node is None)

    # ---- dtype, device, copies

    def to(
        self,
        *args: Any,
        dtype: Any = None,
        device: Any = None,
        copy: bool = False,
        non_blocking: bool = False,
        **kw: Any,
    ) -> Tensor:
        """Another dtype or device: `to(dtype)`, `to(device)`, `to(device, dtype)`, `to(other_tensor)`.

        non_blocking: copies between page-locked memory (pin_memory) and a GPU do not wait; synchronise before the CPU
        reads the result.
        """
        flags = []
        for a in args:
            if isinstance(a, Variable):
                dtype, device = a.array.dtype, a.device if len(array_namespace) > 1 else None
            elif type(a) is dtypes.dtype or a in (float, int, bool) or isinstance(a, np.dtype):
                dtype = a
            elif isinstance(a, bool):
                flags.append(a)  # non_blocking, copy by position
            elif a is not None:
                device = a
        if flags:
            non_blocking, copy = (*flags, copy)[:2]
        out = self if dtype is None else f.cast(self, dtype)
        if device is not None:
            out = methods.placed(out, device, non_blocking)
        return out.clone() if copy and out is self else out

    def type(self, dtype: Any = None, non_blocking: bool = False) -> Any:
        """The legacy type's name, or the tensor cast to a type or legacy type name."""
        from .legacy import dtype_of, name_of

        return name_of(self) if dtype is None else f.cast(self, dtype_of(dtype))

    def type_as(self, other: Tensor) -> Tensor:
        return f.cast(self, other.array.dtype)

    def float(self) -> Tensor:
        return f.cast(self, dtypes.float32)

    def double(self) -> Tensor:
        return f.cast(self, dtypes.float64)

    def half(self) -> Tensor:
        return f.cast(self, dtypes.float16)

    def bfloat16(self) -> Tensor:
        return f.cast(self, dtypes.bfloat16)

    def long(self) -> Tensor:
        return f.cast(self, dtypes.int64)

    def int(self) -> Tensor:
        return f.cast(self, dtypes.int32)

    def short(self) -> Tensor:
        return f.cast(self, dtypes.int16)

    def char(self) -> Tensor:
        return f.cast(self, dtypes.int8)

    def byte(self) -> Tensor:
        return f.cast(self, dtypes.uint8)

    def bool(self) -> Tensor:
        return f.cast(self, dtypes.bool_)

    def cpu(self, memory_format: Any = None) -> Tensor:
        """The tensor on the CPU; itself where it is there."""
        return self if isinstance(self.array, np.ndarray) else self.to(device="cpu")

    def cuda(self, device: Any = None, non_blocking: Any = False) -> Tensor:
        """The tensor on a GPU, by default the current one; an error where there is none."""
        return self.to(device="cuda" if device is None else device, non_blocking=non_blocking)

    def clone(self, *, memory_format: Any = None) -> Tensor:
        """A copy, recorded."""
        return _p.clone(self)

    def contiguous(self, memory_format: Any = None) -> Tensor:
        """The elements in row-major order; the tensor itself where they are already."""
        return self if self.array.flags.c_contiguous else _s.contiguous(self)

    def _beside(self, device: Any) -> Any:
        """The device that new tensors go to: that of this one unless another is named."""
        return self.device if device is None else device

    def new_tensor(
        self, data: Any, *, dtype: Any = None, device: Any = None, requires_grad: Any = False
    ) -> Tensor:
        return creation.tensor(
            data, dtype=dtype or self.dtype, device=self._beside(device), requires_grad=requires_grad
        )

    def new_empty(
        self, *size: Any, dtype: Any = None, device: Any = None, requires_grad: Any = False, **others: Any
    ) -> Tensor:
        return creation.empty(
            *size,
            dtype=dtype or self.dtype,
            device=self._beside(device),
            requires_grad=requires_grad,
            **others,
        )

    def new_zeros(
        self, *size: Any, dtype: Any = None, device: Any = None, requires_grad: Any = False, **others: Any
    ) -> Tensor:
        return creation.zeros(
            *size,
            dtype=dtype or self.dtype,
            device=self._beside(device),
            requires_grad=requires_grad,
            **others,
        )

    def new_ones(
        self, *size: Any, dtype: Any = None, device: Any = None, requires_grad: Any = False, **others: Any
    ) -> Tensor:
        return creation.ones(
            *size,
            dtype=dtype or self.dtype,
            device=self._beside(device),
            requires_grad=requires_grad,
            **others,
        )

    def new_full(
        self, size: Any, fill_value: Any, *, dtype: Any = None, device: Any = None, requires_grad: Any = False
    ) -> Tensor:
        return creation.full(
            size,
            fill_value,
            dtype=dtype or self.dtype,
            device=self._beside(device),
            requires_grad=requires_grad,
        )

    # ---- operators

    __add__, __mul__, __sub__, __truediv__ = _p.add, _p.mul, _p.sub, _p.div
    __radd__, __rmul__ = _p.add, _p.mul
    __rsub__, __rtruediv__ = _reflected(_p.sub), _reflected(_p.div)
    __pow__, __rpow__ = _p.pow, _reflected(_p.pow)
    __floordiv__, __rfloordiv__ = _p.floor_divide, _reflected(_p.floor_divide)
    __mod__, __rmod__ = _p.remainder, _reflected(_p.remainder)
    __neg__, __abs__ = _p.neg, _p.abs
    __and__, __or__, __xor__ = _p.bitwise_and, _p.bitwise_or, _p.bitwise_xor
    __rand__, __ror__, __rxor__ = _p.bitwise_and, _p.bitwise_or, _p.bitwise_xor
    __invert__, __lshift__, __rshift__ = _p.bitwise_not, _p.lshift, _p.rshift

    def __pos__(self) -> Tensor:
        return self

    def __matmul__(self, other: Any) -> Tensor:
        return f.matmul(self, other)

    def __rmatmul__(self, other: Any) -> Tensor:
        return f.matmul(creation.as_tensor(other), self)

    def __eq__(self, other: Any) -> Any:
        return _compare(_p.eq, self, other)

    def __ne__(self, other: Any) -> Any:
        return _compare(_p.ne, self, other)

    def __lt__(self, other: Any) -> Any:
        return _p.lt(self, other)

    def __le__(self, other: Any) -> Any:
        return _p.le(self, other)

    def __gt__(self, other: Any) -> Any:
        return _p.gt(self, other)

    def __ge__(self, other: Any) -> Any:
        return _p.ge(self, other)

    def __getitem__(self, index: Any) -> Tensor:
        kind = type(index)
        if kind is int or (kind is slice and _plain_slice(index)):
            return _index.getitem(self, index=(index, Ellipsis))
        plain, basic = _index.plain_index(index)
        return (_index.getitem if basic else _index.index)(self, index=plain)

    def __setitem__(self, index: Any, value: Any) -> None:
        assign(self, _index.plain_index(index)[0], value)

    # ---- functions as methods

    add, sub, mul, div, pow = f.add, f.sub, f.mul, f.div, f.pow
    subtract, multiply, divide, true_divide = f.sub, f.mul, f.div, f.div
    floor_divide, remainder, fmod, atan2, arctan2 = f.floor_divide, f.remainder, f.fmod, f.atan2, f.atan2
    maximum, minimum = f.maximum, f.minimum
    neg, negative, abs, absolute, sign, square = f.neg, f.neg, f.abs, f.abs, f.sign, f.square
    exp, expm1, exp2, log, log2, log10, log1p = f.exp, f.expm1, f.exp2, f.log, f.log2, f.log10, f.log1p
    sqrt, rsqrt, reciprocal = f.sqrt, f.rsqrt, f.reciprocal
    sin, cos, tan, sinh, cosh, tanh = f.sin, f.cos, f.tan, f.sinh, f.cosh, f.tanh
    asin, acos, atan, arcsin, arccos, arctan = f.asin, f.acos, f.atan, f.asin, f.acos, f.atan
    floor, ceil, trunc, round, sigmoid, erf = f.floor, f.ceil, f.trunc, f.round, f.sigmoid, f.erf
    isnan, isinf, isfinite = f.isnan, f.isinf, f.isfinite
    logical_and, logical_or, logical_xor, logical_not = (
        f.logical_and,
        f.logical_or,
        f.logical_xor,
        f.logical_not,
    )
    bitwise_and, bitwise_or, bitwise_xor, bitwise_not = (
        f.bitwise_and,
        f.bitwise_or,
        f.bitwise_xor,
        f.bitwise_not,
    )
    eq, ne, lt, le, gt, ge = f.eq, f.ne, f.lt, f.le, f.gt, f.ge
    not_equal, less, less_equal, greater, greater_equal = f.ne, f.lt, f.le, f.gt, f.ge
    clamp, clip, masked_fill, lerp, addcmul, addcdiv = (
        f.clamp,
        f.clamp,
        f.masked_fill,
        f.lerp,
        f.addcmul,
        f.addcdiv,
    )
    relu, softmax, log_softmax = f.relu, f.softmax, f.log_softmax
    sum, mean, prod, var, std, amax, amin = f.sum, f.mean, f.prod, f.var, f.std, f.amax, f.amin
    argmax, argmin, max, min, all, any = f.argmax, f.argmin, f.max, f.min, f.all, f.any
    logsumexp, cumsum, cumprod, norm = f.logsumexp, f.cumsum, f.cumprod, f.norm
    reshape, transpose, swapaxes, swapdims = f.reshape, f.transpose, f.transpose, f.transpose
    t, permute, unsqueeze, squeeze, flatten, unflatten = (
        f.t,
        f.permute,
        f.unsqueeze,
        f.squeeze,
        f.flatten,
        f.unflatten,
    )
    narrow, select, chunk, unbind = f.narrow, f.select, f.chunk, f.unbind

    def split(self, split_size: Any, dim: Any = 0) -> tuple[Tensor, ...]:
        """Views of parts along `dim`: of one size (the last may be smaller), or of the sizes listed."""
        return f.split(self, split_size, dim)

    flip, roll, tril, triu, diagonal, broadcast_to = (
        f.flip,
        f.roll,
        f.tril,
        f.triu,
        f.diagonal,
        f.broadcast_to,
    )
    gather, index_select, masked_select, nonzero = f.gather, f.index_select, f.masked_select, f.nonzero
    matmul, mm, bmm, mv, dot, outer, addmm = f.matmul, f.mm, f.bmm, f.mv, f.dot, f.outer, f.addmm
    equal, isclose, allclose = f.equal, f.isclose, f.allclose

    def where(self, condition: Tensor, other: Any) -> Tensor:
        return _p.where(condition, self, other)

    def view(self, *shape: Any, size: Any = None, dtype: Any = None) -> Tensor:
        """The same memory in another shape, or under another dtype; never a copy."""
        if size is not None or dtype is not None:
            shape = (dtype,) if size is None else size
        if len(shape) == 1 and type(shape[0]) is dtypes.dtype:
            return wrap(self.array.view(dtypes.to_numpy(shape[0])))
        return _s.view(self, shape=f._dims(shape))

    def view_as(self, other: Tensor) -> Tensor:
        return _s.view(self, shape=other.array.shape)

    def reshape_as(self, other: Tensor) -> Tensor:
        return _s.reshape(self, shape=other.array.shape)

    def expand(self, *sizes: Any, size: Any = None) -> Tensor:
        """A view in a larger shape, without copies of the elements; -1 keeps a size."""
        return _s.expand(self, shape=f._dims(sizes) if size is None else size)

    def expand_as(self, other: Tensor) -> Tensor:
        return _s.expand(self, shape=other.array.shape)

    def repeat(self, *sizes: Any, repeats: Any = None) -> Tensor:
        """Copies laid side by side, so many along each dimension."""
        times = f._dims(sizes if repeats is None else (repeats,))
        if len(times) < self.ndim:
            raise RuntimeError(f"[repeat] must name at least {self.ndim} counts, came {list(times)}")
        shape = (1,) * (len(times) - self.ndim) + self.array.shape
        inner = tuple(n for pair in zip(times, shape) for n in (pair[0], pair[1]))
        spread = self.reshape(tuple(n for s in shape for n in (1, s))).expand(inner)
        return spread.reshape(tuple(a * b for a, b in zip(times, shape)))

    # ---- in place

    uniform_, normal_, log_normal_ = _random.uniform_, _random.normal_, _random.log_normal_
    exponential_, cauchy_, geometric_ = _random.exponential_, _random.cauchy_, _random.geometric_
    bernoulli_, random_ = _random.bernoulli_, _random.random_
    bernoulli, multinomial = _random.bernoulli, _random.multinomial

    add_, sub_ = _inplace_scaled(_p.add), _inplace_scaled(_p.sub)
    mul_, div_, pow_, remainder_ = (
        _inplace(_p.mul),
        _inplace(_p.div),
        _inplace(_p.pow),
        _inplace(_p.remainder),
    )
    neg_, exp_, log_, sqrt_, rsqrt_ = (_inplace(op) for op in (_p.neg, _p.exp, _p.log, _p.sqrt, _p.rsqrt))

    def abs_(self) -> Tensor:
        if self.array.dtype.kind == "c":
            raise RuntimeError(f"[abs_] must be real in place, came {self.dtype}: use abs()")
        return apply_inplace(_p.abs, self)

    floor_, ceil_, round_, tanh_, sigmoid_ = (
        _inplace(op) for op in (_p.floor, _p.ceil, _p.round, _p.tanh, _p.sigmoid)
    )
    square_, reciprocal_, sin_, cos_ = (_inplace(op) for op in (_p.square, _p.reciprocal, _p.sin, _p.cos))
    clamp_ = clip_ = _inplace(_p.clamp)
    masked_fill_ = _inplace(_p.masked_fill)

    def __iadd__(self, other: Any) -> Tensor:
        return apply_inplace(_p.add, self, other)

    def __isub__(self, other: Any) -> Tensor:
        return apply_inplace(_p.sub, self, other)

    def __imul__(self, other: Any) -> Tensor:
        return apply_inplace(_p.mul, self, other)

    def __itruediv__(self, other: Any) -> Tensor:
        return apply_inplace(_p.div, self, other)

    def __ipow__(self, other: Any) -> Tensor:
        return apply_inplace(_p.pow, self, other)

    def copy_(self, src: Any, non_blocking: Any = False) -> Tensor:
        """Overwrites the elements with those of `src`, cast, broadcast, and from whichever device."""
        if len(array_namespace) > 1 and isinstance(src, Variable) and type(src.array) is not type(self.array):
            src = methods.placed(src, self.device, bool(non_blocking))
        return apply_inplace(_p.copy, self, src if isinstance(src, Variable) else creation.as_tensor(src))

    def fill_(self, value: Any) -> Tensor:
        """Overwrites all elements with one value."""
        return apply_inplace(
            _p.copy, self, value if isinstance(value, Variable) else np.asarray(value, self.array.dtype)
        )

    def zero_(self) -> Tensor:
        """Overwrites all elements with zero."""
        return self.fill_(0)

    def addcmul_(self, tensor1: Any, tensor2: Any, older: Any = None, *, value: Any = 1) -> Tensor:
        if older is not None:
            tensor1, tensor2, value = f.in_order("addcmul_", tensor1, tensor2, older)
        return self.add_(_p.mul(tensor1, tensor2), alpha=value)

    def addcdiv_(self, tensor1: Any, tensor2: Any, older: Any = None, *, value: Any = 1) -> Tensor:
        if older is not None:
            tensor1, tensor2, value = f.in_order("addcdiv_", tensor1, tensor2, older)
        return self.add_(_p.div(tensor1, tensor2), alpha=value)

    def lerp_(self, end: Any, weight: Any) -> Tensor:
        return apply_inplace(_p.add, self, _p.mul(_p.sub(end, self), weight))

    def relu_(self) -> Tensor:
        return apply_inplace(tensor_ops["relu"], self)

    def set_content(self, name: str, array: Any) -> Tensor:
        """Overwrites the elements with an array that depends on nothing: random fills."""
        check_writable(name, self)
        if self._needs and engine.mode.grad:
            return apply_inplace(_p.copy, self, array)
        write(name, self, array)
        return self

    def _refill(self, shape: Any) -> None:
        """Other memory for the same tensor, as resize_ needs."""
        self.array = np.resize(self.array, tuple(shape))
        written(self)


class Parameter(Tensor):
    """A tensor that a Module counts among its parameters; it requires grad unless told otherwise."""

    def __new__(cls, data: Any = None, requires_grad: bool = True) -> Any:
        source = creation.empty(0) if data is None else data
        self = object.__new__(cls)
        self.array, self._version = source.array, [0, None]
        if requires_grad:
            self.requires_grad_()
        return self

    def __init__(self, data: Any = None, requires_grad: bool = True) -> None:
        pass

    def __repr__(self) -> str:
        return "Parameter containing:\n" + super().__repr__()


class GradFn:
    """A node as `tensor.grad_fn` shows it: its name, and the functions of its inputs."""

    __slots__ = ("node",)

    def __init__(self, node: Any) -> None:
        self.node = node

    def name(self) -> str:
        return "AccumulateGrad" if self.node.kind == LEAF else self.node.name()

    @property
    def variable(self) -> Any:
        if self.node.kind != LEAF:
            raise AttributeError(f"[grad_fn] only AccumulateGrad has a variable, came {self.name()}")
        return self.node

    @property
    def next_functions(self) -> tuple[tuple[Any, int], ...]:
        if self.node.kind == LEAF:
            return ()
        found: list[Any] = []
        for edge in self.node.edges:
            if edge is None:
                found.append((None, 0))
            else:
                found.append((GradFn(edge.node), edge.index) if edge.kind == OUTPUT else (GradFn(edge), 0))
        return tuple(found)

    def __getattr__(self, name: str) -> Any:
        """`_saved_self`, `_saved_other`, `_saved_result` and `_saved_` before a keyword: what backward will use."""
        op, saved = getattr(self.node, "op", None), getattr(self.node, "saved", None)
        if name.startswith("_saved_") and op is not None:
            if saved is None:
                raise RuntimeError(
                    f"[grad_fn] what {op.name} saved must not be freed yet, came {name} after backward"
                )
            own = dict(zip(("self", "other"), op.inputs)) | {"result": "y"}
            key = own.get(name[len("_saved_") :], name[len("_saved_") :])
            if key in saved:
                value = saved[key]
                value = value.unpack(value.kept) if hasattr(value, "unpack") else value
                return wrap(value) if type(value) in array_namespace else value
        raise AttributeError(f"{type(self).__name__!r} object has no attribute {name!r}")

    def __eq__(self, other: object) -> bool:
        return isinstance(other, GradFn) and self.node is other.node

    def __hash__(self) -> int:
        return id(self.node)

    def __repr__(self) -> str:
        return f"<{self.name()} object at {id(self.node):#x}>"


def _plain_slice(s: Any) -> bool:
    return s.step is None and type(s.start) in (int, NoneType) and type(s.stop) in (int, NoneType)


def _compare(op: Any, a: Any, b: Any) -> Any:
    if (
        isinstance(b, Variable | bool | int | float | complex)
        or type(b) in array_namespace
        or isinstance(b, np.generic)
    ):
        return op(a, b)
    return NotImplemented


def _node_hooks(edge: Any) -> dict[int, Any]:
    node, index = (edge.node, edge.index) if edge.kind == OUTPUT else (edge, 0)
    if node.hooks is None:
        node.hooks = {}
    return node.hooks.setdefault(index, {})


def _rebuild(cls: Any, array: Any, requires_grad: bool) -> Any:
    t = object.__new__(cls)
    t.array, t._version = array, [0, None]
    if requires_grad:
        t._needs = True
    return t


ENGINE_STATE = {
    "array",
    "_version",
    "_needs",
    "_node",
    "_grad",
    "_base",
    "_replay",
    "_view_version",
    "_hooks",
} | {
    "_whole_hooks",
    "_grad_home",
    "_retains",
}
methods.expose(Tensor)
engine.set_tensor_class(Tensor)
