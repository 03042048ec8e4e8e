"""LightningModule: a Module that says what a training, validation, test and prediction step is."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from ..nn import Module
from ..tensor.device import device
from .hooks import DataHooks, TrainingHooks
from .hyperparameters import HyperparametersMixin

M = TypeVar("M", bound="LightningModule")


class LightningModule(TrainingHooks, HyperparametersMixin, Module, DataHooks):  # type: ignore[misc]
    """Subclass it; define `training_step` and `configure_optimizers`, and what else the task needs.

    class Net(L.LightningModule):
        def __init__(self, lr=0.1):
            super().__init__()
            self.save_hyperparameters()
            self.layer = nn.Linear(32, 2)

        def training_step(self, batch, batch_idx):
            loss = self.layer(batch).sum()
            self.log("train_loss", loss)
            return loss

        def configure_optimizers(self):
            return optim.SGD(self.parameters(), lr=self.hparams.lr)
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._trainer: Any = None
        self.automatic_optimization = True
        self.example_input_array: Any = None
        self._toggled: dict[Any, bool] = {}

    # ---- what a subclass defines

    def training_step(self, *args: Any, **kwargs: Any) -> Any:
        """(batch, batch_idx) -> the loss, a dict with "loss", or None to leave the batch out."""
        raise NotImplementedError

    def validation_step(self, *args: Any, **kwargs: Any) -> Any:
        """(batch, batch_idx[, dataloader_idx]); without gradients, in evaluation mode."""
        raise NotImplementedError

    def test_step(self, *args: Any, **kwargs: Any) -> Any:
        """(batch, batch_idx[, dataloader_idx]); without gradients, in evaluation mode."""
        raise NotImplementedError

    def predict_step(self, *args: Any, **kwargs: Any) -> Any:
        """(batch, batch_idx[, dataloader_idx]) -> the prediction; by default `self(batch)`."""
        return self(args[0] if args else kwargs["batch"])

    def configure_optimizers(self) -> Any:
        """An optimizer, several, or with schedulers, in the forms that docs/training.md lists."""
        raise NotImplementedError

    def configure_callbacks(self) -> Any:
        """Callbacks that this module brings along; they replace the trainer's of the same class."""
        return []

    # ---- one optimizer step, in parts that may be replaced

    def backward(self, loss: Any, *args: Any, **kwargs: Any) -> None:
        """The backward of the loss."""
        loss.backward(*args, **kwargs)

    def optimizer_zero_grad(self, epoch: int, batch_idx: int, optimizer: Any) -> None:
        """Drops the gradients of the step before."""
        optimizer.zero_grad()

    def optimizer_step(
        self, epoch: int, batch_idx: int, optimizer: Any, optimizer_closure: Callable[[], Any] | None = None
    ) -> None:
        """One update; the closure computes the loss and its gradients."""
        optimizer.step(optimizer_closure)

    def configure_gradient_clipping(
        self,
        optimizer: Any,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clips the gradients as the Trainer was told."""
        self.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    def lr_scheduler_step(self, scheduler: Any, metric: Any) -> None:
        """One step of a scheduler; `metric` is what it monitors, or None."""
        scheduler.step() if metric is None else scheduler.step(metric)

    def clip_gradients(
        self,
        optimizer: Any,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
    ) -> None:
        """Clips the gradients of an optimizer's parameters, by "norm" or by "value"."""
        if gradient_clip_val:
            self.trainer.strategy.clip_gradients(optimizer, gradient_clip_val, gradient_clip_algorithm)

    # ---- manual optimization

    def optimizers(self, use_pl_optimizer: bool = True) -> Any:
        """The optimizer, or the list of them where there are several."""
        trainer = self.trainer
        found = trainer.wrapped_optimizers if use_pl_optimizer else trainer.optimizers
        return found[0] if len(found) == 1 else found

    def lr_schedulers(self) -> Any:
        """The scheduler, the list of them where there are several, or None."""
        found = [config.scheduler for config in self.trainer.lr_scheduler_configs]
        return (found[0] if len(found) == 1 else found) if found else None

    def manual_backward(self, loss: Any, *args: Any, **kwargs: Any) -> None:
        """Instead of `loss.backward()` in manual optimization; averages the gradients over the workers."""
        if self.automatic_optimization:
            raise RuntimeError(
                "[manual_backward] needs manual optimization: set self.automatic_optimization = False in __init__"
            )
        trainer = self.trainer
        if trainer.check_finite:
            trainer.fit_loop.check_loss(loss)
        trainer.hooks("on_before_backward", loss)
        self.backward(trainer.precision.scale(loss), *args, **kwargs)
        trainer.strategy.average_gradients(self)
        trainer.hooks("on_after_backward")

    def toggle_optimizer(self, optimizer: Any) -> None:
        """Only this optimizer's parameters require gradients, until `untoggle_optimizer`."""
        own = {id(p) for group in optimizer.param_groups for p in group["params"]}
        for other in self.trainer.optimizers:
            for group in other.param_groups:
                for p in group["params"]:
                    if id(p) not in own and p not in self._toggled:
                        self._toggled[p] = p.requires_grad
                        p.requires_grad = False

    def untoggle_optimizer(self, optimizer: Any) -> None:
        """Takes back what `toggle_optimizer` did."""
        for p, before in self._toggled.items():
            p.requires_grad = before
        self._toggled.clear()

    # ---- logging

    def log(
        self,
        name: str,
        value: Any,
        prog_bar: bool = False,
        logger: bool | None = None,
        on_step: bool | None = None,
        on_epoch: bool | None = None,
        reduce_fx: str | Callable[..., Any] = "mean",
        enable_graph: bool = False,
        sync_dist: bool = False,
        sync_dist_group: Any = None,
        add_dataloader_idx: bool = True,
        batch_size: int | None = None,
        metric_attribute: str | None = None,
        rank_zero_only: bool = False,
    ) -> None:
        """Records a number, 0-d tensor or Metric under `name`, for loggers, the progress bar and callbacks.

        on_step: each step's value; on_epoch: the epoch's, by reduce_fx "mean" (weighted with batch_size, which is
        by default the size of the batch's first tensor), "sum", "min" or "max" over steps and all workers. Steps of
        training log by step, all others by epoch; with both, the names end in _step and _epoch. sync_dist: the
        step's value is the mean over the workers too.
        """
        if self._trainer is None:
            warnings.warn(
                "[log] there is no trainer, so nothing is logged: call it within trainer.fit", stacklevel=2
            )
            return
        self._trainer.results.log(
            name,
            value,
            prog_bar=prog_bar,
            logger=True if logger is None else logger,
            on_step=on_step,
            on_epoch=on_epoch,
            reduce_fx=reduce_fx,
            sync_dist=sync_dist and not rank_zero_only,
            add_dataloader_idx=add_dataloader_idx,
            batch_size=batch_size,
        )

    def log_dict(self, dictionary: Mapping[str, Any], **kwargs: Any) -> None:
        """`log` for each name and value."""
        for name, value in dictionary.items():
            self.log(name, value, **kwargs)

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Prints on rank 0 alone."""
        if self._trainer is None or self._trainer.is_global_zero:
            print(*args, **kwargs)

    # ---- freezing and loading

    def freeze(self) -> None:
        """No parameter requires a gradient; evaluation mode."""
        self.requires_grad_(False)
        self.eval()

    def unfreeze(self) -> None:
        """All parameters require gradients; training mode."""
        self.requires_grad_(True)
        self.train()

    @classmethod
    def load_from_checkpoint(
        cls: type[M],
        checkpoint_path: Any,
        map_location: Any = None,
        hparams_file: None = None,
        strict: bool = True,
        **kwargs: Any,
    ) -> M:
        """Built with the hyperparameters of the checkpoint, which `kwargs` overrule, and its parameters.

        Raises TypeError where `__init__` needs what the checkpoint lacks, RuntimeError where parameters differ.
        """
        from .checkpoint import build, content

        if hparams_file is not None:
            raise ValueError(
                "[load_from_checkpoint] hparams_file is not read: pass the hyperparameters by name"
            )
        saved = content(checkpoint_path, map_location)
        if not isinstance(saved, dict) or "state_dict" not in saved:
            raise ValueError(
                f"[load_from_checkpoint] {checkpoint_path} must be a Trainer's, came one without state_dict"
            )
        module = build(cls, saved.get("hyper_parameters", {}), saved.get("hparams_name"), kwargs)
        module.configure_model()  # which may be what makes the layers
        module.on_load_checkpoint(saved)
        module.load_state_dict(saved["state_dict"], strict=strict)
        return module

    # ---- where it runs

    @property
    def trainer(self) -> Any:
        """The Trainer that this module is attached to."""
        if self._trainer is None:
            raise RuntimeError(
                f"[{type(self).__name__}] is not attached to a Trainer: call trainer.fit(model) first"
            )
        return self._trainer

    @trainer.setter
    def trainer(self, trainer: Any) -> None:
        self.__dict__["_trainer"] = trainer

    @property
    def current_epoch(self) -> int:
        return self._trainer.current_epoch if self._trainer is not None else 0

    @property
    def global_step(self) -> int:
        return self._trainer.global_step if self._trainer is not None else 0

    @property
    def global_rank(self) -> int:
        return self._trainer.global_rank if self._trainer is not None else 0

    @property
    def local_rank(self) -> int:
        return self._trainer.local_rank if self._trainer is not None else 0

    @property
    def logger(self) -> Any:
        return self._trainer.logger if self._trainer is not None else None

    @property
    def loggers(self) -> list[Any]:
        return self._trainer.loggers if self._trainer is not None else []

    @property
    def device(self) -> Any:
        """Where the parameters are."""
        return next((p.device for p in self.parameters()), device("cpu"))

    @property
    def dtype(self) -> Any:
        """The parameters' dtype."""
        return next((p.dtype for p in self.parameters()), None)
