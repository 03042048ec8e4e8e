"""A stand-in for CuPy over NumPy, so that the CUDA backend's Python runs where there is no GPU.

`installed()` puts it in CuPy's place. Its arrays are no NumPy arrays: NumPy functions refuse them where CuPy's would,
host arrays among device arrays are errors, functions and their arguments are those that CuPy 14 has
(cupy_names.json), and every call goes through `fakecuda_device.launch`, which knows streams and captured graphs.
Kernels are checked against their source's signature and run by the host's C++ compiler (fakecuda_kernels.py).
"""

from __future__ import annotations

import json
import sys
import types
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fakecuda_device as machine
import numpy as np
from fakecuda_device import Memory, MemoryPointer, forbid, launch

KNOWN = json.loads((Path(__file__).parent / "cupy_names.json").read_text())
FUNCTIONS: dict[str, Any] = KNOWN["functions"]


def words(text: str) -> list[str]:
    return text.split()


TYPES = words(
    """float16 float32 float64 complex64 complex128 bool_ int8 int16 int32 int64 uint8 uint16 uint32
    uint64 intp integer generic"""
)
SCALARS = (bool, int, float, complex, np.generic)


class Flags:
    """CuPy's flags: there is no `writeable`."""

    def __init__(self, a: Any) -> None:
        self.c_contiguous, self.f_contiguous = a.flags.c_contiguous, a.flags.f_contiguous
        self.forc = self.c_contiguous or self.f_contiguous
        self.owndata = a.base is None

    def __getitem__(self, name: str) -> bool:
        return getattr(self, name.lower())


def allocate(size: int) -> MemoryPointer:
    return _allocator[0](size)


class ndarray:
    """An array in the fake's device memory."""

    __slots__ = ("_a", "_home", "base")

    def __init__(
        self, shape: Any, dtype: Any = float, memptr: Any = None, strides: Any = None, order: str = "C"
    ) -> None:
        dtype = np.dtype(dtype)
        shape = (shape,) if isinstance(shape, int) else tuple(shape)
        size = int(np.prod(shape)) * dtype.itemsize
        self._home = allocate(max(size, 1)) if memptr is None else memptr
        self.base = None
        memory = self._home.mem
        memory = getattr(memory, "memory", memory)
        raw = memory.buffer[memory.offset + self._home.ptr - memory.ptr :]
        self._a = np.ndarray(shape, dtype, raw[: max(size, 1)].data if size else bytearray(16), 0, strides)

    @property
    def memory(self) -> Any:
        mem = self._home.mem
        return getattr(mem, "memory", mem)

    # ---- what it is

    shape = property(lambda self: self._a.shape)
    dtype = property(lambda self: self._a.dtype)
    ndim = property(lambda self: self._a.ndim)
    size = property(lambda self: self._a.size)
    strides = property(lambda self: self._a.strides)
    itemsize = property(lambda self: self._a.itemsize)
    nbytes = property(lambda self: self._a.nbytes)
    flags = property(lambda self: Flags(self._a))
    T = property(lambda self: view(self, self._a.T))
    flat = property(lambda self: self.reshape(-1))

    @property
    def real(self) -> ndarray:
        return view(self, self._a.real) if self.dtype.kind == "c" else self

    @property
    def imag(self) -> ndarray:
        if self.dtype.kind == "c":
            return view(self, self._a.imag)
        return call("imag", lambda x: np.zeros_like(x), (self,), {})

    @real.setter  # type: ignore[no-redef]
    def real(self, value: Any) -> None:
        view(self, self._a.real)[...] = value

    @imag.setter
    def imag(self, value: Any) -> None:
        self.imag[...] = value

    @property
    def data(self) -> MemoryPointer:
        start = self._a.__array_interface__["data"][0]
        return self._home + (start - self._home.ptr) if self.size else self._home

    @property
    def device(self) -> Device:
        return Device(self.memory.device_id)

    @property
    def __cuda_array_interface__(self) -> dict[str, Any]:
        return {
            "shape": self.shape,
            "typestr": self.dtype.str,
            "data": (self.data.ptr, False),
            "version": 3,
            "strides": None if self.flags.c_contiguous else self.strides,
        }

    # ---- out of the device

    def _read(self) -> Any:
        machine.host_reads(self.memory)
        launch("copy to host", [self.memory], [], lambda: None, replay=False)
        machine.learn(machine.state.host, {machine.state.stream.id: machine.state.stream.now})
        return self._a

    def get(self, stream: Any = None, order: str = "C", out: Any = None, blocking: bool = True) -> Any:
        return np.array(self._read(), order=order)

    def set(self, array: Any, stream: Any = None) -> None:
        assert isinstance(array, np.ndarray) and array.shape == self.shape and array.dtype == self.dtype
        forbid("a host array was copied by ndarray.set")
        launch("set", [], [self.memory], lambda: np.copyto(self._a, array), replay=False)

    def item(self, *args: Any) -> Any:
        return self._read().item(*args)

    def tolist(self) -> Any:
        return self._read().tolist()

    def tobytes(self, order: str = "C") -> bytes:
        return self._read().tobytes(order)

    def __bool__(self) -> bool:
        return bool(self._read())

    def __int__(self) -> int:
        return int(self._read())

    def __float__(self) -> float:
        return float(self._read())

    def __complex__(self) -> complex:
        return complex(self._read())

    def __index__(self) -> int:
        return self._read().__index__()

    def __len__(self) -> int:
        return len(self._a)

    def __iter__(self) -> Iterator[Any]:
        return (self[i] for i in range(len(self)))

    def __repr__(self) -> str:
        return f"fakecuda.{self._a!r}"

    def __array__(self, *args: Any, **kw: Any) -> Any:
        raise TypeError(
            "Implicit conversion to a NumPy array is not allowed. "
            "Please use `.get()` to construct a NumPy array explicitly."
        )

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, **kw: Any) -> Any:
        name = ufunc.__name__
        if method != "__call__" or FUNCTIONS.get(name) != "ufunc":
            return NotImplemented
        return getattr(sys.modules["cupy"], name)(*inputs, **kw)

    def __array_function__(self, function: Any, types_: Any, args: Any, kw: Any) -> Any:
        name = function.__name__
        if name not in FUNCTIONS:
            return NotImplemented
        return getattr(sys.modules["cupy"], name)(*args, **kw)

    __hash__ = None  # type: ignore[assignment]

    # ---- views and copies

    def __getitem__(self, index: Any) -> Any:
        inside, held = unwrap_index(index)
        found = self._a[inside]
        if isinstance(found, np.ndarray) and found.base is not None and owner(found) is owner(self._a):
            return view(self, found)
        if np.ndim(found) == 0 and not held and not has_arrays(index):
            spot = inside if isinstance(inside, tuple) else (inside,)
            return view(self, self._a[(*spot, ...)])
        if has_bools(index):
            forbid("a boolean index was used, whose size the host must read")
        return call("getitem", lambda x, *_: x[unwrap_index(index)[0]], (self, *held), {})

    def __setitem__(self, index: Any, value: Any) -> None:
        if isinstance(value, np.ndarray):
            raise TypeError("Unsupported type <class 'numpy.ndarray'>")
        _, held = unwrap_index(index)
        if has_bools(index) and isinstance(value, ndarray) and value.ndim:
            forbid("a boolean index was used, whose size the host must read")
        reads = [a.memory for a in held] + ([value.memory] if isinstance(value, ndarray) else [])

        def job() -> None:
            self._a[unwrap_index(index)[0]] = value._a if isinstance(value, ndarray) else value

        launch("setitem", reads, [self.memory], job)

    def reshape(self, *shape: Any, order: str = "C", copy: Any = None) -> Any:
        found = self._a.reshape(*shape, order=order)
        if self.size == 0 or owner(found) is owner(self._a):
            return view(self, found)
        return call("reshape", lambda x: x.reshape(*shape, order=order), (self,), {})

    def ravel(self, order: str = "C") -> Any:
        return self.reshape(-1, order=order)

    def view(self, dtype: Any = None, type: Any = None) -> Any:
        return view(self, self._a.view(dtype) if dtype is not None else self._a.view())

    def transpose(self, *axes: Any) -> Any:
        return view(self, self._a.transpose(*axes))

    def swapaxes(self, a: int, b: int) -> Any:
        return view(self, self._a.swapaxes(a, b))

    def squeeze(self, axis: Any = None) -> Any:
        return view(self, self._a.squeeze(axis))

    def diagonal(self, offset: int = 0, axis1: int = 0, axis2: int = 1) -> Any:
        found = self._a.diagonal(offset, axis1, axis2)
        found.flags.writeable = True  # CuPy's is
        return view(self, found)

    def astype(
        self, dtype: Any, order: str = "K", casting: Any = None, subok: Any = None, copy: bool = True
    ) -> Any:
        if not copy and self.dtype == np.dtype(dtype):
            return self
        return call("astype", lambda x: x.astype(dtype, order=order), (self,), {})

    def copy(self, order: str = "C") -> Any:
        return call("copy", lambda x: x.copy(order=order), (self,), {})

    def fill(self, value: Any) -> None:
        if isinstance(value, np.ndarray):
            raise TypeError("Unsupported type <class 'numpy.ndarray'>")
        self[...] = value

    def sort(self, axis: int = -1, kind: Any = None) -> None:
        launch("sort", [], [self.memory], lambda: self._a.sort(axis))

    def nonzero(self) -> Any:
        forbid("nonzero, whose size the host must read")
        return call("nonzero", np.nonzero, (self,), {})

    def scatter_add(self, slices: Any, value: Any) -> None:
        inside, held = unwrap_index(slices)
        reads = [a.memory for a in held] + ([value.memory] if isinstance(value, ndarray) else [])
        launch(
            "scatter_add",
            reads,
            [self.memory],
            lambda: np.add.at(self._a, inside, value._a if isinstance(value, ndarray) else value),
        )


def _method(name: str) -> Callable[..., Any]:
    def method(self: ndarray, *args: Any, **kw: Any) -> Any:
        return call(name, lambda x, *a, **k: getattr(x, name)(*a, **k), (self, *args), kw)

    return method


METHODS = words(
    """all any argmax argmin argpartition argsort clip conj conjugate cumprod cumsum dot flatten max mean
min prod repeat round std sum take trace var choose compress partition searchsorted"""
)
for _name in METHODS:
    assert _name in KNOWN["methods"], f"CuPy's arrays have no method {_name}"
    setattr(ndarray, _name, _method(_name))


def _operator(name: str, numpys: str, swap: bool = False, into: bool = False) -> Callable[..., Any]:
    function = getattr(np, numpys)

    def operator(self: ndarray, other: Any = None) -> Any:
        args: tuple[Any, ...] = (self,) if other is None else (other, self) if swap else (self, other)
        if other is not None and not isinstance(other, (ndarray, np.ndarray, *SCALARS)):
            return NotImplemented
        return call(numpys, function, args, {"out": self} if into else {})

    return operator


PAIRS = words(
    """add subtract multiply true_divide floor_divide remainder power bitwise_and bitwise_or bitwise_xor"""
)
PAIRS += ["left_shift", "right_shift", "matmul"]
NAMES = words("""add sub mul truediv floordiv mod pow and or xor lshift rshift matmul""")
for _short, _long in zip(NAMES, PAIRS):
    setattr(ndarray, f"__{_short}__", _operator(_short, _long))
    setattr(ndarray, f"__r{_short}__", _operator(_short, _long, swap=True))
    setattr(ndarray, f"__i{_short}__", _operator(_short, _long, into=True))
for _short, _long in {
    "eq": "equal",
    "ne": "not_equal",
    "lt": "less",
    "le": "less_equal",
    "gt": "greater",
    "ge": "greater_equal",
    "neg": "negative",
    "abs": "absolute",
    "invert": "invert",
    "pos": "positive",
}.items():
    setattr(ndarray, f"__{_short}__", _operator(_short, _long))


# ---- between the two kinds of arrays


def owner(a: Any) -> Any:
    while isinstance(a.base, np.ndarray):
        a = a.base
    return a if a.base is None else (a.base.obj if isinstance(a.base, memoryview) else a.base)


def view(of: ndarray, a: Any) -> ndarray:
    new = object.__new__(ndarray)
    new._a, new._home = a, of._home
    new.base = of if of.base is None else of.base
    return new


def fresh(a: Any) -> ndarray:
    """A copy of a result in device memory, with its layout."""
    a = np.asarray(a)
    order = sorted(range(a.ndim), key=lambda i: -abs(a.strides[i])) if a.size else list(range(a.ndim))
    new = ndarray(tuple(a.shape[i] for i in order), a.dtype)
    back = sorted(range(a.ndim), key=order.__getitem__)
    if back != list(range(a.ndim)):
        new._a = new._a.transpose(back)
    np.copyto(new._a, a)
    return new


def unwrap_index(index: Any) -> tuple[Any, list[ndarray]]:
    if isinstance(index, tuple):
        parts = [unwrap_index(i) for i in index]
        return tuple(p for p, _ in parts), [a for _, held in parts for a in held]
    if isinstance(index, ndarray):
        return index._a, [index]
    return index, []


def has_arrays(index: Any) -> bool:
    parts = index if isinstance(index, tuple) else (index,)
    return any(isinstance(p, ndarray | np.ndarray | list) for p in parts)


def has_bools(index: Any) -> bool:
    parts = index if isinstance(index, tuple) else (index,)
    return any(isinstance(p, ndarray | np.ndarray) and p.dtype == bool for p in parts)


def unwrap(value: Any, held: list[ndarray], name: str) -> Any:
    if isinstance(value, ndarray):
        held.append(value)
        return value._a
    if isinstance(value, np.ndarray):
        raise TypeError(f"Unsupported type <class 'numpy.ndarray'> (given to {name})")
    if isinstance(value, tuple | list):
        return type(value)(unwrap(v, held, name) for v in value)
    return value


CUBLAS = {"matmul", "dot", "vdot", "einsum", "tensordot", "inner"}


def call(name: str, function: Callable[..., Any], args: tuple[Any, ...], kw: dict[str, Any]) -> Any:
    """A function of CuPy's, computed by NumPy's on the memory underneath."""
    if name in CUBLAS:
        forbid(f"cupy.{name}, which CuPy's cuBLAS layer refuses to capture, was called")
    held: list[ndarray] = []
    out = kw.pop("out", None)
    plain = unwrap(args, held, name)
    options = {k: unwrap(v, held, name) for k, v in kw.items()}
    for a in (*held, *([out] if isinstance(out, ndarray) else [])):
        if a.memory.device_id != machine.state.device:
            raise AssertionError(
                f"{name} on device {machine.state.device} was given memory of {a.memory.device_id}"
            )

    def compute() -> Any:
        with np.errstate(all="ignore"):
            return function(*plain, **options)

    reads = [a.memory for a in held]
    if out is not None:
        assert isinstance(out, ndarray), f"{name}(out=...) must be a device array, came {type(out)}"
        casting = options.pop("casting", "same_kind")

        def job() -> Any:
            result = compute()
            if result.shape != out.shape:
                np.broadcast_shapes(result.shape, out.shape)
                if np.broadcast_shapes(result.shape, out.shape) != out.shape:
                    raise ValueError("Out shape is mismatched")
            np.copyto(out._a, result, casting=casting)

        launch(name, reads, [out.memory], job)
        return out
    result = compute()
    for a in held:
        if isinstance(result, np.ndarray) and result.size and owner(result) is owner(a._a):
            return view(a, result)
    many = isinstance(result, tuple | list)
    parts = [fresh(r) for r in result] if many else [fresh(result)]

    def again() -> None:
        for part, r in zip(parts, compute() if many else [compute()]):
            np.copyto(part._a, r)

    launch(name, reads, [p.memory for p in parts], again)
    if not many:
        return parts[0]
    return type(result)(*parts) if hasattr(result, "_fields") else type(result)(parts)


# ---- the module


class Ufunc:
    def __init__(self, name: str) -> None:
        self.name, self.__name__ = name, name
        self.function = getattr(np, name)
        self.nin = getattr(self.function, "nin", 1)

    def __call__(self, *args: Any, **kw: Any) -> Any:
        extra = set(kw) - {"out", "dtype", "casting"}
        assert not extra, f"cupy.{self.name} takes no {extra}"
        nin = self.nin
        if len(args) > nin:
            kw["out"], args = args[nin], args[:nin]
        assert not (isinstance(kw.get("out"), tuple)), f"cupy.{self.name}: out must be one array"
        return call(self.name, self.function, args, kw)

    def at(self, a: Any, indices: Any, b: Any = None) -> None:
        assert self.name in (
            "add",
            "subtract",
            "maximum",
            "minimum",
            "bitwise_and",
            "bitwise_or",
            "bitwise_xor",
        ), f"cupy.{self.name}.at is not supported"
        inside, held = unwrap_index(indices)
        reads = [x.memory for x in held] + ([b.memory] if isinstance(b, ndarray) else [])
        if a.dtype.kind == "f" and self.name in ("maximum", "minimum"):
            assert a.dtype.itemsize >= 4, f"cupy.{self.name}.at does not take {a.dtype}"
        launch(
            f"{self.name}.at",
            reads,
            [a.memory],
            lambda: self.function.at(a._a, inside, b._a if isinstance(b, ndarray) else b),
        )

    def reduceat(self, array: Any, indices: Any, axis: int = 0, dtype: Any = None, out: Any = None) -> Any:
        assert self.name in ("add",), f"cupy.{self.name}.reduceat is not supported"
        return call(f"{self.name}.reduceat", self.function.reduceat, (array, indices), {"axis": axis})

    def accumulate(self, *args: Any, **kw: Any) -> Any:
        assert self.name in ("add", "multiply"), f"cupy.{self.name}.accumulate is not supported"
        return call(f"{self.name}.accumulate", self.function.accumulate, args, kw)

    def reduce(self, *args: Any, **kw: Any) -> Any:
        assert self.name in ("add", "multiply"), f"cupy.{self.name}.reduce is not supported"
        return call(f"{self.name}.reduce", self.function.reduce, args, kw)

    def outer(self, *args: Any, **kw: Any) -> Any:
        return call(f"{self.name}.outer", self.function.outer, args, kw)


FROM_HOST = {"asarray", "array", "ascontiguousarray", "asfortranarray", "asanyarray"}
SIZED_BY_CONTENT = {
    "flatnonzero",
    "nonzero",
    "argwhere",
    "unique",
    "extract",
    "compress",
    "bincount",
    "repeat",
}


def _function(name: str) -> Callable[..., Any]:
    numpys: Any = np
    for part in name.split("."):
        numpys = getattr(numpys, part)
    allowed = FUNCTIONS[name]

    def function(*args: Any, **kw: Any) -> Any:
        if isinstance(allowed, list) and "**" not in allowed:
            extra = set(kw) - set(allowed)
            assert not extra, f"cupy.{name} takes no {extra}"
        if name in SIZED_BY_CONTENT:
            forbid(f"{name}, whose size the host must read,")
        if name == "take" and isinstance(args[1], np.ndarray):  # CuPy makes a device array of it
            args = (args[0], _from_host("asarray", np.asarray, args[1]), *args[2:])
        if name in FROM_HOST:
            return _from_host(name, numpys, *args, **kw)
        return call(name, numpys, args, kw)

    function.__name__ = name
    return function


def _from_host(
    name: str, numpys: Any, a: Any, dtype: Any = None, copy: Any = None, order: Any = None, **kw: Any
) -> Any:
    if isinstance(a, list | tuple) and any(isinstance(v, ndarray) for v in a):
        return call(name, lambda *parts: np.asarray(parts, dtype), tuple(a), {})
    if isinstance(a, ndarray):
        same = dtype is None or np.dtype(dtype) == a.dtype
        if same and name != "array" and (name == "asarray" or a.flags.c_contiguous):
            return a
        return call(name, lambda x: np.array(x, dtype, order="C"), (a,), {})
    forbid(f"{name} of a host array")
    made = np.asarray(a, dtype)
    if made.dtype.kind not in "biufcV":
        raise ValueError(f"Unsupported dtype {made.dtype}")
    new = fresh(np.ascontiguousarray(made).reshape(made.shape))
    launch(name, [], [new.memory], lambda: None, replay=False)
    return new


def _empty(name: str, garbage: bool = True) -> Callable[..., Any]:
    def function(shape: Any, dtype: Any = float, order: str = "C") -> Any:
        return ndarray(shape, dtype)

    return function


def _empty_like(a: Any, dtype: Any = None, order: str = "K", subok: Any = None, shape: Any = None) -> Any:
    if not isinstance(a, ndarray):
        raise TypeError(f"Unsupported type {type(a)}")
    return fresh(np.empty_like(a._a, dtype, shape=shape))


class Device:
    def __init__(self, index: Any = None) -> None:
        self.id = machine.state.device if index is None else int(index)

    def __enter__(self) -> Device:
        self.before = machine.state.device
        machine.state.device = self.id
        return self

    def __exit__(self, *_: Any) -> None:
        machine.state.device = self.before

    def use(self) -> None:
        machine.state.device = self.id

    def synchronize(self) -> None:
        _synchronize()

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, Device) and other.id == self.id

    def __hash__(self) -> int:
        return self.id


def _synchronize() -> None:
    forbid("the device was synchronised")
    for memory in list(machine.state.live.values()):
        if memory.writer is not None:
            machine.learn(machine.state.host, dict([memory.writer]))
        machine.learn(machine.state.host, memory.readers)


def _memcpy(dst: int, src: int, size: int, kind: int, stream: int) -> None:
    """Copies between addresses: device memory must be live, host memory is trusted."""
    import ctypes

    reads, writes = [], []
    for ptr, into, on_device in ((dst, writes, kind in (1, 3)), (src, reads, kind in (2, 3))):
        memory = machine.memory_at(ptr)
        assert (memory is not None) == on_device, (
            f"memcpy of kind {kind} with address {ptr:#x} on the wrong side"
        )
        if memory is not None:
            assert ptr + size <= memory.ptr + memory.size, "memcpy past the end of an allocation"
            into.append(memory)
    launch("memcpy", reads, writes, lambda: ctypes.memmove(dst, src, size), on=machine.stream_at(stream))


def _memset(ptr: int, value: int, size: int, stream: int) -> None:
    import ctypes

    memory = machine.memory_at(ptr)
    assert memory is not None and ptr + size <= memory.ptr + memory.size, "memset outside of an allocation"
    launch("memset", [], [memory], lambda: ctypes.memset(ptr, value, size), on=machine.stream_at(stream))


_allocator: list[Any] = []


def _set_allocator(allocator: Any = None) -> None:
    _allocator[:] = [allocator or pool.malloc]


@contextmanager
def _using_allocator(allocator: Any) -> Iterator[None]:
    before = _allocator[0]
    _set_allocator(allocator)
    machine.state.local.arena = getattr(allocator, "__self__", None)
    try:
        yield
    finally:
        _set_allocator(before)
        machine.state.local.arena = None


pool: Any = None


def build(devices: int = 1) -> types.ModuleType:
    """A new module `cupy` on a fresh machine."""
    global pool
    import fakecuda_kernels as kernels

    machine.reset(devices)
    pool = machine.MemoryPool()
    _set_allocator(None)
    cupy = types.ModuleType("cupy")
    cupy.__version__ = "14.2.0-fake"  # type: ignore[attr-defined]
    put = cupy.__dict__
    for name, allowed in FUNCTIONS.items():
        *path, last = name.split(".")
        place: Any = cupy
        for part in path:
            if not hasattr(place, part):
                setattr(place, part, types.SimpleNamespace())
            place = getattr(place, part)
        setattr(place, last, Ufunc(name) if allowed == "ufunc" else _function(name))
    put.update(
        {name: getattr(np, name) for name in ["pi", "e", "inf", "nan", "newaxis", "iinfo", "finfo", "dtype"]}
    )
    put.update(
        {
            t: getattr(np, t)
            for t in ["float16", "float32", "float64", "complex64", "complex128", "bool_", "int8", "int16"]
        }
    )
    put.update(
        {
            t: getattr(np, t)
            for t in ["int32", "int64", "uint8", "uint16", "uint32", "uint64", "intp", "integer", "generic"]
        }
    )
    put.update(ndarray=ndarray, empty=_empty("empty"), empty_like=_empty_like)
    put.update(asnumpy=lambda a: a.get() if isinstance(a, ndarray) else np.asarray(a))
    put.update(
        may_share_memory=lambda a, b: a.memory is b.memory, shares_memory=lambda a, b: a.memory is b.memory
    )
    put.update(get_default_memory_pool=lambda: pool)
    put.update(cuda=_cuda(devices, kernels), ufunc=Ufunc)
    return cupy


def _cuda(devices: int, kernels: Any) -> types.ModuleType:
    import fakecuda_nccl as nccl

    cuda = types.ModuleType("cupy.cuda")

    def set_device(index: int) -> None:
        machine.state.device = index

    properties = {
        "name": b"Fake GPU",
        "major": 9,
        "minor": 0,
        "totalGlobalMem": 1 << 34,
        "multiProcessorCount": 4,
    }
    properties |= {"l2CacheSize": 1 << 22, "warpSize": 32, "maxThreadsPerMultiProcessor": 2048}
    properties |= {"sharedMemPerBlockOptin": 232448}
    runtime = types.SimpleNamespace(
        getDeviceCount=lambda: devices,
        getDevice=lambda: machine.state.device,
        setDevice=set_device,
        getDeviceProperties=lambda i: properties,
        deviceSynchronize=_synchronize,
        memGetInfo=lambda: (1 << 33, 1 << 34),
        runtimeGetVersion=lambda: 13000,
        driverGetVersion=lambda: 13000,
        memcpyAsync=_memcpy,
        memsetAsync=_memset,
        deviceGetPCIBusId=lambda index: f"0000:0{index}:00.0",
        malloc=lambda size: machine.raw_malloc(size),
        free=machine.raw_free,
        ipcGetMemHandle=lambda ptr: ptr.to_bytes(64, "little"),
        ipcOpenMemHandle=lambda handle, flags=1: int.from_bytes(handle, "little"),
        ipcCloseMemHandle=lambda ptr: None,
        streamCaptureModeRelaxed=2,
        streamCaptureModeThreadLocal=1,
        CUDARuntimeError=RuntimeError,
    )
    cuda.__dict__.update(
        runtime=runtime,
        Device=Device,
        Stream=machine.Stream,
        Event=machine.Event,
        Memory=Memory,
        MemoryPointer=MemoryPointer,
        MemoryPool=machine.MemoryPool,
        MemoryHook=machine.MemoryHook,
        UnownedMemory=machine.UnownedMemory,
        memory=types.SimpleNamespace(OutOfMemoryError=machine.OutOfMemoryError),
        alloc_pinned_memory=machine.alloc_pinned_memory,
        set_allocator=_set_allocator,
        get_allocator=lambda: _allocator[0],
        using_allocator=_using_allocator,
        get_current_stream=lambda: machine.state.stream,
        get_elapsed_time=lambda a, b: 0.0,
        is_available=lambda: True,
        function=types.SimpleNamespace(Module=kernels.Module),
        nvrtc=kernels.Nvrtc(),
        nccl=nccl,
        ExternalStream=lambda ptr, device_id=-1: machine.state.stream,
    )
    null = machine.null_stream(0)
    machine.Stream.null = null  # type: ignore[attr-defined]
    return cuda


@contextmanager
def installed(devices: int = 1) -> Iterator[Any]:
    """The fake in CuPy's place, with the backend loaded on it; all is undone at the end."""
    import fakecuda_kernels as kernels

    import ringgrad  # noqa: F401

    if kernels.compiler() is None:
        import pytest

        pytest.skip("kernels run on the host's C++ compiler, and there is none")
    from ringgrad.autograd import engine, op
    from ringgrad.autograd.engine import array_namespace
    from ringgrad.tensor.backend.cuda import cublaslt, runtime
    from ringgrad.tensor.ops import norm

    saved = {name: sys.modules.get(name) for name in ("cupy", "cupy.cuda")}
    known, found = dict(array_namespace), dict(runtime._found)
    ways = op.Op.compute, op.OpNode.vjp, engine.backward, engine._send, engine.accumulate_grad
    variants = {name: dict(o.variants) for name, o in op.registry.items()}
    cupy = build(devices)
    sys.modules["cupy"], sys.modules["cupy.cuda"] = cupy, cupy.cuda
    runtime._found.clear()
    forget = _backend_state()
    cublaslt._library[:] = [kernels.CublasLt()]
    try:
        runtime.load()
        yield cupy
    finally:
        op.Op.compute, op.OpNode.vjp = ways[:2]  # type: ignore[method-assign]
        engine.backward, engine._send, engine.accumulate_grad = ways[2:]
        for name, o in op.registry.items():
            o.variants = variants.get(name, {})
        for module, was in saved.items():
            sys.modules.pop(module, None)
            if was is not None:
                sys.modules[module] = was
        array_namespace.clear()
        array_namespace.update(known)
        runtime._found.clear()
        runtime._found.update(found)
        for held in forget:
            held.clear()
        norm.faster_moments.clear()
        _forget_caches()


def _backend_state() -> list[Any]:
    """The dicts and lists in which the backend's modules remember a machine."""
    import importlib
    import pkgutil

    from ringgrad.tensor.backend import cuda

    held = []
    for info in pkgutil.iter_modules(cuda.__path__):
        module = importlib.import_module(f"{cuda.__name__}.{info.name}")
        for name in getattr(module, "MACHINE", ()):
            held.append(getattr(module, name))
    return held


def _forget_caches() -> None:
    from ringgrad.tensor.ops import attention, rows

    for cached in (rows.ones, rows.row_starts, attention.causal_mask):
        cached.cache_clear()
