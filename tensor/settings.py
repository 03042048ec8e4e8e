"""Facts about dtypes and tensors, and settings of the whole process, under PyTorch's names."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..autograd.engine import Variable
from . import device as devices
from . import dtypes
from .dtypes import category, of_numpy, to_numpy


class finfo:
    """Limits of a floating dtype: bits, eps, max, min, tiny, smallest_normal, resolution."""

    def __init__(self, type: Any = None) -> None:
        n = dtypes.default_float() if type is None else to_numpy(type)
        if category(n) < 2:
            raise TypeError(f"[finfo] the dtype must be floating, came {type}: use iinfo")
        if n.kind == "V" or n.name in ("bfloat16", "float8_e4m3fn", "float8_e5m2"):
            import ml_dtypes

            info: Any = ml_dtypes.finfo(n)
        else:
            info = np.finfo(n)
        self.bits, self.dtype = int(n.itemsize * 8 // (2 if n.kind == "c" else 1)), of_numpy(n).name
        self.eps, self.max, self.min = float(info.eps), float(info.max), float(info.min)
        self.tiny = self.smallest_normal = float(info.smallest_normal)
        self.resolution = float(f"{float(info.resolution):.0e}")

    def __repr__(self) -> str:
        return (
            f"finfo(resolution={self.resolution:g}, min={self.min:g}, max={self.max:g}, eps={self.eps:g},"
            f" smallest_normal={self.smallest_normal:g}, tiny={self.tiny:g}, dtype={self.dtype})"
        )


class iinfo:
    """Limits of an integer dtype: bits, max, min."""

    def __init__(self, type: Any) -> None:
        n = to_numpy(type)
        if category(n) != 1:
            raise TypeError(f"[iinfo] the dtype must be an integer one, came {type}")
        info = np.iinfo(n)
        self.bits, self.max, self.min, self.dtype = info.bits, int(info.max), int(info.min), of_numpy(n).name

    def __repr__(self) -> str:
        return f"iinfo(min={self.min}, max={self.max}, dtype={self.dtype})"


# ---- questions


def is_tensor(obj: Any) -> bool:
    """Whether it is a Tensor."""
    return isinstance(obj, Variable)


def is_storage(obj: Any) -> bool:
    """Whether it is a tensor's storage."""
    from .storage import UntypedStorage

    return isinstance(obj, UntypedStorage)


def typename(obj: Any) -> str:
    """The type's name, with its module; for tensors the legacy type."""
    return obj.type() if isinstance(obj, Variable) else f"{type(obj).__module__}.{type(obj).__name__}"


def promote_types(type1: Any, type2: Any) -> Any:
    """The smallest dtype that both are converted to."""
    return of_numpy(dtypes.promote_types(to_numpy(type1), to_numpy(type2)))


def result_type(tensor1: Any, tensor2: Any) -> Any:
    """The dtype of an arithmetic operation on tensors or numbers."""
    return of_numpy(
        dtypes.result_type([t.array if isinstance(t, Variable) else t for t in (tensor1, tensor2)])
    )


def can_cast(from_: Any, to: Any) -> bool:
    """Whether PyTorch's rules allow the cast: never to a lower kind (complex, floating, integer, bool)."""
    a, b = to_numpy(from_), to_numpy(to)
    return category(a) <= category(b)


# ---- settings


_state: dict[str, Any] = {
    "precision": "highest",
    "deterministic": False,
    "warn_only": False,
    "warn_always": False,
}


def set_default_tensor_type(t: Any) -> None:
    """Sets the default dtype by a legacy type, such as `torch.FloatTensor` or its name."""
    from .legacy import dtype_of

    if isinstance(t, str) and ".cuda." in t:
        devices.check("cuda")
    dtypes.set_default_dtype(dtype_of(t))


def set_default_device(device: Any) -> None:
    """Sets where new tensors are made, such as "cuda"; None: on the CPU."""
    devices.set_default(device)


def get_default_device() -> Any:
    """Where new tensors are made."""
    return devices.default()


def set_float32_matmul_precision(precision: str) -> None:
    """How exact float32 matrix products are: "highest", or "high" and "medium", which let GPUs use TF32.

    On the CPU they are always computed in full float32.
    """
    if precision not in ("highest", "high", "medium"):
        raise RuntimeError(
            f"[set_float32_matmul_precision] must be 'highest', 'high' or 'medium', came {precision!r}"
        )
    _state["precision"] = precision


def get_float32_matmul_precision() -> str:
    """What was set last."""
    return _state["precision"]


def use_deterministic_algorithms(mode: bool, *, warn_only: bool = False) -> None:
    """Takes PyTorch's setting; all algorithms here are deterministic on the CPU."""
    _state["deterministic"], _state["warn_only"] = bool(mode), bool(warn_only)


def are_deterministic_algorithms_enabled() -> bool:
    """What was set last."""
    return _state["deterministic"]


def is_deterministic_algorithms_warn_only_enabled() -> bool:
    """What was set last."""
    return _state["deterministic"] and _state["warn_only"]


def set_deterministic_debug_mode(debug_mode: int | str) -> None:
    """0 or "default", 1 or "warn", 2 or "error"."""
    levels: dict[Any, int] = {"default": 0, "warn": 1, "error": 2, 0: 0, 1: 1, 2: 2}
    if debug_mode not in levels:
        raise RuntimeError(f"[set_deterministic_debug_mode] must be 0, 1 or 2 or a name, came {debug_mode!r}")
    level = levels[debug_mode]
    use_deterministic_algorithms(level > 0, warn_only=level == 1)


def get_deterministic_debug_mode() -> int:
    """0, 1 (warn) or 2 (error)."""
    return 0 if not _state["deterministic"] else 1 if _state["warn_only"] else 2


def set_warn_always(mode: bool, /) -> None:
    """Takes PyTorch's setting."""
    _state["warn_always"] = bool(mode)


def is_warn_always_enabled() -> bool:
    """What was set last."""
    return _state["warn_always"]


def set_flush_denormal(mode: bool) -> bool:
    """Whether the processor's mode for tiny numbers was changed: never, NumPy has no access to it."""
    return False


def _assert(condition: Any, message: str) -> None:
    """AssertionError with the message where the condition does not hold."""
    assert condition, message


def is_autocast_enabled(device_type: str = "cuda") -> bool:
    """Whether autocast is on, for a device."""
    return bool(_state.get(f"autocast {device_type}", False))


def is_autocast_cpu_enabled() -> bool:
    """Whether autocast is on for the CPU."""
    return is_autocast_enabled("cpu")


def get_autocast_dtype(device_type: str) -> Any:
    """The dtype of autocast: bfloat16 on the CPU, float16 on GPUs."""
    return dtypes.bfloat16 if device_type == "cpu" else dtypes.float16


def get_autocast_cpu_dtype() -> Any:
    """The dtype of autocast on the CPU."""
    return get_autocast_dtype("cpu")


def get_autocast_gpu_dtype() -> Any:
    """The dtype of autocast on GPUs."""
    return get_autocast_dtype("cuda")


# ---- threads


def _blas() -> Any:
    """NumPy's own OpenBLAS, or None where it was built with another library."""
    if "blas" not in _state:
        import ctypes
        from glob import glob
        from os.path import dirname, join

        _state["blas"] = None
        for path in glob(join(dirname(dirname(np.__file__)), "numpy.libs", "*openblas*")):
            library = ctypes.CDLL(path)
            for prefix, suffix in (("scipy_", "64_"), ("scipy_", ""), ("", "64_"), ("", "")):
                name = f"{prefix}openblas_%s_num_threads{suffix}"
                if hasattr(library, name % "set"):
                    _state["blas"] = getattr(library, name % "get"), getattr(library, name % "set")
                    return _state["blas"]
    return _state["blas"]


def get_num_threads() -> int:
    """How many threads a matrix product uses."""
    import os

    blas = _blas()
    return int(blas[0]()) if blas else int(os.environ.get("OPENBLAS_NUM_THREADS", os.cpu_count() or 1))


def set_num_threads(num: int) -> None:
    """Sets how many threads a matrix product and a compiled op use."""
    if not isinstance(num, int) or num < 1:
        raise RuntimeError(f"[set_num_threads] must be a positive int, came {num!r}")
    blas = _blas()
    if blas:
        blas[1](num)
    from .backend.cpu import library

    library.set_threads(num)


def get_num_interop_threads() -> int:
    """Ops run one after another: 1."""
    return 1


def set_num_interop_threads(num: int) -> None:
    """Takes PyTorch's setting; ops run one after another."""
    if not isinstance(num, int) or num < 1:
        raise RuntimeError(f"[set_num_interop_threads] must be a positive int, came {num!r}")


# ---- constants


class memory_format:
    """How the elements of an image lie in memory; all are taken, and row-major order is used."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __repr__(self) -> str:
        return f"{dtypes.library[0]}.{self.name}"


contiguous_format, preserve_format = memory_format("contiguous_format"), memory_format("preserve_format")
channels_last, channels_last_3d = memory_format("channels_last"), memory_format("channels_last_3d")


class layout(str):
    """Dense (`strided`) or sparse (`sparse_coo`)."""

    __slots__ = ()

    def __repr__(self) -> str:
        return f"{dtypes.library[0]}.{str.__str__(self)}"

    __str__ = __repr__


strided, sparse_coo = layout("strided"), layout("sparse_coo")


class OutOfMemoryError(RuntimeError):
    """Memory of a device is used up."""
