"""The fingerprint of a collective: every message carries it, so ranks that disagree find out at once."""

from __future__ import annotations

import struct
import sys
import zlib
from functools import lru_cache

from .errors import CollectiveMismatch

HEADER_BYTES = 512
_FIXED = struct.Struct("<4sIQQH")  # magic, generation, job, sequence number, length of text
_SITE = struct.Struct("<H")  # length of site: behind the text, as sites may differ
_JOB_END = struct.calcsize("<4sIQ")
_MAGIC = b"rgd2"
_TEXT_BYTES, _SITE_BYTES = 330, HEADER_BYTES - _FIXED.size - _SITE.size - 330


@lru_cache(4096)
def _shortened(text: str, limit: int) -> bytes:
    data = text.encode()
    if len(data) <= limit:
        return data
    # The checksum of the whole keeps two long names apart that begin alike.
    return data[: limit - 12].decode(errors="ignore").encode() + b"..~%08x" % zlib.crc32(data)


@lru_cache(4096)
def _tail(site: str) -> bytes:
    data = site.encode()[-_SITE_BYTES:]  # a long path keeps its end, which is the part that tells
    return _SITE.pack(len(data)) + data


def caller() -> str:
    """`file:line` of the nearest frame outside this package."""
    frame = sys._getframe(1)
    while frame.f_back is not None and frame.f_globals.get("__name__", "").startswith("ringgrad."):
        frame = frame.f_back
    return f"{frame.f_code.co_filename}:{frame.f_lineno}"


class Call:
    """One collective as one rank sees it.

    text: what must be the same on all ranks, readable ("all_reduce sum float32[512] 'bucket 2'").
    site: `file:line` of the user's call, for the message only.
    """

    __slots__ = ("_length", "header", "site", "text")

    def __init__(self, text: str, site: str, sequence: int, job: int = 0, generation: int = 0) -> None:
        body = _shortened(text, _TEXT_BYTES)
        self.text, self.site = text, site
        self._length = _FIXED.size + len(body)
        fixed = _FIXED.pack(_MAGIC, generation, job, sequence, len(body))
        self.header = fixed + body + _tail(site)

    def __repr__(self) -> str:
        return f"{self.text}, called at {self.site}"

    def check(self, rank: int, peer: int, header: bytes | memoryview) -> None:
        """Raise CollectiveMismatch unless `peer`'s header says the same as this (`rank`'s) call."""
        if header[: self._length] == self.header[: self._length] and len(header) >= self._length:
            return
        theirs = bytes(header)
        full = theirs[:_JOB_END] != self.header[:_JOB_END]
        sides = sorted([(rank, describe(self.header, full)), (peer, describe(theirs, full))])
        lines = "\n".join(f"  rank {r}: {text}" for r, text in sides)
        raise CollectiveMismatch(
            "[distributed] all ranks must make the same collective calls in the same order, but these met:\n"
            f"{lines}\nLook for a branch that only some ranks take, or for models or batches that differ in "
            "shape."
        )

    def check_size(self, rank: int, peer: int, expected: int, came: int) -> None:
        """Raise CollectiveMismatch unless a message has the size of the place where it goes."""
        if expected != came:
            raise CollectiveMismatch(
                f"[distributed] in {self} rank {rank} has room for {expected} bytes from rank {peer}, which "
                f"sent {came}: what one rank sends another must be what that one expects"
            )


def describe(header: bytes, full: bool = True) -> str:
    """A header in words; `full` tells the job too."""
    if len(header) < _FIXED.size + _SITE.size or header[:4] != _MAGIC:
        return f"an unknown message that begins with {header[:8]!r} (another version of ringgrad?)"
    _, generation, job, sequence, length = _FIXED.unpack_from(header)
    end = min(_FIXED.size + length, len(header) - _SITE.size)
    text = header[_FIXED.size : end].decode(errors="replace")
    start = end + _SITE.size
    site = header[start : start + _SITE.unpack_from(header, end)[0]].decode(errors="replace")
    where = f"call {sequence}" + (f" of job {job:x} generation {generation}" if full else "")
    return f"{text} ({where}, at {site})"
