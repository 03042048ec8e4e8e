"""What a checkpoint holds, and how training goes on from it."""

from __future__ import annotations

import inspect
import os
import warnings
from collections.abc import Callable
from typing import Any

from ..tensor.serialization import CheckpointError
from ..version import __version__
from .checkpoint_io import content
from .hyperparameters import savable
from .seeding import rng_state, set_rng_state
from .sharded_io import held


def dump(trainer: Any, weights_only: bool = False) -> dict[str, Any]:
    """The checkpoint of this moment; to be called on all workers. Keys are Lightning's, plus "rng"."""
    module, loop, strategy = trainer.lightning_module, trainer.fit_loop, trainer.strategy
    state_of = strategy.held_optimizer_state if trainer.checkpoint_io.all_ranks else strategy.optimizer_state
    checkpoint: dict[str, Any] = {
        "epoch": loop.epoch,
        "global_step": loop.global_step,
        "pytorch-lightning_version": "2.0.0",  # the layout, which Lightning reads it by
        "ringgrad_version": __version__,
        "state_dict": dict(module.state_dict()),
        "loops": {},
    }
    if not weights_only:
        checkpoint["loops"] = {"fit_loop": loop.state_dict()}
        checkpoint["callbacks"] = {c.state_key: state for c in trainer.callbacks if (state := c.state_dict())}
        checkpoint["optimizer_states"] = [state_of(o) for o in trainer.optimizers]
        checkpoint["lr_schedulers"] = [_plain(c.scheduler.state_dict()) for c in trainer.lr_scheduler_configs]
        if trainer.precision.scaler is not None:
            checkpoint["MixedPrecision"] = trainer.precision.scaler.state_dict()
        checkpoint["rng"] = strategy.gather_object(rng_state())
    if module.hparams:
        checkpoint["hparams_name"] = module.__dict__.get("_hparams_name")
        checkpoint["hyper_parameters"] = savable(dict(module.hparams))
    if trainer.datamodule is not None:
        checkpoint.update(trainer.datamodule._checkpoint())
        trainer.datamodule.on_save_checkpoint(checkpoint)
    trainer.hooks("on_save_checkpoint", checkpoint)
    return checkpoint


def write(trainer: Any, path: Any, weights_only: bool = False) -> None:
    """Saves a checkpoint; to be called on all workers, of which rank 0 writes, or all."""
    checkpoint, io = dump(trainer, weights_only), trainer.checkpoint_io
    if io.overlap:
        io.steady = trainer.strategy.steady(trainer.lightning_module, trainer.optimizers)
    if trainer.is_global_zero:
        io.save_checkpoint(checkpoint, path)
    elif io.all_ranks:
        io.save_checkpoint(held(checkpoint, trainer.lightning_module), path)
    if not io.all_ranks:
        trainer.strategy.barrier()


def read(path: Any) -> dict[str, Any]:
    """A checkpoint that a Trainer wrote. Raises FileNotFoundError, CheckpointError or ValueError."""
    if not os.path.exists(path):
        raise FileNotFoundError(f"[Trainer] ckpt_path must be a checkpoint, but there is no file {path}")
    checkpoint = content(path)
    if not isinstance(checkpoint, dict) or "state_dict" not in checkpoint:
        raise ValueError(f"[Trainer] {path} must be a checkpoint of a Trainer, came one without 'state_dict'")
    return checkpoint


def first_whole(trainer: Any, paths: list[Any]) -> tuple[Any, dict[str, Any] | None]:
    """(path, checkpoint) of the first path that all workers can read; a damaged one is passed over with a warning.

    Raises what is wrong with the last one. No paths: (None, None).
    """
    for path in paths:
        checkpoint, error = None, None
        try:
            checkpoint = read(path)
        except CheckpointError as damage:
            error = damage
        told = [text for text in trainer.strategy.gather_object(error and str(error)) if text]
        if not told:
            return path, checkpoint
        if path is paths[-1]:
            raise error or CheckpointError(told[0])
        warnings.warn(f"[Trainer] passing over {path} for the one before: {told[0]}", stacklevel=2)
    return None, None


def restore_module(trainer: Any, checkpoint: dict[str, Any]) -> None:
    """Parameters, and what callbacks and the data module kept."""
    module, data = trainer.lightning_module, trainer.datamodule
    if data is not None:
        data.on_load_checkpoint(checkpoint)
        if (state := checkpoint.get(type(data).__qualname__)) is not None:
            data.load_state_dict(state)
    trainer.hooks("on_load_checkpoint", checkpoint)
    module.load_state_dict(checkpoint["state_dict"])
    for callback in trainer.callbacks:
        if (state := checkpoint.get("callbacks", {}).get(callback.state_key)) is not None:
            callback.load_state_dict(state)


def restore_training(trainer: Any, checkpoint: dict[str, Any]) -> None:
    """Optimizers, schedulers, the place in the loop and the random numbers that follow."""
    if "optimizer_states" not in checkpoint:
        raise ValueError(
            "[fit] ckpt_path must be a checkpoint with optimizers, came one of weights only: load it with "
            f"{type(trainer.lightning_module).__name__}.load_from_checkpoint and fit without ckpt_path"
        )
    for what, own, saved in (
        ("optimizers", trainer.optimizers, checkpoint["optimizer_states"]),
        ("lr_schedulers", trainer.lr_scheduler_configs, checkpoint["lr_schedulers"]),
    ):
        if len(own) != len(saved):
            raise ValueError(
                f"[fit] the checkpoint has {len(saved)} {what}, but configure_optimizers gave {len(own)}"
            )
    for optimizer, state in zip(trainer.optimizers, checkpoint["optimizer_states"]):
        trainer.strategy.load_optimizer_state(optimizer, state)
    for config, state in zip(trainer.lr_scheduler_configs, checkpoint["lr_schedulers"]):
        config.scheduler.load_state_dict(state)
    if trainer.precision.scaler is not None and "MixedPrecision" in checkpoint:
        trainer.precision.scaler.load_state_dict(checkpoint["MixedPrecision"])
    trainer.fit_loop.load_state_dict(checkpoint["loops"]["fit_loop"])


def restore_rng(trainer: Any, checkpoint: dict[str, Any]) -> None:
    """Each worker's random numbers, where there are as many workers as before."""
    states = checkpoint.get("rng", [])
    if len(states) != trainer.world_size:
        if trainer.strategy.exact:
            return  # its random numbers follow from seed and step
        warnings.warn(
            f"[fit] the checkpoint holds random states of {len(states)} workers, and there are {trainer.world_size}: "
            "random numbers go on differently",
            stacklevel=2,
        )
        return
    set_rng_state(states[trainer.global_rank])


def build(cls: type, hparams: dict[str, Any], name: str | None, kwargs: dict[str, Any]) -> Any:
    """An object with those of the saved hyperparameters that its `__init__` takes, and `kwargs`."""
    values = {name: dict(hparams)} if name else dict(hparams)
    init: Callable[..., Any] = cls.__init__  # type: ignore[misc]
    parameters = inspect.signature(init).parameters
    if not any(p.kind is p.VAR_KEYWORD for p in parameters.values()):
        values = {k: v for k, v in values.items() if k in parameters}
    values = {**values, **kwargs}
    missing = [
        k
        for k, p in list(parameters.items())[1:]
        if p.default is p.empty and p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY) and k not in values
    ]
    if missing:
        raise TypeError(
            f"[load_from_checkpoint] {cls.__name__}.__init__ needs {missing}, which the checkpoint does not hold: "
            "pass them to load_from_checkpoint, or call self.save_hyperparameters() in __init__"
        )
    return cls(**values)


def _plain(state: dict[str, Any]) -> dict[str, Any]:
    """A scheduler's state without functions, which no file can hold."""
    return {k: v for k, v in state.items() if not callable(v)}
