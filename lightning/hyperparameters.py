"""`save_hyperparameters`: the arguments of `__init__`, kept as `self.hparams` and in checkpoints."""

from __future__ import annotations

import copy
import sys
import warnings
from collections.abc import Iterable
from typing import Any

import numpy as np

from ..tensor import Tensor


class AttributeDict(dict[str, Any]):
    """A dict whose keys are attributes too."""

    def __getattr__(self, key: str) -> Any:
        try:
            return self[key]
        except KeyError:
            raise AttributeError(
                f"[hparams] there is no hyperparameter {key!r}, only {sorted(self)}"
            ) from None

    def __setattr__(self, key: str, value: Any) -> None:
        self[key] = value

    def __delattr__(self, key: str) -> None:
        del self[key]

    def __repr__(self) -> str:
        return "\n".join(f'"{key}": {value}' for key, value in self.items())


class HyperparametersMixin:
    """What modules and data modules have in common: hyperparameters."""

    def save_hyperparameters(
        self, *args: Any, ignore: str | Iterable[str] | None = None, frame: Any = None, logger: bool = True
    ) -> None:
        """Keeps the arguments of `__init__`, from which it is called, in `self.hparams`.

        args: names of those to keep (default: all), or one dict or namespace that is the hyperparameters. ignore:
        names to leave out. logger: whether the logger gets them. frame: of `__init__`, if it is not the caller.
        """
        found = _init_arguments(self, frame or sys._getframe(1))
        own = self.__dict__
        own["_hparams_logged"] = logger
        own["_hparams_name"] = None
        if args and not all(isinstance(a, str) for a in args):
            if len(args) > 1:
                raise ValueError(
                    f"[save_hyperparameters] takes names or one dict or namespace, came {args!r}"
                )
            values = args[0] if isinstance(args[0], dict) else vars(args[0])
            own["_hparams_name"] = next((k for k, v in found.items() if v is args[0]), None)
        elif missing := [name for name in args if name not in found]:
            raise ValueError(
                f"[save_hyperparameters] __init__ has no arguments {missing}, only {list(found)}"
            )
        else:
            values = {name: found[name] for name in args} if args else found
        ignored = {ignore} if isinstance(ignore, str) else set(ignore or ())
        kept = {k: v for k, v in values.items() if k not in ignored}
        self.hparams.update(kept)
        for name in ignored:  # what a parent's __init__ has kept
            self.hparams.pop(name, None)
        own["_hparams_initial"] = AttributeDict(copy.deepcopy({k: v for k, v in kept.items() if _plain(v)}))

    @property
    def hparams(self) -> AttributeDict:
        """The hyperparameters, as a dict with attributes."""
        return self.__dict__.setdefault("_hparams", AttributeDict())

    @property
    def hparams_initial(self) -> AttributeDict:
        """The plain ones of them, as they were when saved."""
        return AttributeDict(copy.deepcopy(self.__dict__.get("_hparams_initial", {})))


def savable(hparams: dict[str, Any]) -> dict[str, Any]:
    """The hyperparameters that a file can hold; a warning names the others."""
    others = [key for key, value in hparams.items() if not _plain(value)]
    if others:
        warnings.warn(
            f"[save_checkpoint] hyperparameters {others} are no plain data and are left out of the checkpoint: "
            "leave them out with save_hyperparameters(ignore=...), and pass them to load_from_checkpoint",
            stacklevel=2,
        )
    return {key: value for key, value in hparams.items() if key not in others}


def _plain(value: Any) -> bool:
    if isinstance(value, list | tuple):
        return type(value) in (list, tuple) and all(map(_plain, value))
    if isinstance(value, dict):
        return type(value) is dict and all(map(_plain, value)) and all(map(_plain, value.values()))
    return value is None or isinstance(value, bool | int | float | str | bytes | Tensor | np.ndarray)


def _init_arguments(obj: object, frame: Any) -> dict[str, Any]:
    """The arguments of `__init__`, of a subclass's that called it too."""
    found: dict[str, Any] = {}
    while frame is not None and frame.f_code.co_name == "__init__":
        code, local = frame.f_code, frame.f_locals
        names = code.co_varnames[: code.co_argcount + code.co_kwonlyargcount]
        if not names or local.get(names[0]) is not obj:
            break
        # What a subclass was called with counts more than what it passed on.
        found = {**found, **{name: local[name] for name in names[1:] if name in local}}
        if code.co_flags & 0x08:  # **kwargs stands behind the arguments and *args
            found.update(local[code.co_varnames[len(names) + bool(code.co_flags & 0x04)]])
        frame = frame.f_back
    return found
