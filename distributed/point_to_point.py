"""torch.distributed's functions for messages between two ranks."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from . import objects
from .errors import CollectiveTimeout
from .group import Group
from .process_group import array_of, peer_of, seconds, world_group, wrote
from .work import Work

__all__ = [
    "P2POp",
    "batch_isend_irecv",
    "irecv",
    "isend",
    "monitored_barrier",
    "recv",
    "recv_object_list",
    "send",
    "send_object_list",
]

# Tags of our own, beyond those that PyTorch's users take.
_ARRIVED, _LEAVE, _LENGTH, _OBJECTS = ((1 << 16) - n for n in range(1, 5))


def isend(
    tensor: Any,
    dst: int | None = None,
    group: Group | None = None,
    tag: int = 0,
    group_dst: int | None = None,
) -> Work:
    """Start to send to rank dst, which receives it with the same tag."""
    group = world_group(group, "isend")
    return group.send(
        array_of(tensor, "isend"), peer_of(group, dst, group_dst, "isend"), tag=tag, async_op=True
    )


def send(
    tensor: Any,
    dst: int | None = None,
    group: Group | None = None,
    tag: int = 0,
    group_dst: int | None = None,
) -> None:
    """Send to rank dst, and return when the tensor may be overwritten."""
    group = world_group(group, "send")
    group.send(array_of(tensor, "send"), peer_of(group, dst, group_dst, "send"), tag=tag)


def irecv(
    tensor: Any,
    src: int | None = None,
    group: Group | None = None,
    tag: int = 0,
    group_src: int | None = None,
) -> Work:
    """Start to receive from rank src, or with None from whoever sends first; see the Work's `source_rank`."""
    return _receive("irecv", tensor, src, group, tag, group_src, async_op=True)


def recv(
    tensor: Any,
    src: int | None = None,
    group: Group | None = None,
    tag: int = 0,
    group_src: int | None = None,
) -> int:
    """Receive from rank src, or with None from whoever sends first; returns the sender's global rank."""
    work = _receive("recv", tensor, src, group, tag, group_src, async_op=False)
    return world_group(group, "recv").members[work.source_rank()]


def _receive(
    who: str,
    tensor: Any,
    src: int | None,
    group: Group | None,
    tag: int,
    group_src: int | None,
    async_op: bool,
) -> Work:
    group, array = world_group(group, who), array_of(tensor, who)
    peer = None if src is None and group_src is None else peer_of(group, src, group_src, who)
    wrote(tensor)
    return group.recv(array, peer, tag=tag, async_op=async_op)


class P2POp:
    """One message of batch_isend_irecv. op: `isend` or `irecv`; peer: a global rank."""

    def __init__(
        self,
        op: Callable[..., Work],
        tensor: Any,
        peer: int | None = None,
        group: Group | None = None,
        tag: int = 0,
        group_peer: int | None = None,
    ) -> None:
        if op not in (isend, irecv):
            raise RuntimeError(f"[P2POp] op must be isend or irecv of ringgrad.distributed, got {op!r}")
        self.op, self.tensor, self.peer, self.group, self.tag = op, tensor, peer, group, tag
        self.group_peer = group_peer


def batch_isend_irecv(p2p_op_list: Sequence[P2POp]) -> list[Work]:
    """Start all messages of the list at once; wait for each of the Works."""
    if not p2p_op_list or not all(isinstance(op, P2POp) for op in p2p_op_list):
        raise ValueError(f"[batch_isend_irecv] needs a list of at least one P2POp, got {p2p_op_list!r}")
    return [op.op(op.tensor, op.peer, op.group, op.tag, op.group_peer) for op in p2p_op_list]


def monitored_barrier(group: Group | None = None, timeout: Any = None, wait_all_ranks: bool = False) -> None:
    """A barrier after which rank 0 knows who did not come.

    timeout: seconds or a timedelta; by default that of the group. Raises CollectiveTimeout on rank 0 naming the first
    rank that did not come in time, or with wait_all_ranks all of them, and on ranks that rank 0 does not answer.
    """
    group = world_group(group, "monitored_barrier")
    limit = seconds(timeout) or group.timeout
    if group.size == 1:
        return
    if group.rank == 0:
        _await_all(group, limit, wait_all_ranks)
        for peer in range(1, group.size):
            group.send(np.empty(0, np.uint8), peer, tag=_LEAVE)
        return
    group.send(np.empty(0, np.uint8), 0, tag=_ARRIVED, async_op=True)
    answer = group.recv(np.empty(0, np.uint8), 0, tag=_LEAVE, async_op=True)
    if not _ended(answer, time.monotonic() + limit):
        raise CollectiveTimeout(
            f"[monitored_barrier] rank 0 must answer within {limit:g} s; either it or another rank did not come"
        )


def _await_all(group: Group, limit: float, wait_all_ranks: bool) -> None:
    end = time.monotonic() + limit
    works = {
        p: group.recv(np.empty(0, np.uint8), p, tag=_ARRIVED, async_op=True) for p in range(1, group.size)
    }
    missing = []
    for peer, work in works.items():
        if not _ended(work, end):
            missing.append(group.members[peer])
            if not wait_all_ranks:
                break
    if missing:
        raise CollectiveTimeout(
            f"[monitored_barrier] all must come within {limit:g} s, and rank {', '.join(map(str, missing))} did not"
        )


def _ended(work: Work, end: float) -> bool:
    try:
        return work.wait(max(end - time.monotonic(), 0.001))
    except TimeoutError:
        return False


def send_object_list(
    object_list: list[Any],
    dst: int | None = None,
    group: Group | None = None,
    device: Any = None,
    group_dst: int | None = None,
) -> None:
    """Send the objects, of the kinds that all_gather_object takes, to rank dst."""
    group = world_group(group, "send_object_list")
    peer, data = peer_of(group, dst, group_dst, "send_object_list"), objects.pack(object_list)
    group.send(np.array([data.size]), peer, tag=_LENGTH)
    group.send(data, peer, tag=_OBJECTS)


def recv_object_list(
    object_list: list[Any],
    src: int | None = None,
    group: Group | None = None,
    device: Any = None,
    group_src: int | None = None,
) -> int:
    """Fill the list with the objects of rank src, or with None of whoever sends first; returns the sender's rank."""
    group, length = world_group(group, "recv_object_list"), np.empty(1, np.int64)
    peer = None if src is None and group_src is None else peer_of(group, src, group_src, "recv_object_list")
    source = group.recv(length, peer, tag=_LENGTH).source_rank()
    data = objects.room(int(length[0]), source)
    group.recv(data, source, tag=_OBJECTS)
    values = objects.unpack(data)
    if len(values) != len(object_list):
        raise ValueError(
            f"[recv_object_list] the list must have {len(values)} places, got {len(object_list)}"
        )
    object_list[:] = values
    return group.members[source]
