"""OnExceptionCheckpoint: what was trained until an error is not lost."""

from __future__ import annotations

import os
from typing import Any

from .callback import Callback


class OnExceptionCheckpoint(Callback):
    """Saves <dirpath>/<filename>.ckpt when training is ended by an exception or Ctrl-C.

    On several workers it saves only where all were interrupted (Ctrl-C): after one worker's error the others cannot be
    asked for their part.
    """

    def __init__(self, dirpath: str | os.PathLike[str], filename: str = "on_exception") -> None:
        if not filename:
            raise ValueError("[OnExceptionCheckpoint] filename must not be empty")
        self.dirpath, self.filename = os.path.abspath(dirpath), filename

    @property
    def ckpt_path(self) -> str:
        return os.path.join(self.dirpath, f"{self.filename}.ckpt")

    def on_exception(self, trainer: Any, pl_module: Any, exception: BaseException) -> None:
        everybody = trainer.world_size == 1 or isinstance(exception, KeyboardInterrupt)
        if trainer.stage == "fit" and everybody and not isinstance(exception, SystemExit):
            trainer.save_checkpoint(self.ckpt_path)
