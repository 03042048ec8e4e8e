"""The tcp transport: what every group promises, and who gets in, who does not, and what ends a wait."""

import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, os.path.dirname(__file__))
from test_distributed_group import GroupBehaviour, JobBehaviour, read_results, run_all, run_workers

from ringgrad.distributed.errors import CollectiveMismatch, CollectiveTimeout, DistributedError, PeerFailure
from ringgrad.distributed.group import Group
from ringgrad.distributed.transport import Transport
from ringgrad.distributed.transport.handshake import Identity, Refused, answer, derive_key, dial
from ringgrad.distributed.transport.hosts import HostsTransport
from ringgrad.distributed.transport.shm import ShmTransport
from ringgrad.distributed.transport.tcp import TcpTransport

TOKEN = "a token of the tests, 32 letters"

__all__ = ["GroupBehaviour", "JobBehaviour", "read_results"]  # the base classes are found here too


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class TestTcp(JobBehaviour):
    __test__ = True
    worlds = [2, 3, 5]

    def start(self, world: int, folder: Path) -> str:
        return run_workers(
            [
                [sys.executable, __file__, str(folder), str(r), str(world), str(free_port_of(folder))]
                for r in range(world)
            ]
        )


class TestHosts(JobBehaviour):
    """Several hosts of several ranks, of which this host plays all: shared memory inside each, tcp between."""

    __test__ = True
    worlds = [3, 4, 6]

    def start(self, world: int, folder: Path) -> str:
        port = str(free_port())
        command = [sys.executable, __file__, str(folder)]
        return run_workers([[*command, str(r), str(world), port, LAYOUTS[world]] for r in range(world)])


# The host of each rank: uneven, host after host, and dealt in turn as `mpirun --map-by node` does.
LAYOUTS = {3: "011", 4: "0011", 6: "012012"}

_ports: dict[Path, int] = {}


def free_port_of(folder: Path) -> int:
    return _ports.setdefault(folder, free_port())


def join(folder: str, rank: int, world: int, port: str, layout: str = "", **options: Any) -> Transport:
    """A tcp transport on loopback; with a layout, one over hosts that are folders of their own."""
    hosts = [int(host) for host in layout] or [0] * world
    tcp = TcpTransport(
        "127.0.0.1", int(port), rank, world, token=TOKEN, host=hosts[rank], join_timeout=20, **options
    )
    if not layout:
        return tcp
    ranks = [r for r in range(world) if hosts[r] == hosts[rank]]
    meet = Path(folder, f"host{hosts[rank]}")
    meet.mkdir(mode=0o700, exist_ok=True)
    shm = ShmTransport(str(meet), rank, world, ranks=ranks) if len(ranks) > 1 else None
    assert tcp.hosts == hosts
    return HostsTransport(tcp, shm, tcp.hosts)


def main(folder: str, rank: str, world: str, port: str, layout: str = "") -> None:
    # Different tags are different code: sizes of the world share them out.
    seal = {"2": "mac", "3": "crc", "5": "none"}.get(world)
    transport = join(folder, int(rank), int(world), port, layout, seal=seal)
    group = Group(transport, timeout=30)
    run_all(group, Path(folder))
    group.close()
    transport.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
