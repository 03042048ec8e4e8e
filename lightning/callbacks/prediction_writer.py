"""BasePredictionWriter: keeps predictions as they come, instead of in memory until the end."""

from __future__ import annotations

from typing import Any

from .callback import Callback

INTERVALS = ("batch", "epoch", "batch_and_epoch")


class BasePredictionWriter(Callback):
    """Subclass it and write predictions in `write_on_batch_end`, `write_on_epoch_end` or both, as write_interval says.

    Each worker writes those of its own samples; batch_indices says which these are, None where a loader's own sampler
    or an IterableDataset keeps that to itself. `trainer.predict(..., return_predictions=False)` returns none of them.
    """

    changes_weights = False

    def __init__(self, write_interval: str = "batch") -> None:
        if write_interval not in INTERVALS:
            raise ValueError(
                f"[BasePredictionWriter] write_interval must be one of {INTERVALS}, came {write_interval!r}"
            )
        self.write_interval = write_interval

    def write_on_batch_end(
        self,
        trainer: Any,
        pl_module: Any,
        prediction: Any,
        batch_indices: list[int] | None,
        batch: Any,
        batch_idx: int,
        dataloader_idx: int,
    ) -> None:
        """What predict_step returned for a batch."""
        raise NotImplementedError

    def write_on_epoch_end(
        self, trainer: Any, pl_module: Any, predictions: list[Any], batch_indices: list[Any]
    ) -> None:
        """All predictions, and all sample numbers: a list of batches, or one for each of several loaders."""
        raise NotImplementedError

    def on_predict_batch_end(
        self, trainer: Any, pl_module: Any, outputs: Any, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        if "batch" in self.write_interval:
            indices = trainer.evaluation.batch_indices[dataloader_idx][-1]
            self.write_on_batch_end(trainer, pl_module, outputs, indices, batch, batch_idx, dataloader_idx)

    def on_predict_epoch_end(self, trainer: Any, pl_module: Any) -> None:
        if "epoch" in self.write_interval:
            loop = trainer.evaluation
            several = len(loop.loaders) > 1
            predictions, indices = (
                every if several else every[0] for every in (loop.outputs, loop.batch_indices)
            )
            self.write_on_epoch_end(trainer, pl_module, predictions, indices)
