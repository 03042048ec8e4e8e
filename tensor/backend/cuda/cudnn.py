"""cuDNN through its frontend: a graph for each shape, built once, kept with its workspace size.

Optional: without nvidia-cudnn-frontend the ops' own bodies serve (im2col and products, attention in blocks). Graphs are
built from integers and addresses; nothing of PyTorch is touched.
"""

from __future__ import annotations

import warnings
from typing import Any, NamedTuple

from . import graph
from .kernel import launches
from .runtime import load

MOST_WORKSPACE = 256 << 20  # bytes; plans that want more are left out
TYPES = {"float32": "FLOAT", "float16": "HALF", "bfloat16": "BFLOAT16"}

_handles: dict[int, Any] = {}
_graphs: dict[Any, Any] = {}
_spaces: dict[tuple[int, int], Any] = {}
_module: list[Any] = []
_streams: dict[int, int] = {}
MACHINE = ("_graphs", "_handles", "_module", "_spaces", "_streams")


class Built(NamedTuple):
    """A graph with its tensors in the order of the caller's arrays."""

    graph: Any
    tensors: tuple[Any, ...]
    workspace: int


def module() -> Any:
    """The frontend, or None where it or cuDNN cannot be loaded."""
    if not _module:
        try:
            import cudnn

            cudnn.backend_version()
            _module.append(cudnn)
        except Exception as error:
            if not isinstance(error, ModuleNotFoundError):
                warnings.warn(
                    f"[cuda] cuDNN is installed but does not load ({type(error).__name__}: {error}): convolutions and"
                    ' attention are computed without it; pip install "ringgrad[cudnn]"',
                    stacklevel=2,
                )
            _module.append(None)
    return _module[0]


def handle() -> Any:
    """The current GPU's handle, set to the current stream."""
    cudnn, cp = module(), load()
    index = int(cp.cuda.runtime.getDevice())
    if index not in _handles:
        _handles[index] = cudnn.create_handle()
    stream = int(cp.cuda.get_current_stream().ptr)
    if _streams.get(index) != stream:
        cudnn.set_stream(handle=_handles[index], stream=stream)
        _streams[index] = stream
    return _handles[index]


def build(key: Any, dtype: str, describe: Any) -> Built | None:
    """The graph for `key`; describe(graph) makes its nodes and returns its tensors. None: cuDNN has no plan for it."""
    key = (int(load().cuda.runtime.getDevice()), *key)
    if key not in _graphs:
        _graphs[key] = _built(dtype, describe)
    return _graphs[key]


def _built(dtype: str, describe: Any) -> Built | None:
    cudnn = module()
    kind = cudnn.data_type
    made = cudnn.pygraph(
        io_data_type=getattr(kind, TYPES[dtype]),
        intermediate_data_type=kind.FLOAT,
        compute_data_type=kind.FLOAT,
        handle=handle(),
    )
    try:
        tensors = describe(made)
        made.validate()
        made.build_operation_graph()
        made.create_execution_plans([cudnn.heur_mode.A, cudnn.heur_mode.FALLBACK])
        made.deselect_workspace_greater_than(MOST_WORKSPACE)
        if deterministic():
            made.deselect_numeric_notes([cudnn.numerical_note.NONDETERMINISTIC])
        made.check_support()
        made.build_plans(cudnn.build_plan_policy.HEURISTICS_CHOICE)
    except Exception as error:
        if type(error).__name__ in ("cudnnGraphNotSupportedError", "RuntimeError"):
            return None
        raise
    return Built(made, tensors, int(made.get_workspace_size()))


def deterministic() -> bool:
    """Whether only plans that give the same bits every time may be used."""
    from ...settings import are_deterministic_algorithms_enabled

    return are_deterministic_algorithms_enabled()


def run(b: Built, *arrays: Any) -> None:
    """Queues a graph on the current stream, with the arrays of its tensors."""
    launches["cudnn"] += 1
    addresses = {t: int(a.data.ptr) for t, a in zip(b.tensors, arrays, strict=True)}
    b.graph.execute(addresses, _space(b.workspace), handle=handle())


def _space(size: int) -> int:
    cp = load()
    if size == 0:
        size = 256
    if graph.is_capturing():
        return int(graph.workspace(max(size, 32 << 20)).data.ptr)
    key = (int(cp.cuda.runtime.getDevice()), int(cp.cuda.get_current_stream().ptr))
    held = _spaces.get(key)
    if held is None or held.size < size:
        held = _spaces[key] = cp.empty(size, "uint8")
    return int(held.data.ptr)


def elements(array: Any) -> list[int]:
    """Strides in elements, as cuDNN takes them."""
    return [s // array.itemsize for s in array.strides]
