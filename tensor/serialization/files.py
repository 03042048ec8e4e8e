"""Files: reading at an offset, checksums overlapped with I/O, and replacing a file whole or not at all."""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pickle import UnpicklingError
from typing import Any, BinaryIO

import numpy as np

from ..crc import crc32

CHUNK = 4 << 20  # bytes: large enough for full disk speed, small enough that checksums keep up with reading

FOREIGN = (
    (b"\x89PNG", "a PNG image"),
    (b"\xff\xd8\xff", "a JPEG image"),
    (b"%PDF", "a PDF document"),
    (b"\x89HDF", "an HDF5 file"),
    (b"GGUF", "a GGUF file"),
    (b"\x93NUMPY", "a NumPy array: numpy.load reads it"),
    (b"\x1f\x8b", "gzip data: unpack it first"),
    (b"version https://git-lfs", "a Git LFS pointer, not the file itself: run `git lfs pull`"),
    (b"<", "a web page or XML: the download went wrong"),
    (b"\x80", "a Python pickle that torch.save did not write; pickles run code when loaded and are refused"),
)


class CheckpointError(RuntimeError):
    """A file that is damaged, cut off, or not a checkpoint. Loading it changed nothing."""


class UnsafeError(CheckpointError, UnpicklingError):
    """A file that names what is not on the list of data types: PyTorch's type for it is pickle.UnpicklingError."""


class Source:
    """Reads anywhere in a path or an open binary file, never past its end.

    trusted: the caller lets the file run code, should it hold whole objects.
    """

    trusted = False

    def __init__(self, file: Any) -> None:
        self.owned = not hasattr(file, "read")
        self.name = str(getattr(file, "name", f"<{type(file).__name__}>"))
        if self.owned:
            self.name = os.fspath(file)
            file = open(file, "rb", buffering=0)  # noqa: SIM115 (closed by __exit__)
        elif not (hasattr(file, "seek") and file.seekable()) or file.tell():
            file = _rest_of(file, self.name)
        self.file: BinaryIO = file
        self.size: int = file.seek(0, os.SEEK_END)

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *exc: object) -> None:
        if self.owned:
            self.file.close()

    def read(self, offset: int, count: int) -> bytes:
        """`count` bytes at `offset`; CheckpointError where the file ends before."""
        if offset < 0 or count < 0 or offset + count > self.size:
            raise self.error(f"ends at byte {self.size}, bytes {offset} to {offset + count} were asked for")
        buffer = bytearray(count)
        self.read_into(offset, memoryview(buffer))
        return bytes(buffer)

    def read_into(self, offset: int, view: memoryview) -> None:
        self.file.seek(offset)
        done = 0
        while done < len(view):
            count = self.file.readinto(view[done:])  # type: ignore[attr-defined]
            if not count:
                raise self.error(f"was cut off at byte {offset + done} while it was read")
            done += count

    def error(self, what: str) -> CheckpointError:
        return CheckpointError(f"[load] {self.name} {what}")


def _rest_of(file: Any, name: str) -> BinaryIO:
    from io import BytesIO

    rest = file.read()
    if not rest and hasattr(file, "seekable") and file.seekable():
        raise CheckpointError(f"[load] {name} stands at its end, nothing is left to read: call seek(0) first")
    return BytesIO(rest)


class Checksums:
    """CRC-32 in a second thread, so that a checksum costs no time beside reading or writing (zlib frees the
    GIL)."""

    def __init__(self) -> None:
        self.pool: Any = None
        self.checks: list[Any] = []

    def submit(self, function: Callable[..., Any], *arguments: Any) -> Any:
        if self.pool is None:
            from concurrent.futures import ThreadPoolExecutor

            self.pool = ThreadPoolExecutor(1)
        return self.pool.submit(function, *arguments)

    def __enter__(self) -> Checksums:
        return self

    def __exit__(self, kind: object, *exc: object) -> None:
        if self.pool is not None:
            self.pool.shutdown(wait=True, cancel_futures=kind is not None)
        for check in self.checks if kind is None else ():
            check.result()

    def write(self, file: BinaryIO, data: memoryview) -> int:
        """Write `data` and return its CRC-32."""
        if len(data) < CHUNK:
            write_all(file, data)
            return crc32(data)
        checksum = self.submit(crc32, data)
        write_all(file, data)
        return checksum.result()

    def read(self, source: Source, offset: int, view: memoryview, expected: int | None, what: str) -> None:
        """Fill `view` from `offset`. A wrong checksum is raised under the name `what`: here or, where `view`
        is large, at the end of the `with` block."""
        found = 0

        def add(chunk: memoryview) -> None:
            nonlocal found
            found = crc32(chunk, found)

        def compare() -> None:
            if found != expected:
                raise source.error(f"is damaged: {what}: checksum {expected:08x} expected, {found:08x} found")

        def run(function: Callable[..., None], *arguments: Any) -> None:
            if len(view) < CHUNK:
                function(*arguments)
            else:
                self.checks.append(self.submit(function, *arguments))

        for start in range(0, len(view), CHUNK):
            chunk = view[start : start + CHUNK]
            source.read_into(offset + start, chunk)
            if expected is not None:
                run(add, chunk)
        if expected is not None:
            run(compare)


def write_all(file: BinaryIO, data: memoryview | bytes) -> None:
    """Write every byte, also where one call takes only a part (unbuffered files)."""
    view = memoryview(data)
    while len(view):
        count = file.write(view)
        if count is None:
            break
        view = view[count:]


def byte_view(array: np.ndarray) -> memoryview:
    """The bytes of a contiguous array, without a copy, for every dtype."""
    return memoryview(array.reshape(-1).view(np.uint8).data) if array.size else memoryview(b"")


@contextmanager
def replacing(path: str, needed: int) -> Iterator[BinaryIO]:
    """A new file that takes the place of `path` once it is whole and on disk.

    Whatever fails before that, the old file stays as it was and the temporary file is removed. `needed`:
    bytes, for the message when the disk is full.
    """
    target = os.path.realpath(path)  # a symlink stays one
    folder = os.path.dirname(target)
    _check_target(path, target, folder)
    temporary = os.path.join(folder, f".ringgrad-{os.getpid()}-{os.urandom(6).hex()}.tmp")
    try:
        with open(temporary, "xb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        if os.path.exists(target):
            os.chmod(temporary, stat.S_IMODE(os.stat(target).st_mode))
        os.replace(temporary, target)
    except BaseException as error:
        _remove(temporary)
        if isinstance(error, OSError) and error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
            raise OSError(error.errno, _full(path, folder, needed, error)) from error
        raise
    _sync_folder(folder)


def _check_target(path: str, target: str, folder: str) -> None:
    if not os.path.isdir(folder):
        raise RuntimeError(f"[save] the folder of {path} must exist, {folder} does not: create it first")
    if os.path.exists(target) and not os.path.isfile(target):
        raise ValueError(
            f"[save] the target must be a regular file, {path} is a folder or device: choose another path"
        )


def _full(path: str, folder: str, needed: int, error: OSError) -> str:
    status = os.statvfs(folder)
    free = status.f_bavail * status.f_frsize
    return (
        f"[save] no room for {path} ({error.strerror}): {needed} bytes needed, {free} free in {folder}. "
        "An older file of that name is unchanged"
    )


def _remove(path: str) -> None:
    with suppress(FileNotFoundError):
        os.unlink(path)


def _sync_folder(folder: str) -> None:
    """Without this a power cut may undo the renaming."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def describe(head: bytes) -> str:
    """What a file that is no checkpoint looks like, from its first bytes."""
    if not head:
        return "is empty"
    for magic, what in FOREIGN:
        if head.startswith(magic):
            return f"is not a checkpoint but {what}"
    return f"is not a checkpoint (or its beginning is damaged): it starts with {head[:8].hex(' ')}"
