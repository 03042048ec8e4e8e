"""An uncompressed zip file with aligned records and a checksum over everything."""

from __future__ import annotations

import struct
from typing import BinaryIO

from ..crc import crc32
from .files import Checksums, write_all
from .torchfile import COMMENT

ALIGNMENT = 64  # bytes: where each record's data begins, as torch.save does (memory mapping)
WIDE = 0xFFFFFFFF  # in a 32-bit field: the number is in the 64-bit field
LIMIT = WIDE  # sizes and places from here on take 64 bits
STREAMED = 8  # flag: the checksum follows the data
DATE = 0, 33  # midnight of 1980-01-01, the earliest: the same content makes the same file


class ZipWriter:
    """An uncompressed zip file, written in one pass, front to back, to anything with `write`."""

    def __init__(self, file: BinaryIO, checksums: Checksums) -> None:
        self.file, self.checksums = file, checksums
        self.offset = 0
        self.structure = 0  # CRC-32 of all bytes outside of the records
        self.directory: list[bytes] = []

    def put(self, data: bytes) -> None:
        write_all(self.file, data)
        self.offset += len(data)
        self.structure = crc32(data, self.structure)

    def record(self, name: str, data: memoryview) -> None:
        raw, size, start = f"archive/{name}".encode(), len(data), self.offset
        large = size >= LIMIT
        extra = struct.pack("<HHQQ", 1, 16, size, size) if large else b""
        padding = -(start + 30 + len(raw) + len(extra) + 4) % ALIGNMENT
        extra += b"FB" + struct.pack("<H", padding) + b"Z" * padding
        sizes = (WIDE, WIDE) if large else (0, 0)
        fields = (_version(large), STREAMED, 0, *DATE, 0, *sizes, len(raw), len(extra))
        self.put(struct.pack("<4s5H3I2H", b"PK\3\4", *fields) + raw + extra)
        crc = self.checksums.write(self.file, data)
        self.offset += size
        self.put(struct.pack("<4sIQQ" if large else "<4sIII", b"PK\7\x08", crc, size, size))
        self.directory.append(_entry(raw, crc, size, start))

    def close(self) -> None:
        start, count = self.offset, len(self.directory)
        self.put(b"".join(self.directory))
        size, end = self.offset - start, self.offset
        if max(start, size) >= LIMIT or count >= 0xFFFF:
            self.put(struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, start))
            self.put(struct.pack("<4sIQI", b"PK\6\7", 0, end, 1))
        counts = (min(count, 0xFFFF),) * 2
        fields = (0, 0, *counts, _short(size), _short(start), len(COMMENT) + 8)
        self.put(struct.pack("<4s4H2IH", b"PK\5\6", *fields) + COMMENT)
        self.put(b"%08x" % self.structure)


def _version(large: bool) -> int:
    """Of the zip format that a reader must know: 4.5 has 64-bit sizes."""
    return 45 if large else 20


def _short(n: int) -> int:
    return WIDE if n >= LIMIT else n


def _entry(name: bytes, crc: int, size: int, start: int) -> bytes:
    """One line of the zip's directory."""
    large = [n for n in (size, size, start) if n >= LIMIT]
    extra = struct.pack(f"<HH{len(large)}Q", 1, 8 * len(large), *large) if large else b""
    version = _version(bool(large))
    fields = (version, version, STREAMED, 0, *DATE, crc, _short(size), _short(size), len(name), len(extra))
    return struct.pack("<4s6H3I5H2I", b"PK\1\2", *fields, 0, 0, 0, 0, _short(start)) + name + extra
