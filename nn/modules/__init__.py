"""`torch.nn.modules`: the layers under the paths that PyTorch's own files give them, such as `batchnorm._BatchNorm`."""

from __future__ import annotations

import importlib
import sys
from functools import partial
from types import ModuleType
from typing import Any

from .. import *  # noqa: F403

# PyTorch's file: our modules that hold what is in it
FILES = {
    "activation": "layers.activation layers.attention",
    "adaptive": "layers.adaptive",
    "batchnorm": "layers.norm",
    "channelshuffle": "layers.shape",
    "container": "containers",
    "conv": "layers.conv",
    "distance": "layers.distance",
    "dropout": "layers.dropout",
    "flatten": "layers.shape",
    "fold": "layers.shape",
    "instancenorm": "layers.norm",
    "lazy": "lazy",
    "linear": "layers.linear",
    "loss": "layers.loss",
    "module": "module",
    "normalization": "layers.norm",
    "padding": "layers.padding",
    "pixelshuffle": "layers.shape",
    "pooling": "layers.pooling",
    "rnn": "layers.rnn",
    "sparse": "layers.sparse",
    "transformer": "layers.transformer",
    "upsampling": "layers.shape",
    "utils": "layers.sizes",
}


def _file(name: str, sources: str) -> ModuleType:
    found = ModuleType(
        f"{__name__}.{name}", f"`torch.nn.modules.{name}`: PyTorch's path to layers of this package."
    )
    for source in sources.split():
        module = importlib.import_module(f"..{source}", __name__)
        found.__dict__.update({k: v for k, v in vars(module).items() if not k.startswith("__")})
    found.__dict__["__getattr__"] = partial(_above, found.__name__)
    return found


def _above(file: str, name: str) -> Any:
    """The one layer that a folder above this one holds."""
    if name == "SyncBatchNorm" and file.endswith(".batchnorm"):
        return importlib.import_module("..parallel", __name__).SyncBatchNorm
    raise AttributeError(f"module {file!r} has no attribute {name!r}")


for _name, _sources in FILES.items():
    sys.modules[f"{__name__}.{_name}"] = globals()[_name] = _file(_name, _sources)
