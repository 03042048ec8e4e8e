"""Own kernels: compiled for the GPU at hand when first used, kept on disk, launched without boxing arrays.

The sources are kernels/*.cu. A compiled file is kept under a name that is the hash of all that decides its content, and
written to another name first, so that processes that start together do not disturb each other.
"""

from __future__ import annotations

import hashlib
import os
import tempfile
from collections import Counter
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from .runtime import load

FOLDER = Path(__file__).parent / "kernels"
OPTIONS = ("-std=c++17", "-default-device")
SUFFIX = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}
THREADS = 256

_functions: dict[tuple[int, str], Any] = {}
_modules: dict[tuple[int, str], Any] = {}
launches: Counter[str] = Counter()  # how often each kernel was launched: shows that the GPU's path was taken
MACHINE = ("_functions", "_modules", "launches")


@cache
def headers() -> dict[str, str]:
    """The files that sources include, by name."""
    return {path.name: path.read_text() for path in sorted(FOLDER.glob("*.cuh"))}


def cache_folder() -> Path:
    """Where compiled kernels are kept: $RINGGRAD_CACHE, or the user's cache folder."""
    base = os.environ.get("RINGGRAD_CACHE")
    if base:
        return Path(base)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ringgrad"


def cubin(source: str, arch: str) -> bytes:
    """The compiled form of kernels/`source` for an architecture such as sm_90; from the disk where it is there."""
    nvrtc = load().cuda.nvrtc
    text = (FOLDER / source).read_text()
    parts = [text, *headers().values(), *OPTIONS, arch, repr(nvrtc.getVersion())]
    key = hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]
    place = cache_folder() / f"{Path(source).stem}-{arch}-{key}.cubin"
    try:
        return place.read_bytes()
    except OSError:
        made = compiled(nvrtc, source, text, arch)
    _keep(place, made)
    return made


def compiled(nvrtc: Any, source: str, text: str, arch: str) -> bytes:
    """The same, compiled by NVRTC."""
    included = [(content.encode(), name.encode()) for name, content in headers().items()]
    program = nvrtc.createProgram(text, source, tuple(c for c, _ in included), tuple(n for _, n in included))
    try:
        nvrtc.compileProgram(program, (f"-arch={arch}", *OPTIONS))
        return bytes(nvrtc.getCUBIN(program))
    except Exception as error:
        log = nvrtc.getProgramLog(program)
        raise RuntimeError(
            f"[cuda] kernels/{source} must compile for {arch}, came {type(error).__name__}: {log or error}. Is NVRTC"
            ' older than the GPU? pip install -U "ringgrad[cuda]"'
        ) from None
    finally:
        nvrtc.destroyProgram(program)


def _keep(place: Path, made: bytes) -> None:
    """Written whole or not at all; a disk that cannot be written only costs time."""
    try:
        place.parent.mkdir(parents=True, exist_ok=True)
        handle, name = tempfile.mkstemp(dir=place.parent, prefix=place.name)
        with os.fdopen(handle, "wb") as file:
            file.write(made)
        os.replace(name, place)
    except OSError:
        pass


def function(source: str, name: str) -> Any:
    """A kernel on the current GPU, ready to launch."""
    cp = load()
    index = int(cp.cuda.runtime.getDevice())
    found = _functions.get((index, name))
    if found is None:
        module = _modules.get((index, source))
        if module is None:
            from . import properties

            p = properties.of(index)
            module = cp.cuda.function.Module()
            module.load(cubin(source, f"sm_{p.major}{p.minor}"))
            _modules[index, source] = module  # whole: another thread may be here, too
        found = _functions[index, name] = module.get_function(name)
    return found


def launch(source: str, name: str, grid: int, block: int, *args: Any) -> None:
    """Queues a kernel on the current stream.

    Arguments: arrays (None: a null pointer), bool for `int` flags, int for 64-bit integers, float for float32.
    """
    launches[name] += 1
    function(source, name)((grid, 1, 1), (block, 1, 1), tuple(map(_argument, args)))


def _argument(a: Any) -> Any:
    kind = type(a)
    if kind is int:
        return a
    if kind is bool:
        return np.int32(a)
    if kind is float:
        return np.float32(a)
    if a is None:
        return 0
    return a if isinstance(a, np.generic) else int(a.data.ptr)


def suffix(*arrays: Any) -> str | None:
    """f32, f16 or bf16 where all arrays (None: left out) have that dtype; None otherwise."""
    names = {a.dtype.name for a in arrays if a is not None}
    return SUFFIX.get(names.pop()) if len(names) == 1 else None


def aligned(width: int, *arrays: Any) -> bool:
    """Whether rows of `width` elements begin at multiples of 16 bytes in all arrays."""
    present = [a for a in arrays if a is not None]
    return all(a.data.ptr % 16 == 0 and width * a.itemsize % 16 == 0 for a in present)


def contiguous(*arrays: Any) -> bool:
    """Whether all arrays lie in row-major order without gaps."""
    return all(a.flags.c_contiguous for a in arrays if a is not None)


def row_grid(rows: int) -> int:
    """Blocks for a kernel that walks over rows: enough to fill any GPU, within the grid's limit."""
    return max(1, min(rows, 1 << 20))


def flat_grid(n: int, per_thread: int, block: int = THREADS) -> int:
    """Blocks for a kernel that walks over elements."""
    from . import properties

    p = properties.of()
    most = p.multi_processor_count * (p.max_threads_per_multi_processor // block)
    return max(1, min(-(-n // (per_thread * block)), most * 4))
