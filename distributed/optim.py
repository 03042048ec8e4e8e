"""`torch.distributed.optim`: where scripts import the optimizer that shares its state out from."""

from .zero import ZeroRedundancyOptimizer

__all__ = ["ZeroRedundancyOptimizer"]
