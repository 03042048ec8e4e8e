"""From what the launcher says to a transport: who am I, where do the others run, how do we reach them."""

from __future__ import annotations

import contextlib
import os
import tempfile
import warnings
import zlib
from typing import Any

from ..launch.environment import Environment, detect
from .transport import Transport

TRANSPORTS = ("shm", "mpi")
_FOREIGN = (
    "gloo",
    "nccl",
    "ucc",
    "cuda",
    "cpu",
    "cpu:gloo,cuda:nccl",
)  # PyTorch's names for what we choose ourselves
JOIN_TIMEOUT = 120.0  # s for all ranks to arrive: the first import on a cold file system is slow
_joins = 0  # how often this process has joined a job: each time meets in a place of its own


def place(init_method: str | None, rank: int, world_size: int) -> Environment:
    """This process's place: from the launcher, or from rank and world_size where the script gives them.

    Raises ValueError where they contradict, or where only one is given.
    """
    found = detect()
    if rank < 0 and world_size < 0:
        return found
    if found.launcher != "single" and world_size in (-1, found.world_size) and rank in (-1, found.rank):
        return found
    if world_size < 1 or not 0 <= rank < world_size:
        raise ValueError(
            "[init_process_group] world_size must be at least 1 and rank in 0..world_size-1 (or neither be "
            f"given), got rank={rank}, world_size={world_size}"
        )
    if found.launcher in ("mpi", "slurm", "ringrun"):
        raise ValueError(
            f"[init_process_group] {found.launcher} started this process as rank {found.rank} of "
            f"{found.world_size}, got rank={rank}, world_size={world_size}: leave both out"
        )
    address, port = _address(init_method, found)
    return Environment(rank, world_size, rank, world_size, 0, "torchrun", None, None, address, port, None)


def _address(init_method: str | None, found: Environment) -> tuple[str | None, int | None]:
    if init_method is None or init_method == "env://" or init_method.startswith("file://"):
        port = os.environ.get("MASTER_PORT", "")
        return os.environ.get("MASTER_ADDR"), int(port) if port.isdigit() else found.master_port
    scheme, _, rest = init_method.partition("://")
    host, _, number = rest.split("?")[0].rpartition(":")
    if scheme != "tcp" or not number.isdigit():
        raise ValueError(
            "[init_process_group] init_method must be env://, tcp://host:port or file:///path, "
            f"got {init_method!r}"
        )
    return host, int(number)


def open_transport(
    here: Environment, backend: str | None, init_method: str | None, timeout: float | None
) -> Transport:
    """The transport for a world of at least 2. RINGGRAD_TRANSPORT overrules `backend`."""
    wish = os.environ.get("RINGGRAD_TRANSPORT") or backend
    if wish in _FOREIGN:
        if "nccl" in wish:
            warnings.warn(
                f"[init_process_group] backend {wish!r} is not needed: ringgrad chooses the transport by "
                "itself",
                stacklevel=3,
            )
        wish = None
    if wish is not None and wish not in TRANSPORTS:
        raise ValueError(
            f"[init_process_group] backend must be one of {', '.join(TRANSPORTS)} or None, got {wish!r}"
        )
    join = JOIN_TIMEOUT if timeout is None else min(timeout, JOIN_TIMEOUT)
    if here.launcher == "mpi" or wish == "mpi" or _slurm_with_mpi(here, wish):
        return _over_mpi(here, wish, join)
    if here.local_world_size != here.world_size:
        raise RuntimeError(
            f"[init_process_group] {here.world_size} workers of which {here.local_world_size} on this host "
            "need a transport between hosts, which is MPI: start the job with mpirun or srun, after "
            'pip install "ringgrad[mpi]" on every host'
        )
    return _shm(_meeting_place(here, init_method), here.rank, here.world_size, join)


def _slurm_with_mpi(here: Environment, wish: str | None) -> bool:
    return here.launcher == "slurm" and wish is None and here.local_world_size != here.world_size


def _over_mpi(here: Environment, wish: str | None, join: float) -> Transport:
    from .transport.mpi import MpiTransport, load

    MPI = load()
    world = MPI.COMM_WORLD
    if world.Get_size() != here.world_size:
        raise RuntimeError(_wrong_library(here, world.Get_size(), MPI.Get_library_version()))
    if wish == "mpi":
        return MpiTransport(world)
    host = world.Split_type(MPI.COMM_TYPE_SHARED)
    together = host.Get_size() == world.Get_size()
    host.Free()
    if not together:
        if wish == "shm":
            raise RuntimeError("[init_process_group] the shm transport needs all ranks on one host; use mpi")
        return MpiTransport(world)
    # On one host shared memory is quicker than MPI: MPI only tells all ranks where to meet.
    return _shm(_agree(world, MPI), world.Get_rank(), world.Get_size(), join)


def _agree(world: Any, MPI: Any) -> str:
    path = bytearray(4096)
    if world.Get_rank() == 0:
        made = os.fsencode(tempfile.mkdtemp(prefix="ringgrad-"))
        path[: len(made)] = made
    world.Bcast([path, MPI.BYTE], 0)
    return os.fsdecode(bytes(path).rstrip(b"\0"))


def _wrong_library(here: Environment, size: int, version: str) -> str:
    launcher = {"openmpi": "Open MPI's mpirun", "mpich": "MPICH's mpirun"}.get(here.mpi or "", here.launcher)
    return (
        f"[init_process_group] {launcher} started {here.world_size} workers, but the MPI library that mpi4py "
        f"loaded ({version.splitlines()[0].strip()}) sees {size}: launcher and library must be of one MPI. "
        "Use the mpirun that stands beside this python, or set MPI4PY_LIBMPI to the launcher's own libmpi.so."
    )


def _meeting_place(here: Environment, init_method: str | None) -> str:
    """A directory that all ranks of this job and nobody else come to."""
    global _joins
    _joins += 1
    if init_method is not None and init_method.startswith("file://"):
        return f"{init_method.removeprefix('file://')}.ringgrad-{_joins}"
    if here.run_dir is not None:
        return os.path.join(here.run_dir, f"shm-{_joins}")
    # Workers of one launcher share their parent, and a launcher that restarts them counts.
    job = here.job_id if here.launcher == "slurm" else f"{here.job_id}-{here.master_port}-{os.getppid()}"
    restart = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    tag = f"{zlib.crc32(f'{job}-{restart}'.encode()):08x}-{_joins}"
    return os.path.join(tempfile.gettempdir(), f"ringgrad-{os.getuid()}-{tag}")


def _shm(directory: str, rank: int, world_size: int, join: float) -> Transport:
    from .transport.mesh import private_directory
    from .transport.shm import ShmTransport

    private_directory(directory)
    try:
        return ShmTransport(
            directory, rank, world_size, job=zlib.crc32(os.fsencode(directory)), join_timeout=join
        )
    finally:
        with contextlib.suppress(OSError):
            os.rmdir(directory)  # the last to leave finds it empty
