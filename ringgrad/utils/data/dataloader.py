"""PyTorch's `torch.utils.data.dataloader`, with the classes that scripts import through it."""

from ...data.collate import default_collate, default_convert
from ...data.dataloader import DataLoader
from ...data.dataset import Dataset, IterableDataset
from ...data.sampler import BatchSampler, RandomSampler, Sampler, SequentialSampler
from ...data.worker import get_worker_info

__all__ = [
    "BatchSampler",
    "DataLoader",
    "Dataset",
    "IterableDataset",
    "RandomSampler",
    "Sampler",
    "SequentialSampler",
    "default_collate",
    "default_convert",
    "get_worker_info",
]
