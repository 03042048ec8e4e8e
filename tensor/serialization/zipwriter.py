"""An uncompressed zip file with aligned records and a checksum over everything."""

from __future__ import annotations

import struct
import zlib
from typing import BinaryIO

from .files import Checksums, write_all
from .torchfile import COMMENT

ALIGNMENT = 64  # bytes: where each record's data begins, as torch.save does (memory mapping)
LIMIT = 0xFFFFFFFF  # sizes and places from here on are written in zip's 64-bit form
STREAMED = 8  # flag: the checksum follows the data


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
        self.structure = zlib.crc32(data, self.structure)

    def record(self, name: str, data: memoryview) -> None:
        raw, size, start = f"archive/{name}".encode(), len(data), self.offset
        large = size >= LIMIT
        short = LIMIT if large else 0
        extra = struct.pack("<HHQQ", 1, 16, size, size) if large else b""
        padding = -(start + 30 + len(raw) + len(extra) + 4) % ALIGNMENT
        extra += b"FB" + struct.pack("<H", padding) + b"Z" * padding
        version = 45 if large else 20
        self.put(
            struct.pack(
                "<4s5H3I2H", b"PK\3\4", version, STREAMED, 0, 0, 33, 0, short, short, len(raw), len(extra)
            )
        )
        self.put(raw + extra)
        crc = self.checksums.write(self.file, data)
        self.offset += size
        self.put(struct.pack("<4sIQQ" if large else "<4sIII", b"PK\7\x08", crc, size, size))
        self.directory.append(_entry(raw, crc, size, start))

    def close(self) -> None:
        start, count = self.offset, len(self.directory)
        self.put(b"".join(self.directory))
        size, end = self.offset - start, self.offset
        if start >= LIMIT or count >= 0xFFFF:
            self.put(struct.pack("<4sQ2H2I4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, start))
            self.put(struct.pack("<4sIQI", b"PK\6\7", 0, end, 1))
        short = min(count, 0xFFFF)
        self.put(
            struct.pack(
                "<4s4H2IH",
                b"PK\5\6",
                0,
                0,
                short,
                short,
                min(size, LIMIT),
                min(start, LIMIT),
                len(COMMENT) + 8,
            )
            + COMMENT
        )
        self.put(b"%08x" % self.structure)


def _entry(name: bytes, crc: int, size: int, start: int) -> bytes:
    """One line of the zip's directory."""
    wide = [n for n in (size, size, start) if n >= LIMIT]
    extra = struct.pack(f"<HH{len(wide)}Q", 1, 8 * len(wide), *wide) if wide else b""
    version = 45 if wide else 20
    short, place = min(size, LIMIT), min(start, LIMIT)
    fields = (
        version,
        version,
        STREAMED,
        0,
        0,
        33,
        crc,
        short,
        short,
        len(name),
        len(extra),
        0,
        0,
        0,
        0,
        place,
    )
    return struct.pack("<4s6H3I5H2I", b"PK\1\2", *fields) + name + extra
