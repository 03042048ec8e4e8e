"""Logger: the interface, and folders of the form save_dir/name/version."""

from __future__ import annotations

import os
from argparse import Namespace
from typing import Any


class Logger:
    """Subclass it and define `log_metrics` and `log_hyperparams`; they are called on rank 0 alone."""

    name: str | None = None
    version: int | str | None = None
    save_dir: str | None = None

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Keeps values of one step."""
        raise NotImplementedError(f"[{type(self).__name__}] a logger must define log_metrics(metrics, step)")

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any) -> None:
        """Keeps hyperparameters."""

    def save(self) -> None:
        """Writes what has been kept."""

    def finalize(self, status: str = "success") -> None:
        """At the end of a run."""
        self.save()

    @property
    def experiment(self) -> Any:
        """What the logger writes with, to be used directly on rank 0: a SummaryWriter, say; else the logger itself."""
        return self

    @property
    def log_dir(self) -> str | None:
        """Where this run's files are; None: nowhere."""
        return None


class FolderLogger(Logger):
    """A logger that writes into save_dir/name/version_<number>: the first one that is free, or the Slurm job's."""

    def __init__(self, save_dir: str | os.PathLike[str], name: str | None, version: int | str | None) -> None:
        self.save_dir = os.path.abspath(save_dir)
        self.name = name or ""
        self._version = version

    @property
    def version(self) -> int | str:  # type: ignore[override]
        if self._version is None and os.environ.get("SLURM_STEP_ID") and os.environ.get("SLURM_JOB_ID"):
            self._version = int(os.environ["SLURM_JOB_ID"])  # a job that is requeued goes on in its folder
        if self._version is None:
            root = os.path.join(str(self.save_dir), str(self.name))
            names = os.listdir(root) if os.path.isdir(root) else []
            taken = [int(n[8:]) for n in names if n.startswith("version_") and n[8:].isdigit()]
            self._version = max(taken, default=-1) + 1
        return self._version

    @property
    def log_dir(self) -> str:
        version = self.version if isinstance(self.version, str) else f"version_{self.version}"
        return os.path.join(str(self.save_dir), str(self.name), version)


class Nothing:
    """Takes every call, and does nothing."""

    def __getattr__(self, name: str) -> Any:
        return lambda *args, **kwargs: None


def as_dict(params: dict[str, Any] | Namespace) -> dict[str, Any]:
    """Hyperparameters as a dict."""
    return vars(params) if isinstance(params, Namespace) else dict(params)
