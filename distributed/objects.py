"""Plain Python values between ranks, as msgpack: nothing that arrives can run code."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from .group import Group

MAX_BYTES = 1 << 30


def pack(value: object) -> np.ndarray:
    """Bytes of a value. Raises TypeError for what msgpack does not know."""
    import msgpack

    try:
        data = msgpack.packb(value, use_bin_type=True)
    except (TypeError, ValueError, OverflowError) as error:
        raise TypeError(
            "[distributed] objects must be made of None, bool, int, float, str, bytes, list, tuple and dict "
            f"(no pickle on the wire), got {type(value).__name__}: {error}. Send arrays as tensors."
        ) from None
    if len(data) > MAX_BYTES:
        raise ValueError(
            f"[distributed] an object must pack into {MAX_BYTES} bytes, got {len(data)}; send tensors"
        )
    return np.frombuffer(data, np.uint8)


def room(size: int, source: int) -> np.ndarray:
    """Memory for an object of a size that came over the wire. Raises ValueError for one that cannot be."""
    if not 0 <= size <= MAX_BYTES:
        raise ValueError(
            f"[distributed] an object must pack into {MAX_BYTES} bytes, rank {source} announces {size}"
        )
    return np.empty(size, np.uint8)


def unpack(data: np.ndarray) -> Any:
    import msgpack

    return msgpack.unpackb(data.tobytes(), raw=False, strict_map_key=False)


def all_gather(group: Group, value: object) -> list[Any]:
    data = pack(value)
    sizes = np.empty(group.size, np.int64)
    group.all_gather(sizes, np.array([data.size], np.int64))
    longest = int(sizes.max())
    padded, rows = np.zeros(longest, np.uint8), np.empty((group.size, longest), np.uint8)
    padded[: data.size] = data
    group.all_gather(rows, padded)
    return [unpack(row[:size]) for row, size in zip(rows, sizes)]


def broadcast(group: Group, value: object, root: int) -> Any:
    group._check_peer("broadcast_object", root)
    data = pack(value if group.rank == root else None)
    size = np.array([data.size], np.int64)
    group.broadcast(size, root)
    if group.rank != root:
        data = np.empty(int(size[0]), np.uint8)
    group.broadcast(data, root)
    return unpack(data)


def scatter(group: Group, values: Sequence[object] | None, root: int) -> Any:
    group._check_peer("scatter_object", root)
    if group.rank == root and (values is None or len(values) != group.size):
        came = "None" if values is None else f"{len(values)} values"
        raise ValueError(f"[scatter_object] the root must give {group.size} values, one a rank, got {came}")
    # Small by nature: sending all to all costs less than a second protocol.
    return broadcast(group, None if values is None else list(values), root)[group.rank]
