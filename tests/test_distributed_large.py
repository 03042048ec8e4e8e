"""Messages of more than 2^31 bytes, the most that a signed 32-bit length could count."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from ringgrad.distributed.group import Group
from ringgrad.distributed.transport import Transport

BYTES = (1 << 31) + 9
STEP = 1 << 16
HOSTS = {"shm": [0, 0], "mpi": [0, 1], "tcp": [0, 1], "shm+tcp": [0, 0, 1], "shm+mpi": [0, 0, 1]}  # by rank
TESTED = ["shm", "tcp", "shm+mpi"]  # every transport once; the other two take as long again and nothing else


def available() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable"):
            return int(line.split()[1]) << 10
    return 0


def mark(rank: int, count: int) -> np.ndarray:
    return (np.arange(count) * 7 % 101 + 1 + rank).astype(np.uint8)


def transport_of(kind: str, folder: str, rank: int, port: int) -> Transport:
    from ringgrad.distributed.transport.hosts import HostsTransport
    from ringgrad.distributed.transport.shm import ShmTransport

    hosts = HOSTS[kind]
    world = len(hosts)
    if kind == "shm":
        return ShmTransport(folder, rank, world)
    outer: Transport
    if "mpi" in kind:
        from ringgrad.distributed.transport.mpi import MpiTransport

        outer = MpiTransport()
    else:
        from ringgrad.distributed.transport.tcp import TcpTransport

        token = "of a test that everybody may know"
        outer = TcpTransport("127.0.0.1", port, rank, world, token=token, host=hosts[rank], seal="none")
    if "shm" not in kind:
        return outer
    here = [r for r in range(world) if hosts[r] == hosts[outer.rank]]
    inner = ShmTransport(folder, outer.rank, world, ranks=here) if len(here) > 1 else None
    return HostsTransport(outer, inner, hosts)


def work(kind: str, folder: str, rank: int, port: int) -> None:
    transport = transport_of(kind, folder, rank, port)
    group = Group(transport, timeout=60)
    array = group.empty(BYTES, np.uint8) if kind == "shm" else np.zeros(BYTES, np.uint8)
    marks = array[::STEP]  # what a rank does not write to takes no memory
    marks[...] = mark(group.rank, marks.size)
    array[-3:] = 7 + group.rank
    if kind == "shm":
        group.all_reduce(array)
        assert (marks == mark(0, marks.size) + mark(1, marks.size)).all() and array[-3:].tolist() == [15] * 3
    else:
        group.broadcast(array, 0)
        assert (marks == mark(0, marks.size)).all() and array[-3:].tolist() == [7] * 3
    assert not array[1:-3:STEP].any() and not array[STEP - 1 : -3 : STEP].any()
    group.barrier()
    group.close()
    transport.close()


@pytest.mark.slow
@pytest.mark.parametrize("kind", TESTED)
def test_more_bytes_than_a_signed_integer_counts(kind: str, tmp_path: Path) -> None:
    world = len(HOSTS[kind])
    needed = (world + 1) * BYTES  # an array on each rank, and room
    if available() < needed:
        pytest.skip(f"needs {needed >> 30} GiB of free memory, there are {available() >> 30}")
    own = [sys.executable, __file__, kind, str(tmp_path)]
    if "mpi" in kind:
        mpirun = Path(sys.executable).parent / "mpirun"
        if not mpirun.exists():
            pytest.skip("no mpirun beside this Python")
        commands = [[str(mpirun), "-n", str(world), *own, "0", "0"]]
    else:
        from ringgrad.distributed.transport.tcp import free_port

        port = str(free_port("127.0.0.1"))
        commands = [[*own, str(rank), port] for rank in range(world)]
    workers = [
        subprocess.Popen(c, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) for c in commands
    ]
    try:
        ended = [(w.communicate(timeout=100)[0], w.returncode) for w in workers]
    finally:
        for worker in workers:
            worker.kill()
    assert all(code == 0 for _, code in ended), ended


if __name__ == "__main__":
    work(sys.argv[1], sys.argv[2], int(sys.argv[3]), int(sys.argv[4]))
