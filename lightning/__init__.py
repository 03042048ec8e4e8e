"""Training without the loop: `import ringgrad.lightning as L`. The names and behaviour are PyTorch Lightning's.

A LightningModule says what a step is, a Trainer runs the steps, callbacks and loggers look on; docs/training.md.
"""

from . import callbacks, loggers, metrics, strategies
from .callbacks import Callback
from .checkpoint_io import AsyncCheckpointIO, CheckpointIO
from .datamodule import LightningDataModule
from .module import LightningModule
from .seeding import seed_everything
from .sharded_io import ShardedCheckpointIO
from .signals import SLURMEnvironment
from .trainer import Trainer

__all__ = [
    "AsyncCheckpointIO",
    "Callback",
    "CheckpointIO",
    "LightningDataModule",
    "LightningModule",
    "SLURMEnvironment",
    "ShardedCheckpointIO",
    "Trainer",
    "callbacks",
    "cli_lightning_logo",
    "loggers",
    "metrics",
    "seed_everything",
    "strategies",
]


def cli_lightning_logo() -> None:
    """Lightning's examples print its logo with this; here it prints nothing."""
