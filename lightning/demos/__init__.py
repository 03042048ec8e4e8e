"""Small models and data to try things with."""

from .mnist_datamodule import MNIST, MNISTDataModule
from .transformer import LightningTransformer, Transformer, WikiText2

__all__ = ["MNIST", "LightningTransformer", "MNISTDataModule", "Transformer", "WikiText2"]
