"""The node tests of the onnx package: all are run right or refused; docs/onnx.md says which.

`python tests/test_onnx_nodes.py` writes the table anew.
"""

from __future__ import annotations

import re
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pytest

onnx = pytest.importorskip("onnx")

from ringgrad.autograd.engine import wrap  # noqa: E402
from ringgrad.onnx import ExportError, OnnxModule  # noqa: E402

DOCS = Path(__file__).parent.parent / "docs" / "onnx.md"
HEAD = "| Node | right | refused |"


def outcomes() -> tuple[dict[str, Counter[str]], list[str]]:
    """Of each node type, how many of its cases are right and how many refused; and what is neither."""
    from onnx.backend.test.case.node import collect_testcases

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what the cases themselves warn of while they are made
        cases = collect_testcases(None)
    found: dict[str, Counter[str]] = {}
    wrong = []
    for case in cases:
        kinds = [n.op_type for n in case.model.graph.node]
        kind = kinds[0] if len(kinds) == 1 else "several"
        try:
            outcome = judged(case)
        except Exception as error:
            wrong.append(f"{case.name}: {error!r}"[:300])
            continue
        found.setdefault(kind, Counter())[outcome] += 1
    return found, wrong


def plain(value: Any) -> Any:
    return onnx.numpy_helper.to_array(value) if isinstance(value, onnx.TensorProto) else value


def judged(case: Any) -> str:
    inputs, outputs = (tuple(map(plain, part)) for part in case.data_sets[0])
    arrays = (*inputs, *outputs)
    if not all(isinstance(a, np.ndarray | np.generic) and a.dtype.kind in "fiub" for a in arrays):
        return "refused"  # texts, sequences, complex numbers, numbers below 16 bits
    try:
        found = OnnxModule(case.model)(*(wrap(np.array(a)) for a in inputs))
    except ExportError:
        return "refused"
    for y, want in zip(found if isinstance(found, tuple) else (found,), outputs, strict=False):
        assert y.array.shape == want.shape and y.array.dtype == want.dtype, (y.array.shape, y.array.dtype)
        rtol, atol = (2e-3, 1e-3) if want.dtype == np.float16 else (1e-3, 1e-5)
        np.testing.assert_allclose(y.array, want, rtol=rtol, atol=atol)
    return "right"


def table(found: dict[str, Counter[str]]) -> str:
    """The table of docs/onnx.md."""
    lines = [f"Counted with onnx {onnx.__version__}.", "", HEAD, "|---|---|---|"]
    for kind in sorted(k for k, n in found.items() if n["right"] and k != "several"):
        lines.append(f"| {kind} | {found[kind]['right']} | {found[kind]['refused'] or ''} |")
    several = found["several"]
    lines += [f"| (models of several nodes) | {several['right']} | {several['refused']} |", ""]
    never = sorted(k for k, n in found.items() if not n["right"])
    return "\n".join([*lines, f"No case is run of: {', '.join(never)}.", ""])


def written() -> str:
    """The table as it stands in the docs."""
    found = re.search(r"Counted with onnx .*No case is run of[^\n]*\n", DOCS.read_text(), re.S)
    assert found, "docs/onnx.md has no table of nodes"
    return found[0]


@pytest.mark.slow
def test_node_tests_of_the_onnx_package_run_right_or_are_refused() -> None:
    found, wrong = outcomes()
    assert not wrong, wrong
    right = sum(n["right"] for n in found.values())
    assert right > 1400
    if f"onnx {onnx.__version__}." in written():
        assert written() == table(found), "docs/onnx.md is old: run python tests/test_onnx_nodes.py"


if __name__ == "__main__":
    text = DOCS.read_text()
    DOCS.write_text(text.replace(written(), table(outcomes()[0])))
