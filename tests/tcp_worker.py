"""One worker of the tcp tests: it joins over loopback, and as a script it runs the cases of every group.

Apart from the tests, so that a worker does not load what they need.
"""

import sys
from pathlib import Path
from typing import Any

from group_cases import run_all

from ringgrad.distributed.group import Group
from ringgrad.distributed.transport import Transport
from ringgrad.distributed.transport.hosts import HostsTransport
from ringgrad.distributed.transport.shm import ShmTransport
from ringgrad.distributed.transport.tcp import TcpTransport

TOKEN = "a token of the tests, 32 letters"


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
    silence = options.get("silence", 10.0)
    alone = len(ranks) == 1
    shm = None if alone else ShmTransport(str(meet), rank, world, ranks=ranks, silence=silence)
    assert tcp.hosts == hosts
    return HostsTransport(tcp, shm, tcp.hosts)


def main(folder: str, rank: str, world: str, port: str, layout: str = "") -> None:
    # Different tags are different code: sizes of the world share them out.
    seal = {"2": "mac", "3": "crc", "5": "none"}.get(world)
    transport = join(folder, int(rank), int(world), port, layout, seal=seal)
    group = Group(transport, timeout=60)
    run_all(group, Path(folder))
    group.close()
    transport.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
