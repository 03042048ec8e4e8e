"""What `ringgrad doctor` looks at. Each check is a function of plain facts: tests hand it those of a broken machine."""

from __future__ import annotations

import importlib.metadata
import ipaddress
import os
import platform
import shutil
import socket
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from ..launch.environment import Environment
from ..launch.host import usable_cores

POOLS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")
PROBE_BYTES = 64 << 20  # of shared memory that any job should get
DEV_SHM_BYTES = 1 << 30  # Docker gives 64 MiB, which MPI libraries and data loaders of several workers exceed
ALIKE = ("ringgrad", "numpy", "python", "MPI library")  # must be of one version on all ranks
OVER_TCP = ("ringrun", "torchrun")  # launchers whose hosts talk over TCP unless told otherwise
BRIDGES = ("docker", "br-", "virbr", "veth", "cni", "flannel", "cali")

JOIN_ADVICE = (
    "what the line above says; `ringgrad doctor --no-join` looks at each process alone; hosts that run different "
    "scripts or were started at different times do not meet"
)


class Finding(NamedTuple):
    """level: "wrong" (a job would fail, or its numbers be wrong) or "slow"."""

    level: str
    text: str
    advice: str

    @classmethod
    def wrong(cls, text: str, advice: str) -> Finding:
        return cls("wrong", text, advice)

    @classmethod
    def slow(cls, text: str, advice: str) -> Finding:
        return cls("slow", text, advice)


# Facts.


def facts() -> dict[str, Any]:
    """What each rank tells the others of itself, by name."""
    from ..version import __version__

    found: dict[str, Any] = {
        "ringgrad": __version__,
        "python": platform.python_version(),
        "numpy": np.__version__,
        "mpi4py": _version("mpi4py"),
        "MPI library": mpi_library(),
        "CuPy": next(
            (v for n in ("cupy-cuda13x", "cupy-cuda12x", "cupy") if (v := _version(n)) != "not installed"),
            "not installed",
        ),
        "GPUs": gpus(),
        "host": platform.node(),
        "cores": usable_cores(),
        "threads of math libraries": {name: os.environ.get(name) for name in POOLS if os.environ.get(name)}
        or "not set",
        "shared memory": f"{free_bytes('/dev/shm') >> 20} MiB free in /dev/shm",
    }
    return found


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "not installed"


def mpi_library() -> str:
    """The first line of the MPI library that mpi4py finds; it is loaded only where an MPI launcher started us."""
    if _version("mpi4py") == "not installed":
        return "none, as mpi4py is not installed"
    if not any(name.startswith(("PMI_", "PMIX_", "OMPI_COMM_WORLD_")) for name in os.environ):
        return "not loaded, as no MPI launcher started this process"
    try:
        from mpi4py import MPI
    except (ImportError, RuntimeError) as error:
        return f"none ({error})".splitlines()[0]
    return str(MPI.Get_library_version()).splitlines()[0].strip(" ,\0")


def gpus() -> int:
    """NVIDIA GPUs that the driver shows, without loading a CUDA library."""
    return len(list(Path("/proc/driver/nvidia/gpus").glob("*")))


def free_bytes(path: str) -> int:
    """Free bytes of a file system; 0 if it is not there."""
    try:
        return shutil.disk_usage(path).free
    except OSError:
        return 0


# Checks.


def own(here: Environment, facts: Mapping[str, Any]) -> list[Finding]:
    """What one process can see by itself."""
    cores, ranks = int(facts["cores"]), here.local_world_size
    found = oversubscription(ranks, cores)
    found += thread_pools(os.environ, ranks, cores)
    found += shared_memory(total_bytes("/dev/shm"), memfd_works(PROBE_BYTES), ranks)
    if here.launcher == "mpi":
        found += mpi(here, str(facts["mpi4py"]), str(facts["MPI library"]), launcher_version())
        if facts["GPUs"]:
            found += cuda_aware(_mpi_knows_cuda())
    if here.local_world_size < here.world_size:
        found += network(here, address_of(here.master_addr), interface_of(here.master_addr))
        if here.launcher in OVER_TCP:
            found += seals(os.environ.get("RINGGRAD_TCP_SEAL", ""), _version("cryptography"))
    if facts["GPUs"] and facts["CuPy"] == "not installed":
        found.append(
            Finding.slow(
                "this host has GPUs and CuPy is not installed, so everything runs on its CPUs",
                'pip install "ringgrad[cuda]"',
            )
        )
    return found


def oversubscription(ranks: int, cores: int) -> list[Finding]:
    if ranks <= cores:
        return []
    text = f"{ranks} ranks share {cores} usable cores of this host: they wait for each other to get a turn"
    return [Finding.slow(text, f"start at most {cores} ranks a host, or give the job more cores")]


def thread_pools(env: Mapping[str, str], ranks: int, cores: int) -> list[Finding]:
    """Math libraries start a thread for every core of the host, in every rank, unless told otherwise."""
    if ranks == 1:
        return []
    share = max(1, cores // ranks)
    given = [int(env[name]) for name in POOLS if env.get(name, "").isdigit()]
    threads = max(given) if given else cores
    if threads <= share:
        return []
    text = f"each of {ranks} ranks computes with up to {threads} threads, and its share of {cores} cores is {share}"
    return [
        Finding.slow(
            text, f"export OMP_NUM_THREADS={share} before starting the workers (ringrun does it by itself)"
        )
    ]


def shared_memory(dev_shm: int, memfd: str, ranks: int) -> list[Finding]:
    """dev_shm: its size in bytes, 0 if it is missing. memfd: why memory cannot be shared, empty if it can."""
    found = []
    if memfd and ranks > 1:
        text = f"the ranks of this host cannot share memory: {memfd}"
        found.append(
            Finding.wrong(text, "raise the memory limit of the container, or set RINGGRAD_TRANSPORT=tcp")
        )
    if dev_shm < DEV_SHM_BYTES:
        size = f"has {dev_shm >> 20} MiB" if dev_shm else "is missing"
        text = f"/dev/shm {size}: ringgrad does not need it, but MPI libraries do, and end by SIGBUS when it is full"
        found.append(
            Finding.slow(text, "docker run --shm-size=2g, or mount a tmpfs of 1 GiB or more at /dev/shm")
        )
    return found


def total_bytes(path: str) -> int:
    """Size of a file system; 0 if it is not there."""
    try:
        return shutil.disk_usage(path).total
    except OSError:
        return 0


def memfd_works(size: int) -> str:
    """Why `size` bytes of memory cannot be shared with other processes; empty if they can."""
    from .transport.segment import create

    try:
        fd, _ = create("ringgrad-doctor", size)
    except (OSError, MemoryError) as error:
        return str(error)
    os.close(fd)
    return ""


def launcher_version() -> str:
    """What the mpirun that a shell finds says of itself; empty if there is none."""
    path = shutil.which("mpirun")
    if path is None:
        return ""
    try:
        done = subprocess.run([path, "--version"], capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.SubprocessError):
        return ""
    return " ".join((done.stdout + done.stderr).split())[:200]


def flavour(text: str) -> str | None:
    """Which MPI a version text is of."""
    low = text.lower()
    if "open mpi" in low or "prte" in low or "open-mpi" in low:
        return "openmpi"
    return "mpich" if "mpich" in low or "hydra" in low else None


NAMES = {"openmpi": "Open MPI", "mpich": "MPICH"}


def mpi(here: Environment, mpi4py: str, library: str, found_mpirun: str) -> list[Finding]:
    """Whether mpi4py, the MPI library and the mpirun that started this process belong together."""
    if mpi4py == "not installed":
        return [
            Finding.wrong(
                "mpirun started this process and mpi4py is not installed", 'pip install "ringgrad[mpi]"'
            )
        ]
    if library.startswith("none"):
        return [
            Finding.wrong(
                f"mpi4py finds no MPI library: {library}",
                'pip install "ringgrad[mpi]", or set MPI4PY_LIBMPI to libmpi.so',
            )
        ]
    found = []
    mine, theirs = flavour(library), here.mpi
    if mine and theirs and mine != theirs:
        text = (
            f"the mpirun that started this process is {NAMES[theirs]}'s, and mpi4py has loaded {library}: every rank "
            "sees a world of its own"
        )
        found.append(
            Finding.wrong(
                text,
                "use the mpirun that stands beside this python, or set MPI4PY_LIBMPI to the used mpirun's libmpi.so",
            )
        )
    shell = flavour(found_mpirun)
    if shell and mine and shell != mine and not found:
        text = f"the shell's mpirun is {NAMES[shell]}'s, and mpi4py loads {NAMES[mine]}: they do not fit together"
        found.append(Finding.slow(text, "put the bin folder of this python's environment first in PATH"))
    return found


def _mpi_knows_cuda() -> bool:
    """Whether the MPI library moves memory of GPUs (MPIX_Query_cuda_support)."""
    import ctypes

    try:
        from mpi4py import MPI

        query = getattr(ctypes.CDLL(MPI.__file__), "MPIX_Query_cuda_support", None)
    except (ImportError, OSError, RuntimeError):
        return False
    return query is not None and bool(query())


def cuda_aware(aware: bool) -> list[Finding]:
    if aware:
        return []
    text = "the MPI library is not CUDA-aware: gradients on GPUs go through the host's memory"
    return [
        Finding.slow(
            text,
            "nothing on one host, where NCCL moves them; between hosts, an MPI built with CUDA (the wheels are not)",
        )
    ]


def address_of(name: str | None) -> str | None:
    """The number behind rank 0's name; None if nobody knows it."""
    if not name:
        return None
    try:
        return str(socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)[0][4][0])
    except OSError:
        return None


def interface_of(name: str | None) -> str:
    """The interface by which this host reaches rank 0's address, as far as the kernel tells."""
    address = address_of(name)
    if address is None or ":" in address:
        return ""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect((address, 9))
            own = probe.getsockname()[0]
        except OSError:
            return ""
    for _, interface in socket.if_nameindex():
        if _address_of_interface(interface) == own:
            return interface
    return ""


def _address_of_interface(interface: str) -> str | None:
    import fcntl
    import struct

    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            request = struct.pack("256s", interface.encode()[:15])
            return socket.inet_ntoa(fcntl.ioctl(probe.fileno(), 0x8915, request)[20:24])  # SIOCGIFADDR
        except OSError:
            return None


def network(here: Environment, address: str | None, interface: str) -> list[Finding]:
    """For a job over several hosts: how this host reaches rank 0."""
    name, found = here.master_addr, []
    if name and address is None:
        text = f"rank 0's address {name!r} is a name that this host does not know"
        return [
            Finding.wrong(
                text, "give the number with --master-addr or MASTER_ADDR, or add the name to /etc/hosts"
            )
        ]
    if address and ipaddress.ip_address(address.partition("%")[0]).is_loopback:
        text = (
            f"rank 0's address {name} is {address}, which is each host itself, and the job has several hosts"
        )
        found.append(
            Finding.wrong(
                text, "give an address that the other hosts reach with --master-addr or MASTER_ADDR"
            )
        )
    elif interface.startswith(BRIDGES):
        text = f"this host reaches rank 0 through {interface}, which leads to containers of its own"
        found.append(
            Finding.wrong(
                text,
                "give rank 0's address on the network between the hosts with --master-addr or MASTER_ADDR",
            )
        )
    if here.launcher in OVER_TCP and not os.environ.get("RINGGRAD_TOKEN"):
        text = "RINGGRAD_TOKEN is not set: over several hosts anyone who reaches the port could join the job"
        found.append(
            Finding.wrong(
                text,
                'set it to the same secret on all hosts: python -c "import secrets; print(secrets.token_hex(32))"',
            )
        )
    return found


def seals(chosen: str, cryptography: str) -> list[Finding]:
    """What guards messages between hosts. chosen: by RINGGRAD_TCP_SEAL. cryptography: its version."""
    if chosen not in ("", "mac") or cryptography != "not installed":
        return []
    text = "messages over TCP are guarded by HMAC-SHA-256, some 1 GB/s of a core; GMAC takes a tenth of that time"
    return [Finding.slow(text, 'pip install "ringgrad[tcp]" on all hosts')]


def between(everybody: Sequence[Mapping[str, Any]]) -> list[Finding]:
    """What differs between ranks and must not."""
    found = []
    for name in ALIKE:
        ranks: dict[str, list[int]] = {}
        for rank, facts in enumerate(everybody):
            ranks.setdefault(str(facts.get(name)), []).append(rank)
        if len(ranks) > 1:
            sides = "; ".join(
                f"{version} on rank {', '.join(map(str, who))}" for version, who in ranks.items()
            )
            found.append(
                Finding.wrong(
                    f"the ranks run different versions of {name}: {sides}", "install one version on all hosts"
                )
            )
    return found
