"""What a profiler of the Trainer is."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

PARTS = ("training_step", "backward", "optimizer_step", "validation_step", "test_step", "predict_step")


class Profiler:
    """Subclass it: `running()` is a context around the whole run, `profile(name)` one around each part of it.

    dirpath, filename: the report goes to <dirpath>/<stage>-<filename>.txt instead of the terminal.
    """

    def __init__(self, dirpath: str | os.PathLike[str] | None = None, filename: str | None = None) -> None:
        self.dirpath, self.filename = dirpath, filename

    @contextmanager
    def running(self) -> Iterator[None]:
        yield

    @contextmanager
    def profile(self, action_name: str) -> Iterator[None]:
        yield

    def summary(self) -> str:
        """What has been found, as text."""
        return ""

    def watch(self, module: Any, hooks: Any) -> Callable[[], None]:
        """Puts `profile` around the module's steps and all hooks; returns the function that takes it off again."""
        before = dict(hooks.listeners)
        for name, calls in before.items():
            hooks.listeners[name] = [self._timed(name, call) for call in calls]
        own = {name: module.__dict__.get(name) for name in PARTS}  # a module may have made them of others
        for name in PARTS:
            object.__setattr__(module, name, self._timed(name, getattr(module, name)))

        def undo() -> None:
            hooks.listeners.update(before)
            for name, step in own.items():
                del module.__dict__[name]
                if step is not None:
                    object.__setattr__(module, name, step)

        return undo

    def _timed(self, name: str, call: Callable[..., Any]) -> Callable[..., Any]:
        def timed(*args: Any, **kwargs: Any) -> Any:
            with self.profile(name):
                return call(*args, **kwargs)

        # What a step takes is read off its signature.
        timed.__wrapped__ = call  # type: ignore[attr-defined]
        return timed

    def tell(self, stage: str) -> None:
        """Prints or writes the summary."""
        if self.filename is None:
            print(self.summary(), file=sys.stdout)
            return
        path = os.path.join(self.dirpath or ".", f"{stage}-{self.filename}.txt")
        os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)
        with open(path, "w") as file:
            file.write(self.summary() + "\n")
