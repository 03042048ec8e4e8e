"""DataParallel: a wrapper that scripts for several GPUs in one process use."""

from __future__ import annotations

from typing import Any

from ..module import Module


class DataParallel(Module):
    """Calls `module`, which it holds under that name: a process computes on one device.

    For several devices start one process each and use DistributedDataParallel.
    """

    def __init__(
        self, module: Module, device_ids: Any = None, output_device: Any = None, dim: int = 0
    ) -> None:
        super().__init__()
        if device_ids is not None and len(device_ids) > 1:
            raise RuntimeError(
                f"[DataParallel] a process computes on one device, came device_ids={list(device_ids)}: start one"
                " process for each device (ringrun, mpirun) and use DistributedDataParallel"
            )
        self.module, self.dim = module, dim

    def forward(self, *inputs: Any, **kwargs: Any) -> Any:
        return self.module(*inputs, **kwargs)
