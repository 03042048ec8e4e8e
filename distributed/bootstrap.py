"""From what the launcher says to a transport: who am I, where do the others run, how do we reach them."""

from __future__ import annotations

import os
import tempfile
import warnings
from array import array
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

from ..launch.environment import Environment, detect
from .rendezvous import chosen_seal, count_join, join_shm, join_tcp, meeting_place
from .transport import Transport

if TYPE_CHECKING:
    from .transport.mpi import MpiTransport
    from .transport.tcp import TcpTransport

TRANSPORTS = ("shm", "mpi", "tcp")
_FOREIGN = (
    "gloo",
    "nccl",
    "ucc",
    "cuda",
    "cpu",
    "cpu:gloo,cuda:nccl",
)  # PyTorch's names for what we choose ourselves
JOIN_TIMEOUT = 120.0  # s for all ranks to arrive: the first import on a cold file system is slow


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
    """The transport for a world of at least 2. RINGGRAD_TRANSPORT overrules `backend`.

    One host: shared memory. Several: MPI under its own launchers and where srun serves the MPI that mpi4py
    loads, else tcp; where hosts run several ranks, with shared memory inside each.
    """
    wish = _wish(backend)
    join = join_time(timeout)
    count_join()
    if here.launcher == "mpi" or wish == "mpi" or (wish is None and _slurm_with_mpi(here)):
        return _over_mpi(here, wish, join)
    if wish == "tcp":
        return join_tcp(here, init_method, join)
    if here.local_world_size == here.world_size:
        return join_shm(meeting_place(here, init_method), here.rank, here.world_size, join)
    if wish == "shm":
        raise RuntimeError(_SHM_ELSEWHERE)
    outer = join_tcp(here, init_method, join)
    return _with_shm(outer, outer.hosts, lambda: meeting_place(here, init_method), join)


def reason(here: Environment, name: str) -> str:
    """Why `open_transport` has chosen the transport of this name, for people."""
    if os.environ.get("RINGGRAD_TRANSPORT"):
        return "as RINGGRAD_TRANSPORT asks for it"
    if name == "shm":
        return "as all ranks are on this host"
    between = "MPI's launcher started the job" if "mpi" in name else "no MPI launcher started the job"
    return f"as there are several hosts and {between}" + (
        ": shared memory inside each host" if name.startswith("shm+") else ""
    )


def join_time(timeout: float | None) -> float:
    """Seconds within which all ranks must come."""
    return JOIN_TIMEOUT if timeout is None else min(timeout, JOIN_TIMEOUT)


_WHO = "[init_process_group] "
_SHM_ELSEWHERE = (
    "[init_process_group] the shm transport needs all ranks on one host; leave the choice open, or use mpi "
    "or tcp"
)


def _wish(backend: str | None) -> str | None:
    wish = os.environ.get("RINGGRAD_TRANSPORT") or backend
    if wish in _FOREIGN:
        if "nccl" in wish:
            warnings.warn(
                f"[init_process_group] backend {wish!r} is not needed: ringgrad chooses the transport by "
                "itself",
                stacklevel=4,
            )
        return None
    if wish is not None and wish not in TRANSPORTS:
        raise ValueError(
            f"[init_process_group] backend must be one of {', '.join(TRANSPORTS)} or None (PyTorch's names, as gloo "
            f"and nccl, mean None), got {wish!r}"
        )
    return wish


def _with_shm(
    outer: TcpTransport | MpiTransport, hosts: Sequence[int], directory: Callable[[], str], join: float
) -> Transport:
    """`outer` with shared memory inside each host; `outer` itself if each host runs one rank."""
    if len(set(hosts)) == len(hosts):
        return outer
    from .transport.hosts import HostsTransport

    ranks = [rank for rank, host in enumerate(hosts) if host == hosts[outer.rank]]
    inner = None
    if len(ranks) > 1:
        inner = join_shm(directory(), outer.rank, outer.world_size, join, ranks)
    return HostsTransport(outer, inner, hosts)


def _slurm_with_mpi(here: Environment) -> bool:
    """Whether srun has started several hosts' workers in a way that MPI can find the others by.

    Without a PMI (srun --mpi=none, Slurm's own default) no MPI can. A PMI that serves another MPI than ours is common
    too, as sites set one for all: the library then sees this process alone, or aborts it (MPICH under PMIx).
    """
    if here.launcher != "slurm" or here.local_world_size == here.world_size:
        return False
    pmi = {name.partition("_")[0] for name in os.environ if name.startswith("PMI")}
    if not pmi:
        return False
    from .transport.mpi import library_version, load

    try:
        if pmi == {"PMIX"} and "MPICH" in library_version():
            seen = 1
        else:
            seen = load().COMM_WORLD.Get_size()
    except ImportError:
        return False
    if seen != here.world_size:
        why = _wrong_library(here, seen, library_version()).removeprefix(_WHO)
        warnings.warn(f"{_WHO}hosts talk over TCP: {why}", stacklevel=4)
    return seen == here.world_size


def _over_mpi(here: Environment, wish: str | None, join: float) -> Transport:
    from .transport.mpi import MpiTransport, load

    MPI = load()
    world = MPI.COMM_WORLD
    if world.Get_size() != here.world_size:
        raise RuntimeError(_wrong_library(here, world.Get_size(), MPI.Get_library_version()))
    if wish == "mpi":
        return MpiTransport(world)
    host = world.Split_type(MPI.COMM_TYPE_SHARED)
    try:
        hosts = _hosts(world, host, MPI)
        together = len(set(hosts)) == 1
        if wish == "tcp":
            return _tcp_by_mpi(here, world, MPI, hosts, join)
        if together:
            # On one host shared memory is quicker than MPI: MPI only tells all ranks where to meet.
            return join_shm(_agree(world, MPI), world.Get_rank(), world.Get_size(), join)
        if wish == "shm":
            raise RuntimeError(_SHM_ELSEWHERE)
        return _with_shm(MpiTransport(world), hosts, lambda: _agree(host, MPI), join)
    finally:
        host.Free()


def _hosts(world: Any, host: Any, MPI: Any) -> list[int]:
    """By rank, the first rank on its host."""
    first, all_first = array("i", [world.Get_rank()]), array("i", [0] * world.Get_size())
    host.Bcast([first, MPI.INT], 0)
    world.Allgather([first, MPI.INT], [all_first, MPI.INT])
    return list(all_first)


def _tcp_by_mpi(here: Environment, world: Any, MPI: Any, hosts: Sequence[int], join: float) -> TcpTransport:
    """MPI carries rank 0's address and the secret, so that the user has none to make."""
    from .transport.tcp import TcpTransport, free_port

    together = len(set(hosts)) == 1
    if not together and here.master_addr is None:
        raise RuntimeError(
            "[init_process_group] tcp under mpirun over several hosts must know rank 0's address: set "
            "MASTER_ADDR, or leave RINGGRAD_TRANSPORT unset to use MPI between the hosts"
        )
    address = here.master_addr or "127.0.0.1"
    word = f"{free_port(address)} {os.urandom(32).hex()}" if here.rank == 0 else ""
    port, token = _tell(world, MPI, word).split()
    return TcpTransport(
        address,
        int(port),
        here.rank,
        here.world_size,
        token=token,
        host=hosts[here.rank],
        seal=chosen_seal(),
        join_timeout=join,
    )


def _agree(comm: Any, MPI: Any) -> str:
    """A new directory that `comm`'s rank 0 makes for all."""
    return _tell(comm, MPI, tempfile.mkdtemp(prefix="ringgrad-") if comm.Get_rank() == 0 else "")


def _tell(comm: Any, MPI: Any, text: str) -> str:
    """Rank 0's text, of at most 4096 bytes."""
    data = bytearray(4096)
    if comm.Get_rank() == 0:
        made = os.fsencode(text)
        data[: len(made)] = made
    comm.Bcast([data, MPI.BYTE], 0)
    return os.fsdecode(bytes(data).rstrip(b"\0"))


def _wrong_library(here: Environment, size: int, version: str) -> str:
    launcher = {"openmpi": "Open MPI's mpirun", "mpich": "MPICH's mpirun"}.get(here.mpi or "", here.launcher)
    mend = (
        "Use the mpirun that stands beside this python, or set MPI4PY_LIBMPI to the launcher's own libmpi.so."
    )
    if here.launcher not in ("mpi", "slurm"):
        return (
            f"{_WHO}the mpi transport needs workers that mpirun or srun started, got {here.world_size} that "
            "found their places otherwise: MPI sees each of them alone. Start them with mpirun, or leave backend out"
        )
    if here.launcher == "slurm":
        launcher = "srun"
        mend = "Use a PMI that this MPI speaks (srun --mpi=list), or set MPI4PY_LIBMPI to the cluster's libmpi.so."
    return (
        f"{_WHO}{launcher} started {here.world_size} workers, but the MPI library that mpi4py "
        f"loaded ({version.splitlines()[0].strip()}) sees {size}: launcher and library must be of one MPI. {mend}"
    )
