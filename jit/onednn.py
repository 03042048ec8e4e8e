"""Convolutions by oneDNN, through ctypes: the wheel onednn-cpu-gomp of the extra `fast`, where it is installed.

A convolution of given shapes is prepared once: the library chooses how the arrays are best laid out, and reorders ours
(row-major) into private memory where it wants another layout. float32, two dimensions, one group.
"""

from __future__ import annotations

import ctypes
import importlib.metadata
from functools import lru_cache
from typing import Any

import numpy as np

Ints = tuple[int, ...]
Pairs = tuple[tuple[int, int], ...]
POINTER = ctypes.c_void_p
DIMS = ctypes.c_int64 * 12
FORWARD, DIRECT, F32, ANY, CPU = 64, 1, 3, 1, 1
# what an array is to a primitive, and the query for the layout that the primitive wants it in
SOURCE, TARGET, WEIGHT, BIAS = (1, 129), (17, 133), (33, 131), (41, 131)
D_SOURCE, D_TARGET, D_WEIGHT = (129, 130), (145, 134), (161, 132)


class Argument(ctypes.Structure):
    """dnnl_exec_arg_t"""

    _fields_ = [("arg", ctypes.c_int), ("memory", POINTER)]


@lru_cache(maxsize=1)
def library() -> Any:
    """The loaded library with an engine and a stream, or None."""
    try:
        files = importlib.metadata.files("onednn-cpu-gomp") or []
        path = next(str(f.locate()) for f in files if f.name == "libdnnl.so.3")
        return Library(ctypes.CDLL(path))
    except (importlib.metadata.PackageNotFoundError, StopIteration, OSError, RuntimeError):
        return None


class Library:
    """The C functions that are used here; an error of theirs is a RuntimeError."""

    def __init__(self, lib: Any) -> None:
        self.lib = lib
        lib.dnnl_memory_desc_get_size.restype = ctypes.c_size_t
        lib.dnnl_memory_desc_get_size.argtypes = [POINTER]
        lib.dnnl_primitive_desc_query_md.restype = POINTER
        lib.dnnl_primitive_desc_query_md.argtypes = [POINTER, ctypes.c_int, ctypes.c_int]
        lib.dnnl_memory_desc_equal.argtypes = [POINTER, POINTER]
        lib.dnnl_memory_create.argtypes = [POINTER, POINTER, POINTER, POINTER]
        lib.dnnl_memory_set_data_handle.argtypes = [POINTER, POINTER]
        lib.dnnl_primitive_execute.argtypes = [POINTER, POINTER, ctypes.c_int, POINTER]
        lib.dnnl_stream_wait.argtypes = [POINTER]
        self.engine, self.stream = POINTER(), POINTER()
        self.call("engine_create", ctypes.byref(self.engine), CPU, ctypes.c_size_t(0))
        self.call("stream_create", ctypes.byref(self.stream), self.engine, 1)

    def call(self, name: str, *args: Any) -> None:
        status = getattr(self.lib, f"dnnl_{name}")(*args)
        if status:
            raise RuntimeError(f"[onednn] {name} must succeed, came status {status}")

    def layout(self, shape: Ints, plain: bool) -> Any:
        """A memory descriptor: row-major, or whatever the library likes."""
        made = POINTER()
        dims = DIMS(*shape)
        if not plain:
            self.call("memory_desc_create_with_tag", ctypes.byref(made), len(shape), dims, F32, ANY)
            return made
        strides, step = [], 1
        for n in reversed(shape):
            strides.append(step)
            step *= n
        steps = DIMS(*reversed(strides))
        self.call("memory_desc_create_with_strides", ctypes.byref(made), len(shape), dims, F32, steps)
        return made

    def memory(self, layout: Any, address: int | None) -> Any:
        made = POINTER()
        self.call("memory_create", ctypes.byref(made), layout, self.engine, POINTER(address))
        return made

    def primitive(self, descriptor: Any) -> Any:
        made = POINTER()
        self.call("primitive_create", ctypes.byref(made), descriptor)
        return made

    def reorder(self, source: Any, target: Any) -> Any:
        made = POINTER()
        args = (source, self.engine, target, self.engine, None)
        self.call("reorder_primitive_desc_create", ctypes.byref(made), *args)
        return self.primitive(made)


class Primitive:
    """A prepared computation on row-major arrays: call it with inputs, then the output."""

    def __init__(self, own: Library, descriptor: Any, places: list[tuple[tuple[int, int], Ints]]) -> None:
        self.own = own
        self.handles: list[Any] = []
        before: list[tuple[Any, Any]] = []
        after: list[tuple[Any, Any]] = []
        self.kept: list[Any] = []
        given = []
        for k, ((arg, query), shape) in enumerate(places):
            plain = own.layout(shape, True)
            wanted = plain
            if len(shape) > 1:
                index = 0
                wanted = POINTER(own.lib.dnnl_primitive_desc_query_md(descriptor, query, index))
            memory = own.memory(plain, None)
            self.handles.append(memory)
            if not own.lib.dnnl_memory_desc_equal(plain, wanted):
                size = own.lib.dnnl_memory_desc_get_size(wanted)
                room = np.empty(size + 64, np.uint8)
                self.kept.append(room)
                start = room.__array_interface__["data"][0]
                inner = own.memory(wanted, start + -start % 64)
                if k + 1 < len(places):
                    before.append((own.reorder(plain, wanted), self._arguments((1, memory), (17, inner))))
                else:
                    after.append((own.reorder(wanted, plain), self._arguments((1, inner), (17, memory))))
                memory = inner
            given.append((arg, memory))
        self.steps = [*before, (own.primitive(descriptor), self._arguments(*given)), *after]

    @staticmethod
    def _arguments(*pairs: tuple[int, Any]) -> Any:
        made = (Argument * len(pairs))()
        for i, (arg, memory) in enumerate(pairs):
            made[i].arg, made[i].memory = arg, memory.value
        return made

    def __call__(self, *arrays: Any) -> None:
        lib, stream = self.own.lib, self.own.stream
        for handle, array in zip(self.handles, arrays):
            lib.dnnl_memory_set_data_handle(handle, array.__array_interface__["data"][0])
        for primitive, args in self.steps:
            if lib.dnnl_primitive_execute(primitive, stream, len(args), args):
                raise RuntimeError("[onednn] a primitive must run, came an error")
        lib.dnnl_stream_wait(stream)


@lru_cache(maxsize=512)
def convolution(
    kind: str, x: Ints, w: Ints, y: Ints, bias: bool, stride: Ints, padding: Pairs, dilation: Ints, copy: int
) -> Primitive:
    """kind forward: (x, w[, bias], y); input: (gy, w, gx); weight: (x, gy, gw). copy: programs do not share memory."""
    own = library()
    assert own is not None
    low, high = DIMS(*(a for a, _ in padding)), DIMS(*(b for _, b in padding))
    numbers = (DIMS(*stride), DIMS(*(d - 1 for d in dilation)), low, high, None)
    ax, aw, ay = (own.layout(shape, False) for shape in (x, w, y))
    ab = own.layout((w[0],), True) if bias else None
    forward = POINTER()
    create = "convolution_forward_primitive_desc_create"
    own.call(create, ctypes.byref(forward), own.engine, FORWARD, DIRECT, ax, aw, ab, ay, *numbers)
    if kind == "forward":
        places = [(SOURCE, x), (WEIGHT, w), *([(BIAS, (w[0],))] if bias else []), (TARGET, y)]
        return Primitive(own, forward, places)
    made = POINTER()
    hint = (*numbers[:-1], forward, None)
    if kind == "input":
        create = "convolution_backward_data_primitive_desc_create"
        own.call(create, ctypes.byref(made), own.engine, DIRECT, ax, aw, ay, *hint)
        return Primitive(own, made, [(D_TARGET, y), (WEIGHT, w), (D_SOURCE, x)])
    create = "convolution_backward_weights_primitive_desc_create"
    own.call(create, ctypes.byref(made), own.engine, DIRECT, ax, aw, None, ay, *hint)
    return Primitive(own, made, [(SOURCE, x), (D_TARGET, y), (D_WEIGHT, w)])


__all__ = ["convolution", "library"]
