"""Passes: plain functions from a graph to a better one. `optimize` runs them all, in order."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..graph import Graph
from .fuse import fuse_elementwise, fuse_epilogues
from .lower import lower
from .simplify import common_subexpressions, dead_code, fold_constants, remove_views, simplify_algebra

PASSES: list[tuple[str, Callable[[Graph], Graph]]] = [
    ("constant folding", fold_constants),
    ("algebra", simplify_algebra),
    ("views", remove_views),
    ("common subexpressions", common_subexpressions),
    ("dead code", dead_code),
    ("kernels", lower),
    ("matmul epilogues", fuse_epilogues),
    ("elementwise fusion", fuse_elementwise),
    ("dead code", dead_code),
]


REWRITING = ("kernels", "matmul epilogues", "elementwise fusion")  # may round differently than eager


def optimize(graph: Graph, report: list[Any], exact: bool = False) -> Graph:
    """The graph after all passes; each enters a line of what it did into the report. exact: eager's very bits."""
    for name, run in PASSES:
        if exact and name in REWRITING:
            continue
        before = len(graph.nodes)
        graph = run(graph)
        kinds = sum(node.kind == "kernel" for node in graph.nodes)
        after = len(graph.nodes)
        detail = f", {kinds} of them kernels" if name in ("kernels", "elementwise fusion") else ""
        report.append(f"{name}: {before} -> {after} operations{detail}")
    return graph


__all__ = [
    "common_subexpressions", "dead_code", "fold_constants", "fuse_elementwise", "fuse_epilogues", "lower", "optimize",
    "remove_views", "simplify_algebra",
]  # fmt: skip
