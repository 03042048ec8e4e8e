"""Models are imported one file at a time; those of common families are found here too."""

from importlib import import_module
from pkgutil import extend_path
from typing import Any

__path__ = extend_path(__path__, __name__)
FAMILIES = {
    "resn": "resnet",
    "wide_resnet": "resnet",
    "vgg": "vgg",
    "vit_": "vision_transformer",
    "mobilenet_v2": "mobilenetv2",
    "alexnet": "alexnet",
}


def __getattr__(name: str) -> Any:
    for start, file in FAMILIES.items():
        if name.lower().startswith(start) and name not in FAMILIES.values():
            return getattr(import_module(f"{__name__}.{file}"), name)
    raise AttributeError(name)


def get_model(name: str, weights: Any = None, **options: Any) -> Any:
    """Without the weights, which would be downloaded."""
    return __getattr__(name)(**options)
