"""Models as files for other programs: ONNX.

trace.py records the ops of a call, compare.py finds in several traces what depends on a dynamic dimension, graph.py
writes nodes, and the op_*.py modules say for each op which nodes it becomes.
"""

from __future__ import annotations

from .model import export

__all__ = ["export"]
