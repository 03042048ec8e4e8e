"""Messages of more than 2^31 bytes, the most that a signed 32-bit length could count."""

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

BYTES = (1 << 31) + 9
NEEDED = 3 * BYTES  # an array on each of two ranks, and room


def available() -> int:
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable"):
            return int(line.split()[1]) << 10
    return 0


def work(kind: str, folder: str, rank: int) -> None:
    from ringgrad.distributed.group import Group
    from ringgrad.distributed.transport import Transport

    transport: Transport
    if kind == "mpi":
        from ringgrad.distributed.transport.mpi import MpiTransport

        transport = MpiTransport()
    else:
        from ringgrad.distributed.transport.shm import ShmTransport

        transport = ShmTransport(folder, rank, 2)
    group = Group(transport, timeout=60)
    array = group.empty(BYTES, np.uint8)
    array[...] = 1 + group.rank
    array[-3:] = 7 + group.rank
    if kind == "shm":
        group.all_reduce(array)
        assert array[-3:].tolist() == [15] * 3 and array[: BYTES - 3].min() == array[: BYTES - 3].max() == 3
    else:
        array[:: 1 << 20] = 5 + group.rank
        group.broadcast(array, 0)
        assert (
            array[-3:].tolist() == [7] * 3
            and (array[:: 1 << 20] == 5).all()
            and (array[1 :: 1 << 20] == 1).all()
        )
    group.barrier()
    group.close()
    transport.close()


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["shm", "mpi"])
def test_more_bytes_than_a_signed_integer_counts(kind: str, tmp_path: Path) -> None:
    if available() < NEEDED:
        pytest.skip(f"needs {NEEDED >> 30} GiB of free memory, there are {available() >> 30}")
    own = [sys.executable, __file__, kind, str(tmp_path)]
    mpirun = Path(sys.executable).parent / "mpirun"
    if kind == "mpi" and not mpirun.exists():
        pytest.skip("no mpirun beside this Python")
    commands = [[str(mpirun), "-n", "2", *own, "0"]] if kind == "mpi" else [[*own, str(r)] for r in range(2)]
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
    work(sys.argv[1], sys.argv[2], int(sys.argv[3]))
