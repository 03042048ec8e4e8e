"""Source text of fused elementwise kernels, compiled by numba and kept on disk under the text's hash."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import sys
import tempfile
from functools import lru_cache
from pathlib import Path
from typing import Any

FORMS = {
    "add": "{0} + {1}", "subtract": "{0} - {1}", "multiply": "{0} * {1}", "divide": "{0} / {1}", "negative": "-{0}",
    "maximum": "({0} if ({0} > {1} or {0} != {0}) else {1})", "minimum": "({0} if ({0} < {1} or {0} != {0}) else {1})",
    "absolute": "abs({0})", "square": "{0} * {0}", "sqrt": "np.sqrt({0})", "exp": "_exp({0})", "tanh": "_tanh({0})",
    "relu": "(K.ZERO if {0} < K.ZERO else {0})", "masked": "({0} if {1} > F({c}) else {0} * K.ZERO)",
}  # fmt: skip


def source(steps: tuple[Any, ...]) -> str:
    """The kernel's text: a loop over flat arrays a0, a1 ...; 0-d operands are s0, s1 ..."""
    operands = sorted({(n, kind) for _, ops, _ in steps for kind, n in ops if kind != "t"})
    names = [f"{kind}{n}" for n, kind in operands]
    lines = [
        f"# over kernels.py {_helpers()}",
        "import numpy as np",
        "from numba import njit",
        f"from {__package__} import kernels as K",
    ]
    lines += ["from " + __package__ + ".kernels import _exp, _tanh, FAST", "F = np.float32", ""]
    lines += ["@njit(cache=True, fastmath=FAST, error_model='numpy')", f"def run({', '.join(names)}, out):"]
    lines += [f"    c{n} = s{n}[()]" for n, kind in operands if kind == "s"]
    lines.append("    for i in range(out.size):")
    text = {"a": "a{}[i]", "s": "c{}", "t": "t{}"}
    for k, (name, ops, constant) in enumerate(steps):
        given = [text[kind].format(n) for kind, n in ops]
        lines.append(f"        t{k} = " + FORMS[name].format(*given, c=constant))
    lines.append(f"        out[i] = t{len(steps) - 1}")
    return "\n".join(lines) + "\n"


@lru_cache(maxsize=1)
def _helpers() -> str:
    """The hash of what is inlined: numba's cache does not see that it changed."""
    return hashlib.sha256((Path(__file__).parent / "kernels.py").read_bytes()).hexdigest()[:16]


def folder() -> Path:
    """Where kernels are kept: RINGGRAD_CACHE, else the user's cache."""
    base = os.environ.get("RINGGRAD_CACHE") or os.path.join(
        os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache"), "ringgrad"
    )
    path = Path(base) / "kernels"
    try:
        path.mkdir(parents=True, exist_ok=True)
        return path
    except OSError:
        return Path(tempfile.mkdtemp(prefix="ringgrad-kernels-"))


@lru_cache(maxsize=512)
def fused_kernel(steps: tuple[Any, ...]) -> Any:
    """The compiled function of these steps: run(*operands, out), all flat float32 arrays."""
    text = source(steps)
    name = "ringgrad_kernel_" + hashlib.sha256(text.encode()).hexdigest()[:24]
    path = folder() / f"{name}.py"
    if not path.exists() or path.read_text() != text:
        part = path.with_suffix(f".{os.getpid()}.part")
        part.write_text(text)
        part.replace(path)
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module.run


__all__ = ["fused_kernel", "source"]
