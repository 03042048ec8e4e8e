"""The training loop. It is the documentation of what happens when: read `run` from top to bottom."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np

from ..autograd import enable_grad
from ..tensor import Tensor
from .checkpoint import restore_rng
from .evaluation_loop import EvaluationLoop
from .loaders import count, iterate, loaders_of, set_epoch
from .results import Results
from .seeding import rng_state, set_rng_state


class FitLoop:
    """Epochs of training batches, with validation in between."""

    def __init__(self, trainer: Any) -> None:
        self.trainer = trainer
        self.epoch = 0
        self.global_step = 0  # optimizer steps
        self.batches_that_stepped = 0  # loggers count in these
        self.batch = 0  # batches of this epoch that are done
        self.batches = 0  # of all epochs
        self.skipped_batches = 0  # that on_nan="skip" left out in this run
        self.is_last = False
        self.in_epoch = self.epoch_over = False  # for checkpoints: where in the epoch training stands
        self.validated = True  # validation, if it is due after the last batch, has begun
        self.takes_idx = True
        self.loader: Any = None
        self.val_every: int | None = None
        self.current: tuple[Any, int, Any] = (None, 0, None)  # batch, its number, and the optimizer
        self.outputs: Any = None  # of the last training_step
        self.epoch_rng: dict[str, Any] | None = None
        self.resumed: dict[str, Any] | None = None
        self.total: int | None = None
        self.results = Results(trainer)
        self.validation = EvaluationLoop(trainer, "validation")

    def prepare(self, train: Any) -> None:
        """Gets the loader, and finds out after which batches to validate."""
        t = self.trainer
        found = loaders_of(t, "train", train)
        if not found:
            raise ValueError(
                "[fit] needs training data: pass fit(model, train_dataloaders) or a datamodule, or define "
                "train_dataloader()"
            )
        self.loader = found[0]
        self.total = count(self.loader, t.limit("train"), "limit_train_batches")
        if self.total == 0 and t.limit_train_batches != 0:
            raise ValueError(
                "[fit] needs training data, came a loader without batches (drop_last or an empty dataset?)"
            )
        self.val_every = self._val_every() if self.validation.has_batches else None

    def _val_every(self) -> int | None:
        """The number of batches between validations; None: at the end of the epoch."""
        interval = self.trainer.val_check_interval
        if isinstance(interval, int):
            if (
                self.total is not None
                and interval > self.total
                and self.trainer.check_val_every_n_epoch is not None
            ):
                raise ValueError(
                    f"[Trainer] val_check_interval={interval} must be at most the {self.total} batches of an epoch, or "
                    "check_val_every_n_epoch be None, with which batches are counted over epochs"
                )
            return interval
        if interval == 1.0:
            return None
        if self.total is None:
            raise ValueError(
                f"[Trainer] val_check_interval={interval} needs a loader with a length: give a number of batches"
            )
        return max(1, int(self.total * interval))

    def run(self) -> None:
        """Trains until epochs, steps or time are over, or someone sets `trainer.should_stop`."""
        t = self.trainer
        self.validation.prepare(t.given["val"])
        self.prepare(t.given["train"])  # says how a strategy cuts batches
        t.strategy.setup(t._module)
        t.training_step = t.strategy.step_of(t._module)
        if self.total == 0:
            return
        self._sanity_check()
        t._module.train()
        t.place = "on_train_start"
        t.results = self.results
        t.hooks("on_train_start")
        with enable_grad():
            while not self._done():
                every = t.reload_dataloaders_every_n_epochs
                if every and self.epoch and self.epoch % every == 0 and self.resumed is None:
                    self.validation.prepare(t.given["val"])
                    self.prepare(t.given["train"])
                if self.run_epoch():
                    self.epoch += 1
        t.hooks("on_train_end")

    def run_epoch(self) -> bool:
        """One epoch; False: it was ended before its last batch."""
        t, hooks = self.trainer, self.trainer.hooks
        t.results = self.results
        set_epoch(self.loader, self.epoch)
        resumed, self.resumed = self.resumed, None
        skip = 0
        if resumed is None:
            self.batch, self.epoch_rng = 0, rng_state()
            hooks("on_train_epoch_start")
        else:  # in the middle of an epoch: draw its batches again, then go on from where the save was
            skip = self.batch
            states = resumed["loops"]["fit_loop"]["epoch_rng"]
            if len(states) == t.world_size:
                self.epoch_rng = states[t.global_rank]
                set_rng_state(self.epoch_rng)
            else:
                self.epoch_rng = rng_state()

        def after_skip() -> None:
            if resumed is not None:
                restore_rng(t, resumed)
                if not self.validated and self._should_validate(self.batch - 1):
                    self.validate()
                self.validated = True

        stopped, self.in_epoch = False, True
        for batch_idx, batch, is_last in iterate(self.loader, self.total, skip, after_skip):
            self.is_last = is_last
            if not self.run_batch(batch, batch_idx):
                break
            if self._should_validate(batch_idx):
                self.validate()
            self.validated = True
            if t.signals is not None:
                t.signals.look()
            if stopped := self._steps_over() or (t.should_stop and self._may_stop()):
                break
        t.log_metrics(self.results.publish_epoch())
        hooks("on_train_epoch_end")
        t.log_metrics(self.results.publish_epoch())  # what the hooks have logged
        over = not stopped or self.is_last
        if over:
            t.step_schedulers("epoch", plateau=True)
        self.epoch_over = over
        hooks("monitors")
        self.epoch_over, self.in_epoch = False, not over
        return over

    def run_batch(self, batch: Any, batch_idx: int) -> bool:
        """One batch; False: the rest of the epoch is to be left out."""
        t, hooks, results = self.trainer, self.trainer.hooks, self.results
        automatic = t._module.automatic_optimization
        self.validated = False
        batch = results.batch = batch if t.as_loaded else t.transfer(batch, 0)
        if -1 in hooks("on_train_batch_start", batch, batch_idx):
            return False
        outputs = self.optimize(batch, batch_idx) if automatic else self.step_by_hand(batch, batch_idx)
        self.batch, self.batches = batch_idx + 1, self.batches + 1
        if self.is_last and automatic:
            t.step_schedulers("epoch", plateau=False)
        hooks("on_train_batch_end", outputs, batch, batch_idx)
        if results.items:
            due = self._should_log()
            values = results.publish_step(due)
            if values and due and t.loggers:
                t.log_metrics(values)
        return True

    def step_by_hand(self, batch: Any, batch_idx: int) -> Any:
        """Manual optimization: training_step does it all."""
        before, self.current = self.global_step, (batch, batch_idx, None)
        self.trainer.checkpoint_io.copied()
        outputs = _outputs(self._training_step(batch, batch_idx), needs_loss=False)
        self.batches_that_stepped += self.global_step > before
        return outputs

    def optimize(self, batch: Any, batch_idx: int) -> Any:
        """Forward, backward and, unless gradients are to be accumulated, an update."""
        t, every = self.trainer, self.trainer.accumulate_grad_batches
        optimizer = t.optimizers[0] if t.optimizers else None
        self.current = batch, batch_idx, optimizer
        if every > 1 and self._accumulates(batch_idx):
            with t.strategy.no_sync():
                self.gradients()
        elif optimizer is None:
            self.gradients()
            self.batches_that_stepped += 1
        else:
            if t.precision.scaler is None:
                t._module.optimizer_step(self.epoch, batch_idx, optimizer, self.closure)
            else:
                t.precision.step(optimizer, self.closure)
            self.global_step += 1
            self.batches_that_stepped += 1
            t.step_schedulers("step", plateau=True)
        return self.outputs

    def closure(self) -> Any:
        """What an optimizer calls before it steps: the loss and its gradients, clipped."""
        t, optimizer = self.trainer, self.current[2]
        loss = self.gradients()
        if loss is None and t.accumulate_grad_batches > 1 and not t.strategy.exact:
            # The backward that would have averaged what was accumulated before did not run.
            t.strategy.average_gradients(t._module)
        if t.checkpoint_io.overlap:
            t.checkpoint_io.copied()
        if t.precision.scaler is not None:
            t.precision.scaler.unscale_(optimizer)
        t.hooks("on_before_optimizer_step", optimizer)
        t._module.configure_gradient_clipping(optimizer, t.gradient_clip_val, t.gradient_clip_algorithm)
        return loss

    def gradients(self) -> Any:
        """Forward and backward of the current batch, part by part (mostly one); returns the loss."""
        t = self.trainer
        module, hooks, every = t._module, t.hooks, t.accumulate_grad_batches
        batch, batch_idx, optimizer = self.current
        zero = optimizer is not None and batch_idx % every == 0
        if zero and t.strategy.exact:  # its parts' gradients are added to what is there before the first part
            zero = False
            self._zero_grad(optimizer, batch_idx)
        losses = []
        for part in t.strategy.parts(batch, self.batches):
            self.results.batch = part
            outputs = self.outputs = _outputs(self._training_step(part, batch_idx), needs_loss=True)
            if zero:
                zero = False
                self._zero_grad(optimizer, batch_idx)
            if outputs is None:
                continue
            loss = outputs["loss"]
            if t.check_finite:
                if t.on_nan == "raise":
                    self.check_loss(loss)
                elif self._is_left_out(loss):
                    self.outputs = None
                    continue
            hooks("on_before_backward", loss)
            whole = loss / every if every > 1 else loss
            module.backward(whole if t.precision.scaler is None else t.precision.scale(whole))
            hooks("on_after_backward")
            outputs["loss"] = loss.detach()
            losses.append(outputs["loss"])
        if t.strategy.exact and losses:
            self.outputs["loss"] = t.strategy.mean_of_parts(losses)
        return self.outputs["loss"] if losses else None

    def _zero_grad(self, optimizer: Any, batch_idx: int) -> None:
        self.trainer.hooks("on_before_zero_grad", optimizer)
        self.trainer._module.optimizer_zero_grad(self.epoch, batch_idx, optimizer)

    def _training_step(self, batch: Any, batch_idx: int) -> Any:
        t = self.trainer
        before, t.place = t.place, "training_step"
        try:
            if t.precision.is_plain and self.takes_idx:
                return t.training_step(batch, batch_idx)
            with t.precision.forward_context():
                return t.training_step(batch, batch_idx) if self.takes_idx else t.training_step(batch)
        finally:
            t.place = before

    def _is_left_out(self, loss: Any) -> bool:
        """Whether the loss is not finite on any rank, which on_nan="skip" asks."""
        t = self.trainer
        ranks = t.strategy.ranks_with(not math.isfinite(loss.array.item()))
        if ranks:
            self.skipped_batches += 1
            if t.is_global_zero:
                warnings.warn(
                    f"[fit] left out batch {self.current[1]} of epoch {self.epoch} (step {self.global_step}): the loss "
                    f"is not finite on rank {', '.join(map(str, ranks))}",
                    stacklevel=2,
                )
        return bool(ranks)

    def check_loss(self, loss: Any) -> None:
        """A loss that is NaN or infinite ends training, before it reaches the weights."""
        t = self.trainer
        if not isinstance(loss.array, np.ndarray) and self.batches % max(t.log_every_n_steps, 1):
            return  # elsewhere than on the CPU a look waits for the device
        if not math.isfinite(value := loss.array.item()):
            raise FloatingPointError(
                f"[fit] the loss must be finite, came {value} on rank {t.global_rank} in step {self.global_step} "
                f"(epoch {self.epoch}, batch {self.current[1]}): detect_anomaly=True finds the op that made it; a "
                'lower learning rate or gradient_clip_val may help; Trainer(on_nan="skip") leaves such batches out'
            )

    def validate(self) -> None:
        """A round of validation between two training batches."""
        t = self.trainer
        self.validated = True
        if not self._accumulates(self.current[1]):
            t.hooks("on_validation_model_zero_grad")
        self.validation.run()
        t.results = self.results
        t.place = ""

    # ---- when

    def _sanity_check(self) -> None:
        """A few batches of validation first: a mistake there shows now, not after an epoch."""
        t = self.trainer
        if t.num_sanity_val_steps == 0 or not self.validation.has_batches or self.resumed is not None:
            return
        before = rng_state()
        t.sanity_checking = True
        t.hooks("on_sanity_check_start")
        self.validation.run(t.num_sanity_val_steps)
        t.hooks("on_sanity_check_end")
        t.sanity_checking = False
        t.callback_values.clear()
        t.progress_bar_values.clear()
        set_rng_state(before)  # training draws the same numbers with the check and without

    def _done(self) -> bool:
        t = self.trainer
        if t.max_epochs is not None and t.max_epochs != -1 and self.epoch >= t.max_epochs:
            return True
        return self._steps_over() or (t.should_stop and self._may_stop())

    def _steps_over(self) -> bool:
        return self.trainer.max_steps != -1 and self.global_step >= self.trainer.max_steps

    def _may_stop(self) -> bool:
        t = self.trainer
        return self.global_step >= (t.min_steps or 0) and self.epoch + 1 >= (t.min_epochs or 0)

    def _should_validate(self, batch_idx: int) -> bool:
        t = self.trainer
        if not self.validation.has_batches:
            return False
        every_epochs = t.check_val_every_n_epoch
        if every_epochs is not None and (self.epoch + 1) % every_epochs:
            return False
        if self.val_every is None:
            return self.is_last
        done = batch_idx + 1
        if every_epochs is None and self.total is not None:
            done += self.epoch * self.total
        return done % self.val_every == 0

    def _accumulates(self, batch_idx: int) -> bool:
        """Whether the gradients of this batch wait for those of the next."""
        return (batch_idx + 1) % self.trainer.accumulate_grad_batches != 0 and not self.is_last

    def _should_log(self) -> bool:
        t = self.trainer
        if t._module.automatic_optimization and self._accumulates(self.batch - 1):
            return False
        return t.fast_dev_run or (
            t.log_every_n_steps > 0 and self.batches_that_stepped % t.log_every_n_steps == 0
        )

    # ---- checkpoints

    def state_dict(self) -> dict[str, Any]:
        """The place in training; to be called on all workers."""
        return {
            "epoch": self.epoch,
            "global_step": self.global_step,
            "batches_that_stepped": self.batches_that_stepped,
            "batches": self.batches,
            "batch": self.batch,
            "is_last": self.is_last,
            "validated": self.validated,
            "in_epoch": self.in_epoch,
            "epoch_over": self.epoch_over,
            "epoch_rng": self.trainer.strategy.gather_object(self.epoch_rng),
            "results": self.trainer.strategy.gather_object(self.results.state_dict()),
            "values": dict(self.trainer.callback_values),
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        t = self.trainer
        self.epoch, self.global_step = state["epoch"], state["global_step"]
        self.batches_that_stepped, self.batch = state["batches_that_stepped"], state["batch"]
        self.batches = state["batches"]
        t.callback_values.update(state["values"])
        if state["epoch_over"] or not state["in_epoch"]:
            self.epoch += state["epoch_over"]
            restore_rng(t, t.checkpoint)
            return
        self.resumed, self.is_last, self.validated = t.checkpoint, state["is_last"], state["validated"]
        if len(state["results"]) == t.world_size:
            self.results.load_state_dict([state["results"][t.global_rank]])
        elif t.is_global_zero:  # other workers than before: one of them goes on from the sums of all
            self.results.load_state_dict(state["results"])


def _outputs(returned: Any, needs_loss: bool) -> Any:
    """What training_step returned, as a dict with "loss"."""
    if returned is None:
        return None
    if isinstance(returned, Tensor):
        returned = {"loss": returned}
    elif isinstance(returned, dict):
        returned = dict(returned)
    else:
        raise TypeError(
            "[training_step] must return a loss (a Tensor), a dict with 'loss', or None to leave the batch out, came "
            f"{type(returned).__name__}"
        )
    if not needs_loss:
        return returned
    loss = returned.get("loss")
    if not isinstance(loss, Tensor):
        raise TypeError(
            f"[training_step] the dict that it returns must have 'loss', a Tensor, came {type(loss).__name__} "
            f"among {sorted(returned)}"
        )
    if loss.array.size != 1:
        raise ValueError(
            f"[training_step] the loss must be one number, came shape {tuple(loss.shape)}: take its mean()"
        )
    return returned
