"""Passes: functions that make a better graph of a graph."""

from __future__ import annotations

from typing import Any

from ..graph import Graph


def optimize(graph: Graph, report: list[Any]) -> Graph:
    """The graph after all passes; each enters a line of its work into the report."""
    return graph.copy()
