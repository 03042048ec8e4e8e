"""`torch.utils.tensorboard`: SummaryWriter over the tensorboard package's own event files."""

from .writer import FileWriter, SummaryWriter

__all__ = ["FileWriter", "SummaryWriter"]
