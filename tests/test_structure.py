"""The project's shape: who may import whom, what loading the package costs, what is public."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
ORDER = [
    "launch",
    "autograd",
    "tensor",
    "nn",
    "optim",
    "data",
    "jit",
    "export",
    "distributed",
    "lightning",
    "ringgrad",
]
FOLDERS = [name for name in ORDER if (ROOT / name).is_dir() and name != "ringgrad"]


def imported_folders(path: Path) -> set[str]:
    """Folders of this project that a file imports from, at the top of a file or inside a function."""
    depth = len(path.relative_to(ROOT).parts) - 1  # folders above the file, its own top folder included
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.ImportFrom) and node.level > depth:
            names = [node.module.split(".")[0]] if node.module else [alias.name for alias in node.names]
            found.update(names)
        elif isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("ringgrad"):
            found.add((node.module.split(".") + ["ringgrad"])[1])
        elif isinstance(node, ast.Import):
            found.update(
                (a.name.split(".") + ["ringgrad"])[1]
                for a in node.names
                if a.name.split(".")[0] == "ringgrad"
            )
    return found


@pytest.mark.parametrize("folder", FOLDERS)
def test_a_folder_imports_only_folders_to_its_left(folder: str) -> None:
    allowed = set(ORDER[: ORDER.index(folder) + 1])
    for path in (ROOT / folder).rglob("*.py"):
        wrong = {name for name in imported_folders(path) if name in ORDER} - allowed
        assert not wrong, f"{path.relative_to(ROOT)} imports {wrong}, which stand to the right of {folder}"


@pytest.mark.parametrize("folder", FOLDERS)
def test_each_folder_is_a_part_of_the_package(folder: str) -> None:
    link = ROOT / "ringgrad" / folder
    assert link.is_symlink() and link.resolve() == ROOT / folder


def run(code: str) -> str:
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout


def test_importing_the_package_loads_numpy_alone() -> None:
    loaded = run("import sys, ringgrad; print(*sorted({m.split('.')[0] for m in sys.modules}))").split()
    heavy = {
        "zmq",
        "msgpack",
        "rich",
        "mpi4py",
        "ml_dtypes",
        "safetensors",
        "matplotlib",
        "torch",
        "cupy",
        "asyncio",
    }
    assert not heavy & set(loaded)
    parts = run("import sys, ringgrad; print(*[m for m in sys.modules if m.startswith('ringgrad.')])").split()
    late = [p for p in parts if p.split(".")[1] in ("nn", "optim", "data", "distributed", "launch")]
    assert not late, f"{late} are loaded with the package, not when first used"


def test_the_launcher_imports_no_numpy() -> None:
    for path in (ROOT / "launch").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            names = [a.name for a in node.names] if isinstance(node, ast.Import | ast.ImportFrom) else []
            module = getattr(node, "module", None) or ""
            assert "numpy" not in [*names, module], f"{path} imports numpy"


def test_no_pickle_on_the_wire_or_on_disk() -> None:
    pattern = re.compile(
        r"^\s*(import|from) (pickle|cloudpickle|dill|marshal|shelve)\b|recv_pyobj|allow_pickle=True", re.M
    )
    for folder in ("launch", "distributed"):
        for path in (ROOT / folder).rglob("*.py"):
            assert not pattern.search(path.read_text()), f"{path} uses pickle"


def test_every_extra_that_an_error_names_exists() -> None:
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    for folder in FOLDERS:
        for path in (ROOT / folder).rglob("*.py"):
            for group in re.findall(r"ringgrad\[([\w,]+)\]", path.read_text()):
                assert set(group.split(",")) <= set(extras), f"{path} names the extra {group}"


def test_public_names_exist() -> None:
    run(
        "import ringgrad, ringgrad.autograd as a\nfor m in (ringgrad, a):\n for n in m.__all__: getattr(m, n)"
    )
