"""Stores: a table of keys and bytes that several threads or processes share, under torch.distributed's names.

Each kind of store only runs an operation on the shared table (`_run`), one at a time: in this process (HashStore), in a
file under its lock (FileStore), at the process that listens (TCPStore). Waiting is asking again.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import threading
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

from .errors import DistributedError

Table = dict[str, bytes]
DEFAULT_TIMEOUT = timedelta(seconds=300)
NAPS = (1e-3, 5e-2)  # s between two looks for a key, at first and at most


class DistStoreError(DistributedError):
    """A store cannot be reached, or a key did not come in time."""


def _set(table: Table, key: str, value: bytes) -> None:
    table[key] = value


def _get(table: Table, key: str) -> bytes | None:
    return table.get(key)


def _add(table: Table, key: str, amount: int) -> int:
    total = int(table.get(key, b"0")) + amount
    table[key] = b"%d" % total
    return total


def _append(table: Table, key: str, value: bytes) -> None:
    table[key] = table.get(key, b"") + value


def _compare_set(table: Table, key: str, expected: bytes, desired: bytes) -> bytes:
    current = table.get(key, b"")
    if current == expected:
        table[key] = current = desired
    return current if key in table else expected


def _check(table: Table, *keys: str) -> bool:
    return all(key in table for key in keys)


def _delete(table: Table, key: str) -> bool:
    return table.pop(key, None) is not None


def _keys(table: Table) -> list[str]:
    return list(table)


OPERATIONS: dict[str, Callable[..., Any]] = {
    "set": _set,
    "get": _get,
    "add": _add,
    "append": _append,
    "compare_set": _compare_set,
    "check": _check,
    "delete": _delete,
    "keys": _keys,
}


class Store:
    """What all stores can do. Values go in as str or bytes and come out as bytes."""

    def __init__(self) -> None:
        self._timeout = DEFAULT_TIMEOUT

    def _run(self, name: str, *arguments: Any) -> Any:
        """OPERATIONS[name] on the shared table, while nobody else changes it."""
        raise NotImplementedError

    def own_address(self) -> str | None:
        """This process's number on the network over which it reaches the table; None if there is none between."""
        return None

    def set(self, key: str, value: str | bytes) -> None:
        """table[key] = value."""
        self._run("set", key, _bytes(value))

    def get(self, key: str) -> bytes:
        """The value of `key`, which is waited for. Raises DistStoreError when the timeout passes."""
        self.wait([key])
        value = self._run("get", key)
        return self.get(key) if value is None else value  # it was deleted in between

    def add(self, key: str, amount: int) -> int:
        """Add to the number under `key` (0 if there is none); the sum. Raises ValueError if it holds none."""
        return int(self._run("add", key, int(amount)))

    def append(self, key: str, value: str | bytes) -> None:
        """Put `value` behind what `key` holds."""
        self._run("append", key, _bytes(value))

    def compare_set(self, key: str, expected_value: str | bytes, desired_value: str | bytes) -> bytes:
        """Set `key` if it holds expected_value, or if it is not there and that is empty; what it holds then."""
        value: bytes = self._run("compare_set", key, _bytes(expected_value), _bytes(desired_value))
        return value

    def check(self, keys: Sequence[str]) -> bool:
        """Whether all of them are there."""
        return bool(self._run("check", *keys))

    def delete_key(self, key: str) -> bool:
        """Whether the key was there."""
        return bool(self._run("delete", key))

    def list_keys(self) -> list[str]:
        return [str(key) for key in self._run("keys")]

    def num_keys(self) -> int:
        return len(self.list_keys())

    def multi_get(self, keys: Sequence[str]) -> list[bytes]:
        self.wait(keys)
        return [self.get(key) for key in keys]

    def multi_set(self, keys: Sequence[str], values: Sequence[str | bytes]) -> None:
        for key, value in zip(keys, values, strict=True):
            self.set(key, value)

    def has_extended_api(self) -> bool:
        """True: append, multi_get and multi_set are there."""
        return True

    def wait(self, keys: Sequence[str], timeout: timedelta | None = None) -> None:
        """Return when all keys are there. Raises DistStoreError, naming those that did not come in time."""
        limit = self._timeout if timeout is None else timeout
        deadline, (nap, longest) = time.monotonic() + limit.total_seconds(), NAPS
        while not self.check(keys):
            if time.monotonic() > deadline:
                missing = [key for key in keys if not self.check([key])]
                raise DistStoreError(
                    f"[{type(self).__name__}] keys must be set within {limit}, and these were not: {missing}"
                )
            time.sleep(nap)
            nap = min(nap * 1.5, longest)

    @property
    def timeout(self) -> timedelta:
        """How long get and wait take at most."""
        return self._timeout

    def set_timeout(self, timeout: timedelta) -> None:
        self._timeout = timeout


class HashStore(Store):
    """For the threads of one process."""

    def __init__(self) -> None:
        super().__init__()
        self._table: Table = {}
        self._lock = threading.Lock()

    def _run(self, name: str, *arguments: Any) -> Any:
        with self._lock:
            return OPERATIONS[name](self._table, *arguments)


class FileStore(Store):
    """For the processes that see one file. It keeps the changes, one after another; who created it removes it.

    world_size: taken for PyTorch's sake. A file left by an earlier job must be removed before.
    """

    def __init__(self, file_name: str, world_size: int = -1) -> None:
        super().__init__()
        self.path = os.fspath(file_name)
        self._table: Table = {}
        self._read = 0  # bytes of the file that the table holds
        self._lock = threading.Lock()
        with open(self.path, "ab"):
            pass

    def _run(self, name: str, *arguments: Any) -> Any:
        with self._lock, open(self.path, "r+b") as file:
            fcntl.flock(file, fcntl.LOCK_EX)
            self._catch_up(file)
            before = dict(self._table)
            result = OPERATIONS[name](self._table, *arguments)
            self._write(file, before)
            return result

    def _catch_up(self, file: Any) -> None:
        import msgpack

        file.seek(self._read)
        unpacker = msgpack.Unpacker(file, max_buffer_size=0)
        start = self._read
        with contextlib.suppress(msgpack.OutOfData):
            while True:
                key, value = unpacker.unpack()
                self._read = start + unpacker.tell()
                if value is None:
                    self._table.pop(key, None)
                else:
                    self._table[key] = value

    def _write(self, file: Any, before: Table) -> None:
        import msgpack

        keys = [key for key in {**before, **self._table} if before.get(key) != self._table.get(key)]
        if keys:
            file.seek(self._read)
            file.truncate()  # half a record of a process that was killed
            file.write(b"".join(msgpack.packb([key, self._table.get(key)]) for key in keys))
            self._read = file.tell()


class PrefixStore(Store):
    """`store` with `prefix/` before every key, so that several users of it do not meet."""

    def __init__(self, prefix: str, store: Store) -> None:
        super().__init__()
        self._prefix, self._store = f"{prefix}/", store
        self._timeout = store.timeout

    @property
    def underlying_store(self) -> Store:
        return self._store

    def own_address(self) -> str | None:
        return self._store.own_address()

    def _run(self, name: str, *arguments: Any) -> Any:
        if name == "keys":
            keys = self._store._run(name)
            return [key.removeprefix(self._prefix) for key in keys if key.startswith(self._prefix)]
        named = len(arguments) if name == "check" else 1
        keys = [self._prefix + key for key in arguments[:named]]
        return self._store._run(name, *keys, *arguments[named:])


def _bytes(value: str | bytes) -> bytes:
    return value.encode() if isinstance(value, str) else bytes(value)
