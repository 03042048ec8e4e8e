"""How many workers a Trainer is to have (devices, num_nodes), against how many the launcher has started."""

from __future__ import annotations

from typing import Any

from ...launch.environment import Environment


def start_missing(place: Environment, devices: Any, num_nodes: int) -> None:
    """Returns where the workers asked for are there; where nobody has started any, this process becomes ringrun.

    Raises ValueError for numbers that no launch can have, and for others than a launcher has started.
    """
    wanted = wanted_workers(devices, num_nodes)
    check_hosts(place, devices, num_nodes)
    if wanted is None or wanted == place.world_size:
        return
    if place.launcher != "single":
        raise ValueError(disagreement(devices, num_nodes, wanted, place))
    from ...launch.relaunch import relaunch

    relaunch(wanted // num_nodes, num_nodes)


def disagreement(devices: Any, num_nodes: int, wanted: int, place: Environment) -> str:
    return (
        f"[Trainer] devices={devices}, num_nodes={num_nodes} are {wanted} workers, but {place.launcher} has started "
        f'{place.world_size}: pass devices="auto" to take what it started, or start {wanted}: '
        f"`mpirun -n {wanted} python script.py`, `srun -n {wanted} ...`, `ringrun -n {wanted} script.py`, or plain "
        "`python script.py`, where the Trainer starts them itself"
    )


def check_hosts(place: Environment, devices: Any, num_nodes: int) -> None:
    if num_nodes < 1:
        raise ValueError(f"[Trainer] num_nodes must be at least 1, came {num_nodes}")
    if num_nodes == 1:
        return
    if place.launcher == "single":
        if wanted_workers(devices, num_nodes) is None:
            raise ValueError(
                f"[Trainer] num_nodes={num_nodes} needs devices, the number of workers of a host, came {devices!r}"
            )
    elif place.world_size != num_nodes * place.local_world_size:
        raise ValueError(
            f"[Trainer] num_nodes={num_nodes} needs as many workers on each of {num_nodes} hosts, but "
            f"{place.launcher} has started {place.world_size}, and {place.local_world_size} of them here"
        )


def wanted_workers(devices: Any, num_nodes: int) -> int | None:
    if devices in ("auto", -1, "-1", None):
        return None
    if isinstance(devices, list | tuple):
        return len(devices) * num_nodes
    if not str(devices).isdigit() or int(devices) < 1:
        raise ValueError(
            f'[Trainer] devices must be "auto" or a number of workers of a host, came {devices!r}'
        )
    return int(devices) * num_nodes
