"""cuBLASLt through ctypes: matrix products with a plan for each shape, so that a call costs one library call.

CuPy's own products cannot be captured into graphs, have no epilogues and do not take batches of bfloat16
(docs/gpu.md). Numbers below are those of cublasLt.h (CUDA 13).
"""

from __future__ import annotations

import ctypes
import threading
from ctypes import byref, c_double, c_float, c_int, c_int32, c_int64, c_size_t, c_uint64, c_void_p
from typing import Any, NamedTuple

from . import graph
from .runtime import load

WORKSPACE = 32 << 20  # bytes, what NVIDIA advises for Hopper
CANDIDATES = 8  # algorithms to choose among where products are tuned
TYPES = {"float32": 0, "float64": 1, "float16": 2, "bfloat16": 14}
COMPUTE = {"float32": 68, "float64": 70, "float16": 68, "bfloat16": 68}
TF32 = 77
EPILOGUES = {None: 1, "bias": 4, "relu_bias": 6, "gelu_bias": 36, "gelu_aux_bias": 164, "bias_gradient": 512}
TRANSA, TRANSB, EPILOGUE, BIAS, AUX, AUX_LD, AUX_STRIDE = 3, 4, 7, 8, 11, 12, 13
BATCH_COUNT, BATCH_STRIDE = 5, 6
MAX_WORKSPACE, ALIGNMENT_A = 1, 5

_handles: dict[int, Any] = {}
_plans: dict[Any, Any] = {}
_workspaces: dict[tuple[int, int], Any] = {}
_library: list[Any] = []
MACHINE = ("_handles", "_library", "_plans", "_workspaces")
settings = {"tune": False}
_lock = threading.Lock()


class Algorithm(ctypes.Structure):
    """cublasLtMatmulHeuristicResult_t."""

    _fields_ = [
        ("algo", c_uint64 * 8),
        ("workspace", c_size_t),
        ("state", c_int),
        ("waves", c_float),
        ("reserved", c_int * 4),
    ]


class Matrix(NamedTuple):
    """An operand as cuBLASLt sees it, column after column."""

    rows: int
    cols: int
    ld: int
    batch: int
    stride: int


class Plan(NamedTuple):
    """Everything of a call but the addresses."""

    description: Any
    layouts: tuple[Any, Any, Any]
    algorithm: Any
    alpha: Any
    beta: Any


def available() -> bool:
    """Whether the library can be loaded."""
    try:
        return library() is not None
    except RuntimeError:
        return False


def library() -> Any:
    """libcublasLt; RuntimeError that names the extra where it is missing."""
    if not _library:
        _library.append(_load())
    return _library[0]


def _load() -> Any:
    try:
        from cuda.pathfinder import load_nvidia_dynamic_lib

        return ctypes.CDLL(load_nvidia_dynamic_lib("cublasLt").abs_path)
    except Exception as error:
        raise RuntimeError(
            f"[cuda] matrix products need cuBLAS, which cannot be loaded ({type(error).__name__}: {error}):"
            ' pip install "ringgrad[cuda]"'
        ) from None


def _checked(what: str, status: int) -> None:
    if status:
        raise RuntimeError(f"[cuda] cuBLASLt's {what} must succeed, came status {status}")


def _made(create: str, *args: Any) -> Any:
    out = c_void_p()
    _checked(create, getattr(library(), create)(byref(out), *args))
    return out


def _set(call: str, target: Any, attribute: int, value: Any) -> None:
    status = getattr(library(), call)(target, c_int(attribute), byref(value), c_size_t(ctypes.sizeof(value)))
    _checked(call, status)


def handle() -> Any:
    """The current GPU's handle."""
    index = int(load().cuda.runtime.getDevice())
    if index not in _handles:
        _handles[index] = _made("cublasLtCreate")
    return _handles[index]


def workspace() -> Any:
    """Work space of the current stream, or of the graph being captured."""
    cp = load()
    if graph.is_capturing():
        return graph.workspace(WORKSPACE)
    key = (int(cp.cuda.runtime.getDevice()), int(cp.cuda.get_current_stream().ptr))
    if key not in _workspaces:
        _workspaces[key] = cp.empty(WORKSPACE, "uint8")
    return _workspaces[key]


def _layout(kind: int, m: Matrix) -> Any:
    made = _made("cublasLtMatrixLayoutCreate", c_int(kind), c_uint64(m.rows), c_uint64(m.cols), c_int64(m.ld))
    if m.batch > 1:
        _set("cublasLtMatrixLayoutSetAttribute", made, BATCH_COUNT, c_int32(m.batch))
        _set("cublasLtMatrixLayoutSetAttribute", made, BATCH_STRIDE, c_int64(m.stride))
    return made


def plan(
    dtype: str,
    flips: tuple[bool, bool],
    operands: tuple[Matrix, Matrix, Matrix],
    epilogue: str | None,
    alignment: int,
    tf32: bool,
) -> Plan | None:
    """The plan for a product; None where the library has no algorithm for it."""
    index = int(load().cuda.runtime.getDevice())
    key = (index, dtype, flips, operands, epilogue, alignment, tf32)
    if key not in _plans:
        _plans[key] = _planned(dtype, flips, operands, epilogue, alignment, tf32)
    return _plans[key]


def _planned(
    dtype: str,
    flips: tuple[bool, bool],
    operands: tuple[Matrix, Matrix, Matrix],
    epilogue: str | None,
    alignment: int,
    tf32: bool,
) -> Plan | None:
    kind = TYPES[dtype]
    compute = TF32 if tf32 and dtype == "float32" else COMPUTE[dtype]
    scale = 1 if dtype == "float64" else 0
    number = c_double if scale else c_float
    description = _made("cublasLtMatmulDescCreate", c_int(compute), c_int(scale))
    set_ = "cublasLtMatmulDescSetAttribute"
    _set(set_, description, TRANSA, c_int32(flips[0]))
    _set(set_, description, TRANSB, c_int32(flips[1]))
    _set(set_, description, EPILOGUE, c_int32(EPILOGUES[epilogue]))
    if epilogue == "gelu_aux_bias":
        _set(set_, description, AUX_LD, c_int64(operands[2].ld))
        if operands[2].batch > 1:
            _set(set_, description, AUX_STRIDE, c_int64(operands[2].stride))
    layouts = tuple(_layout(kind, m) for m in operands)
    preference = _made("cublasLtMatmulPreferenceCreate")
    set_ = "cublasLtMatmulPreferenceSetAttribute"
    _set(set_, preference, MAX_WORKSPACE, c_uint64(WORKSPACE))
    for which in range(4):
        _set(set_, preference, ALIGNMENT_A + which, ctypes.c_uint32(alignment))
    found, count = (Algorithm * CANDIDATES)(), c_int()
    a, b, d = layouts
    status = library().cublasLtMatmulAlgoGetHeuristic(
        handle(), description, a, b, d, d, preference, c_int(CANDIDATES), found, byref(count)
    )
    library().cublasLtMatmulPreferenceDestroy(preference)
    usable = [algorithm for algorithm in found[: count.value] if algorithm.state == 0] if status == 0 else []
    if not usable:
        return None
    plans = [Plan(description, (a, b, d), algorithm, number(1), number(0)) for algorithm in usable]
    if settings["tune"] and len(plans) > 1 and epilogue is None and not graph.is_capturing():
        return _fastest(plans, dtype, operands)
    return plans[0]


def _fastest(plans: list[Plan], dtype: str, operands: tuple[Matrix, Matrix, Matrix]) -> Plan:
    """The plan that took least time in three calls on memory of its own."""
    cp = load()
    itemsize = {"float64": 8, "float32": 4}.get(dtype, 2)
    sizes = [max(m.ld * m.cols, m.stride * m.batch) * itemsize for m in operands]
    a, b, d = (cp.zeros(max(size, 16), "uint8") for size in sizes)
    times = []
    for candidate in plans:
        run(candidate, a.data.ptr, b.data.ptr, d.data.ptr)
        begin, end = cp.cuda.Event(), cp.cuda.Event()
        begin.record()
        for _ in range(3):
            run(candidate, a.data.ptr, b.data.ptr, d.data.ptr)
        end.record()
        end.synchronize()
        times.append(cp.cuda.get_elapsed_time(begin, end))
    return plans[times.index(min(times))]


def run(p: Plan, a: int, b: int, d: int, bias: int = 0, aux: int = 0) -> None:
    """Queues a product on the current stream: addresses of both operands, the result, bias and kept input of GELU."""
    space = workspace()
    stream = int(load().cuda.get_current_stream().ptr)
    left, right, out = p.layouts
    operands = (c_void_p(a), left, c_void_p(b), right, byref(p.beta), c_void_p(d), out, c_void_p(d), out)
    with _lock:  # the addresses of bias and aux stand in the description, which threads share
        if bias:
            _set("cublasLtMatmulDescSetAttribute", p.description, BIAS, c_void_p(bias))
        if aux:
            _set("cublasLtMatmulDescSetAttribute", p.description, AUX, c_void_p(aux))
        status = library().cublasLtMatmul(
            handle(),
            p.description,
            byref(p.alpha),
            *operands,
            byref(p.algorithm),
            c_void_p(space.data.ptr),
            c_size_t(WORKSPACE),
            c_void_p(stream),
        )
    _checked("cublasLtMatmul", status)
