"""Validation and test: every batch once, without gradients. Prediction: the same, and outputs are kept."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from typing import Any

from ..autograd import no_grad
from ..data import SequentialSampler
from .loaders import count, iterate, loaders_of
from .results import LOADER, Results
from .strategies.strategy import EvaluationSampler

LOADERS = {"validation": "val", "test": "test", "predict": "predict"}


class EvaluationLoop:
    """One round over the loaders of a stage: "validation", "test" or "predict"."""

    def __init__(self, trainer: Any, stage: str) -> None:
        self.trainer, self.stage = trainer, stage
        self.loaders: list[Any] = []
        self.totals: list[int | None] = []
        self.seen: list[int] = []  # batches of each loader in all rounds, which step values are logged by
        self.outputs: list[list[Any]] = []  # of predict
        self.batch_indices: list[list[Any]] = []  # of predict: which samples, None where nobody knows

    def prepare(self, given: Any) -> None:
        """Gets the loaders and how many batches to take of each."""
        t, short = self.trainer, LOADERS[self.stage]
        module, step = t.lightning_module, f"{self.stage}_step"
        defined = self.stage == "predict" or getattr(type(module), step) is not getattr(_base(), step)
        if self.stage == "validation" and t.stage == "fit" and not defined:
            return  # training alone
        self.loaders = loaders_of(t, short, given)
        limit = t.limit(short)
        self.totals = [count(loader, limit, f"limit_{short}_batches") for loader in self.loaders]
        self.step = getattr(module, step)
        self.takes = positional(self.step)

    @property
    def has_batches(self) -> bool:
        # 0 on a worker whose part is empty is no reason to stay away: the others wait for it in collectives.
        return bool(self.loaders) and self.trainer.limit(LOADERS[self.stage]) != 0

    def run(self, limit: int | None = None) -> list[dict[str, float]]:
        """A round; returns what was logged, a dict for each loader. limit: of batches, for the sanity check."""
        t, hooks, stage = self.trainer, self.trainer.hooks, self.stage
        results = t.results = Results(t)
        was_training = t.lightning_module.training
        before, t.place = t.place, f"on_{stage}_start"
        t.evaluating = stage
        self.outputs = [[] for _ in self.loaders]
        self.batch_indices = [[] for _ in self.loaders]
        self.seen += [0] * (len(self.loaders) - len(self.seen))
        hooks(f"on_{stage}_model_eval")
        with no_grad():
            hooks(f"on_{stage}_start")
            hooks(f"on_{stage}_epoch_start")
            for i, (loader, total) in enumerate(zip(self.loaders, self.totals)):
                if limit is not None and limit != -1:
                    total = limit if total is None else min(limit, total)
                results.dataloader_idx = i if len(self.loaders) > 1 else None
                samples = sample_numbers(loader) if stage == "predict" else iter(())
                for batch_idx, batch, last in iterate(loader, total):
                    if stage == "predict":
                        self.batch_indices[i].append(next(samples, None))
                    self.run_batch(batch, batch_idx, i)
                    if last or (total is not None and batch_idx + 1 >= total):
                        break
            logged = results.publish_epoch() if stage != "predict" else {}
            hooks(f"on_{stage}_epoch_end")
            logged.update(results.publish_epoch() if stage != "predict" else {})
            if not t.sanity_checking:
                t.log_metrics(logged)
            hooks(f"on_{stage}_end")
        if was_training:
            hooks(f"on_{stage}_model_train")
        t.place, t.evaluating = before, None
        return self._by_loader(logged)

    def run_batch(self, batch: Any, batch_idx: int, dataloader_idx: int) -> None:
        t, stage = self.trainer, self.stage
        batch = t.results.batch = t.transfer(batch, dataloader_idx)
        extra = (dataloader_idx,) if len(self.loaders) > 1 else ()
        t.hooks(f"on_{stage}_batch_start", batch, batch_idx, *extra)
        before, t.place = t.place, f"{stage}_step"
        with t.precision.forward_context():
            outputs = self.step(*(batch, batch_idx, *extra)[: self.takes])
        t.place = before
        if stage == "predict":
            self.outputs[dataloader_idx].append(outputs)
        t.hooks(f"on_{stage}_batch_end", outputs, batch, batch_idx, *extra)
        values = t.results.publish_step(due=False)
        if values and not t.sanity_checking:
            t.log_metrics(values, self.seen[dataloader_idx])
        self.seen[dataloader_idx] += not t.sanity_checking

    def _by_loader(self, logged: dict[str, float]) -> list[dict[str, float]]:
        if len(self.loaders) < 2:
            return [logged]
        ends = [f"{LOADER}{i}" for i in range(len(self.loaders))]
        common = {k: v for k, v in logged.items() if LOADER not in k}
        return [{**common, **{k: v for k, v in logged.items() if k.endswith(end)}} for end in ends]


def sample_numbers(loader: Any) -> Iterator[list[int]]:
    """Which samples of the dataset each batch holds, where that follows from the loader without drawing."""
    if type(getattr(loader, "sampler", None)) in (SequentialSampler, EvaluationSampler):
        return iter(loader.batch_sampler or [])
    return iter(())


def positional(step: Any) -> int:
    """How many arguments a step takes: (batch), (batch, batch_idx) or (batch, batch_idx, dataloader_idx)."""
    parameters = inspect.signature(step).parameters.values()
    if any(p.kind is p.VAR_POSITIONAL for p in parameters):
        return 3
    taken = sum(p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD) for p in parameters)
    if not taken:
        raise TypeError(f"[{step.__name__}] must take (batch, batch_idx), came a method without arguments")
    return taken


def _base() -> type:
    from .module import LightningModule

    return LightningModule
