"""The tcp transport: what every group promises, and who gets in, who does not, and what ends a wait."""

import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, os.path.dirname(__file__))
from test_distributed_group import GroupBehaviour, JobBehaviour, read_results, run_all, run_workers

from ringgrad.distributed.errors import CollectiveMismatch, CollectiveTimeout, DistributedError, PeerFailure
from ringgrad.distributed.group import Group
from ringgrad.distributed.transport.handshake import Identity, Refused, answer, derive_key, dial
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


_ports: dict[Path, int] = {}


def free_port_of(folder: Path) -> int:
    return _ports.setdefault(folder, free_port())


def main(folder: str, rank: str, world: str, port: str) -> None:
    # Different tags are different code: sizes of the world share them out.
    seal = {"2": "mac", "3": "crc", "5": "none"}[world]
    transport = TcpTransport("127.0.0.1", int(port), int(rank), int(world), token=TOKEN, seal=seal)
    group = Group(transport, timeout=30)
    run_all(group, Path(folder))
    group.close()
    transport.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
