"""PyTorch's checkpoint files, read without PyTorch: the zip format (since 1.6) and the older plain one.

A zip file, nothing in it compressed: `data.pkl` holds the structure, `data/0`, `data/1` ... the bytes of each
storage, `byteorder` says little or big. PyTorch writes a CRC-32 of each record and does not look at it on
loading; here it is checked, and a file that ringgrad wrote also carries a checksum over all that is not in a
record (zipwriter.py).
"""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO
from typing import Any

import numpy as np

from ..crc import crc32
from .files import CheckpointError, Checksums, Source, UnsafeError
from .memory import dtype_named
from .pickles import MAX_BYTES, Reader, Refused
from .torchnames import Storage, StorageType, lookup

COMMENT = b"ringgrad structure crc32 "
LEGACY_MAGIC = 0x1950A86A20F9469CFC6C
LEGACY_START = (
    b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19."  # the pickled magic number, after a byte or two of protocol
)
LOCAL_HEADER = 30  # bytes, before name and extra field


class Record:
    """Where one file of the zip lies."""

    def __init__(self, start: int, size: int, crc: int) -> None:
        self.start, self.size, self.crc = start, size, crc


def read_zip(source: Source) -> Any:
    """The object that torch.save (or ours) put into `source`. CheckpointError where anything is wrong."""
    records = _records(source)
    if "data.pkl" not in records:
        raise source.error(
            "is a zip archive without data.pkl, so torch.save did not write it (.npz: use numpy.load)"
        )
    with Checksums() as checksums:
        little = _small(source, records, "byteorder", b"little").strip() != b"big"
        cache: dict[str, Storage] = {}

        def storage(reference: Any) -> Storage:
            key, dtype, nbytes = _reference(reference)
            if key not in cache:
                record = records.get(f"data/{key}")
                if record is None or record.size != nbytes:
                    found = "no such record" if record is None else f"{record.size} bytes"
                    raise ValueError(f"storage {key!r} must have {nbytes} bytes, found {found}")
                cache[key] = Storage(np.empty(record.size, np.uint8), dtype)
                _fill(source, record, cache[key], checksums if little else None, f"record data/{key}")
            elif cache[key].dtype != dtype:
                raise ValueError(f"storage {key!r} cannot be {dtype} and {cache[key].dtype} at once")
            return cache[key]

        result = _load(source, BytesIO(_small(source, records, "data.pkl")), storage)
        for name in records:  # version and the like: not needed, yet a sign of damage
            if name.removeprefix("data/") not in cache:
                _small(source, records, name)
    return result


def _fill(source: Source, record: Record, storage: Storage, checksums: Checksums | None, what: str) -> None:
    """Read a storage; a big-endian one is verified at once, since its bytes are swapped afterwards."""
    if checksums:
        return checksums.read(source, record.start, storage.raw.data, record.crc, what)
    with Checksums() as own:
        own.read(source, record.start, storage.raw.data, record.crc, what)
    _swap(storage)


def _load(source: Source, stream: BytesIO, persistent: Callable[[Any], Storage]) -> Any:
    from .objects import allowed, load_whole, permitted, permitted_call

    start = stream.tell()
    try:
        return Reader(stream, permitted if allowed else lookup, persistent, permitted_call).load()
    except ValueError as error:
        kind = UnsafeError if isinstance(error, Refused) else CheckpointError
        refusal = kind(f"[load] {source.name} cannot be read: {error}")
    if not source.trusted:
        raise refusal
    stream.seek(start)
    return load_whole(stream, persistent, source.name)


def _reference(reference: Any) -> tuple[str, str | None, int]:
    """Key, dtype and bytes of ("storage", type, key, device, count): the only thing kept outside of the
    pickle."""
    if type(reference) is not tuple or len(reference) < 5:
        raise ValueError("a persistent id must be ('storage', type, key, device, count)")
    tag, kind, key, _, count, *view = reference
    types = tuple(map(type, (tag, kind, key, count)))
    if types != (str, StorageType, str, int) or tag != "storage" or any(v is not None for v in view):
        raise ValueError(f"a persistent id must be ('storage', type, key, device, count), not of {types}")
    return key, kind.dtype, count * (dtype_named(kind.dtype).itemsize if kind.dtype else 1)


def _swap(storage: Storage) -> None:
    item = dtype_named(storage.dtype).itemsize if storage.dtype else 1
    item //= 2 if (storage.dtype or "").startswith("complex") else 1
    storage.raw[:] = storage.raw.reshape(-1, item)[:, ::-1].reshape(-1)


def _small(source: Source, records: dict[str, Record], name: str, default: bytes = b"") -> bytes:
    """A record that is needed at once, checked at once."""
    if name not in records:
        return default
    record = records[name]
    if record.size > MAX_BYTES:
        raise source.error(f"is refused: {name} must have at most {MAX_BYTES} bytes, it has {record.size}")
    data = source.read(record.start, record.size)
    if crc32(data) != record.crc:
        raise source.error(
            f"is damaged: record {name}: checksum {record.crc:08x} expected, {crc32(data):08x} found"
        )
    return data


def _records(source: Source) -> dict[str, Record]:
    """The zip's directory, without the folder that all names share."""
    import struct
    import zipfile

    try:
        with zipfile.ZipFile(source.file) as archive:
            entries, comment = archive.infolist(), archive.comment
    except (zipfile.BadZipFile, NotImplementedError, ValueError, OverflowError, struct.error) as error:
        raise source.error(f"is cut off or damaged: its zip directory cannot be read: {error}") from None
    end = source.read(source.size - 22 - len(comment), 22)
    if end[:4] != b"PK\5\6" or int.from_bytes(end[20:], "little") != len(comment):
        raise source.error("is damaged: bytes follow its zip directory")
    records: dict[str, Record] = {}
    last = 0
    for entry in sorted(entries, key=lambda e: e.header_offset):
        record = _record(source, entry)
        name = entry.filename.partition("/")[2]
        if entry.header_offset < last or name in records:
            raise source.error(f"is damaged: record {entry.filename} overlaps or repeats another")
        last = record.start + record.size
        records[name] = record
    if len({entry.filename.partition("/")[0] for entry in entries}) > 1:
        raise source.error("is a zip archive of several folders, so torch.save did not write it")
    _check_structure(source, records, comment)
    return records


def _record(source: Source, entry: Any) -> Record:
    if entry.compress_type or entry.flag_bits & 1 or entry.file_size != entry.compress_size:
        raise source.error(
            f"is refused: record {entry.filename} is compressed or encrypted, torch.save does neither"
        )
    local = source.read(entry.header_offset, LOCAL_HEADER)
    name_length, extra_length = int.from_bytes(local[26:28], "little"), int.from_bytes(local[28:30], "little")
    name = source.read(entry.header_offset + LOCAL_HEADER, name_length)
    if local[:4] != b"PK\3\4" or name != entry.orig_filename.encode():
        raise source.error(f"is damaged: record {entry.filename} is not where the directory says")
    start = entry.header_offset + LOCAL_HEADER + name_length + extra_length
    if start + entry.file_size > source.size:
        raise source.error(f"is cut off: record {entry.filename} ends behind the file's end")
    return Record(start, entry.file_size, entry.CRC)


def _check_structure(source: Source, records: dict[str, Record], comment: bytes) -> None:
    """Files of ours only: the checksum over all bytes outside of the records."""
    if not comment:
        return
    found, at = 0, 0
    for record in records.values():
        found = crc32(source.read(at, record.start - at), found)
        at = record.start + record.size
    found = crc32(source.read(at, source.size - 8 - at), found)
    if comment != COMMENT + b"%08x" % found:
        raise source.error(f"is damaged: {comment.decode('latin1')!r} expected, checksum {found:08x} found")


def read_legacy(source: Source) -> Any:
    """PyTorch's format before 1.6: four pickles, then each storage as a 64-bit count and its bytes. It has no
    checksums."""
    stream = BytesIO(source.read(0, min(source.size, MAX_BYTES)))
    storages: dict[str, Storage] = {}

    def storage(reference: Any) -> Storage:
        key, dtype, nbytes = _reference(reference)
        if key not in storages:
            if nbytes + sum(len(s.raw) for s in storages.values()) > source.size:
                raise ValueError(
                    f"storage {key!r} of {nbytes} bytes does not fit into a file of {source.size}"
                )
            storages[key] = Storage(np.empty(nbytes, np.uint8), dtype)
        return storages[key]

    magic, _, system = (_load(source, stream, storage) for _ in range(3))
    if type(magic) is not int or magic != LEGACY_MAGIC or type(system) is not dict:
        raise source.error("is damaged: its first two pickles are not those of torch.save")
    start = stream.tell()
    _load(source, stream, storage)  # to learn which storages there are and where their bytes begin
    keys = _load(source, stream, storage)
    if type(keys) is not list or any(type(k) is not str for k in keys) or sorted(keys) != sorted(storages):
        raise source.error("is damaged: its list of storages is not that of its tensors")
    _read_storages(
        source, stream.tell(), [storages[key] for key in keys], system.get("little_endian") is False
    )
    stream.seek(start)
    return _load(source, stream, storage)


def _read_storages(source: Source, at: int, storages: list[Storage], swapped: bool) -> None:
    for storage in storages:
        count = int.from_bytes(source.read(at, 8), "little")
        if count * (dtype_named(storage.dtype).itemsize if storage.dtype else 1) != len(storage.raw):
            raise source.error(
                f"is damaged: {count} elements announced for a storage of {len(storage.raw)} bytes"
            )
        source.read_into(at + 8, storage.raw.data)
        at += 8 + len(storage.raw)
        if swapped:
            _swap(storage)
    if at != source.size:
        raise source.error(f"is longer than it was written: {at} bytes expected, {source.size} found")
