"""Optimizers, schedules of the learning rate, averaged weights: PyTorch's names. Loaded when first used."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from . import lr_scheduler as lr_scheduler
    from . import swa_utils as swa_utils
    from .adafactor import Adafactor
    from .adagrad import Adadelta, Adagrad, RMSprop
    from .adam import Adam, Adamax, AdamW, NAdam, RAdam
    from .lbfgs import LBFGS
    from .muon import Muon
    from .optimizer import Optimizer
    from .rprop import ASGD, Rprop
    from .sgd import SGD, Lion
    from .sparse_adam import SparseAdam

_FOUND_IN = {
    "adafactor": ("Adafactor",),
    "adagrad": ("Adadelta", "Adagrad", "RMSprop"),
    "adam": ("Adam", "AdamW", "Adamax", "NAdam", "RAdam"),
    "lbfgs": ("LBFGS",),
    "muon": ("Muon",),
    "optimizer": ("Optimizer",),
    "rprop": ("ASGD", "Rprop"),
    "sgd": ("SGD", "Lion"),
    "sparse_adam": ("SparseAdam",),
}
_MODULES = (*_FOUND_IN, "elementwise", "lr_scheduler", "swa_utils")


def __getattr__(name: str) -> Any:
    if name in _MODULES:
        return importlib.import_module(f".{name}", __name__)
    for module, names in _FOUND_IN.items():
        if name in names:
            value = getattr(importlib.import_module(f".{module}", __name__), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


__all__ = [
    "ASGD",
    "LBFGS",
    "SGD",
    "Adadelta",
    "Adafactor",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "Lion",
    "Muon",
    "NAdam",
    "Optimizer",
    "RAdam",
    "RMSprop",
    "Rprop",
    "SparseAdam",
    "lr_scheduler",
    "swa_utils",
]
