"""Workers that only share a store: through it each tells the others where it runs, and rank 0 where all meet."""

from __future__ import annotations

import os
import platform
from datetime import timedelta
from pathlib import Path

from ..launch.environment import Environment
from .errors import CollectiveTimeout
from .rendezvous import token_for
from .store import DistStoreError, Store

KNOWING = ("ringrun", "mpi", "slurm")  # launchers whose workers find each other without a store


def meet_through(store: Store, here: Environment, seconds: float) -> tuple[Environment, str | None]:
    """The place of each worker that shares `store`, and an init_method for those of several hosts.

    Raises CollectiveTimeout naming the ranks that do not come within `seconds`, RuntimeError where workers of several
    hosts have no address to meet at, or no token.
    """
    if here.launcher in KNOWING or here.world_size == 1:
        return here, None
    # A store may see several jobs one after another, and their workers restart together.
    key = f"ringgrad/meeting {store.add(f'ringgrad/joins of {here.rank}', 1)}"
    store.set(f"{key}/rank {here.rank}", this_host())
    hosts = [store.get(name).decode() for name in _all(store, key, here, seconds)]
    if here.rank == 0:
        store.set(key, _announcement(store, here, hosts))
    store.wait([key], timedelta(seconds=seconds))
    method, job, error = store.get(key).decode().split(" ", 2)
    if error:
        raise RuntimeError(error)
    mine = [rank for rank, host in enumerate(hosts) if host == hosts[here.rank]]
    place = here._replace(
        launcher="store",
        job_id=job,
        local_rank=mine.index(here.rank),
        local_world_size=len(mine),
        node_rank=list(dict.fromkeys(hosts)).index(hosts[here.rank]),
    )
    return place, method or None


def this_host() -> str:
    """A name that processes share if they can share memory: of the host, its boot, and its network (a container's)."""
    boot = Path("/proc/sys/kernel/random/boot_id")
    return f"{platform.node()} {boot.read_text().strip()} {os.stat('/proc/self/ns/net').st_ino}"


def _all(store: Store, key: str, here: Environment, seconds: float) -> list[str]:
    """The keys under which ranks name their hosts, once all are there."""
    names = [f"{key}/rank {rank}" for rank in range(here.world_size)]
    try:
        store.wait(names, timedelta(seconds=seconds))
    except DistStoreError:
        missing = [rank for rank, name in enumerate(names) if not store.check([name])]
        if missing:
            raise CollectiveTimeout(
                f"[init_process_group] {here.world_size} ranks must come to the store within {seconds:.0f} s, and "
                f"{', '.join(map(str, missing))} did not"
            ) from None
    return names


def _announcement(store: Store, here: Environment, hosts: list[str]) -> str:
    """What rank 0 tells all: an init_method (empty for one host), a name of the job, an error."""
    try:
        return f"{_address(store, here) if len(set(hosts)) > 1 else ''} {os.urandom(8).hex()} "
    except RuntimeError as error:
        return f"  {error}"


def _address(store: Store, here: Environment) -> str:
    """An init_method of several hosts: where rank 0, which asks, listens."""
    from .transport.tcp import free_port, is_loopback

    address = store.own_address()
    if address is None or is_loopback(address):
        address = here.master_addr
    if address is None:
        raise RuntimeError(
            "[init_process_group] workers that meet through a store on several hosts must know where they reach rank "
            f"0, and {type(store).__name__} does not tell: set MASTER_ADDR for rank 0, or meet through a TCPStore"
        )
    token_for(address)
    return f"tcp://{address}:{free_port(address)}"
