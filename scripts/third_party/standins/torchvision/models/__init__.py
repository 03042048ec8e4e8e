"""Models are imported one file at a time; resnets are found here too."""

from importlib import import_module
from pkgutil import extend_path
from typing import Any

__path__ = extend_path(__path__, __name__)


def __getattr__(name: str) -> Any:
    if name.startswith("resnet"):
        return getattr(import_module(f"{__name__}.resnet"), name)
    raise AttributeError(name)
