"""LambdaCallback: hooks from functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from .callback import Callback


class LambdaCallback(Callback):
    """`LambdaCallback(on_train_epoch_end=lambda trainer, module: ...)`: each hook of Callback by its name."""

    def __init__(self, **hooks: Callable[..., Any]) -> None:
        known = {name for name in vars(Callback) if name.startswith("on_") or name in ("setup", "teardown")}
        if unknown := sorted(set(hooks) - known):
            raise TypeError(f"[LambdaCallback] takes {', '.join(sorted(known))}; came {', '.join(unknown)}")
        for name, function in hooks.items():
            setattr(self, name, function)
