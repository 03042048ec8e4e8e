"""TensorBoardLogger: event files that TensorBoard shows."""

from __future__ import annotations

import os
from argparse import Namespace
from typing import Any

from ...launch.environment import detect
from .logger import FolderLogger, Nothing, as_dict


class TensorBoardLogger(FolderLogger):
    """Writes events into save_dir/name/version_<n>. `experiment` is the SummaryWriter, for images and the like."""

    def __init__(
        self,
        save_dir: str | os.PathLike[str],
        name: str | None = "lightning_logs",
        version: int | str | None = None,
        log_graph: bool = False,
        default_hp_metric: bool = True,
        prefix: str = "",
        sub_dir: str | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(save_dir, name, version)
        self.prefix, self.sub_dir, self._options = prefix, sub_dir, kwargs
        self._experiment: Any = None

    @property
    def log_dir(self) -> str:
        return os.path.join(super().log_dir, self.sub_dir or "").rstrip(os.sep)

    @property
    def experiment(self) -> Any:
        """The SummaryWriter; elsewhere than on rank 0 an object whose methods do nothing."""
        if detect().rank:
            return Nothing()
        if self._experiment is None:
            from ...utils.tensorboard import SummaryWriter

            self._experiment = SummaryWriter(self.log_dir, **self._options)
        return self._experiment

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        for name, value in metrics.items():
            self.experiment.add_scalar(f"{self.prefix}-{name}" if self.prefix else name, float(value), step)

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any) -> None:
        values = as_dict(params)
        plain = {k: v if isinstance(v, bool | int | float | str) else str(v) for k, v in values.items()}
        self.experiment.add_text("hparams", "\n".join(f"    {k}: {v}" for k, v in plain.items()))

    def save(self) -> None:
        if self._experiment is not None:
            self._experiment.flush()
