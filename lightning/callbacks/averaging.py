"""Averages of weights: over the last epochs (SWA), or exponentially (EMA)."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

from ...optim.swa_utils import SWALR, AveragedModel, get_ema_multi_avg_fn
from .callback import Callback


class WeightAveraging(Callback):
    """Keeps an average of the module's weights; validation and tests, and the module in the end, use it.

    avg_fn, multi_avg_fn: as of AveragedModel; by default the mean. use_buffers: buffers are averaged too, else
    copied. A subclass says when in `should_update(step_idx=None, epoch_idx=None)`; by default after each step.
    Weights are equal on all workers, so are averages. Checkpoints hold the trained weights, and the average in the
    callback's state.
    """

    def __init__(
        self,
        device: Any = None,
        use_buffers: bool = True,
        avg_fn: Callable[..., Any] | None = None,
        multi_avg_fn: Callable[..., Any] | None = None,
    ) -> None:
        self.use_buffers, self._fns = use_buffers, {"avg_fn": avg_fn, "multi_avg_fn": multi_avg_fn}
        self._average: Any = None
        self._loaded: dict[str, Any] | None = None
        self._swapped = False

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        """Whether the weights of now go into the average: after optimizer step step_idx, or after epoch epoch_idx."""
        return step_idx is not None

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        # The module without what belongs to the trainer, which a copy must not take along.
        held = pl_module.__dict__.pop("_trainer")
        try:
            self._average = AveragedModel(pl_module, use_buffers=self.use_buffers, **self._fns)
        finally:
            pl_module.__dict__["_trainer"] = held
        self._average.module.__dict__["_trainer"] = None
        if self._loaded is not None:
            self._average.load_state_dict(self._loaded)
            self._loaded = None
        self._step = trainer.global_step

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        if trainer.global_step > self._step:
            self._step = trainer.global_step
            if self.should_update(step_idx=trainer.global_step - 1):
                self._average.update_parameters(pl_module)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        if self.should_update(epoch_idx=trainer.current_epoch):
            self._average.update_parameters(pl_module)

    def on_validation_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        if trainer.stage == "fit" and self._has_average:
            self._swap(pl_module)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        if self._swapped:
            self._swap(pl_module)

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        if self._has_average:
            self._swap(pl_module)
            self._swapped = False

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        if self._swapped:
            self._swap(pl_module)

    @property
    def _has_average(self) -> bool:
        return self._average is not None and bool(self._average.n_averaged.item())

    def _swap(self, module: Any) -> None:
        """The module gets the average's numbers, and the average the module's."""
        average = self._average.module
        pairs = [*zip(module.parameters(), average.parameters()), *zip(module.buffers(), average.buffers())]
        for a, b in pairs:
            held = a.array.copy()
            a.array[...], b.array[...] = b.array, held
            a._version[0] += 1
        self._swapped = not self._swapped

    def state_dict(self) -> dict[str, Any]:
        return {} if self._average is None else {"average": dict(self._average.state_dict())}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        self._loaded = state_dict["average"]


class EMAWeightAveraging(WeightAveraging):
    """An exponential moving average: decay * average + (1 - decay) * weights, each `update_every_n_steps` steps.

    update_starting_at_step, update_starting_at_epoch: when it begins; before, the trained weights are used.
    """

    def __init__(
        self,
        device: Any = None,
        use_buffers: bool = True,
        decay: float = 0.999,
        update_every_n_steps: int = 1,
        update_starting_at_step: int | None = None,
        update_starting_at_epoch: int | None = None,
    ) -> None:
        super().__init__(device, use_buffers, multi_avg_fn=get_ema_multi_avg_fn(decay))
        self.every, self.from_step, self.from_epoch = (
            update_every_n_steps,
            update_starting_at_step,
            update_starting_at_epoch,
        )
        self._epoch_reached = update_starting_at_epoch in (None, 0)

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        if epoch_idx is not None:
            self._epoch_reached = self.from_epoch is None or epoch_idx + 1 >= self.from_epoch
            return False
        assert step_idx is not None
        return self._epoch_reached and step_idx >= (self.from_step or 0) and step_idx % self.every == 0


EMA = EMAWeightAveraging


class StochasticWeightAveraging(WeightAveraging):
    """The mean of the weights after each of the last epochs, which are trained with a learning rate of their own.

    P. Izmailov et al., "Averaging Weights Leads to Wider Optima and Better Generalization", UAI 2018. swa_lrs: that
    rate, or one for each parameter group. swa_epoch_start: the first such epoch, or its share of max_epochs.
    annealing_epochs, annealing_strategy ("cos" or "linear"): how the rate gets there. After it batch norms, whose
    statistics are of other weights, get theirs from a round over the training data.
    """

    def __init__(
        self,
        swa_lrs: float | list[float],
        swa_epoch_start: int | float = 0.8,
        annealing_epochs: int = 10,
        annealing_strategy: str = "cos",
        avg_fn: Callable[..., Any] | None = None,
        device: Any = None,
    ) -> None:
        share = isinstance(swa_epoch_start, float) and 0 <= swa_epoch_start <= 1
        whole = isinstance(swa_epoch_start, int) and swa_epoch_start >= 1
        if not share and not whole:
            raise ValueError(
                f"[StochasticWeightAveraging] swa_epoch_start must be an epoch from 1 on, or a share, came "
                f"{swa_epoch_start!r}"
            )
        super().__init__(device, use_buffers=False, avg_fn=avg_fn)
        self.swa_lrs, self.swa_epoch_start = swa_lrs, swa_epoch_start
        self.annealing_epochs, self.annealing_strategy = annealing_epochs, annealing_strategy
        self._scheduler: Any = None

    def on_fit_start(self, trainer: Any, pl_module: Any) -> None:
        if len(trainer.optimizers) != 1:
            raise ValueError(
                f"[StochasticWeightAveraging] needs one optimizer, came {len(trainer.optimizers)}"
            )
        if isinstance(self.swa_epoch_start, float):
            if trainer.max_epochs in (None, -1):
                raise ValueError("[StochasticWeightAveraging] swa_epoch_start as a share needs max_epochs")
            self.swa_epoch_start = int(trainer.max_epochs * self.swa_epoch_start)
        super().on_fit_start(trainer, pl_module)

    def should_update(self, step_idx: int | None = None, epoch_idx: int | None = None) -> bool:
        return epoch_idx is not None and epoch_idx >= self.swa_epoch_start

    def on_train_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        if trainer.current_epoch < self.swa_epoch_start or self._scheduler is not None:
            return
        from ..optimizers import SchedulerConfig

        lrs = self.swa_lrs if isinstance(self.swa_lrs, list) else [self.swa_lrs]
        optimizer = trainer.optimizers[0]
        lrs = lrs * len(optimizer.param_groups) if len(lrs) == 1 else lrs
        self._scheduler = SWALR(optimizer, lrs, self.annealing_epochs, self.annealing_strategy)
        if trainer.lr_scheduler_configs:
            warnings.warn(
                "[StochasticWeightAveraging] its learning rate replaces the schedulers from here on",
                stacklevel=2,
            )
        trainer.lr_scheduler_configs = [SchedulerConfig(self._scheduler)]

    def on_validation_epoch_start(self, trainer: Any, pl_module: Any) -> None:
        """Validation is of the weights that are trained: the averages' batch norms have no statistics yet."""

    def on_train_end(self, trainer: Any, pl_module: Any) -> None:
        super().on_train_end(trainer, pl_module)
        if self._has_average:
            _renew_batch_norms(trainer, pl_module)


def _renew_batch_norms(trainer: Any, module: Any) -> None:
    """Running statistics as plain means over the training batches."""
    from ...autograd import no_grad
    from ..loaders import iterate

    norms = [m for m in module.modules() if getattr(m, "running_mean", None) is not None]
    if not norms:
        return
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        norm.reset_running_stats()
        norm.momentum = None  # cumulative
    module.train()
    step, log = trainer.fit_loop, module.__dict__.get("log")
    object.__setattr__(module, "log", lambda *_, **__: None)
    try:
        with no_grad():
            for i, batch, _ in iterate(step.loader, step.total):
                with trainer.precision.forward_context():
                    args = (trainer.transfer(batch, 0), i)[: 2 if step.takes_idx else 1]
                    module.training_step(*args)
    finally:
        del module.__dict__["log"]
        if log is not None:
            object.__setattr__(module, "log", log)
        for norm, momentum in zip(norms, momenta):
            norm.momentum = momentum
