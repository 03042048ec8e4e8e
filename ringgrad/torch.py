"""Runs a PyTorch script on ringgrad, unedited: `python -m ringgrad.torch script.py arguments`.

`install()` does the same for code that is imported: from then on `import torch`, `import torch.nn.functional` and so
on give ringgrad's modules, which carry PyTorch's names.
"""

from __future__ import annotations

import importlib
import importlib.abc
import importlib.machinery
import os
import runpy
import sys
from collections.abc import Sequence
from types import ModuleType
from typing import Any

import ringgrad
from ringgrad import version
from ringgrad.tensor import dtypes


VERSION = f"2.13.0+ringgrad{ringgrad.__version__}"  # the PyTorch release whose API this follows


# Lightning, which works on PyTorch's inside, is found as ringgrad's own Trainer; the longest names first.
NAMES = {
    "torch": "ringgrad",
    "lightning.pytorch": "ringgrad.lightning",
    "lightning": "ringgrad.lightning",
    "pytorch_lightning": "ringgrad.lightning",
}


class Alias(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds `torch.x.y` as `ringgrad.x.y`: the same module object under both names."""

    def find_spec(self, name: str, path: Any = None, target: Any = None) -> importlib.machinery.ModuleSpec | None:
        found = next((theirs for theirs in NAMES if name == theirs or name.startswith(theirs + ".")), None)
        if found is None:
            return None
        real = NAMES[found] + name[len(found) :]
        try:
            module = importlib.import_module(real)
        except ModuleNotFoundError as error:
            if error.name is None or not error.name.startswith("ringgrad"):
                raise
            raise ModuleNotFoundError(
                f"[torch] ringgrad has no module {name!r} (docs/torch_coverage.md lists what there is)", name=name
            ) from None
        spec = importlib.machinery.ModuleSpec(name, self, is_package=hasattr(module, "__path__"))
        spec.loader_state = module, module.__spec__
        return spec

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> ModuleType:
        return spec.loader_state[0]

    def exec_module(self, module: ModuleType) -> None:
        """The module is loaded already; importlib wrote a new spec into it, which its own imports must not see."""
        spec = module.__spec__
        assert spec is not None
        module.__spec__ = spec.loader_state[1]


def install() -> None:
    """Lets `import torch` mean ringgrad in this process; an error where PyTorch itself was imported before."""
    found = sys.modules.get("torch")
    if found is ringgrad:
        return
    if found is not None:
        raise RuntimeError("[torch] must be installed before PyTorch is imported, came a process that has imported it")
    sys.meta_path.insert(0, Alias())
    sys.modules["torch"] = ringgrad
    dtypes.library[0] = "torch"
    # scripts compare torch.__version__ with releases of PyTorch's
    for module in (ringgrad, version):
        vars(module)["__version__"] = VERSION


def main(argv: Sequence[str] | None = None) -> None:
    """The command: a script and its arguments, or `-m module` and its arguments."""
    args = list(sys.argv[1:] if argv is None else argv)
    if not args or args[0] in ("-h", "--help"):
        print("usage: python -m ringgrad.torch (script.py | -m module) [arguments]")
        raise SystemExit(0 if args else 2)
    install()
    if args[0] == "-m":
        if len(args) < 2:
            raise SystemExit("[torch] -m must be followed by the name of a module")
        sys.argv = args[1:]
        sys.path.insert(0, os.getcwd())
        runpy.run_module(args[1], run_name="__main__", alter_sys=True)
        return
    if not os.path.isfile(args[0]):
        raise SystemExit(f"[torch] the script must exist, came {args[0]!r}")
    sys.argv = args
    sys.path.insert(0, os.path.dirname(os.path.abspath(args[0])))
    runpy.run_path(args[0], run_name="__main__")


if __name__ == "__main__":
    main()
