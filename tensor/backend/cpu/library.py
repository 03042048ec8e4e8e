"""oneDNN through its C interface: primitives made once for a shape, run on the memory of NumPy arrays.

Source of the names and numbers: the C API of oneDNN 3 (dnnl.h, dnnl_types.h), which is stable within version 3.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Sequence
from functools import lru_cache
from importlib import metadata
from typing import Any

import numpy as np

Handle = ctypes.c_void_p
Dims = ctypes.c_int64 * 12
BF16, F32 = 2, 3
ANY = 1  # the library chooses the layout
FORWARD = 64
SRC, DST, WEIGHTS, BIAS = 1, 17, 33, 41
DIFF_SRC, DIFF_DST, DIFF_WEIGHTS = 129, 145, 161
QUERY = {SRC: 129, DIFF_SRC: 130, WEIGHTS: 131, DIFF_WEIGHTS: 132, DST: 133, DIFF_DST: 134}
IMPLEMENTATION = 8  # a query
ALIGNED = 64  # bytes


class Argument(ctypes.Structure):
    _fields_ = [("index", ctypes.c_int), ("memory", Handle)]


def _path() -> str | None:
    """Where the wheel put the library; None where it is not installed."""
    try:
        files = metadata.files("onednn-cpu-gomp") or []
    except metadata.PackageNotFoundError:
        return None
    return next((str(f.locate()) for f in files if f.name == "libdnnl.so.3"), None)


SPINS = "1000"  # some microseconds


class Library:
    """The loaded library with one CPU engine and stream. `lock` is held while memory is bound and a primitive runs.

    scratch: memory in which primitives keep reordered arrays while they run, one after the other.
    """

    def __init__(self, path: str) -> None:
        self.set_threads = _openmp().omp_set_num_threads
        self.dnnl = ctypes.CDLL(path)
        self.threads = 1
        self.lock = threading.Lock()
        self.scratch = np.empty(0, np.uint8)
        d = self.dnnl
        d.dnnl_primitive_desc_query_md.restype = Handle
        d.dnnl_primitive_desc_query_md.argtypes = [Handle, ctypes.c_int, ctypes.c_int]
        d.dnnl_memory_desc_get_size.restype = ctypes.c_size_t
        d.dnnl_memory_desc_get_size.argtypes = [Handle]
        d.dnnl_memory_desc_equal.argtypes = [Handle, Handle]
        d.dnnl_primitive_desc_query.argtypes = [Handle, ctypes.c_int, ctypes.c_int, Handle]
        d.dnnl_memory_create.argtypes = [Handle, Handle, Handle, Handle]
        d.dnnl_primitive_execute.argtypes = [Handle, Handle, ctypes.c_int, Handle]
        d.dnnl_memory_set_data_handle.argtypes = [Handle, Handle]
        for name in ("primitive", "primitive_desc", "memory", "memory_desc"):
            getattr(d, f"dnnl_{name}_destroy").argtypes = [Handle]
        self.engine = self.made(d.dnnl_engine_create, 1, ctypes.c_size_t(0))
        self.stream = self.made(d.dnnl_stream_create, self.engine, 1)

    def made(self, function: Callable[..., int], *args: Any) -> Handle:
        """What a function of the library creates; RuntimeError with its status where it refuses."""
        out = Handle()
        status = function(ctypes.byref(out), *args)
        if status:
            raise RuntimeError(f"[oneDNN] {function.__name__} must succeed, came status {status}")
        return out

    def layout(
        self, shape: Sequence[int], free: bool = False, strides: Sequence[int] = (), kind: int = F32
    ) -> Handle:
        """An array in row-major order, with these strides, or in the order that the library likes best."""
        dims = Dims(*shape)
        if free:
            return self.made(self.dnnl.dnnl_memory_desc_create_with_tag, len(shape), dims, kind, ANY)
        rows = [max(1, int(np.prod(shape[i + 1 :]))) for i in range(len(shape))]
        steps = Dims(*(strides or rows))
        return self.made(self.dnnl.dnnl_memory_desc_create_with_strides, len(shape), dims, kind, steps)

    def memory(self, layout: Handle) -> Handle:
        """Memory without an address yet."""
        return self.made(self.dnnl.dnnl_memory_create, layout, self.engine, None)

    def reserve(self, size: int) -> Any:
        """The scratch memory, made larger where it has to be."""
        if self.scratch.nbytes < size + ALIGNED:
            self.scratch = np.empty(size + ALIGNED, np.uint8)
        return self.scratch

    def description(self, name: str, *args: Any) -> Handle:
        """What a primitive is to compute, such as "convolution_forward"."""
        return self.made(getattr(self.dnnl, f"dnnl_{name}_primitive_desc_create"), self.engine, *args, None)

    def body(self, description: Handle) -> str:
        """The name of the implementation that the library chose."""
        name = ctypes.c_char_p()
        self.dnnl.dnnl_primitive_desc_query(description, IMPLEMENTATION, 0, ctypes.byref(name))
        return (name.value or b"").decode()

    def by_sgemm(self, description: Handle) -> bool:
        """Whether the library would compute it by its sgemm, which keeps numbers below the stack's end: a signal that
        arrives meanwhile overwrites them, and then results or the heap are wrong (oneDNN 2023.2 on AVX-512, found by
        tests/test_fast_cpu.py). Kernels made for a shape do not.
        """
        return "gemm:" in self.body(description)


class Step:
    """A primitive and its arguments."""

    def __init__(self, library: Library, primitive: Handle, arguments: dict[int, Handle]) -> None:
        self.primitive = primitive
        self.arguments = (Argument * len(arguments))(*[Argument(i, m.value) for i, m in arguments.items()])
        self.call = (self.primitive, library.stream, len(arguments), ctypes.addressof(self.arguments))


class Primitive:
    """A primitive on arrays: `run(arrays..., out)`, in the order of `layouts` {argument: the array's}.

    Where the library wants another layout, the array is reordered before, or the result after.
    """

    def __init__(self, library: Library, description: Handle, layouts: dict[int, Handle], out: int) -> None:
        self.library, self.threads, self.name = library, library.threads, library.body(description)
        self.primitive = library.made(library.dnnl.dnnl_primitive_create, description)
        self.memories: list[Handle] = []
        self.inner: list[
            tuple[Handle, int]
        ] = []  # memory of reordered arrays, and where in the scratch it lies
        self.room = 0
        self.bound: Any = None  # the scratch that they point into
        before: list[Step] = []
        after: list[Step] = []
        arguments: dict[int, Handle] = {}
        for index, plain in layouts.items():
            memory = library.memory(plain)
            self.memories.append(memory)
            want = (
                Handle(library.dnnl.dnnl_primitive_desc_query_md(description, QUERY[index], 0))
                if (index in QUERY)
                else plain
            )
            if library.dnnl.dnnl_memory_desc_equal(plain, want):
                arguments[index] = memory
                continue
            inner = arguments[index] = self._buffer(want)
            if index == out:
                after.append(self._reorder(want, plain, inner, memory))
            else:
                before.append(self._reorder(plain, want, memory, inner))
        self.steps = [
            *before,
            Step(library, self.primitive, arguments),
            *after,
        ]  # they own what the calls point to
        self.calls = [step.call for step in self.steps]

    def _buffer(self, layout: Handle) -> Handle:
        memory = self.library.memory(layout)
        self.inner.append((memory, self.room))
        size = self.library.dnnl.dnnl_memory_desc_get_size(layout)
        self.room += size + -size % ALIGNED
        return memory

    def _bind(self) -> None:
        self.bound = self.library.reserve(self.room)
        start = self.bound.__array_interface__["data"][0]
        for memory, offset in self.inner:
            self.library.dnnl.dnnl_memory_set_data_handle(memory, start + -start % ALIGNED + offset)

    def _reorder(self, source: Handle, target: Handle, a: Handle, b: Handle) -> Step:
        library = self.library
        description = library.made(
            library.dnnl.dnnl_reorder_primitive_desc_create,
            source,
            library.engine,
            target,
            library.engine,
            None,
        )
        primitive = library.made(library.dnnl.dnnl_primitive_create, description)
        return Step(library, primitive, {SRC: a, DST: b})

    def run(self, *arrays: Any) -> Any:
        """Computes; the arrays must lie as its layouts say. Returns the last."""
        library = self.library
        dnnl = library.dnnl
        bind, execute = dnnl.dnnl_memory_set_data_handle, dnnl.dnnl_primitive_execute
        with library.lock:
            library.set_threads(self.threads)  # OpenMP keeps the number for each calling thread
            if self.inner and self.bound is not library.scratch:
                self._bind()
            for memory, array in zip(self.memories, arrays):
                bind(memory, array.__array_interface__["data"][0])
            for call in self.calls:
                status = execute(*call)
                if status:
                    raise RuntimeError(f"[oneDNN] the primitive must run, came status {status}")
        return arrays[-1]


def _openmp() -> ctypes.CDLL:
    """GNU's OpenMP, told that its threads sleep soon when they wait: it reads the environment when it is loaded.

    Else they spin for milliseconds on the cores that NumPy's products want next: with two threads on two cores a step
    of a GPT took 105 ms, and takes 41.
    """
    chosen = os.environ.keys() & {"OMP_WAIT_POLICY", "GOMP_SPINCOUNT"}
    if not chosen:
        os.environ["GOMP_SPINCOUNT"] = SPINS
    try:
        return ctypes.CDLL("libgomp.so.1")
    finally:
        if not chosen:
            del os.environ["GOMP_SPINCOUNT"]


@lru_cache(maxsize=1)
def load() -> Library | None:
    """The library, or None where the extra is not installed or does not load here."""
    path = _path()
    try:
        return Library(path) if path else None
    except (OSError, AttributeError, RuntimeError):
        return None


def set_threads(count: int) -> None:
    """How many threads primitives use from now on, where the library is loaded."""
    if load.cache_info().currsize and (library := load()) is not None:
        library.threads = count
