"""Where the workers of a job meet: a directory on one host, an address and a secret over several."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
import time
import zlib
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ..launch.environment import Environment
from .errors import CollectiveTimeout

if TYPE_CHECKING:
    from .transport.shm import ShmTransport
    from .transport.tcp import TcpTransport

SEALS = ("mac", "crc", "none")
LEAST_TOKEN = 16  # characters
_joins = 0  # how often this process has joined a job: each time meets in a place of its own


def count_join() -> None:
    """One more meeting of this process: all ranks count alike, as all join together."""
    global _joins
    _joins += 1


def meeting_place(here: Environment, init_method: str | None) -> str:
    """A directory that all ranks of this job on this host and nobody else come to."""
    if init_method is not None and init_method.startswith("file://"):
        return f"{init_method.removeprefix('file://')}.ringgrad-{_joins}"
    if here.run_dir is not None:
        return os.path.join(here.run_dir, f"shm-{_joins}")
    # Workers of one launcher share their parent, and a launcher that restarts them counts.
    named = here.launcher in ("slurm", "store")
    job = here.job_id if named else f"{here.job_id}-{here.master_port}-{os.getppid()}"
    tag = f"{zlib.crc32(f'{job}-{_restarts()}'.encode()):08x}-{_joins}"
    return os.path.join(tempfile.gettempdir(), f"ringgrad-{os.getuid()}-{tag}")


def join_shm(
    directory: str, rank: int, world_size: int, join: float, ranks: Sequence[int] | None = None
) -> ShmTransport:
    """ranks: those on this host, if there are others elsewhere."""
    from .transport.mesh import private_directory
    from .transport.shm import ShmTransport

    private_directory(directory)
    job = zlib.crc32(os.fsencode(directory))
    try:
        return ShmTransport(directory, rank, world_size, job=job, join_timeout=join, ranks=ranks)
    finally:
        with contextlib.suppress(OSError):
            os.rmdir(directory)  # the last to leave finds it empty


def join_tcp(here: Environment, init_method: str | None, join: float) -> TcpTransport:
    """Meet at rank 0's address. Raises RuntimeError if other hosts can reach it and there is no token.

    srun's workers need none: rank 0 leaves one in the home directory, which a cluster's hosts share.
    """
    from .transport.tcp import TcpTransport, is_loopback, resolve

    address, port = _address(here, init_method)
    loopback = is_loopback(resolve(address, port)[1][0])
    if loopback and here.local_world_size != here.world_size:
        raise RuntimeError(
            f"[init_process_group] rank 0's address must be one that the other hosts reach, and {address} is "
            "this host itself: give another name or the number with --master-addr or MASTER_ADDR"
        )
    deadline = time.monotonic() + join
    home = here.launcher == "slurm" and not loopback and not os.environ.get("RINGGRAD_TOKEN", "").strip()
    token, directory = None if home else token_for(address), None
    if token is None:
        directory = _home_place(here) if home else meeting_place(here, init_method)
        token = shared_secret(directory, here.rank, deadline)
    transport = TcpTransport(
        address,
        port,
        here.rank,
        here.world_size,
        token=token,
        job=int.from_bytes(hashlib.sha256((here.job_id or "").encode()).digest()[:8], "little"),
        generation=_restarts() << 16 | _joins,
        host=here.node_rank,
        seal=chosen_seal(),
        join_timeout=deadline - time.monotonic(),
    )
    if directory is not None and here.rank == 0:  # all have read it, as all have joined
        os.unlink(os.path.join(directory, "secret"))
        with contextlib.suppress(OSError):  # NFS keeps a file that another host has just closed for a moment
            os.rmdir(directory)
    return transport


def token_for(address: str, who: str = "init_process_group") -> str | None:
    """The job's secret, for whoever listens on `address` or dials it; None on loopback where none is set.

    Raises RuntimeError for one that is too short, and without one for an address that other hosts reach.
    """
    from .transport.tcp import is_loopback, resolve

    token = os.environ.get("RINGGRAD_TOKEN", "").strip()
    if token and len(token) < LEAST_TOKEN:
        raise RuntimeError(
            f"[{who}] RINGGRAD_TOKEN must have at least {LEAST_TOKEN} characters, it has {len(token)}\n{_TOKEN_ADVICE}"
        )
    if not token and not is_loopback(resolve(address, 0)[1][0]):
        raise RuntimeError(
            f"[{who}] workers that listen on {address} need a secret, as anyone who reaches the port could join the "
            f"job otherwise; RINGGRAD_TOKEN is not set\n{_TOKEN_ADVICE}"
        )
    return token or None


_TOKEN_ADVICE = """\
  do: set it to the same secret on every host, as  python -c "import secrets; print(secrets.token_hex(32))"
      makes one; or start the job with ringrun, which asks for it; or with mpirun, which has its own ways"""


def _home_place(here: Environment) -> str:
    """A directory in the user's home for the ranks of this turn of a Slurm job, wherever they run."""
    turn = (
        os.environ.get("SLURM_CLUSTER_NAME"),
        here.job_id,
        os.environ.get("SLURM_RESTART_COUNT"),
        _restarts(),
    )
    tag = hashlib.sha256(repr(turn).encode()).hexdigest()[:16]
    parent = os.path.expanduser("~/.cache/ringgrad")
    try:
        os.makedirs(parent, mode=0o700, exist_ok=True)
    except OSError as error:
        raise RuntimeError(
            f"[init_process_group] srun's workers share a secret in {parent}, which can not be made "
            f"({error.strerror}), and RINGGRAD_TOKEN is not set\n{_TOKEN_ADVICE}"
        ) from None
    return os.path.join(parent, f"{tag}-{_joins}")


def chosen_seal() -> str | None:
    """The user's choice of how data is protected between hosts: RINGGRAD_TCP_SEAL, or None."""
    seal = os.environ.get("RINGGRAD_TCP_SEAL") or None
    if seal is not None and seal not in SEALS:
        raise ValueError(
            f"[init_process_group] RINGGRAD_TCP_SEAL must be one of {', '.join(SEALS)}, got {seal!r}"
        )
    return seal


def _address(here: Environment, init_method: str | None) -> tuple[str, int]:
    address, port = here.master_addr, here.master_port
    if init_method is not None and init_method.startswith("tcp://"):
        host, _, number = init_method.removeprefix("tcp://").split("?")[0].rpartition(":")
        address, port = host.strip("[]"), int(number)
    elif port is not None and os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True":
        port += 1  # torchrun itself listens on the port that it tells its workers
    if address is None or port is None:
        raise RuntimeError(
            "[init_process_group] the tcp transport must know where rank 0 listens, and MASTER_ADDR="
            f"{address}, MASTER_PORT={port}: set both, or start the workers with ringrun"
        )
    return address, port


def _restarts() -> int:
    count = os.environ.get("TORCHELASTIC_RESTART_COUNT", "0")
    return int(count) if count.isdigit() else 0


def shared_secret(directory: str, rank: int, deadline: float) -> str:
    """A secret that rank 0 leaves for its neighbours in a directory that only this user can enter."""
    from .transport.mesh import private_directory

    path = os.path.join(private_directory(directory), "secret")
    if rank == 0:
        secret = os.urandom(32).hex()
        fd = os.open(f"{path}.new", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(fd, "w") as file:
            file.write(secret)
        os.rename(f"{path}.new", path)
        return secret
    while time.monotonic() < deadline:
        with contextlib.suppress(FileNotFoundError):
            # NFS believes for long that a file is missing, unless its directory is read anew.
            os.listdir(directory)
            with open(path) as file:
                return file.read()
        time.sleep(0.01)
    raise CollectiveTimeout(
        f"[init_process_group] rank {rank} waits for rank 0, which did not come to {directory}: all ranks must start "
        "within that time, and on several hosts share that directory; where they do not, set RINGGRAD_TOKEN"
    )
