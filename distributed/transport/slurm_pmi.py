"""What keeps `srun --mpi=pmi2` from losing a part of MPICH's addresses.

Slurm tells by PMI-1 that a value may be 1024 bytes long, yet reads no more than 1024 bytes of a whole message, the
value's name and the command included (its src/plugins/mpi/pmi2/pmi1.c). MPICH fills a value as far as it is told, by
what happens to lie behind an address in memory, so that some starts, by chance, end in "value not properly terminated
in client request" and a job that hangs (https://github.com/pmodels/mpich/issues/6924). A process between both says 800.

Run as a script this file is that process: `slurm_pmi.py MPI_FD SLURM_FD`.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import subprocess
import sys
from collections.abc import MutableMapping

_TOLD, _MEANT = b"vallen_max=1024", b"vallen_max=0800"  # of one length, whatever counts the bytes
_CHUNK = 1 << 16


def shorten_values(environ: MutableMapping[str, str] = os.environ) -> bool:
    """Lets MPI, which must not have begun yet, talk to Slurm through a process of ours. False where Slurm's PMI is
    not what MPI will talk to.
    """
    if "SLURM_STEP_ID" not in environ or not environ.get("PMI_FD", "").isdecimal():
        return False
    slurm = int(environ["PMI_FD"])
    for_mpi, for_relay = socket.socketpair()
    with for_relay:
        ends = (for_relay.fileno(), slurm)
        command = [sys.executable, "-I", "-S", __file__, *map(str, ends)]
        subprocess.Popen(command, pass_fds=ends, stdin=subprocess.DEVNULL)
    os.close(slurm)  # the relay's alone now: Slurm sees the end when it does
    environ["PMI_FD"] = str(for_mpi.detach())
    return True


def relay(mpi: socket.socket, slurm: socket.socket) -> None:
    """Until one of them ends. A chunk is a message: each side waits for its answer before it sends another."""
    other = {mpi: slurm, slurm: mpi}
    while True:
        for ready in select.select([mpi, slurm], [], [])[0]:
            if not (chunk := ready.recv(_CHUNK)):
                return
            other[ready].sendall(chunk.replace(_TOLD, _MEANT) if ready is slurm else chunk)


if __name__ == "__main__":
    # Slurm's signals are for the worker: this process ends with it.
    for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2):
        signal.signal(number, signal.SIG_IGN)
    with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # one of them was killed
        relay(*(socket.socket(fileno=int(fd)) for fd in sys.argv[1:3]))
