"""Training without the loop: `import ringgrad.lightning as L`. The names and behaviour are PyTorch Lightning's.

A LightningModule says what a step is, a Trainer runs the steps, callbacks and loggers look on; docs/training.md.
"""

from . import callbacks, loggers, metrics
from .callbacks import Callback
from .datamodule import LightningDataModule
from .module import LightningModule
from .seeding import seed_everything
from .trainer import Trainer

__all__ = [
    "Callback",
    "LightningDataModule",
    "LightningModule",
    "Trainer",
    "callbacks",
    "loggers",
    "metrics",
    "seed_everything",
]
