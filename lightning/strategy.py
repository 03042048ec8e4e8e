"""Where the workers are: joining them, sharing out data, averaging gradients."""

from __future__ import annotations

import contextlib
from typing import Any

import numpy as np

from ..data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
)
from ..launch.environment import detect
from ..nn import Module

STRATEGIES = ("auto", "ddp", "ddp_find_unused_parameters_true")


class EvaluationSampler(Sampler[int]):
    """Every world_size-th sample from rank on: each sample once, so some workers may have one less."""

    def __init__(self, dataset: Any, world_size: int, rank: int) -> None:
        self.indices = range(rank, len(dataset), world_size)

    def __iter__(self) -> Any:
        return iter(self.indices)

    def __len__(self) -> int:
        return len(self.indices)


class TrainingStep(Module):
    """What DistributedDataParallel wraps: its forward is the training step."""

    def __init__(self, module: Any) -> None:
        super().__init__()
        self.module = module

    def forward(self, *args: Any, **kwargs: Any) -> Any:
        return self.module.training_step(*args, **kwargs)


class Strategy:
    """One worker, or data parallel over all that the launcher started.

    Joins the others at once, so that rank and world size are right from then on.
    """

    def __init__(self, name: str, devices: Any, num_nodes: int) -> None:
        if name not in STRATEGIES:
            raise ValueError(f"[Trainer] strategy must be one of {STRATEGIES}, came {name!r}")
        self.name, place = name, detect()
        self.world_size, self.rank, self.local_rank = place.world_size, place.rank, place.local_rank
        wanted = _wanted(devices, num_nodes)
        if wanted is not None and wanted != self.world_size:
            raise ValueError(
                f"[Trainer] devices={devices}, num_nodes={num_nodes} need {wanted} workers, came {self.world_size} "
                f"from the launcher: start the script with `ringrun -n {wanted} script.py` or "
                f'`mpirun -n {wanted} python script.py`, or pass devices="auto"'
            )
        self.group: Any = None
        self.ddp: Any = None
        if self.world_size > 1:
            from ..distributed import init_process_group, is_initialized
            from ..distributed.process_group import world_group

            if not is_initialized():
                init_process_group()
            self.group = world_group()

    # ---- training

    def setup(self, module: Any) -> None:
        """Gives all workers rank 0's parameters and, in automatic optimization, averages gradients in backward."""
        self.ddp = None
        if self.group is None:
            return
        from ..distributed.buckets import broadcast_coalesced
        from ..distributed.ddp import DistributedDataParallel, check_same_model

        if module.automatic_optimization:
            unused = self.name.endswith("parameters_true")
            self.ddp = DistributedDataParallel(TrainingStep(module), find_unused_parameters=unused)
        else:
            check_same_model(self.group, module)
            broadcast_coalesced(self.group, [*module.parameters(), *module.buffers()])

    def step_of(self, module: Any) -> Any:
        """The callable that makes a training step."""
        return module.training_step if self.ddp is None else self.ddp

    def no_sync(self) -> Any:
        """Within it backward leaves each worker's own gradients."""
        return contextlib.nullcontext() if self.ddp is None else self.ddp.no_sync()

    def average_gradients(self, module: Any) -> None:
        """The mean over all workers in every gradient; workers must have the same ones."""
        if self.group is None:
            return
        grads = [p.grad for p in module.parameters() if p.grad is not None]
        for dtype in sorted({g.array.dtype for g in grads}, key=str):
            same = [g for g in grads if g.array.dtype == dtype]
            flat = np.concatenate([g.array.reshape(-1) for g in same])
            self.group.all_reduce(flat)
            flat /= self.world_size
            start = 0
            for g in same:
                g.array[...] = flat[start : start + g.array.size].reshape(g.array.shape)
                start += g.array.size

    # ---- values

    def gather_object(self, value: Any) -> list[Any]:
        """The plain values of all workers."""
        return [value] if self.group is None else self.group.all_gather_object(value)

    def broadcast_object(self, value: Any) -> Any:
        """Rank 0's plain value."""
        return value if self.group is None else self.group.broadcast_object(value)

    def mean(self, value: float) -> float:
        """The mean over all workers."""
        return sum(self.gather_object(value)) / self.world_size

    def any(self, value: bool) -> bool:
        """Whether it is so on any worker."""
        return any(self.gather_object(bool(value)))

    def barrier(self) -> None:
        """Returns once all workers are here."""
        if self.group is not None:
            self.group.barrier()

    # ---- data

    def share_out(self, loader: Any, training: bool) -> Any:
        """A loader over this worker's part: training parts are equally long, evaluation counts each sample once."""
        if self.group is None or not isinstance(loader, DataLoader):
            return loader
        if isinstance(loader.dataset, IterableDataset) or isinstance(
            loader.sampler, DistributedSampler | EvaluationSampler
        ):
            return loader
        if type(loader.sampler) not in (RandomSampler, SequentialSampler):
            raise ValueError(
                f"[Trainer] a loader's own sampler ({type(loader.sampler).__name__}) cannot be shared out to "
                f"{self.world_size} workers: let it give each worker its part, and pass "
                "Trainer(use_distributed_sampler=False)"
            )
        sampler: Sampler[Any] = EvaluationSampler(loader.dataset, self.world_size, self.rank)
        if training:
            shuffle = isinstance(loader.sampler, RandomSampler)
            seed = self.broadcast_object(_seed() if shuffle else 0)
            sampler = DistributedSampler(loader.dataset, self.world_size, self.rank, shuffle, seed)
        return with_sampler(loader, sampler)


def with_sampler(loader: DataLoader[Any], sampler: Any) -> DataLoader[Any]:
    """The same loader with another order."""
    batches = loader.batch_sampler
    if batches is not None and type(batches) is not BatchSampler:
        raise ValueError(
            f"[Trainer] a loader's own batch_sampler ({type(batches).__name__}) cannot be given another order: "
            "pass batch_size and sampler, or Trainer(use_distributed_sampler=False)"
        )
    return DataLoader(
        loader.dataset,
        batch_size=None if batches is None else batches.batch_size,
        sampler=sampler,
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        drop_last=batches is not None and batches.drop_last,
        timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
        generator=loader.generator,
        prefetch_factor=loader.prefetch_factor if loader.num_workers else None,
        persistent_workers=loader.persistent_workers,
        in_order=loader.in_order,
    )


def _seed() -> int:
    import os

    return int(os.environ.get("PL_GLOBAL_SEED") or 0)


def _wanted(devices: Any, num_nodes: int) -> int | None:
    if devices in ("auto", -1, "-1", None):
        return None
    if isinstance(devices, list | tuple):
        return len(devices) * num_nodes
    if not str(devices).isdigit() or int(devices) < 1:
        raise ValueError(
            f'[Trainer] devices must be "auto" or a number of workers of a host, came {devices!r}'
        )
    return int(devices) * num_nodes
