"""PyTorch's `torch.utils.data.distributed`, with the classes that scripts import through it."""

from ...data.dataset import Dataset
from ...data.sampler import DistributedSampler, Sampler

__all__ = ["Dataset", "DistributedSampler", "Sampler"]
