"""Making tensors: from data, filled, ranges, random."""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import reduce
from typing import Any

import numpy as np

from ..autograd.engine import Variable, array_namespace, makers, read, wrap
from . import device as devices
from .dtypes import BOOL, I64, category, default_float, of_numpy, promote_types, to_numpy

Tensor = Any


def finish(array: Any, requires_grad: bool = False, device: Any = None) -> Any:
    """The array as a tensor, on a device: None is the default one."""
    if device is not None or devices.default() is not devices.cpu:
        array = devices.move(array, devices.check(device))
    return _made(array, requires_grad)


def _made(array: Any, requires_grad: bool) -> Any:
    t = wrap(array)
    for maker in makers:
        maker(t)
    return t.requires_grad_() if requires_grad else t


def _alike(name: str, t: Any, device: Any, *args: Any) -> Any:
    """An array like a tensor's, beside it unless a device is named."""
    array = t.array
    if len(array_namespace) == 1 and (device is None or devices.check(device) is devices.cpu):
        return getattr(np, name)(array, *args)
    to = devices.of(array) if device is None else devices.check(device)
    if to == devices.of(array) == devices.cpu:
        return getattr(np, name)(array, *args)
    return devices.make(name[:-5], to, array.shape, *args)


# Keywords of PyTorch's that change nothing here.
TAKEN = {"layout", "memory_format", "names", "out", "pin_memory"}


def size_of(name: str, size: tuple[Any, ...], others: dict[str, Any] | None = None) -> tuple[int, ...]:
    """Sizes given as `f(2, 3)`, `f((2, 3))` or, among the other keywords, `f(size=(2, 3))`."""
    if others:
        if "size" in others:
            size = (others["size"],)
        if unknown := others.keys() - TAKEN - {"size"}:
            raise TypeError(f"[{name}] got an unexpected keyword argument {min(unknown)!r}")
    if len(size) == 1 and isinstance(size[0], Sequence | np.ndarray | Variable):
        size = tuple(size[0])
    try:
        shape = tuple(int(n) if isinstance(n, Variable) else n.__index__() for n in size)
    except AttributeError:
        raise TypeError(f"[{name}] sizes must be ints, came {size}") from None
    if min(shape, default=0) < 0:
        raise RuntimeError(f"[{name}] sizes must not be negative, came {list(shape)}")
    return shape


def _from_data(data: Any) -> Any:
    if isinstance(data, Variable):
        read(data, "tensor()")
        return data.array
    if type(data) in array_namespace:
        return data
    if isinstance(data, bool | int | float | complex):
        return np.asarray(data)
    if isinstance(data, Sequence) and not isinstance(data, str | bytes):
        data = _plain(data)
    try:
        return np.asarray(data)
    except ValueError as error:
        raise ValueError(f"[tensor] nested sequences must all have equal lengths, came {error}") from None


def _plain(data: Any) -> Any:
    """Nested sequences with the tensors in them as arrays."""
    if isinstance(data, Variable):
        read(data, "tensor()")
        return data.array
    if isinstance(data, list | tuple) and data and not isinstance(data[0], int | float):
        return [_plain(d) for d in data]
    return data


def _natural(data: Any, array: Any) -> Any:
    """PyTorch's dtype for Python data: floats are the default float type, integers int64."""
    if isinstance(data, Variable) or type(data) in array_namespace or isinstance(data, np.generic):
        return array.dtype
    if array.size == 0 or (category(array.dtype) == 2 and not _holds_arrays(data)):
        return default_float()
    if _holds_arrays(data):
        return _common(data)
    if category(array.dtype) == 3:
        return np.dtype("complex64")
    return I64 if category(array.dtype) == 1 else array.dtype


def _common(data: Any) -> Any:
    """The promoted dtype of all that stands in nested sequences."""
    if isinstance(data, list | tuple):
        return reduce(promote_types, map(_common, data))
    if isinstance(data, Variable):
        return data.array.dtype
    return data.dtype if isinstance(data, np.ndarray | np.generic) else to_numpy(type(data))


def _holds_arrays(data: Any) -> bool:
    while isinstance(data, list | tuple) and data:
        data = data[0]
    return isinstance(data, Variable | np.ndarray | np.generic)


def tensor(
    data: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False, pin_memory: bool = False
) -> Any:
    """A new tensor with a copy of `data`: nested sequences of numbers, an array, or a tensor.

    Python floats become the default float type, integers int64, bools bool; arrays keep their type.
    """
    array = _from_data(data)
    if array.dtype.kind in "USM":
        raise TypeError(f"[tensor] data must be numbers, came {array.dtype.name}")
    if array.dtype == object:
        raise ValueError(
            f"[tensor] data must be numbers in sequences of equal lengths, came {type(data).__name__}"
        )
    target = to_numpy(dtype) if dtype is not None else of_numpy(_natural(data, array)).numpy
    if isinstance(array, np.ndarray):
        t = finish(np.array(array, dtype=target, order="C"), requires_grad, device)
        return t.pin_memory() if pin_memory else t
    to = devices.of(array) if device is None else devices.check(device)
    moved = devices.move(array, to)
    return _made(moved.astype(target, order="C", copy=moved is array), requires_grad)


def as_tensor(data: Any, dtype: Any = None, device: Any = None) -> Any:
    """As `tensor`, without a copy where `data` already fits."""
    if isinstance(data, Variable):
        return data if dtype is device is None else data.to(device=device, dtype=dtype)
    if type(data) in array_namespace and (dtype is None or to_numpy(dtype) == data.dtype):
        made = from_numpy(data) if type(data) is np.ndarray else wrap(data)
        stays = device is None and devices.default() is devices.cpu
        return made if stays else made.to(device=devices.check(device))
    return tensor(data, dtype=dtype, device=device)


def from_numpy(array: np.ndarray[Any, Any]) -> Any:
    """A tensor that shares memory with a NumPy array."""
    if not isinstance(array, np.ndarray):
        raise TypeError(f"[from_numpy] must be a numpy.ndarray, came {type(array).__name__}")
    n = of_numpy(array.dtype).numpy
    array = array if array.dtype == n and type(array) is np.ndarray else np.asarray(array, dtype=n)
    return wrap(array)


def frombuffer(
    buffer: Any, *, dtype: Any, count: int = -1, offset: int = 0, requires_grad: bool = False
) -> Any:
    """A 1-d tensor over the memory of an object with the buffer protocol."""
    return finish(np.frombuffer(buffer, to_numpy(dtype), count, offset), requires_grad)


def _float_or(dtype: Any) -> Any:
    return default_float() if dtype is None else to_numpy(dtype)


def empty(
    *size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False, **others: Any
) -> Any:
    """A tensor of the given size with undefined content."""
    return _made(
        devices.make("empty", device, size_of("empty", size, others), _float_or(dtype)), requires_grad
    )


def zeros(
    *size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False, **others: Any
) -> Any:
    """A tensor of zeros."""
    return _made(
        devices.make("zeros", device, size_of("zeros", size, others), _float_or(dtype)), requires_grad
    )


def ones(
    *size: Any, dtype: Any = None, device: Any = None, requires_grad: bool = False, **others: Any
) -> Any:
    """A tensor of ones."""
    return _made(devices.make("ones", device, size_of("ones", size, others), _float_or(dtype)), requires_grad)


def full(
    size: Any, fill_value: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Any:
    """A tensor filled with one value, of the value's natural type unless `dtype` is given."""
    if isinstance(fill_value, Variable):
        fill_value = fill_value.item()
    if dtype is None:
        n = BOOL if isinstance(fill_value, bool) else I64 if isinstance(fill_value, int) else default_float()
        n = np.dtype("complex64") if isinstance(fill_value, complex) else n
    else:
        n = to_numpy(dtype)
    return _made(devices.make("full", device, size_of("full", (size,)), fill_value, n), requires_grad)


def _like(t: Any, dtype: Any) -> Any:
    return t.array.dtype if dtype is None else to_numpy(dtype)


def empty_like(
    input: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False, **_: Any
) -> Any:
    return _made(_alike("empty_like", input, device, _like(input, dtype)), requires_grad)


def zeros_like(
    input: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False, **_: Any
) -> Any:
    return _made(_alike("zeros_like", input, device, _like(input, dtype)), requires_grad)


def ones_like(
    input: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False, **_: Any
) -> Any:
    return _made(_alike("ones_like", input, device, _like(input, dtype)), requires_grad)


def full_like(
    input: Any, fill_value: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Any:
    if fill_value is None:
        raise TypeError("[full_like] the fill value must be a number, came None")
    return _made(_alike("full_like", input, device, fill_value, _like(input, dtype)), requires_grad)


def arange(
    start: Any = 0,
    end: Any = None,
    step: Any = 1,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Any:
    """Numbers from `start` to `end` (left out) by `step`; int64 if all three are integers."""
    if end is None:
        start, end = 0, start
    start, end, step = (v.item() if isinstance(v, Variable) else v for v in (start, end, step))
    if step == 0 or (end - start) / step < 0:
        raise RuntimeError(f"[arange] the step must lead from start to end, came {start}, {end}, {step}")
    whole = all(isinstance(v, int) for v in (start, end, step))
    n = to_numpy(dtype) if dtype is not None else I64 if whole else default_float()
    count = math.ceil((end - start) / step)
    if whole:
        array = np.arange(start, end, step).astype(n)
    else:
        array = (start + np.arange(count) * step).astype(n)
    return finish(array, requires_grad, device)


def linspace(
    start: float,
    end: float,
    steps: int,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Any:
    """`steps` evenly spaced numbers, both ends included."""
    if steps < 0:
        raise RuntimeError(f"[linspace] steps must not be negative, came {steps}")
    return finish(np.linspace(start, end, steps).astype(_float_or(dtype)), requires_grad, device)


def logspace(
    start: float, end: float, steps: int, base: float = 10.0, *, dtype: Any = None, device: Any = None
) -> Any:
    """`base` to the power of evenly spaced exponents."""
    return finish(np.power(base, np.linspace(start, end, steps)).astype(_float_or(dtype)), False, device)


def eye(
    n: int, m: int | None = None, *, dtype: Any = None, device: Any = None, requires_grad: bool = False
) -> Any:
    """Ones on the diagonal, zeros elsewhere."""
    return finish(np.eye(n, m, dtype=_float_or(dtype)), requires_grad, device)
