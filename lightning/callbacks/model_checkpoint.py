"""ModelCheckpoint: saves while training, and keeps the best and the last."""

from __future__ import annotations

import math
import os
import re
import time
from datetime import timedelta
from typing import Any

from ...tensor.creation import tensor
from ..checkpoint_io import saved_at
from .callback import Callback


class ModelCheckpoint(Callback):
    """Saves after epochs, steps or times; keeps the `save_top_k` best by `monitor` (-1: all, 0: none).

    dirpath: default <log_dir>/checkpoints. filename: such as "{epoch:02d}-{val_loss:.2f}", default
    "{epoch}-{step}". save_last: also last.ckpt, the newest. Without monitor the newest one is kept.
    every_n_train_steps, train_time_interval, every_n_epochs: when, one of them (default: every epoch).
    save_on_train_epoch_end: at the end of the training epoch rather than of validation.
    """

    changes_weights = False
    monitors = True
    CHECKPOINT_NAME_LAST = "last"
    FILE_EXTENSION = ".ckpt"

    def __init__(
        self,
        dirpath: str | os.PathLike[str] | None = None,
        filename: str | None = None,
        monitor: str | None = None,
        verbose: bool = False,
        save_last: bool | None = None,
        save_top_k: int = 1,
        save_weights_only: bool = False,
        mode: str = "min",
        auto_insert_metric_name: bool = True,
        every_n_train_steps: int | None = None,
        train_time_interval: timedelta | None = None,
        every_n_epochs: int | None = None,
        save_on_train_epoch_end: bool | None = None,
        enable_version_counter: bool = True,
    ) -> None:
        who = "[ModelCheckpoint]"
        if mode not in ("min", "max"):
            raise ValueError(f"{who} mode must be 'min' or 'max', came {mode!r}")
        if save_top_k < -1 or (monitor is None and save_top_k not in (-1, 0, 1)):
            raise ValueError(
                f"{who} save_top_k={save_top_k} needs a monitor; without one it may be -1, 0 or 1"
            )
        if sum(x is not None for x in (every_n_train_steps, train_time_interval, every_n_epochs)) > 1:
            raise ValueError(
                f"{who} takes one of every_n_train_steps, train_time_interval and every_n_epochs"
            )
        self.dirpath = None if dirpath is None else os.path.abspath(dirpath)
        self.filename, self.monitor, self.verbose, self.save_last = filename, monitor, verbose, save_last
        self.save_top_k, self.save_weights_only, self.mode = save_top_k, save_weights_only, mode
        self.auto_insert_metric_name, self.enable_version_counter = (
            auto_insert_metric_name,
            enable_version_counter,
        )
        self.every_n_train_steps, self.train_time_interval = every_n_train_steps or 0, train_time_interval
        by_epoch = every_n_train_steps is None and train_time_interval is None
        self.every_n_epochs = 1 if every_n_epochs is None and by_epoch else every_n_epochs or 0
        self.save_on_train_epoch_end = save_on_train_epoch_end
        self.best_k_models: dict[str, float] = {}
        self.best_model_path = self.last_model_path = self.kth_best_model_path = ""
        self._best: float | None = None
        self._current: float | None = None
        self._saved_at: tuple[int, int] | None = None
        self._clock = time.monotonic()

    # ---- state

    @property
    def best_model_score(self) -> Any:
        """The best model's value, as a 0-d tensor; None before there is one."""
        return None if self._best is None else tensor(self._best)

    @property
    def current_score(self) -> Any:
        return None if self._current is None else tensor(self._current)

    @property
    def state_key(self) -> str:
        every = self.every_n_train_steps, self.every_n_epochs
        return f"ModelCheckpoint{{'monitor': {self.monitor!r}, 'mode': {self.mode!r}, 'every': {every}}}"

    def state_dict(self) -> dict[str, Any]:
        return {
            "dirpath": self.dirpath,
            "best_model_path": self.best_model_path,
            "best_model_score": self._best,
            "best_k_models": dict(self.best_k_models),
            "last_model_path": self.last_model_path,
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        if self.dirpath is not None and state_dict["dirpath"] != self.dirpath:
            return  # files of another folder are not ours to replace
        self.best_model_path, self._best = state_dict["best_model_path"], state_dict["best_model_score"]
        self.best_k_models = dict(state_dict["best_k_models"])
        self.last_model_path = state_dict["last_model_path"]
        self._find_kth()

    def found(self, trainer: Any) -> list[str]:
        """What this process, or one before, has saved in the folder: the newest first."""
        folder = self.dirpath or os.path.join(trainer.log_dir, "checkpoints")
        found = [os.path.join(folder, f) for f in os.listdir(folder)] if os.path.isdir(folder) else []
        times = {f: saved_at(f) or 0.0 for f in found if f.endswith(self.FILE_EXTENSION)}
        newest = sorted((f for f in times if times[f]), key=times.__getitem__, reverse=True)
        return trainer.strategy.broadcast_object(newest)

    # ---- when

    def setup(self, trainer: Any, pl_module: Any, stage: str) -> None:
        if stage == "fit" and self.dirpath is None:
            self.dirpath = trainer.strategy.broadcast_object(os.path.join(trainer.log_dir, "checkpoints"))

    def on_train_start(self, trainer: Any, pl_module: Any) -> None:
        self._clock = time.monotonic()

    def on_train_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int
    ) -> None:
        due = self.every_n_train_steps and trainer.global_step % self.every_n_train_steps == 0
        if self.train_time_interval is not None:
            over = time.monotonic() - self._clock >= self.train_time_interval.total_seconds()
            due = trainer.strategy.broadcast_object(over)
        if due and self._moved(trainer):
            self._clock = time.monotonic()
            self._save(trainer)

    def on_train_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        if self._at_epoch_end(trainer) and self._epoch_is_due(trainer):
            self._save(trainer)

    def on_validation_end(self, trainer: Any, pl_module: Any) -> None:
        if trainer.stage != "fit" or trainer.sanity_checking or self._at_epoch_end(trainer):
            return
        if self._epoch_is_due(trainer):
            self._save(trainer)

    def _at_epoch_end(self, trainer: Any) -> bool:
        if self.save_on_train_epoch_end is not None:
            return self.save_on_train_epoch_end
        if trainer.check_val_every_n_epoch != 1 or not trainer.fit_loop.validation.has_batches:
            return not (self.monitor and trainer.fit_loop.validation.has_batches)
        return trainer.val_check_interval == 1.0

    def _epoch_is_due(self, trainer: Any) -> bool:
        if not self.every_n_epochs or (trainer.current_epoch + 1) % self.every_n_epochs:
            return False
        return self._moved(trainer)

    def _moved(self, trainer: Any) -> bool:
        return self._saved_at != (trainer.global_step, trainer.current_epoch) and not trainer.fast_dev_run

    # ---- saving

    def _save(self, trainer: Any) -> None:
        values = {**trainer.callback_values, "epoch": trainer.current_epoch, "step": trainer.global_step}
        self._saved_at = trainer.global_step, trainer.current_epoch
        if self.save_top_k:
            self._save_best(trainer, values)
        if self.save_last:
            path = self._free(
                trainer, self.CHECKPOINT_NAME_LAST + self.FILE_EXTENSION, {self.last_model_path}
            )
            self.last_model_path = path
            trainer.save_checkpoint(path, self.save_weights_only)

    def _save_best(self, trainer: Any, values: dict[str, float]) -> None:
        score = self._score(trainer, values)
        if self.monitor is not None and not self._is_among_best(score):
            return
        path = self._path(trainer, values)
        drop = None
        if self.monitor is None:
            if self.save_top_k == 1 and self.best_model_path not in ("", path):
                drop = self.best_model_path
            self.best_model_path = path
        else:
            if len(self.best_k_models) == self.save_top_k:
                drop = self.kth_best_model_path
                del self.best_k_models[drop]
            self.best_k_models[path] = score
            order = min if self.mode == "min" else max
            self.best_model_path = order(self.best_k_models, key=self.best_k_models.__getitem__)
            self._best = self.best_k_models[self.best_model_path]
            self._find_kth()
        self._current = score if self.monitor is not None else None
        trainer.save_checkpoint(path, self.save_weights_only)
        if self.verbose:
            trainer.print(f"[ModelCheckpoint] saved {path}")
        # The old one goes once the new one is there.
        if drop and drop != path and trainer.is_global_zero:
            trainer.checkpoint_io.remove_checkpoint(drop)

    def _score(self, trainer: Any, values: dict[str, float]) -> float:
        if self.monitor is None:
            return 0.0
        if self.monitor not in values:
            raise ValueError(
                f"[ModelCheckpoint] monitors {self.monitor!r}, which was not logged, only "
                f"{sorted(trainer.callback_values)}"
            )
        score = trainer.strategy.broadcast_object(values[self.monitor])
        return (math.inf if self.mode == "min" else -math.inf) if math.isnan(score) else score

    def _is_among_best(self, score: float) -> bool:
        if self.save_top_k == -1 or len(self.best_k_models) < self.save_top_k:
            return True
        worst = self.best_k_models[self.kth_best_model_path]
        return score < worst if self.mode == "min" else score > worst

    def _find_kth(self) -> None:
        order = max if self.mode == "min" else min
        if self.best_k_models:
            self.kth_best_model_path = order(self.best_k_models, key=self.best_k_models.__getitem__)

    def _path(self, trainer: Any, values: dict[str, float]) -> str:
        own = {*self.best_k_models, self.best_model_path}
        return self._free(trainer, self.format_checkpoint_name(values), own)

    def _free(self, trainer: Any, name: str, own: set[str]) -> str:
        """A path in the folder for a file of this name; files that are not this callback's own are not replaced."""
        base = os.path.join(str(self.dirpath), name)
        stem, path, version = base.removesuffix(self.FILE_EXTENSION), base, 1
        while self.enable_version_counter and os.path.exists(path) and path not in own:
            path, version = f"{stem}-v{version}{self.FILE_EXTENSION}", version + 1
        return trainer.strategy.broadcast_object(path)

    def format_checkpoint_name(self, metrics: dict[str, Any], filename: str | None = None) -> str:
        """The file's name with the values in it: "{epoch}-{loss:.2f}" gives epoch=3-loss=0.12.ckpt."""

        def put(match: re.Match[str]) -> str:
            name, form = match[1], match[2] or ""
            text = format(metrics.get(name, 0), form.lstrip(":") or "")
            return f"{name}={text}" if self.auto_insert_metric_name else text

        template = filename or self.filename or "{epoch}-{step}"
        return re.sub(r"\{([^{}:]+)(:[^{}]*)?\}", put, template) + self.FILE_EXTENSION
