"""The output of many ranks on one terminal: whole lines, each with its rank in front.

A line without an end (a prompt, a progress bar) is shown after a short wait; if another rank writes
meanwhile, that gets a line of its own. Text that a carriage return overwrites is overwritten on a terminal
and left out elsewhere.
"""

import os
import select
import time
from typing import BinaryIO

_COLOURS = (36, 33, 35, 32, 34, 31)
_CLEAR_LINE = b"\r\033[K"
_LONGEST_OPEN_LINE = 64 * 1024


def prefix_of(rank: int, world_size: int, colour: bool) -> bytes:
    label = f"[{rank:>{len(str(world_size - 1))}}]"
    return (f"\033[{_COLOURS[rank % len(_COLOURS)]}m{label}\033[0m " if colour else f"{label} ").encode()


class Sink:
    """A terminal, file or pipe that several ranks write into."""

    def __init__(self, fd: int) -> None:
        self.fd = fd
        self.tty = os.isatty(fd)
        self.colour = self.tty and not os.environ.get("NO_COLOR") and os.environ.get("TERM") != "dumb"
        self.shared = False  # rank 0 writes here too, past us: its progress bar may be on the current line
        self.open_line: Stream | None = None

    def same_as(self, other: "Sink") -> bool:
        return os.path.sameopenfile(self.fd, other.fd)

    def write(self, data: bytes) -> None:
        """Write all of `data`. Raises BrokenPipeError when the reader is gone."""
        view = memoryview(data)
        while view:
            try:
                view = view[os.write(self.fd, view) :]
            except BlockingIOError:  # someone made our terminal non-blocking
                select.select([], [self.fd], [])

    def write_block(self, text: str) -> None:
        """Our own words, on lines of their own."""
        start = _CLEAR_LINE if self.shared else b"\n" if self.open_line else b""
        self.open_line = None
        self.write(start + text.encode("utf-8", "backslashreplace"))


class Stream:
    """What one rank writes: read from `fd`, shown on `sink`, kept as it came in `log`."""

    def __init__(self, fd: int, sink: Sink, prefix: bytes, log: BinaryIO | None) -> None:
        os.set_blocking(fd, False)
        self.fd, self.sink, self.prefix, self.log = fd, sink, prefix, log
        self.pending = b""
        self.show_at: float | None = None  # when to show the line that has no end yet

    def read(self) -> bool:
        """Pass on what has arrived; False at the end of the stream."""
        try:
            data = os.read(self.fd, 1 << 16)
        except BlockingIOError:
            return True
        if data:
            self._feed(data)
        return bool(data)

    def drain(self) -> None:
        """Pass on all that has arrived, and close; who still holds the other end is not waited for."""
        try:
            while data := os.read(self.fd, 1 << 16):
                self._feed(data)
        except BlockingIOError:
            pass
        self.close()

    def close(self) -> None:
        if self.pending:
            self._show(self.pending, ended=True)
            self.pending = b""
        self.show_at = None
        os.close(self.fd)

    def show_open_line(self) -> None:
        """Show a line that has waited for its end long enough."""
        # A final carriage return says that what comes next overwrites the line.
        text, again = (self.pending[:-1], b"\r") if self.pending.endswith(b"\r") else (self.pending, b"")
        if text:
            self._show(text, ended=False)
        self.pending, self.show_at = again, None

    def _feed(self, data: bytes) -> None:
        if self.log:
            self._keep(data)
        lines = (self.pending + data).split(b"\n")
        self.pending = lines.pop()
        # One write for all lines: two ranks' lines interleave, their characters never.
        if lines:
            self._show_lines(lines)
            self.show_at = None
        if len(self.pending) > _LONGEST_OPEN_LINE:
            self.show_open_line()
        elif not self.pending:
            self.show_at = None
        elif self.show_at is None:
            self.show_at = time.monotonic() + self._patience()

    def _keep(self, data: bytes) -> None:
        assert self.log is not None
        try:
            self.log.write(data)
        except OSError as error:  # training is worth more than its log
            self.sink.write_block(f"[ringrun] warning: {self.log.name} is not written any more: {error}\n")
            self.log = None

    def _patience(self) -> float:
        """Seconds that an unfinished line waits: long for a bar where it can not be redrawn in place."""
        bar = b"\r" in self.pending
        in_place = self.sink.tty and not self.sink.shared and self.sink.open_line in (None, self)
        return 10.0 if bar and not in_place else 0.25

    def _show_lines(self, lines: list[bytes]) -> None:
        first, *rest = (line.removesuffix(b"\r") for line in lines)
        self._show(
            first, ended=True, more=b"".join(self.prefix + line.rpartition(b"\r")[2] + b"\n" for line in rest)
        )

    def _show(self, text: bytes, ended: bool, more: bytes = b"") -> None:
        """Begin or continue a line with `text`; `ended` lines may be followed by `more` whole ones."""
        sink = self.sink
        _, overwrites, last = text.rpartition(b"\r")
        goes_on = sink.open_line is self
        if goes_on and not overwrites:
            start = b""
        elif goes_on and sink.tty:
            start = _CLEAR_LINE + self.prefix
        else:
            start = (_CLEAR_LINE if sink.shared else b"\n" if sink.open_line else b"") + self.prefix
        sink.write(start + last + (b"\n" if ended else b"") + more)
        sink.open_line = None if ended else self
