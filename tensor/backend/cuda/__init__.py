"""The CUDA backend: CuPy's arrays under the same engine, with kernels attached to ops from here.

`load()` is the door: it imports CuPy, looks for a driver and a GPU, enters CuPy's array type into the engine's table
and attaches the kernels. Nothing here is imported before a CUDA device is asked for (docs/gpu.md).
"""

from .runtime import load

__all__ = ["load"]
