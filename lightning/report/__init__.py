"""A run's report: one HTML file with its curves as SVG, that needs nothing else."""

from .page import page

__all__ = ["page"]
