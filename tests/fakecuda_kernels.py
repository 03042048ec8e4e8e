"""Kernels of the fake device: the sources compiled as C++ for the host, their calls checked against the signatures.

The sources are compiled once for each content, and kept in the temporary folder. A call must have as many arguments
as the kernel's signature, of its types; addresses must lie in live allocations, be aligned as the kernel is told, and
belong to this device; const pointers are reads, the others writes.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import re
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import fakecuda_device as machine
import numpy as np

HOST = Path(__file__).parent / "host"
SOURCES = Path(__file__).parent.parent / "tensor" / "backend" / "cuda" / "kernels"
DECLARED = re.compile(
    r'extern\s+"C"\s+(?:__global__\s+)?void\s+(?:__launch_bounds__\([^)]*\)\s*)?(\w+)\(([^)]*)\)\s*\{'
)
SCALARS = {"i64": ctypes.c_longlong, "int": ctypes.c_int, "float": ctypes.c_float, "double": ctypes.c_double}
ELEMENT = {"float": 4, "f16": 2, "bf16": 2, "double": 8, "i64": 8, "u32": 4, "int": 4}


class Parameter(NamedTuple):
    """One argument of a kernel."""

    type: str
    pointer: bool
    const: bool
    name: str


class Signature(NamedTuple):
    """A kernel's arguments and the file that declares it."""

    parameters: tuple[Parameter, ...]
    source: str


_one_at_a_time = threading.Lock()


def compiler() -> str | None:
    return shutil.which("g++") or shutil.which("clang++")


def parsed(text: str) -> tuple[Parameter, ...]:
    found = []
    for part in text.split(","):
        words = part.replace("*", " * ").split()
        found.append(
            Parameter(
                next(w for w in words if w not in ("const", "*")), "*" in words, "const" in words, words[-1]
            )
        )
    return tuple(found)


@cache
def preprocessed(name: str) -> str:
    """A source with its macros expanded, for the host."""
    command = [compiler() or "g++", "-E", "-P", "-x", "c++", "-std=c++20", "-DRG_HOST", str(SOURCES / name)]
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


@cache
def signatures() -> dict[str, Signature]:
    """Every kernel of every source."""
    found = {}
    for path in sorted(SOURCES.glob("*.cu")):
        for name, text in DECLARED.findall(preprocessed(path.name)):
            assert name not in found, f"kernel {name} is declared twice"
            found[name] = Signature(parsed(text), path.name)
    return found


def _bridge(name: str, signature: Signature) -> str:
    declared = ", ".join(f"{p.type}{'*' if p.pointer else ''} {p.name}" for p in signature.parameters)
    names = ", ".join(p.name for p in signature.parameters)
    return (
        f'extern "C" __attribute__((visibility("default"))) int host_{name}('
        f"unsigned grid, unsigned block, int rg_order, {declared}) "
        f"{{ return fiber::launch(grid, block, rg_order, [=] {{ {name}({names}); }}); }}\n"
    )


def _kept(*tools: str) -> tuple[Path, str]:
    """This user's folder for what is compiled, and the name of the sources' and the tools' content."""
    texts = [(HOST / "fiber.hpp").read_text(), *(p.read_text() for p in sorted(SOURCES.glob("*.cu*")))]
    folder = Path(tempfile.gettempdir()) / f"ringgrad-host-kernels-{os.getuid()}"
    folder.mkdir(exist_ok=True, mode=0o700)
    return folder, hashlib.sha256("".join([*texts, *tools]).encode()).hexdigest()[:16]


def device_builds() -> Iterator[tuple[str, str]]:
    """(command, what it said) of nvcc for every source and architecture, two at a time; a failure is an error."""
    version = subprocess.run(["nvcc", "--version"], capture_output=True, text=True, check=True).stdout
    flags = ["-cubin", "-std=c++17", "-Xptxas", "-v", "-Werror", "all-warnings"]
    folder, key = _kept(version, *flags)
    with tempfile.TemporaryDirectory(dir=folder) as work, ThreadPoolExecutor(2) as two:

        def said(path: Path, arch: str) -> tuple[str, str]:
            command, kept = (
                ["nvcc", *flags, f"-arch={arch}", str(path)],
                folder / f"{path.stem}-{arch}-{key}.txt",
            )
            if not kept.exists():
                target = Path(work, f"{path.stem}-{arch}")
                done = subprocess.run([*command, "-o", str(target)], capture_output=True, text=True)
                assert done.returncode == 0, done.stderr
                target.write_text(done.stderr)
                os.replace(target, kept)
            return " ".join(command), kept.read_text()

        paths = sorted(SOURCES.glob("*.cu"))
        yield from two.map(said, paths * 2, ["sm_80"] * len(paths) + ["sm_90"] * len(paths))


@cache
def libraries() -> dict[str, Any]:
    """One shared library a source, by its name; built when the content is new.

    Not one for all: they would share the templates of common.cuh, and with them one another's fibers.
    """
    folder, key = _kept()
    found = {path.name: folder / f"{path.stem}-{key}.so" for path in sorted(SOURCES.glob("*.cu"))}
    missing = [name for name, target in found.items() if not target.exists()]
    with tempfile.TemporaryDirectory(dir=folder) as work:
        jobs = [(name, *_build(name, Path(work))) for name in missing]
        for name, built, job in jobs:
            _, errors = job.communicate()
            assert job.returncode == 0, errors
            os.replace(built, found[name])
    return {name: ctypes.CDLL(str(target)) for name, target in found.items()}


def _build(name: str, work: Path) -> tuple[Path, Any]:
    unit, built = work / f"{name}.cpp", work / f"{name}.so"
    bridges = [_bridge(n, s) for n, s in signatures().items() if s.source == name]
    unit.write_text(f'#include "{HOST / "fiber.hpp"}"\n#include "{SOURCES / name}"\n' + "".join(bridges))
    flags = ["-O1", "-std=c++20", "-fPIC", "-shared", "-Wno-unknown-pragmas", "-fno-strict-aliasing"]
    command = [compiler() or "g++", *flags, "-fvisibility=hidden", str(unit), "-o", str(built)]
    return built, subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


# ---- CuPy's module and function


class Module:
    def load(self, cubin: bytes) -> None:
        machine.forbid("a module was loaded")
        self.source = cubin.decode()

    def get_function(self, name: str) -> Function:
        signature = signatures().get(name)
        assert signature is not None, f"no kernel is called {name}"
        assert signature.source == self.source, f"{name} is in {signature.source}, not in {self.source}"
        return Function(name, signature)


class Function:
    order = 1  # set to -1 by tests: warps and blocks in the other order

    def __init__(self, name: str, signature: Signature) -> None:
        self.name, self.signature = name, signature

    def __call__(self, grid: Any, block: Any, args: Any, shared_mem: int = 0, stream: Any = None) -> None:
        assert (
            shared_mem <= 48 << 10
            and 0 < grid[0] < 1 << 31
            and grid[1:] in ((), (1, 1))
            and block[1:] in ((), (1, 1))
        )
        assert 0 < block[0] <= 1024 and block[0] % 32 == 0, f"{self.name}: a block of {block}"
        parameters = self.signature.parameters
        assert len(args) == len(parameters), (
            f"{self.name} takes {len(parameters)} arguments, came {len(args)}"
        )
        reads, writes, plain = [], [], []
        for p, a in zip(parameters, args):
            if not p.pointer:
                plain.append(self._number(p, a))
                continue
            assert isinstance(a, int), f"{self.name}: {p.name} must be an address, came {a!r}"
            plain.append(ctypes.c_void_p(a))
            if a:
                memory = machine.memory_at(a)
                assert memory is not None, f"{self.name}: {p.name} is no address in device memory"
                assert memory.device_id == machine.state.device, f"{self.name}: {p.name} is on another device"
                (reads if p.const else writes).append(memory)
        self._aligned(args)
        self._table(args, reads, writes)
        run = getattr(libraries()[self.signature.source], f"host_{self.name}")
        order = Function.order

        def job() -> None:
            with _one_at_a_time:  # a library has one set of fibers, and ctypes lets other threads go on
                failed = run(ctypes.c_uint(grid[0]), ctypes.c_uint(block[0]), ctypes.c_int(order), *plain)
            assert not failed, f"{self.name}: a barrier went wrong"

        machine.launch(self.name, reads, writes, job)

    def _number(self, p: Parameter, a: Any) -> Any:
        """CuPy passes an int as 64 bits, a float as 64, NumPy scalars as they are: sizes must be the kernel's."""
        kind = np.dtype({int: np.int64, float: np.float64, bool: np.bool_}.get(type(a)) or type(a))
        want = np.dtype({"i64": "int64", "int": "int32", "float": "float32", "double": "float64"}[p.type])
        assert kind == want, f"{self.name}: {p.name} is {want}, came {kind}"
        return SCALARS[p.type](a.item() if isinstance(a, np.generic) else a)

    def _aligned(self, args: Any) -> None:
        """`whole` promises 16-byte accesses: all pointers to elements must then be aligned."""
        names = {p.name: a for p, a in zip(self.signature.parameters, args)}
        if not names.get("whole"):
            return
        for p, a in zip(self.signature.parameters, args):
            if (
                p.pointer
                and p.type in ("float", "f16", "bf16")
                and p.name not in ("stats", "partial", "losses", "count")
            ):
                scalar = self.name.startswith("cross_entropy_scale") and p.name == "g"
                assert scalar or a % 16 == 0, f"{self.name}: {p.name} is not aligned to 16 bytes"

    def _table(self, args: Any, reads: list[Any], writes: list[Any]) -> None:
        """Addresses inside a table of pieces are uses too."""
        for p, a in zip(self.signature.parameters, args):
            if p.name != "table" or p.type != "i64":
                continue
            memory = machine.memory_at(a)
            assert memory is not None
            count = memory.size // 32
            rows = np.frombuffer((ctypes.c_char * (count * 32)).from_address(memory.ptr), np.int64).reshape(
                -1, 4
            )
            for param, grad, _, n in rows:
                if n == 0:
                    continue
                for ptr, into in ((int(param), writes), (int(grad), reads)):
                    if ptr:
                        held = machine.memory_at(ptr)
                        assert held is not None, (
                            f"{self.name}: the table names an address that is no longer in use"
                        )
                        into.append(held)


class Nvrtc:
    """cupy.cuda.nvrtc: compiling is left to `library`; the cubin is the source's name."""

    def __init__(self) -> None:
        self.programs: dict[int, Any] = {}

    def getVersion(self) -> tuple[int, int]:
        return 13, 0

    def createProgram(self, source: str, name: str, headers: Any, include_names: Any) -> int:
        assert all(isinstance(h, bytes) for h in (*headers, *include_names)) and len(headers) == len(
            include_names
        )
        self.programs[len(self.programs) + 1] = name
        return len(self.programs)

    def compileProgram(self, program: int, options: Any) -> None:
        assert any(o.startswith("-arch=sm_") for o in options), options

    def getCUBIN(self, program: int) -> bytes:
        return str(self.programs[program]).encode()

    def getProgramLog(self, program: int) -> str:
        return ""

    def destroyProgram(self, program: int) -> None:
        pass


# ---- cuBLASLt


@cache
def _lt() -> Any:
    source = HOST / "cublaslt.cpp"
    key = hashlib.sha256(source.read_bytes()).hexdigest()[:16]
    folder = Path(tempfile.gettempdir()) / f"ringgrad-host-kernels-{os.getuid()}"
    folder.mkdir(exist_ok=True, mode=0o700)
    target = folder / f"cublaslt-{key}.so"
    if not target.exists():
        with tempfile.TemporaryDirectory(dir=folder) as work:
            built = Path(work) / "lt.so"
            flags = ["-O2", "-std=c++20", "-fPIC", "-shared"]
            subprocess.run([compiler() or "g++", *flags, str(source), "-o", str(built)], check=True)
            os.replace(built, target)
    return ctypes.CDLL(str(target))


class CublasLt:
    """libcublasLt: the stand-in's functions, with products as work on a stream."""

    def __getattr__(self, name: str) -> Any:
        return getattr(_lt(), name)

    def cublasLtMatmul(self, *args: Any) -> int:
        _, description, _, a, _, b, _, _, c, _, d, _, _, space, size, stream = args
        assert size.value <= machine.memory_at(space.value).size, "the work space is smaller than said"
        reads = [machine.memory_at(p.value) for p in (a, b)]
        writes = [machine.memory_at(p.value) for p in (d, space)]
        bias = ctypes.c_void_p()
        ctypes.memmove(ctypes.byref(bias), description.value + 24, 8)
        assert None not in reads + writes and c.value == d.value
        if bias.value:
            reads.append(machine.memory_at(bias.value))
        status: list[int] = []
        kept = bias.value

        def job() -> None:
            if kept:  # the address that the call was made with, whatever was set since
                held = ctypes.c_void_p(kept)
                _lt().cublasLtMatmulDescSetAttribute(
                    description, ctypes.c_int(8), ctypes.byref(held), ctypes.c_size_t(8)
                )
            status.append(_lt().cublasLtMatmul(*args))

        on = machine.stream_at(stream.value or 0)
        machine.launch("cublasLtMatmul", [r for r in reads if r], writes, job, on=on)
        return status[0] if status else 0
