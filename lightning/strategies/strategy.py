"""Data parallel: joining the workers, sharing out data, averaging gradients. One worker alone is the simplest case."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any

import numpy as np

from ...data import (
    BatchSampler,
    DataLoader,
    DistributedSampler,
    IterableDataset,
    RandomSampler,
    Sampler,
    SequentialSampler,
)
from ...launch.environment import detect
from ...nn import Module
from .workers import start_missing


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


class DDPStrategy:
    """One worker, or data parallel over all that the launcher started; options are DistributedDataParallel's.

    process_group_backend, timeout: as in init_process_group. start_method: taken, and changes nothing.
    """

    exact = False  # whether logged values must have the same bits on any number of workers

    def __init__(
        self,
        process_group_backend: str | None = None,
        timeout: Any = None,
        start_method: str | None = None,
        **options: Any,
    ) -> None:
        self._backend, self._timeout, self._options = process_group_backend, timeout, options
        self.group: Any = None
        self.ddp: Any = None

    def join(self, devices: Any, num_nodes: int) -> None:
        """Joins the others at once, so that rank and world size are right from then on; starts them if nobody has."""
        place = detect()
        start_missing(place, devices, num_nodes)
        self.world_size, self.rank, self.local_rank = place.world_size, place.rank, place.local_rank
        self.local_world_size = place.local_world_size
        self._join()

    def _join(self) -> None:
        if self.world_size > 1:
            self._init_group()

    def _init_group(self) -> None:
        from ...distributed import init_process_group, is_initialized
        from ...distributed.process_group import world_group

        if not is_initialized():
            init_process_group(self._backend, timeout=self._timeout)
        self.group = world_group()

    # ---- training

    def setup(self, module: Any) -> None:
        """Gives all workers rank 0's parameters and, in automatic optimization, averages gradients in backward."""
        self.ddp = None
        if self.group is not None:
            self._setup_gradients(module)

    def _setup_gradients(self, module: Any) -> None:
        from ...distributed.buckets import broadcast_coalesced
        from ...distributed.ddp import DistributedDataParallel, check_same_model

        if module.automatic_optimization:
            self.ddp = DistributedDataParallel(TrainingStep(module), **self._options)
        else:
            check_same_model(self.group, module)
            broadcast_coalesced(self.group, [*module.parameters(), *module.buffers()])

    def parameters_changed(self, module: Any) -> None:
        """Other parameters than before require gradients from now on."""
        if self.ddp is not None:
            self.ddp.detach()
            self.setup(module)

    def release(self) -> None:
        """At the end of training: lets go of the parameters, which another run may train."""
        if self.ddp is not None:
            self.ddp.detach()

    def wrap_optimizers(self, module: Any, optimizers: list[Any], schedulers: list[Any]) -> list[Any]:
        """The optimizers that training steps with."""
        return optimizers

    def optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        """The whole state of an optimizer, on rank 0; to be called on all workers."""
        return optimizer.state_dict()

    def held_optimizer_state(self, optimizer: Any) -> dict[str, Any]:
        """What this worker holds of it, for a checkpoint that all workers write."""
        return optimizer.state_dict()

    def steady(self, module: Any, optimizers: list[Any]) -> list[Any]:
        """What nothing but an optimizer step writes; a checkpoint may copy it beside forward and backward."""
        return [*module.parameters(), *optimizers]

    def load_optimizer_state(self, optimizer: Any, state: dict[str, Any]) -> None:
        """Takes the whole state on all workers."""
        optimizer.load_state_dict(state)

    def clip_gradients(self, optimizer: Any, limit: float, algorithm: str | None) -> None:
        """Clips the gradients of an optimizer's parameters, by "norm" or by "value"."""
        from ...nn.utils import clip_grad_norm_, clip_grad_value_

        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        (clip_grad_value_ if algorithm == "value" else clip_grad_norm_)(parameters, limit)

    def parts(self, batch: Any, number: int) -> Iterable[Any]:
        """What training_step is called for, one after the other; number: of the batch, since training began."""
        return (batch,)

    def step_of(self, module: Any) -> Any:
        """The callable that makes a training step."""
        return module.training_step if self.ddp is None else self.ddp

    def mean_of_parts(self, losses: list[Any]) -> Any:
        """The step's loss from its parts' losses."""
        return losses[0]

    def exchanges(self, optimizers: list[Any]) -> list[tuple[Any, str]]:
        """The methods (object, name) in which a training step waits for other workers."""
        if self.ddp is None:
            return []
        sharded = self.ddp._sharded
        return [(self.ddp._reducer if sharded is None else sharded.reducer, "finish")]

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

    def ranks_with(self, value: bool) -> list[int]:
        """The workers on which it is so, in one small reduction."""
        if self.group is None:
            return [0] if value else []
        flags = np.zeros(self.world_size, np.float32)
        flags[self.rank] = value
        self.group.all_reduce(flags, name="which ranks")
        return np.flatnonzero(flags).tolist()

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
            seed = self.broadcast_object(shared_seed() if shuffle else 0)
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
    return _again(
        loader,
        loader.dataset,
        batch_size=None if batches is None else batches.batch_size,
        sampler=sampler,
        drop_last=batches is not None and batches.drop_last,
    )


def with_batches(loader: DataLoader[Any], batch_sampler: Any, dataset: Any = None) -> DataLoader[Any]:
    """The same loader with other batches, and perhaps of another dataset."""
    return _again(loader, loader.dataset if dataset is None else dataset, batch_sampler=batch_sampler)


def _again(loader: DataLoader[Any], dataset: Any, **order: Any) -> DataLoader[Any]:
    return DataLoader(
        dataset,
        **order,
        num_workers=loader.num_workers,
        collate_fn=loader.collate_fn,
        pin_memory=loader.pin_memory,
        timeout=loader.timeout,
        worker_init_fn=loader.worker_init_fn,
        multiprocessing_context=loader.multiprocessing_context,
        generator=loader.generator,
        prefetch_factor=loader.prefetch_factor if loader.num_workers else None,
        persistent_workers=loader.persistent_workers,
        in_order=loader.in_order,
    )


def shared_seed() -> int:
    """The seed of seed_everything, which orders of shuffled data follow from."""
    import os

    return int(os.environ.get("PL_GLOBAL_SEED") or 0)
