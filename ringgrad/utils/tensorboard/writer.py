"""SummaryWriter: scalars, histograms, texts, images and figures for TensorBoard."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Mapping
from typing import Any


class FileWriter:
    """One file of events in a folder."""

    def __init__(
        self, log_dir: str, max_queue: int = 10, flush_secs: float = 120, filename_suffix: str = ""
    ) -> None:
        from . import summary  # noqa: F401  (its error names what to install)

        # isort: split
        from tensorboard.compat.proto.event_pb2 import Event
        from tensorboard.summary.writer.event_file_writer import EventFileWriter

        self._event = Event
        self._writer = EventFileWriter(log_dir, max_queue, flush_secs, filename_suffix)

    def get_logdir(self) -> str:
        """The folder."""
        return str(self._writer.get_logdir())

    def add_summary(self, summary: Any, global_step: Any = None, walltime: float | None = None) -> None:
        """Appends a summary message."""
        event = self._event(summary=summary, wall_time=time.time() if walltime is None else walltime)
        if global_step is not None:
            event.step = int(global_step)
        self._writer.add_event(event)

    def flush(self) -> None:
        """Writes what is waiting."""
        self._writer.flush()

    def close(self) -> None:
        """Writes what is waiting and closes the file."""
        self._writer.close()


class SummaryWriter:
    """Writes event files that TensorBoard shows: `with SummaryWriter("runs/one") as w: w.add_scalar("loss", x, step)`.

    log_dir: runs/<time>_<host><comment> by default.
    """

    def __init__(
        self,
        log_dir: Any = None,
        comment: str = "",
        purge_step: int | None = None,
        max_queue: int = 10,
        flush_secs: float = 120,
        filename_suffix: str = "",
    ) -> None:
        if not log_dir:
            import socket

            name = f"{time.strftime('%b%d_%H-%M-%S')}_{socket.gethostname()}{comment}"
            log_dir = os.path.join("runs", name)
        self.log_dir = os.fspath(log_dir)
        self._options = max_queue, flush_secs, filename_suffix
        self.file_writer: FileWriter | None = None
        self.all_writers: dict[str, FileWriter] = {}
        if purge_step is not None:
            warnings.warn("[SummaryWriter] purge_step is ignored: older events stay", stacklevel=2)
        self._get_file_writer()

    def _writer_for(self, folder: str) -> FileWriter:
        if folder not in self.all_writers:
            self.all_writers[folder] = FileWriter(folder, *self._options)
        return self.all_writers[folder]

    def _get_file_writer(self) -> FileWriter:
        self.file_writer = self._writer_for(self.log_dir)
        return self.file_writer

    def _add(self, message: Any, step: Any, walltime: float | None) -> None:
        self._get_file_writer().add_summary(message, step, walltime)

    def get_logdir(self) -> str:
        """The folder."""
        return self.log_dir

    def add_scalar(
        self,
        tag: str,
        scalar_value: Any,
        global_step: Any = None,
        walltime: float | None = None,
        new_style: bool = False,
        double_precision: bool = False,
    ) -> None:
        """One number: a float, or a tensor or array of one element."""
        from . import summary

        make = summary.scalar_tensor if new_style else summary.scalar
        self._add(make(tag, summary.number_of("add_scalar", tag, scalar_value)), global_step, walltime)

    def add_scalars(
        self,
        main_tag: str,
        tag_scalar_dict: Mapping[str, Any],
        global_step: Any = None,
        walltime: float | None = None,
    ) -> None:
        """Several numbers for one chart: each gets a folder of events of its own."""
        from . import summary

        for tag, value in tag_scalar_dict.items():
            folder = os.path.join(self.log_dir, main_tag.replace("/", "_") + "_" + tag)
            message = summary.scalar(main_tag, summary.number_of("add_scalars", tag, value))
            self._writer_for(folder).add_summary(message, global_step, walltime)

    def add_histogram(
        self,
        tag: str,
        values: Any,
        global_step: Any = None,
        bins: Any = "tensorflow",
        walltime: float | None = None,
        max_bins: int | None = None,
    ) -> None:
        """How values are distributed: any shape."""
        from . import summary

        self._add(summary.histogram(tag, values, bins, max_bins), global_step, walltime)

    def add_text(
        self, tag: str, text_string: str, global_step: Any = None, walltime: float | None = None
    ) -> None:
        """A text, which may be Markdown."""
        from . import summary

        self._add(summary.text(tag, text_string), global_step, walltime)

    def add_image(
        self,
        tag: str,
        img_tensor: Any,
        global_step: Any = None,
        walltime: float | None = None,
        dataformats: str = "CHW",
    ) -> None:
        """An image: uint8, or floats in [0, 1]; 1, 3 or 4 channels."""
        from . import summary

        self._add(summary.image(tag, img_tensor, dataformats), global_step, walltime)

    def add_images(
        self,
        tag: str,
        img_tensor: Any,
        global_step: Any = None,
        walltime: float | None = None,
        dataformats: str = "NCHW",
    ) -> None:
        """Several images in one grid."""
        self.add_image(tag, img_tensor, global_step, walltime, dataformats)

    def add_figure(
        self,
        tag: str,
        figure: Any,
        global_step: Any = None,
        close: bool = True,
        walltime: float | None = None,
    ) -> None:
        """A matplotlib figure, or a list of them; `close` frees it."""
        from . import summary

        several = isinstance(figure, list | tuple)
        for i, drawn in enumerate(figure if several else [figure]):
            name = f"{tag}/{i}" if several else tag
            self._add(summary.figure(name, drawn, close), global_step, walltime)

    def add_hparams(
        self,
        hparam_dict: Mapping[str, Any],
        metric_dict: Mapping[str, Any],
        hparam_domain_discrete: Any = None,
        run_name: str | None = None,
        global_step: Any = None,
    ) -> None:
        """Hyperparameters of this run and the metrics that it reached, in a run of its own below the folder."""
        from . import summary

        writer = self._writer_for(os.path.join(self.log_dir, run_name or str(time.time())))
        for message in summary.hparams(dict(hparam_dict), dict(metric_dict)):
            writer.add_summary(message, global_step)
        for tag, value in metric_dict.items():
            writer.add_summary(summary.scalar(tag, summary.number_of("add_hparams", tag, value)), global_step)

    def add_graph(
        self, model: Any, input_to_model: Any = None, verbose: bool = False, use_strict_trace: bool = True
    ) -> None:
        """Accepted; graphs are not written."""
        warnings.warn("[add_graph] is ignored: graphs of models are not written", stacklevel=2)

    def flush(self) -> None:
        """Writes what is waiting to the files."""
        for writer in self.all_writers.values():
            writer.flush()

    def close(self) -> None:
        """Writes what is waiting and closes the files."""
        for writer in self.all_writers.values():
            writer.close()
        self.all_writers = {}
        self.file_writer = None

    def __enter__(self) -> SummaryWriter:
        return self

    def __exit__(self, *_: Any) -> None:
        self.close()
