"""Every op, declared once. Importing this package registers them all."""

from . import index, linear, pointwise, reduce, shape

__all__ = ["index", "linear", "pointwise", "reduce", "shape"]
