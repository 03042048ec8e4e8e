"""ONNX: `export(model, args, path)` writes a model for other programs, `load(path)` reads one. See docs/onnx.md."""

from __future__ import annotations

from .export import export
from .export.load import OnnxModule, load
from .export.trace import ExportError

__all__ = ["ExportError", "OnnxModule", "export", "load"]
