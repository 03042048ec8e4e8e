"""The memory under tensors, as far as PyTorch's scripts look at it."""

from __future__ import annotations

from typing import Any

import numpy as np

from .ops.scan import memory


def whole(x: Any) -> Any:
    """The elements of the memory that a view was cut from, as one row."""
    root = x
    while isinstance(root.base, np.ndarray) and root.base.dtype == x.dtype and root.base.flags.c_contiguous:
        root = root.base
    return memory(root)


class UntypedStorage:
    """The bytes of the memory that a tensor looks into; views share it."""

    def __init__(self, array: Any) -> None:
        self.flat = whole(array)

    def data_ptr(self) -> int:
        """Address of the first byte."""
        return int(self.flat.__array_interface__["data"][0])

    def nbytes(self) -> int:
        """How many bytes there are."""
        return int(self.flat.nbytes)

    size = __len__ = nbytes

    def element_size(self) -> int:
        """1: storage counts bytes."""
        return 1

    def tolist(self) -> list[int]:
        """The bytes."""
        return self.flat.view(np.uint8).tolist()

    def is_shared(self) -> bool:
        """Whether other processes see this memory."""
        return False

    def __eq__(self, other: object) -> bool:
        return isinstance(other, UntypedStorage) and self.data_ptr() == other.data_ptr()

    def __hash__(self) -> int:
        return self.data_ptr()


class TypedStorage(UntypedStorage):
    """The elements of the memory that a tensor looks into."""

    def size(self) -> int:
        """How many elements there are."""
        return int(self.flat.size)

    __len__ = size

    def element_size(self) -> int:
        """Bytes an element takes."""
        return int(self.flat.itemsize)

    def tolist(self) -> list[Any]:
        """The elements."""
        return self.flat.tolist()

    def __getitem__(self, i: int) -> Any:
        return self.flat[i].item()

    def __setitem__(self, i: int, value: Any) -> None:
        self.flat[i] = value

    def untyped(self) -> UntypedStorage:
        """The same memory as bytes."""
        return UntypedStorage(self.flat)


def untyped_storage(self: Any) -> UntypedStorage:
    """The memory that the tensor looks into, as bytes."""
    return UntypedStorage(self.array)


def storage(self: Any) -> TypedStorage:
    """The memory that the tensor looks into, as elements."""
    return TypedStorage(self.array)


def resize_(self: Any, *sizes: Any, memory_format: Any = None) -> Any:
    """Another shape, over the same memory where that is large enough; what is new is undefined."""
    from .creation import size_of

    shape = size_of("resize_", sizes)
    if self._needs:
        raise RuntimeError("[resize_] a tensor that requires grad cannot be resized")
    flat = self.array.reshape(-1)
    n = int(np.prod(shape))
    if n > flat.size:
        flat = np.concatenate([flat, np.zeros(n - flat.size, flat.dtype)])
    self.array = flat[:n].reshape(shape)
    self._version[0] += 1
    return self


def resize_as_(self: Any, other: Any, *, memory_format: Any = None) -> Any:
    """`resize_` to the shape of another tensor."""
    return resize_(self, tuple(other.shape))


def set_(self: Any, source: Any = None, storage_offset: int = 0, size: Any = None, stride: Any = None) -> Any:
    """Looks into the memory of another tensor or storage from now on."""
    if self._needs and self._node is not None:
        raise RuntimeError("[set_] only leaves can be given other memory")
    if source is None:
        self.array = np.empty((0,), self.array.dtype)
    elif size is None:
        self.array = source.flat if isinstance(source, UntypedStorage) else source.array
    else:
        flat = source.flat if isinstance(source, UntypedStorage) else whole(source.array)
        shape = tuple(size)
        if stride is None:
            self.array = flat[storage_offset : storage_offset + int(np.prod(shape))].reshape(shape)
        else:
            steps = tuple(s * flat.itemsize for s in stride)
            last = storage_offset + sum((n - 1) * s for n, s in zip(shape, stride))
            if min(shape, default=1) > 0 and not 0 <= last < flat.size:
                raise RuntimeError(
                    f"[set_] must stay inside the {flat.size} elements, came to element {last}"
                )
            self.array = np.lib.stride_tricks.as_strided(flat[storage_offset:], shape, steps)
    self._version[0] += 1
    return self


def share_memory_(self: Any) -> Any:
    """Moves the elements into memory that child processes made by fork share."""
    import mmap

    array = self.array
    if isinstance(getattr(memory(array).base, "obj", None), mmap.mmap) or not array.size:
        return self
    block = mmap.mmap(-1, array.nbytes)
    shared = np.frombuffer(block, array.dtype).reshape(array.shape)
    shared[...] = array
    self.array = shared
    return self


def apply_(self: Any, callable: Any) -> Any:
    """Each element replaced by a Python function of it; slow."""
    flat = [callable(v) for v in self.array.reshape(-1).tolist()]
    return self.set_content("apply_", np.asarray(flat, self.array.dtype).reshape(self.array.shape))


def map_(self: Any, tensor: Any, callable: Any) -> Any:
    """Each element replaced by a Python function of it and of another tensor's; slow."""
    other = np.broadcast_to(tensor.array, self.array.shape)
    flat = [callable(a, b) for a, b in zip(self.array.reshape(-1).tolist(), other.reshape(-1).tolist())]
    return self.set_content("map_", np.asarray(flat, self.array.dtype).reshape(self.array.shape))


def empty_strided(
    size: Any, stride: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False, **_: Any
) -> Any:
    """A tensor of undefined content with the given steps between elements."""
    from .creation import finish
    from .dtypes import default_float, to_numpy

    n = default_float() if dtype is None else to_numpy(dtype)
    last = sum((k - 1) * s for k, s in zip(size, stride)) + 1 if min(size, default=1) > 0 else 0
    flat = np.empty(max(last, 0), n)
    array = np.lib.stride_tricks.as_strided(flat, tuple(size), tuple(s * n.itemsize for s in stride))
    return finish(array, requires_grad, device)


def scalar_tensor(
    s: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False, **_: Any
) -> Any:
    """A 0-d tensor, of the default float type unless `dtype` is given."""
    from .creation import finish
    from .dtypes import default_float, to_numpy

    return finish(np.asarray(s, default_float() if dtype is None else to_numpy(dtype)), requires_grad, device)


def range(
    start: Any = 0,
    end: Any = None,
    step: Any = 1,
    *,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Any:
    """Numbers from `start` to `end`, both included: PyTorch's older form of arange."""
    from .creation import finish
    from .dtypes import default_float, to_numpy

    start, end = (0, start) if end is None else (start, end)
    if step == 0 or (end - start) / step < 0:
        raise RuntimeError(f"[range] the step must lead from start to end, came {start}, {end}, {step}")
    count = int((end - start) // step) + 1
    n = default_float() if dtype is None else to_numpy(dtype)
    return finish((start + np.arange(count) * step).astype(n), requires_grad, device)


__all__ = ["TypedStorage", "UntypedStorage"]
