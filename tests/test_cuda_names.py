"""What the CUDA backend asks of CuPy exists, and cupy_names.json says what CuPy says. Needs CuPy, but no GPU."""

from __future__ import annotations

import ast
import inspect
import json
from pathlib import Path
from typing import Any

import pytest

cupy = pytest.importorskip("cupy")
ROOT = Path(__file__).parent.parent
BACKEND = [*(ROOT / "tensor/backend/cuda").glob("*.py"), *(ROOT / "distributed").rglob("*.py")]
OPS = [*(ROOT / "tensor").rglob("*.py"), *(ROOT / "optim").rglob("*.py"), *(ROOT / "nn").rglob("*.py")]


def chains(path: Path, names: set[str]) -> set[str]:
    """Dotted names that begin with one of `names`, or with load(), in a file: `cp.cuda.runtime.malloc`."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.append(node.attr)
            node = node.value
        by_name = isinstance(node, ast.Name) and node.id in names
        loaded = isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id == "load"
        if parts and (by_name or loaded):
            found.add(".".join(reversed(parts)))
    return found


def resolves(dotted: str) -> bool:
    """Whether CuPy has the name; what stands behind a function or a type is not looked at."""
    place: Any = cupy
    for part in dotted.split("."):
        if inspect.isclass(place) or inspect.isroutine(place):
            return True
        if not hasattr(place, part):
            return False
        place = getattr(place, part)
    return True


@pytest.mark.parametrize("path", BACKEND, ids=lambda p: str(p.relative_to(ROOT)))
def test_the_backend_asks_for_what_cupy_has(path: Path) -> None:
    if path.name in ("runtime.py", "nccl.py"):
        pytest.importorskip("cupy")  # nccl: an attribute only where libnccl is
    missing = {n for n in chains(path, {"cp", "xp"}) if not resolves(n) and not n.startswith("cuda.nccl")}
    assert not missing, f"{path.name} asks CuPy for {missing}"


def test_ops_ask_for_what_cupy_has() -> None:
    numpys = {"add.reduceat", "maximum.accumulate", "may_share_memory"}  # asked of NumPy alone
    for path in OPS:
        missing = {n for n in chains(path, {"xp"}) if not resolves(n)} - numpys
        assert not missing, f"{path.relative_to(ROOT)} asks CuPy for {missing}"


def test_the_stand_ins_table_is_cupys() -> None:
    known = json.loads((Path(__file__).parent / "cupy_names.json").read_text())
    if known["version"] != cupy.__version__:
        pytest.skip(f"the table is that of CuPy {known['version']}")
    assert set(known["methods"]) <= set(dir(cupy.ndarray))
    for name, arguments in known["functions"].items():
        assert resolves(name), name
        if isinstance(arguments, list):
            place: Any = cupy
            for part in name.split("."):
                place = getattr(place, part)
            found = [
                p.name for p in inspect.signature(place).parameters.values() if p.kind != p.VAR_POSITIONAL
            ]
            kept = [a for a in arguments if a != "**"]
            assert kept == found[: len(kept)], name
