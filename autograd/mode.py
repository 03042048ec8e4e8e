"""Grad modes: whether ops are recorded, per thread."""

from __future__ import annotations

import threading
from collections.abc import Callable
from functools import wraps
from types import TracebackType
from typing import Any, TypeVar

import numpy as np

GENERATOR = 0x20  # the flag of a generator's code
F = TypeVar("F", bound=Callable[..., Any])


class Mode(threading.local):
    """What the current thread records. A thread starts with gradients on, as in PyTorch."""

    grad = True
    inference = False
    anomaly = False
    keep = False  # whether the backward under way leaves the graph for another one
    callbacks: list[Callable[[], None]] | None = None  # to be called at the end of the backward under way

    def __init__(self) -> None:
        # PyTorch is silent where NumPy warns (overflow, 0/0): the results are inf and nan in both.
        # NumPy keeps this per thread, and a `with np.errstate` an op would cost more than the op.
        np.seterr(all="ignore")
        # So is the size of ufuncs' buffers. NumPy copies rows shorter than that into them, cast or not: with its own
        # size adding a bias or scaling channels takes up to twice as long (casts are as fast with this one).
        np.setbufsize(1024)


mode = Mode()


class GradContext:
    """Base of the context managers that are decorators too."""

    def __call__(self, fn: F) -> F:
        if fn.__code__.co_flags & GENERATOR if hasattr(fn, "__code__") else False:
            return self._around_generator(fn)

        @wraps(fn)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            with self.fresh():
                return fn(*args, **kwargs)

        return wrapped  # type: ignore[return-value]

    def _around_generator(self, fn: F) -> F:
        """Each step of a generator runs in the mode; what goes on between its steps does not."""

        @wraps(fn)
        def wrapped(*args: Any, **kwargs: Any) -> Any:
            steps = fn(*args, **kwargs)
            sent: Any = None
            while True:
                try:
                    with self.fresh():
                        value = steps.send(sent)
                except StopIteration as end:
                    return end.value
                sent = yield value

        return wrapped  # type: ignore[return-value]

    def fresh(self) -> GradContext:
        return type(self)()

    def __enter__(self) -> None:
        raise NotImplementedError

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        mode.grad, mode.inference = self.before

    def switch(self, grad: bool, inference: bool) -> None:
        self.before = mode.grad, mode.inference
        mode.grad, mode.inference = grad, inference


def _bare(cls: type, fn: Callable[..., Any] | None) -> Any:
    """Lets `@no_grad` be written without parentheses."""
    self: Any = object.__new__(cls)
    return self if fn is None else self(fn)


class no_grad(GradContext):
    """Ops inside are not recorded. Context manager and decorator."""

    def __new__(cls, fn: Callable[..., Any] | None = None) -> Any:
        return _bare(cls, fn)

    def __enter__(self) -> None:
        self.switch(False, mode.inference)


class enable_grad(GradContext):
    """Ops inside are recorded, also within `no_grad`. Context manager and decorator."""

    def __new__(cls, fn: Callable[..., Any] | None = None) -> Any:
        return _bare(cls, fn)

    def __enter__(self) -> None:
        self.switch(True, mode.inference)


class set_grad_enabled(GradContext):
    """Switches recording at once; as a context manager, until its end."""

    def __init__(self, enabled: bool) -> None:
        self.enabled = bool(enabled)
        self.switch(self.enabled, mode.inference)

    def fresh(self) -> GradContext:
        return set_grad_enabled(self.enabled)

    def __call__(self, fn: F) -> F:
        mode.grad, mode.inference = self.before  # a decorator changes nothing where it is written
        return super().__call__(fn)

    def __enter__(self) -> None:
        pass


class inference_mode(GradContext):
    """As no_grad; kept under its own name, as PyTorch scripts use it. `inference_mode(False)` does nothing."""

    enabled: bool

    def __new__(cls, enabled: bool | Callable[..., Any] = True) -> Any:
        self = object.__new__(cls)
        self.enabled = enabled if isinstance(enabled, bool) else True
        return self(enabled) if callable(enabled) else self

    def __init__(self, enabled: bool | Callable[..., Any] = True) -> None:
        pass

    def fresh(self) -> GradContext:
        return inference_mode(self.enabled)

    def __enter__(self) -> None:
        self.switch(not self.enabled, self.enabled)


def is_grad_enabled() -> bool:
    """Whether ops are being recorded in this thread."""
    return mode.grad


def is_inference_mode_enabled() -> bool:
    """Whether this thread is inside `inference_mode`."""
    return mode.inference


class set_detect_anomaly(GradContext):
    """Records the line of every op, and lets backward stop at the first NaN gradient and name it."""

    def __init__(self, enabled: bool, check_nan: bool = True) -> None:
        self.enabled, self.check_nan = enabled, check_nan
        self.was = mode.anomaly
        mode.anomaly = enabled

    def fresh(self) -> GradContext:
        return set_detect_anomaly(self.enabled, self.check_nan)

    def __enter__(self) -> None:
        pass

    def __exit__(self, kind: type | None, error: BaseException | None, trace: TracebackType | None) -> None:
        mode.anomaly = self.was


class detect_anomaly(set_detect_anomaly):
    """`with detect_anomaly(): ...` (see set_detect_anomaly)."""

    def __init__(self, check_nan: bool = True) -> None:
        super().__init__(True, check_nan)

    def fresh(self) -> GradContext:
        return detect_anomaly(self.check_nan)

    def __enter__(self) -> None:
        mode.anomaly = True
