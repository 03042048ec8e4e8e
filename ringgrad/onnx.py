"""ONNX: `export(model, args, path)` writes a model for other programs. See docs/onnx.md."""

from __future__ import annotations

from .export import export
from .export.trace import ExportError

__all__ = ["ExportError", "export"]
