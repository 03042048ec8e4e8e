"""What a user subclasses; Lightning has these here as well."""

from .datamodule import LightningDataModule
from .module import LightningModule

__all__ = ["LightningDataModule", "LightningModule"]
