"""Ops are imported one file at a time; what models import from here is found in misc and stochastic_depth."""

from importlib import import_module
from pkgutil import extend_path
from typing import Any

__path__ = extend_path(__path__, __name__)


def __getattr__(name: str) -> Any:
    place = "stochastic_depth" if name in ("StochasticDepth", "stochastic_depth") else "misc"
    if name.startswith("_") or name in ("misc", "stochastic_depth"):
        raise AttributeError(name)
    return getattr(import_module(f"{__name__}.{place}"), name)
