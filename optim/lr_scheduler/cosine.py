"""Schedules along half a cosine."""

from __future__ import annotations

import math
from typing import Any

from ..optimizer import Optimizer
from .base import LRScheduler


class CosineAnnealingLR(LRScheduler):
    """From the initial lr to eta_min along half a cosine of T_max epochs, and back (Loshchilov & Hutter 2017)"""

    def __init__(self, optimizer: Optimizer, T_max: int, eta_min: float = 0.0, last_epoch: int = -1) -> None:
        self.T_max, self.eta_min = T_max, eta_min
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[Any]:
        self._warn_outside()
        if self._is_initial:
            return self._now()
        if self._step_count == 1 and self.last_epoch > 0:
            return self._get_closed_form_lr()
        groups = self.optimizer.param_groups
        if (self.last_epoch - 1 - self.T_max) % (
            2 * self.T_max
        ) == 0:  # at the bottom, where a ratio would be 0 / 0
            rise = (1 - math.cos(math.pi / self.T_max)) / 2
            return [
                g["lr"] + (base - self.eta_min) * rise for base, g in zip(self.base_lrs, groups, strict=True)
            ]
        now, before = (1 + math.cos(math.pi * n / self.T_max) for n in (self.last_epoch, self.last_epoch - 1))
        return [now / before * (g["lr"] - self.eta_min) + self.eta_min for g in groups]

    def _get_closed_form_lr(self) -> list[Any]:
        share = (1 + math.cos(math.pi * self.last_epoch / self.T_max)) / 2
        return [self.eta_min + (base - self.eta_min) * share for base in self.base_lrs]


class CosineWarmupLR(LRScheduler):
    """Straight up over warmup_steps, then along half a cosine to min_lr_ratio of the lr at total_steps, and on there.

    Step n < warmup_steps: lr (n + 1) / (warmup_steps + 1), so that the first step already learns.
    """

    def __init__(
        self,
        optimizer: Optimizer,
        warmup_steps: int,
        total_steps: int,
        min_lr_ratio: float = 0.0,
        last_epoch: int = -1,
    ) -> None:
        if not 0 <= warmup_steps <= total_steps or total_steps < 1:
            raise ValueError(
                "[CosineWarmupLR] must hold 0 <= warmup_steps <= total_steps and total_steps >= 1, came"
                f" {warmup_steps} and {total_steps}"
            )
        if not 0.0 <= min_lr_ratio <= 1.0:
            raise ValueError(f"[CosineWarmupLR] min_lr_ratio must be in [0, 1], came {min_lr_ratio}")
        self.warmup_steps, self.total_steps, self.min_lr_ratio = warmup_steps, total_steps, min_lr_ratio
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[Any]:
        self._warn_outside()
        if self.last_epoch < self.warmup_steps:
            return self._base_times((self.last_epoch + 1) / (self.warmup_steps + 1))
        done = (self.last_epoch - self.warmup_steps) / max(1, self.total_steps - self.warmup_steps)
        share = (1 + math.cos(math.pi * min(1.0, done))) / 2
        return self._base_times(self.min_lr_ratio + (1 - self.min_lr_ratio) * share)

    _get_closed_form_lr = get_lr


class CosineAnnealingWarmRestarts(LRScheduler):
    """Half cosines of T_0, T_0 T_mult, ... epochs, each from the initial lr (SGDR: Loshchilov & Hutter 2017)"""

    def __init__(
        self, optimizer: Optimizer, T_0: int, T_mult: int = 1, eta_min: float = 0.0, last_epoch: int = -1
    ) -> None:
        for name, value in (("T_0", T_0), ("T_mult", T_mult)):
            if not isinstance(value, int) or value < 1:
                raise ValueError(
                    f"[CosineAnnealingWarmRestarts] {name} must be a positive integer, came {value}"
                )
        if not isinstance(eta_min, int | float):
            raise ValueError(
                f"[CosineAnnealingWarmRestarts] eta_min must be a number, came {type(eta_min).__name__}"
            )
        self.T_0, self.T_i = T_0, T_0
        self.T_cur: float
        self.T_mult, self.eta_min, self.T_cur = T_mult, eta_min, last_epoch
        super().__init__(optimizer, last_epoch)

    def get_lr(self) -> list[Any]:
        self._warn_outside()
        share = (1 + math.cos(math.pi * self.T_cur / self.T_i)) / 2
        return [self.eta_min + (base - self.eta_min) * share for base in self.base_lrs]

    def step(self, epoch: float | None = None) -> None:
        """Sets the rates of the next epoch; or of `epoch`, which may be a fraction: epoch + batch / batches."""
        if epoch is None and self.last_epoch < 0:
            epoch = 0
        if epoch is None:
            epoch = self.last_epoch + 1
            self.T_cur += 1
            if self.T_cur >= self.T_i:
                self.T_cur %= self.T_i
                self.T_i *= self.T_mult
        else:
            self._place(epoch)
        self.last_epoch = math.floor(epoch)
        self._set_lrs(self.get_lr)

    def _place(self, epoch: float) -> None:
        if epoch < 0:
            raise ValueError(f"[CosineAnnealingWarmRestarts] epoch must not be negative, came {epoch}")
        self.T_i, self.T_cur = self.T_0, epoch
        if epoch >= self.T_0 and self.T_mult == 1:
            self.T_cur = epoch % self.T_0
        elif epoch >= self.T_0:
            n = int(math.log(epoch / self.T_0 * (self.T_mult - 1) + 1, self.T_mult))
            self.T_cur = epoch - self.T_0 * (self.T_mult**n - 1) / (self.T_mult - 1)
            self.T_i = self.T_0 * self.T_mult**n
