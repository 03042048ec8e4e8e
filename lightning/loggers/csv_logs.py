"""CSVLogger: metrics.csv, one row a step, and hparams.yaml."""

from __future__ import annotations

import csv
import json
import os
from argparse import Namespace
from typing import Any

from .logger import FolderLogger, as_dict


class CSVLogger(FolderLogger):
    """Writes metrics.csv and hparams.yaml into save_dir/name/version_<n>.

    flush_logs_every_n_steps: calls between writes; everything is written at the end too.
    """

    def __init__(
        self,
        save_dir: str | os.PathLike[str],
        name: str | None = "lightning_logs",
        version: int | str | None = None,
        prefix: str = "",
        flush_logs_every_n_steps: int = 100,
    ) -> None:
        super().__init__(save_dir, name, version)
        self.prefix, self.flush_logs_every_n_steps = prefix, flush_logs_every_n_steps
        self.rows: list[dict[str, float]] = []
        self.columns: list[str] = []
        self._written = 0  # rows that are in the file already

    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        values: dict[str, float] = {
            f"{self.prefix}-{k}" if self.prefix else k: v if type(v) is int else float(v)
            for k, v in metrics.items()
        }
        values["step"] = len(self.rows) if step is None else step
        if self.rows and len(self.rows) > self._written and self.rows[-1]["step"] == values["step"]:
            self.rows[-1].update(values)
        else:
            self.rows.append(values)
        if len(self.rows) - self._written >= self.flush_logs_every_n_steps:
            self.save()

    def log_hyperparams(self, params: dict[str, Any] | Namespace, *args: Any) -> None:
        os.makedirs(self.log_dir, exist_ok=True)
        with open(os.path.join(self.log_dir, "hparams.yaml"), "w") as file:
            # JSON is YAML: every YAML reader takes it.
            json.dump(as_dict(params), file, indent=2, default=str)

    def save(self) -> None:
        if len(self.rows) == self._written:
            return
        os.makedirs(self.log_dir, exist_ok=True)
        path = os.path.join(self.log_dir, "metrics.csv")
        if not self._written:
            self._take_over(path)
        fresh = self.rows[self._written :]
        columns = sorted({name for row in fresh for name in row} - set(self.columns))
        if columns or not self._written:  # new columns: the file is written anew
            self.columns += columns
            fresh, mode = self.rows, "w"
        else:
            mode = "a"
        with open(path, mode, newline="") as file:
            writer = csv.DictWriter(file, self.columns)
            if mode == "w":
                writer.writeheader()
            writer.writerows(fresh)
        self._written = len(self.rows)

    def _take_over(self, path: str) -> None:
        """Rows that an earlier run left in the file, up to the step that this one goes on from, come first."""
        if not os.path.exists(path):
            return
        with open(path, newline="") as file:
            earlier: list[dict[str, Any]] = [
                {k: v for k, v in row.items() if v} for row in csv.DictReader(file)
            ]
        first = self.rows[0]["step"]
        self.rows[:0] = [row for row in earlier if float(row["step"]) < first]
        self.columns = list(dict.fromkeys([*self.columns, *(name for row in self.rows for name in row)]))
        self._written = 0
