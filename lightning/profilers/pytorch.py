"""Times of ops."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from .profiler import Profiler


class PyTorchProfiler(Profiler):
    """Counts and times of every op, forward and backward, as `ringgrad.profiler` gives them."""

    def __init__(
        self, dirpath: Any = None, filename: str | None = None, row_limit: int = 20, **_: Any
    ) -> None:
        super().__init__(dirpath, filename)
        self.row_limit, self._text = row_limit, ""

    @contextmanager
    def running(self) -> Iterator[None]:
        from ...autograd.profiler import profile

        with profile() as found:
            yield
        self._text = found.key_averages().table(sort_by="self_cpu_time_total", row_limit=self.row_limit)

    def summary(self) -> str:
        return self._text
