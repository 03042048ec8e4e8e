"""Trainer: runs the steps that a LightningModule defines. The loop itself stands in fit_loop.py."""

from __future__ import annotations

import contextlib
import os
import sys
import warnings
from collections.abc import Iterable, Iterator
from datetime import timedelta
from typing import Any

from ..tensor import Tensor, dtypes
from . import checkpoint as checkpoints
from .callbacks import Callback, EarlyStopping, ModelCheckpoint, ModelSummary, RichProgressBar, Timer
from .checkpoint_io import CheckpointIO, saved_at
from .datamodule import LightningDataModule
from .evaluation_loop import EvaluationLoop, positional
from .fit_loop import FitLoop
from .hooks import DataHooks, Hooks, overridden
from .loggers import CSVLogger, Logger
from .module import LightningModule
from .optimizers import LightningOptimizer, SchedulerConfig, configured
from .precision import Precision, map_tensors
from .profilers import profiler_of
from .results import Results
from .signals import Signals, SLURMEnvironment, hpc_path
from .strategies import strategy_of


class Trainer:
    """Trains, validates, tests and predicts; arguments as in PyTorch Lightning, docs/training.md.

    max_epochs: default 1000 unless max_steps or max_time is given, -1 for no end; max_time: "DD:HH:MM:SS", a
    timedelta or a dict. devices: workers of a host, "auto" for as many as the launcher (mpirun, srun, ringrun,
    torchrun) started. precision: "32", "64", "bf16-mixed" or "16-mixed". limit_*_batches, overfit_batches: a number
    of batches, or a share as a float. val_check_interval: validate after so many batches, or a share of the epoch.
    on_nan: "raise" names rank and step of a loss that is not finite, "skip" leaves the batch out on all ranks alike,
    "ignore" trains on. reproducible: shards of a batch for the same bits on any number of workers.
    profiler: "simple", "advanced" or "pytorch".
    reload_dataloaders_every_n_epochs: asks for the loaders anew. barebones: nothing but training.
    fast_dev_run: one batch (or that many) of everything, without loggers and checkpoints. logger: True (CSV files
    under default_root_dir/lightning_logs), False, or loggers. deterministic, benchmark: taken, and change nothing.
    """

    def __init__(
        self,
        *,
        accelerator: str = "auto",
        strategy: Any = "auto",
        devices: Any = "auto",
        num_nodes: int = 1,
        precision: str | int | None = None,
        logger: Any = None,
        callbacks: Any = None,
        fast_dev_run: bool | int = False,
        max_epochs: int | None = None,
        min_epochs: int | None = None,
        max_steps: int = -1,
        min_steps: int | None = None,
        max_time: str | timedelta | dict[str, int] | None = None,
        limit_train_batches: int | float | None = None,
        limit_val_batches: int | float | None = None,
        limit_test_batches: int | float | None = None,
        limit_predict_batches: int | float | None = None,
        overfit_batches: int | float = 0.0,
        val_check_interval: int | float | None = None,
        check_val_every_n_epoch: int | None = 1,
        num_sanity_val_steps: int | None = None,
        log_every_n_steps: int | None = None,
        enable_checkpointing: bool | None = None,
        enable_progress_bar: bool | None = None,
        enable_model_summary: bool | None = None,
        accumulate_grad_batches: int = 1,
        gradient_clip_val: float | None = None,
        gradient_clip_algorithm: str | None = None,
        deterministic: Any = None,
        benchmark: bool | None = None,
        use_distributed_sampler: bool = True,
        detect_anomaly: bool = False,
        on_nan: str = "raise",
        reproducible: int | None = None,
        profiler: Any = None,
        inference_mode: bool = True,
        reload_dataloaders_every_n_epochs: int = 0,
        sync_batchnorm: bool = False,
        barebones: bool = False,
        plugins: Any = None,
        default_root_dir: str | os.PathLike[str] | None = None,
    ) -> None:
        known = ("auto", "cpu", "gpu", "cuda")
        _check("accelerator", accelerator, accelerator in known, '"auto", "cpu" or "gpu"')
        if accelerator in known[2:]:
            _check_gpu(accelerator)
        _check("accumulate_grad_batches", accumulate_grad_batches, accumulate_grad_batches >= 1, "at least 1")
        _check("max_steps", max_steps, max_steps >= -1, "a number of steps, or -1 for no end")
        _check("max_epochs", max_epochs, max_epochs is None or max_epochs >= -1, "a number of epochs, or -1")
        _check(
            "gradient_clip_algorithm",
            gradient_clip_algorithm,
            gradient_clip_algorithm in (None, "norm", "value"),
            '"norm" or "value"',
        )
        val_check_interval = 1.0 if val_check_interval is None else val_check_interval
        fits = val_check_interval >= 1 if isinstance(val_check_interval, int) else 0 < val_check_interval <= 1
        _check(
            "val_check_interval", val_check_interval, fits, "a number of batches, or a share in 0.0 to 1.0"
        )
        if max_epochs is None and max_steps == -1 and max_time is None:
            max_epochs = 1000
        if barebones:  # only what trains: for measuring
            logger, enable_checkpointing, enable_progress_bar, enable_model_summary = (
                False,
                False,
                False,
                False,
            )
            num_sanity_val_steps, log_every_n_steps = 0, 0
        self.profiler, self.inference_mode = profiler_of(profiler), inference_mode
        self.reload_dataloaders_every_n_epochs = reload_dataloaders_every_n_epochs
        self.sync_batchnorm, self.barebones = sync_batchnorm, barebones
        self.fast_dev_run = int(fast_dev_run)
        if self.fast_dev_run:
            max_steps, max_epochs, num_sanity_val_steps = self.fast_dev_run, 1, 0
            val_check_interval, check_val_every_n_epoch = 1.0, 1
            logger, enable_checkpointing = False, False
            callbacks = [c for c in _list(callbacks) if not isinstance(c, ModelCheckpoint | EarlyStopping)]
        _check("on_nan", on_nan, on_nan in ("raise", "skip", "ignore"), '"raise", "skip" or "ignore"')
        self.strategy, self.precision = strategy_of(strategy, reproducible), Precision(precision)
        if on_nan == "skip" and self.strategy.exact:
            raise ValueError(
                '[Trainer] the strategy reproducible takes no on_nan="skip": "raise" or "ignore"'
            )
        self.strategy.join(devices, num_nodes)
        # One GPU a worker. "auto" is the CPU: a GPU pays for large models only.
        self.root_device = f"cuda:{self.strategy.local_rank}" if accelerator in known[2:] else "cpu"
        self.checkpoint_io = next((p for p in _list(plugins) if isinstance(p, CheckpointIO)), CheckpointIO())
        self.slurm = next((p for p in _list(plugins) if isinstance(p, SLURMEnvironment)), SLURMEnvironment())
        self.check_finite = on_nan != "ignore" and self.precision.scaler is None
        self.on_nan = on_nan
        self.num_nodes, self.num_devices = num_nodes, self.strategy.world_size // num_nodes
        self.max_epochs, self.min_epochs = max_epochs, min_epochs
        self.max_steps, self.min_steps = max_steps, min_steps
        self.limit_train_batches, self.limit_val_batches = limit_train_batches, limit_val_batches
        self.limit_test_batches, self.limit_predict_batches = limit_test_batches, limit_predict_batches
        self.overfit_batches = overfit_batches
        self.val_check_interval, self.check_val_every_n_epoch = val_check_interval, check_val_every_n_epoch
        self.num_sanity_val_steps = 2 if num_sanity_val_steps is None else num_sanity_val_steps
        self.log_every_n_steps = 50 if log_every_n_steps is None else log_every_n_steps
        self.accumulate_grad_batches = accumulate_grad_batches
        self.gradient_clip_val, self.gradient_clip_algorithm = gradient_clip_val, gradient_clip_algorithm
        self.use_distributed_sampler, self.detect_anomaly = use_distributed_sampler, detect_anomaly
        self.default_root_dir = os.path.abspath(default_root_dir or os.getcwd())
        self.enable_progress_bar = enable_progress_bar is not False

        self.loggers: list[Logger] = self._loggers(logger)
        self.callbacks: list[Callback] = _list(callbacks)
        for callback in self.callbacks:
            if not isinstance(callback, Callback):
                raise TypeError(f"[Trainer] callbacks must be Callbacks, came {type(callback).__name__}")
        self._add_callback(RichProgressBar, self.enable_progress_bar)
        self._add_callback(ModelSummary, enable_model_summary is not False)
        if max_time is not None:
            self.callbacks.append(Timer(max_time))
        has_own = any(isinstance(c, ModelCheckpoint) for c in self.callbacks)
        if has_own and enable_checkpointing is False:
            raise ValueError(
                "[Trainer] enable_checkpointing=False, but callbacks have a ModelCheckpoint: leave one out"
            )
        self._add_callback(ModelCheckpoint, enable_checkpointing is not False)
        self._sort_callbacks()
        self._reset()

    def _reset(self) -> None:
        self.fit_loop = FitLoop(self)
        self.stage, self.place, self.evaluating = "", "", None
        self.should_stop = self.sanity_checking = False
        self.interrupted = False
        self.results: Results = self.fit_loop.results
        self.callback_values: dict[str, float] = {}
        self.progress_bar_values: dict[str, float] = {}
        self.logged_values: dict[str, float] = {}
        self.signals: Any = None
        self.optimizers: list[Any] = []
        self.lr_scheduler_configs: list[SchedulerConfig] = []
        self.given: dict[str, Any] = {}
        self.checkpoint: dict[str, Any] | None = None
        self.ckpt_path: Any = None
        self._module: Any = None
        self.datamodule: Any = None
        self.evaluation: EvaluationLoop | None = None  # of validate, test or predict

    # ---- what users call

    def fit(
        self,
        model: LightningModule,
        train_dataloaders: Any = None,
        val_dataloaders: Any = None,
        datamodule: LightningDataModule | None = None,
        ckpt_path: Any = None,
    ) -> None:
        """Trains. ckpt_path: go on from this checkpoint.

        "best": of the ModelCheckpoint callback; "last": the newest that it or a signal has left; "hpc": what a
        signal has left. With "last" and "hpc" a first run, which finds none, starts anew.
        """
        _check_model(model, "fit", ("training_step", "configure_optimizers"))
        train_dataloaders, datamodule = _data(train_dataloaders, val_dataloaders, datamodule, "fit")
        for callback in list(self.callbacks):  # those that look for something before, such as a learning rate
            if (before_fit := getattr(callback, "before_fit", None)) is not None:
                before_fit(self, model, train_dataloaders, datamodule)
        self.should_stop = False
        self.given = {"train": train_dataloaders, "val": val_dataloaders}
        self._run("fit", model, datamodule, ckpt_path, self._fit)

    def validate(
        self,
        model: LightningModule | None = None,
        dataloaders: Any = None,
        ckpt_path: Any = None,
        verbose: bool = True,
        datamodule: LightningDataModule | None = None,
    ) -> list[dict[str, float]]:
        """One round over the validation data: what was logged, a dict for each loader."""
        return self._evaluate("validation", "validate", model, dataloaders, ckpt_path, verbose, datamodule)

    def test(
        self,
        model: LightningModule | None = None,
        dataloaders: Any = None,
        ckpt_path: Any = None,
        verbose: bool = True,
        datamodule: LightningDataModule | None = None,
    ) -> list[dict[str, float]]:
        """One round over the test data: what was logged, a dict for each loader."""
        return self._evaluate("test", "test", model, dataloaders, ckpt_path, verbose, datamodule)

    def predict(
        self,
        model: LightningModule | None = None,
        dataloaders: Any = None,
        datamodule: LightningDataModule | None = None,
        return_predictions: bool | None = None,
        ckpt_path: Any = None,
    ) -> Any:
        """What predict_step returned, a list for each loader, or the list alone where there is one.

        Under several workers each gets the predictions of its own samples: number i of worker r is sample
        i * world_size + r.
        """
        outputs = self._evaluate("predict", "predict", model, dataloaders, ckpt_path, False, datamodule)
        return None if return_predictions is False else outputs

    def save_checkpoint(self, filepath: Any, weights_only: bool = False) -> None:
        """Writes a checkpoint; to be called on all workers."""
        if self._module is None:
            raise RuntimeError("[save_checkpoint] needs a model: call it during or after fit")
        checkpoints.write(self, filepath, weights_only)

    # ---- one run

    def _run(self, stage: str, model: Any, datamodule: Any, ckpt_path: Any, body: Any) -> Any:
        self.stage, self._module, self.datamodule = stage, model, datamodule
        model.trainer = self
        if datamodule is not None:
            datamodule.trainer = self
        self._add_configured_callbacks(model)
        hooks = self.hooks = Hooks(self, model)
        self._batch_hooks = self._batch_hook_calls()
        self._moves_batches = any(name == "transfer_batch_to_device" for name, _ in self._batch_hooks)
        self.as_loaded = self.precision.is_plain and self.root_device == "cpu" and not self._batch_hooks
        self.callback_values.clear()
        try:
            self._prepare_data()
            for part, args in ((datamodule, ()), *((c, (self, model)) for c in self.callbacks), (model, ())):
                if part is not None:
                    part.setup(*args, stage)
            model.configure_model()
            if self.sync_batchnorm and self.world_size > 1:
                from ..distributed.sync_batch_norm import SyncBatchNorm

                SyncBatchNorm.convert_sync_batchnorm(model)
            self.precision.convert_module(model)
            if self.root_device != "cpu":
                model.to(self.root_device)
            paths = self._checkpoint_paths(ckpt_path)
            self.ckpt_path, self.checkpoint = checkpoints.first_whole(self, paths)
            if self.checkpoint is not None:
                checkpoints.restore_module(self, self.checkpoint)
                if stage == "fit" and self.is_global_zero:
                    step = self.checkpoint["global_step"]
                    print(f"[Trainer] goes on from {self.ckpt_path}, step {step}", file=sys.stderr)
            with self._profiled(stage):
                out = body()
            for part, args in ((datamodule, ()), *((c, (self, model)) for c in self.callbacks), (model, ())):
                if part is not None:
                    part.teardown(*args, stage)
            return out
        except KeyboardInterrupt as error:
            self.interrupted = True
            hooks("on_exception", error)
            raise
        except BaseException as error:
            hooks("on_exception", error)
            raise
        finally:
            self.place, self.evaluating, self.checkpoint = "", None, None
            self.checkpoint_io.teardown()
            for logger in self.loggers:
                logger.finalize()

    def _fit(self) -> None:
        model, loop = self._module, self.fit_loop
        if (
            self.checkpoint is None
            and loop.epoch
            and self.max_epochs is not None
            and loop.epoch >= self.max_epochs
        ):
            warnings.warn(
                f"[fit] max_epochs={self.max_epochs} are over already: a new Trainer starts anew",
                stacklevel=4,
            )
        self.optimizers, self.lr_scheduler_configs = configured(model.configure_optimizers())
        schedulers = [config.scheduler for config in self.lr_scheduler_configs]
        self.optimizers = self.strategy.wrap_optimizers(model, self.optimizers, schedulers)
        self.wrapped_optimizers = [LightningOptimizer(o, self) for o in self.optimizers]
        self._check_optimization(model)
        loop.takes_idx = positional(model.training_step) > 1
        self._log_hyperparameters(model)
        self.hooks("on_fit_start")
        if self.checkpoint is not None:
            checkpoints.restore_training(self, self.checkpoint)
        try:
            with self._anomalies(), Signals(self, self.slurm) as self.signals:
                loop.run()
        finally:
            self.strategy.release()
        self.hooks("on_fit_end")
        if self.is_global_zero and os.path.exists(hpc_path(self)):
            # What was cut off is whole now: a later run starts anew.
            self.checkpoint_io.remove_checkpoint(hpc_path(self))

    def _check_optimization(self, model: Any) -> None:
        if not model.automatic_optimization:
            for name, given in (
                ("accumulate_grad_batches", self.accumulate_grad_batches > 1),
                ("gradient_clip_val", self.gradient_clip_val is not None),
                ('on_nan="skip"', self.on_nan == "skip"),
            ):
                if given:
                    raise ValueError(
                        f"[fit] {name} must be left out in manual optimization: do it in training_step"
                    )
        elif len(self.optimizers) > 1:
            raise RuntimeError(
                f"[fit] automatic optimization takes one optimizer, came {len(self.optimizers)}: set "
                "self.automatic_optimization = False, and use self.optimizers() and self.manual_backward(loss)"
            )
        elif not self.optimizers:
            warnings.warn("[fit] configure_optimizers returned None: nothing is updated", stacklevel=5)

    def _evaluate(
        self, stage: str, name: str, model: Any, loaders: Any, ckpt_path: Any, verbose: bool, datamodule: Any
    ) -> Any:
        if model is None:
            model = self._module
            if model is None:
                raise ValueError(f"[{name}] needs a model: pass it, or call fit before")
            if ckpt_path is None and any(
                isinstance(c, ModelCheckpoint) and c.best_model_path for c in self.callbacks
            ):
                ckpt_path = "best"
        _check_model(model, name, () if stage == "predict" else (f"{stage}_step",))
        loaders, datamodule = _data(loaders, None, datamodule, name)
        loop = self.evaluation = EvaluationLoop(self, stage)

        def body() -> Any:
            loop.prepare(loaders)
            if not loop.loaders:
                short = {"validation": "val"}.get(stage, stage)
                raise ValueError(
                    f"[{name}] needs data: pass dataloaders or a datamodule, or define {short}_dataloader()"
                )
            return loop.run()

        logged = self._run(name, model, datamodule, ckpt_path, body)
        if stage == "predict":
            return loop.outputs[0] if len(loop.outputs) == 1 else loop.outputs
        if verbose and self.is_global_zero:
            from .tables import results_table

            results_table(stage, logged)
        return logged

    def _prepare_data(self) -> None:
        if self.local_rank == 0:
            for part in (self.datamodule, self._module):
                if part is not None:
                    part.prepare_data()
        self.strategy.barrier()

    def _checkpoint_paths(self, ckpt_path: Any) -> list[Any]:
        """What a run goes on from, then what if that is damaged. A requeued Slurm job: where it was cut off."""
        cut_off = hpc_path(self)
        if ckpt_path is None and self.stage == "fit" and self.slurm.job_id is not None:
            ckpt_path = "hpc"
        wanted = ckpt_path == "hpc" or (ckpt_path == "last" and self.stage == "fit")
        paths = [cut_off] if wanted and self.strategy.broadcast_object(saved_at(cut_off) is not None) else []
        if ckpt_path not in ("best", "last", "hpc"):
            return paths if ckpt_path is None else [ckpt_path]
        found = next((c for c in self.callbacks if isinstance(c, ModelCheckpoint)), None)
        if found is not None and ckpt_path == "last":
            paths += found.found(self)
        if found is not None and ckpt_path == "best" and found.best_model_path:
            paths.append(found.best_model_path)
        # A job that is started again and again: the first time there is none.
        if not paths and (ckpt_path == "best" or self.stage != "fit"):
            raise ValueError(f"[{self.stage}] ckpt_path={ckpt_path!r}, but no ModelCheckpoint has saved one")
        return paths

    def _log_hyperparameters(self, model: Any) -> None:
        values = dict(model.hparams_initial) if model.__dict__.get("_hparams_logged", True) else {}
        if self.datamodule is not None and self.datamodule.__dict__.get("_hparams_logged", True):
            values = {**self.datamodule.hparams_initial, **values}
        if values and self.is_global_zero:
            for logger in self.loggers:
                logger.log_hyperparams(values)

    @contextlib.contextmanager
    def _profiled(self, stage: str) -> Iterator[None]:
        if self.profiler is None:
            yield
            return
        undo = self.profiler.watch(self._module, self.hooks)
        try:
            with self.profiler.running():
                yield
        finally:
            undo()
        if self.is_global_zero:
            self.profiler.tell(stage)

    def _anomalies(self) -> Any:
        from ..autograd import set_detect_anomaly

        return set_detect_anomaly(self.detect_anomaly)

    # ---- what the loops call

    def parameters_changed(self) -> None:
        """Call it after parameters were frozen or unfrozen in training, so that gradients are averaged."""
        self.strategy.parameters_changed(self._module)
        self.training_step = self.strategy.step_of(self._module)

    def limit(self, stage: str) -> int | float | None:
        """Of batches, by the arguments; None: no limit."""
        if self.fast_dev_run:
            return self.fast_dev_run
        if self.overfit_batches and stage in ("train", "val"):
            return self.overfit_batches
        return getattr(self, f"limit_{stage}_batches")

    def transfer(self, batch: Any, dataloader_idx: int) -> Any:
        """A batch as the loader gave it, through the hooks, to the device and its dtype."""
        batch = self.precision.convert_batch(batch)
        if self.root_device != "cpu" and not self._moves_batches:
            batch = map_tensors(batch, lambda tensor: tensor.to(self.root_device))
        for name, call in self._batch_hooks:
            args = (batch, self._module.device) if name == "transfer_batch_to_device" else (batch,)
            batch = call(*args, dataloader_idx)
        return batch

    def _batch_hook_calls(self) -> list[tuple[str, Any]]:
        found = []
        for name in ("on_before_batch_transfer", "transfer_batch_to_device", "on_after_batch_transfer"):
            for source in (self.datamodule, self._module):
                if source is not None and overridden(name, source, DataHooks):
                    found.append((name, getattr(source, name)))
                    break
        return found

    def step_schedulers(self, interval: str, plateau: bool) -> None:
        """Schedulers of "step" after an update; of "epoch" after its last batch, monitoring ones after validation."""
        for config in self.lr_scheduler_configs:
            if config.interval != interval or (
                interval == "epoch" and config.reduce_on_plateau is not plateau
            ):
                continue
            done = self.fit_loop.epoch + 1 if interval == "epoch" else self.fit_loop.batches_that_stepped
            if not self._module.automatic_optimization or done % config.frequency:
                continue
            metric = None
            if config.reduce_on_plateau:
                assert config.monitor is not None
                if config.monitor not in self.callback_values:
                    message = (
                        f"[fit] ReduceLROnPlateau monitors {config.monitor!r}, which was not logged, only "
                        f"{sorted(self.callback_values)}"
                    )
                    if config.strict:
                        raise ValueError(message)
                    warnings.warn(message, stacklevel=2)
                    continue
                metric = self.callback_values[config.monitor]
            self._module.lr_scheduler_step(config.scheduler, metric)

    def log_metrics(self, values: dict[str, float], step: int | None = None) -> None:
        """Hands values to the loggers, at the number of the last training step."""
        if not values:
            return
        self.logged_values.update(values)
        if not self.loggers or not self.is_global_zero:
            return
        if step is None:
            step = max(self.fit_loop.batches_that_stepped - (self.stage == "fit"), 0)
        for logger in self.loggers:
            logger.log_metrics({"epoch": self.current_epoch, **values}, step)

    # ---- building

    def _loggers(self, logger: Any) -> list[Logger]:
        if logger in (None, True):
            return [CSVLogger(self.default_root_dir)]
        found = [] if logger is False else _list(logger)
        for each in found:
            if not isinstance(each, Logger):
                raise TypeError(
                    f"[Trainer] logger must be True, False or Loggers, came {type(each).__name__}"
                )
        return found

    def _add_callback(self, kind: type[Callback], wanted: bool) -> None:
        if wanted and not any(isinstance(c, kind) for c in self.callbacks):
            self.callbacks.append(kind())

    def _add_configured_callbacks(self, model: Any) -> None:
        for callback in _list(model.configure_callbacks()):
            self.callbacks = [c for c in self.callbacks if type(c) is not type(callback)] + [callback]
        self._sort_callbacks()

    def _sort_callbacks(self) -> None:
        """Checkpoints come last, so that they hold what the others did."""
        self.callbacks.sort(key=lambda c: isinstance(c, ModelCheckpoint))

    # ---- what users read

    @property
    def lightning_module(self) -> Any:
        return self._module

    model = lightning_module

    @property
    def global_step(self) -> int:
        """Optimizer steps so far."""
        return self.fit_loop.global_step

    @property
    def current_epoch(self) -> int:
        return self.fit_loop.epoch

    @property
    def global_rank(self) -> int:
        return self.strategy.rank

    @property
    def local_rank(self) -> int:
        return self.strategy.local_rank

    @property
    def world_size(self) -> int:
        return self.strategy.world_size

    @property
    def is_global_zero(self) -> bool:
        return self.strategy.rank == 0

    @property
    def is_last_batch(self) -> bool:
        return self.fit_loop.is_last

    @property
    def num_training_batches(self) -> float:
        return float("inf") if self.fit_loop.total is None else self.fit_loop.total

    @property
    def num_val_batches(self) -> list[float]:
        """How many batches a round of validation takes of each loader; infinite where nobody knows."""
        return self._batches_of("validation")

    @property
    def num_test_batches(self) -> list[float]:
        return self._batches_of("test")

    @property
    def num_predict_batches(self) -> list[float]:
        return self._batches_of("predict")

    def _batches_of(self, stage: str) -> list[float]:
        loops = (loop for loop in (self.evaluation, self.fit_loop.validation) if loop and loop.stage == stage)
        totals = next((loop.totals for loop in loops if loop.totals), [])
        return [float("inf") if total is None else total for total in totals]

    @property
    def estimated_stepping_batches(self) -> float:
        """How many optimizer steps there will be, for schedulers; infinite where nobody knows."""
        from .loaders import count, loaders_of

        if self.fit_loop.total is None:
            found = loaders_of(self, "train", self.given["train"])
            self.fit_loop.total = (
                count(found[0], self.limit("train"), "limit_train_batches") if found else None
            )
        total, ends = self.fit_loop.total, float("inf") if self.max_steps == -1 else self.max_steps
        if total is None or self.max_epochs in (None, -1):
            return ends
        assert self.max_epochs is not None
        return min(-(-total // self.accumulate_grad_batches) * self.max_epochs, ends)

    @property
    def logger(self) -> Logger | None:
        return self.loggers[0] if self.loggers else None

    @property
    def log_dir(self) -> str:
        """Where this run's files are."""
        return (self.loggers[0].log_dir if self.loggers else None) or self.default_root_dir

    @property
    def checkpoint_callback(self) -> ModelCheckpoint | None:
        return next((c for c in self.callbacks if isinstance(c, ModelCheckpoint)), None)

    @property
    def early_stopping_callback(self) -> EarlyStopping | None:
        return next((c for c in self.callbacks if isinstance(c, EarlyStopping)), None)

    @property
    def callback_metrics(self) -> dict[str, Tensor]:
        """The latest value of everything logged, as 0-d tensors."""
        return _tensors(self.callback_values)

    @property
    def progress_bar_metrics(self) -> dict[str, float]:
        return dict(self.progress_bar_values)

    @property
    def logged_metrics(self) -> dict[str, Tensor]:
        return _tensors(self.logged_values)

    @property
    def training(self) -> bool:
        return self.stage == "fit" and self.evaluating is None

    @property
    def validating(self) -> bool:
        return self.stage == "validate"

    @property
    def testing(self) -> bool:
        return self.stage == "test"

    def print(self, *args: Any, **kwargs: Any) -> None:
        """Prints on rank 0 alone."""
        if self.is_global_zero:
            print(*args, **kwargs)


def _tensors(values: dict[str, float]) -> dict[str, Tensor]:
    from ..tensor.creation import tensor

    return {name: tensor(value, dtype=dtypes.float32) for name, value in values.items()}


def _list(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, Iterable) else [value]


def _check(name: str, value: Any, fits: bool, wanted: str) -> None:
    if not fits:
        raise ValueError(f"[Trainer] {name} must be {wanted}, came {value!r}")


def _check_gpu(accelerator: str) -> None:
    from ..cuda import is_available

    if not is_available():
        raise RuntimeError(
            f'[Trainer] accelerator={accelerator!r} needs an NVIDIA GPU and CuPy (pip install "ringgrad[cuda]"), and '
            'there is none here: accelerator="cpu" trains without'
        )


def _check_model(model: Any, name: str, needed: tuple[str, ...]) -> None:
    if not isinstance(model, LightningModule):
        raise TypeError(f"[{name}] model must be a LightningModule, came {type(model).__name__}")
    missing = [n for n in needed if not overridden(n, model, LightningModule)]
    if missing:
        raise ValueError(
            f"[{name}] {type(model).__name__} must define {' and '.join(missing)}(), which it does not"
        )


def _data(loaders: Any, val: Any, datamodule: Any, name: str) -> tuple[Any, Any]:
    if isinstance(loaders, LightningDataModule):
        loaders, datamodule = None, loaders
    if datamodule is not None and (loaders is not None or val is not None):
        raise ValueError(f"[{name}] takes dataloaders or a datamodule, came both")
    return loaders, datamodule
