"""Finding CuPy, the driver and the GPUs, and saying what is missing."""

from __future__ import annotations

import os
from typing import Any

from ....autograd.engine import array_namespace
from ...settings import OutOfMemoryError

INSTALL = 'pip install "ringgrad[cuda]"'
_found: dict[str, Any] = {}


def cupy() -> Any:
    """CuPy; RuntimeError that names the extra where it is missing or does not load."""
    if "cupy" not in _found:
        try:
            import cupy
        except ModuleNotFoundError as error:
            if error.name != "cupy":
                raise _broken(error) from None
            raise RuntimeError(
                f"[cuda] a CUDA device needs CuPy, which is not installed: {INSTALL}, or use device 'cpu'"
            ) from None
        except Exception as error:
            raise _broken(error) from None
        _found["cupy"] = cupy
    return _found["cupy"]


def _broken(error: Exception) -> RuntimeError:
    return RuntimeError(
        f"[cuda] CuPy is installed but does not load ({type(error).__name__}: {error}): it must be built for the"
        f" machine's CUDA; remove other cupy packages (pip list | grep cupy), then {INSTALL}"
    )


def device_count() -> int:
    """How many GPUs this process sees; 0 without driver, GPU or CuPy."""
    try:
        return _count(cupy())
    except RuntimeError:
        return 0


def _count(cp: Any) -> int:
    try:
        return int(cp.cuda.runtime.getDeviceCount())
    except Exception as error:
        raise _no_device(cp, error) from None


def _no_device(cp: Any, error: Exception) -> RuntimeError:
    text = str(error)
    if not _driver_library():
        why = "no NVIDIA driver is installed (libcuda.so.1 is not found)"
    elif "InsufficientDriver" in text:
        built = _version(cp.cuda.runtime.runtimeGetVersion())
        try:
            has = _version(cp.cuda.runtime.driverGetVersion())
        except Exception:
            has = "an older one"
        why = (
            f"the NVIDIA driver supports CUDA {has}, this CuPy is built for CUDA {built}: update the driver, or"
            " install the CuPy of its CUDA (cupy-cuda12x for CUDA 12)"
        )
    elif "NoDevice" in text:
        visible = os.environ.get("CUDA_VISIBLE_DEVICES")
        why = "the driver sees no GPU" + (
            "" if visible is None else f", with CUDA_VISIBLE_DEVICES={visible!r}"
        )
    else:
        why = f"the driver answers {text}"
    return RuntimeError(f"[cuda] no GPU can be used: {why}. Work on device 'cpu' goes on as before")


def _driver_library() -> bool:
    import ctypes

    try:
        ctypes.CDLL("libcuda.so.1")
    except OSError:
        return False
    return True


def _version(number: int) -> str:
    return f"{number // 1000}.{number % 1000 // 10}"


def loaded() -> bool:
    """Whether the backend is in use."""
    return "ready" in _found


def load() -> Any:
    """CuPy, with its arrays known to the engine and the kernels attached to the ops; errors as in this file."""
    if "ready" not in _found:
        cp = cupy()
        count = _count(cp)
        if count < 1:
            raise _no_device(cp, RuntimeError("NoDevice"))
        _found["ready"], _found["count"] = cp, count
        array_namespace[cp.ndarray] = cp
        _limit_errors(cp)
        from . import attach

        attach.everything(cp)
        if count > 1:
            from . import several

            several.guard(cp)
    return _found["ready"]


def check_index(index: int | None) -> int:
    """A device number that exists; None is the current device."""
    cp = load()
    if index is None:
        return int(cp.cuda.runtime.getDevice())
    if not 0 <= index < _found["count"]:
        raise RuntimeError(
            f"[device] the index must be in [0, {_found['count'] - 1}], as this process sees {_found['count']}"
            f" GPU{'s' * (_found['count'] > 1)}, came 'cuda:{index}'"
        )
    return index


def _limit_errors(cp: Any) -> None:
    """CuPy's pool as the allocator, whose failure says what was asked for, what is held and what is free."""
    pool = cp.get_default_memory_pool()
    failure = cp.cuda.memory.OutOfMemoryError

    def allocate(size: int) -> Any:
        try:
            return pool.malloc(size)
        except failure:
            raise out_of_memory(cp, pool, size) from None

    cp.cuda.set_allocator(allocate)


def out_of_memory(cp: Any, pool: Any, size: int) -> OutOfMemoryError:
    """The error for `size` bytes that could not be had."""
    free, total = cp.cuda.runtime.memGetInfo()
    used, held = pool.used_bytes(), pool.total_bytes()
    mib = 1 << 20
    others = max(total - free - held, 0)
    return OutOfMemoryError(
        f"[cuda] memory must hold {size / mib:.1f} MiB more, came to an end on cuda:{cp.cuda.runtime.getDevice()}:"
        f" {used / mib:.1f} MiB are taken by tensors, {(held - used) / mib:.1f} MiB are kept by the pool"
        f" (ringgrad.cuda.empty_cache() gives them back), {others / mib:.1f} MiB are taken by other processes,"
        f" contexts and libraries, {free / mib:.1f} of {total / mib:.1f} MiB are free"
    )
