"""Small models and data to try things with."""

from .transformer import LightningTransformer, Transformer, WikiText2

__all__ = ["LightningTransformer", "Transformer", "WikiText2"]
