"""Who am I: rank, world size and neighbours, as whichever launcher started this process tells it.

The launchers speak through environment variables. `detect` reads, in this order, those of ringrun, of
mpirun (Open MPI, MPICH and the MPIs built on it), of a Slurm step, and of torchrun; a process without any
of them is a world of one.
"""

import os
from collections.abc import Mapping
from typing import NamedTuple

# Open MPI: its manual's "Environment variables set for MPI applications". MPICH: hydra sets these.
_OPENMPI = (
    "OMPI_COMM_WORLD_RANK",
    "OMPI_COMM_WORLD_SIZE",
    "OMPI_COMM_WORLD_LOCAL_RANK",
    "OMPI_COMM_WORLD_LOCAL_SIZE",
)
_MPICH = ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS")
_TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE")
_RINGRUN = ("RINGGRAD_RANK", "RINGGRAD_WORLD_SIZE", "RINGGRAD_LOCAL_RANK", "RINGGRAD_LOCAL_WORLD_SIZE")


class Environment(NamedTuple):
    """One worker's place in its job.

    `rank` counts over all hosts (0 .. world_size-1), `local_rank` over this host, `node_rank` over hosts.
    `launcher` is "ringrun", "mpi", "slurm", "torchrun", "store" (workers that met through one) or "single"; `mpi`
    is the MPI whose launcher started us ("openmpi", "mpich" or None), whatever library mpi4py finds. `run_dir` is a
    directory of mode 0700 that all workers of this job on this host share and that ringrun removes at the end; None
    without ringrun.
    `restart` counts how often ringrun or torchrun have started the job's workers again after a failure.
    mpirun does not tell the host's index: there `node_rank` is right only if ranks fill host after host.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    local_world_size: int = 1
    node_rank: int = 0
    launcher: str = "single"
    run_dir: str | None = None
    job_id: str | None = None
    master_addr: str | None = None
    master_port: int | None = None
    mpi: str | None = None
    restart: int = 0

    def variables(self) -> dict[str, str]:
        """ringrun's own variables plus torchrun's, so that scripts written for either find themselves."""
        values: dict[str, object] = {
            "RINGGRAD_RANK": self.rank,
            "RINGGRAD_WORLD_SIZE": self.world_size,
            "RINGGRAD_LOCAL_RANK": self.local_rank,
            "RINGGRAD_LOCAL_WORLD_SIZE": self.local_world_size,
            "RINGGRAD_NODE_RANK": self.node_rank,
            "RINGGRAD_RUN_DIR": self.run_dir,
            "RINGGRAD_JOB_ID": self.job_id,
            "RANK": self.rank,
            "WORLD_SIZE": self.world_size,
            "LOCAL_RANK": self.local_rank,
            "LOCAL_WORLD_SIZE": self.local_world_size,
            "GROUP_RANK": self.node_rank,
            "MASTER_ADDR": self.master_addr,
            "MASTER_PORT": self.master_port,
            "TORCHELASTIC_RESTART_COUNT": self.restart,
        }
        return {name: str(value) for name, value in values.items() if value is not None}


_settled: Environment | None = None


def settle(place: Environment | None) -> None:
    """Notes the place that this process has joined its job at, which arguments may have named; None: it has left."""
    global _settled
    _settled = place


def detect(environ: Mapping[str, str] | None = None) -> Environment:
    """The place of this process in its job: where it has joined one, that; else from `environ` (default: os.environ).

    Raises ValueError, with the variables and their values, when they contradict each other.
    """
    if environ is None and _settled is not None:
        return _settled
    env = os.environ if environ is None else environ
    for read in (_ringrun, _mpi, _slurm, _torchrun):
        if (found := read(env)) is not None:
            return found
    return Environment()


def _ringrun(env: Mapping[str, str]) -> Environment | None:
    if not _any_set(env, _RINGRUN):
        return None
    place = _place(env, _RINGRUN, "ringrun")
    return place._replace(
        node_rank=_integer(env, "RINGGRAD_NODE_RANK"),
        run_dir=env.get("RINGGRAD_RUN_DIR") or None,
        job_id=env.get("RINGGRAD_JOB_ID") or None,
        restart=_restarts(env),
        **_master(env),
    )


def _mpi(env: Mapping[str, str]) -> Environment | None:
    if _any_set(env, _OPENMPI):
        place, flavour = _place(env, _OPENMPI, "mpi"), "openmpi"
    elif _any_set(env, ("PMI_RANK", "PMI_SIZE")):
        flavour = "mpich"
        # Only hydra tells the place on the host; Slurm's own PMI leaves that to the SLURM_ variables.
        if not _any_set(env, _MPICH[2:]) and _in_slurm_step(env):
            return _slurm(env, mpi=flavour)
        place = _place(env, _MPICH, "mpi")
    elif env.get("PMIX_RANK") and not _in_slurm_step(env):
        raise ValueError(
            f"[launch] PMIX_RANK={env['PMIX_RANK']} is set, but no variable tells the number of workers: "
            "start the job with mpirun or srun, or unset PMIX_RANK to run alone"
        )
    else:
        return None
    return place._replace(
        node_rank=place.rank // place.local_world_size,
        job_id=env.get("PMIX_NAMESPACE") or None,
        mpi=flavour,
        **_master(env),
    )


def _in_slurm_step(env: Mapping[str, str]) -> bool:
    # sbatch gives its script SLURM_PROCID=0 and SLURM_NTASKS=n too, though that runs once: srun makes steps.
    return bool(env.get("SLURM_STEP_ID") or env.get("SLURM_STEPID")) and bool(env.get("SLURM_PROCID"))


def _slurm(env: Mapping[str, str], mpi: str | None = None) -> Environment | None:
    if not _in_slurm_step(env):
        return None
    size = "SLURM_STEP_NUM_TASKS" if env.get("SLURM_STEP_NUM_TASKS") else "SLURM_NTASKS"
    rank, world_size = _integer(env, "SLURM_PROCID"), _integer(env, size, least=1)
    if world_size == 1:
        return None
    node_rank = _integer(env, "SLURM_NODEID") if env.get("SLURM_NODEID") else 0
    tasks = "SLURM_STEP_TASKS_PER_NODE" if env.get("SLURM_STEP_TASKS_PER_NODE") else "SLURM_TASKS_PER_NODE"
    local_rank, local_world_size = _integer(env, "SLURM_LOCALID"), _tasks_on_node(env, tasks, node_rank)
    _check_below(rank, world_size, "SLURM_PROCID", size)
    _check_below(local_rank, local_world_size, "SLURM_LOCALID", tasks)
    job, step = env.get("SLURM_JOB_ID", "0"), env.get("SLURM_STEP_ID") or env.get("SLURM_STEPID")
    nodes = env.get("SLURM_STEP_NODELIST") or env.get("SLURM_NODELIST") or env.get("SLURM_JOB_NODELIST") or ""
    place = Environment(rank, world_size, local_rank, local_world_size, node_rank, "slurm")
    place = place._replace(
        job_id=f"{job}.{step}",
        master_addr=_first_host(nodes) or None,
        master_port=20000 + int(job) % 10000 if job.isdigit() else None,
        mpi=mpi or ("openmpi" if env.get("PMIX_RANK") else None),
    )
    return place._replace(**{name: value for name, value in _master(env).items() if value is not None})


def _tasks_on_node(env: Mapping[str, str], name: str, node_rank: int) -> int:
    """The count for one host in Slurm's short form: "4(x2),3" is 4, 4, 3."""
    value = env.get(name, "")
    counts: list[int] = []
    try:
        for part in value.split(","):
            count, _, times = part.partition("(x")
            counts += [int(count)] * int(times.rstrip(")") or 1)
        return counts[node_rank]
    except (ValueError, IndexError):
        raise ValueError(
            f"[launch] {name} must tell how many tasks host {node_rank} runs (as in '4(x2),3'), "
            f"but it is {value!r}: start the workers with srun"
        ) from None


def _first_host(nodes: str) -> str:
    """The first host of Slurm's short form: "gpu[07-09,12],cpu1" begins with gpu07."""
    head, bracket, rest = nodes.partition("[")
    if not bracket or "," in head:
        return head.partition(",")[0]
    inside, _, tail = rest.partition("]")
    return head + inside.partition(",")[0].partition("-")[0] + tail.partition(",")[0]


def _torchrun(env: Mapping[str, str]) -> Environment | None:
    if not _any_set(env, _TORCHRUN[:2]):
        return None
    names = _TORCHRUN
    if not _any_set(env, _TORCHRUN[2:]):
        # Hand-set RANK and WORLD_SIZE: a loopback master means that all workers are on this host.
        one_host = env.get("MASTER_ADDR", "").startswith(("127.", "localhost", "::1"))
        alone = {**env, "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "1"}
        names, env = (_TORCHRUN[:2] * 2, env) if one_host else (_TORCHRUN, alone)
    place = _place(env, names, "torchrun")
    node_rank = _integer(env, "GROUP_RANK") if env.get("GROUP_RANK") else place.rank // place.local_world_size
    job_id = env.get("TORCHELASTIC_RUN_ID") or None
    return place._replace(node_rank=node_rank, job_id=job_id, restart=_restarts(env), **_master(env))


def _restarts(env: Mapping[str, str]) -> int:
    return _integer(env, "TORCHELASTIC_RESTART_COUNT") if env.get("TORCHELASTIC_RESTART_COUNT") else 0


def _place(env: Mapping[str, str], names: tuple[str, ...], launcher: str) -> Environment:
    rank, size, local_rank, local_size = names
    place = Environment(
        rank=_integer(env, rank),
        world_size=_integer(env, size, least=1),
        local_rank=_integer(env, local_rank),
        local_world_size=_integer(env, local_size, least=1),
        launcher=launcher,
    )
    _check_below(place.rank, place.world_size, rank, size)
    _check_below(place.local_rank, place.local_world_size, local_rank, local_size)
    if place.local_world_size > place.world_size:
        raise ValueError(
            f"[launch] {local_size} must not exceed {size}, "
            f"but they are {place.local_world_size} and {place.world_size}: {_ADVICE}"
        )
    return place


_ADVICE = "set them all, or unset them and start the workers with mpirun, srun, ringrun or torchrun"


def _any_set(env: Mapping[str, str], names: tuple[str, ...]) -> bool:
    return any(env.get(name) for name in names)


def _integer(env: Mapping[str, str], name: str, least: int = 0) -> int:
    value = env.get(name)
    if not value:
        raise ValueError(
            f"[launch] {name} must be set along with its launcher's others, but it is not: {_ADVICE}"
        )
    try:
        number = int(value)
    except ValueError:
        number = least - 1
    if number < least:
        raise ValueError(
            f"[launch] {name} must be an integer of at least {least}, but it is {value!r}: {_ADVICE}"
        )
    return number


def _check_below(index: int, count: int, index_name: str, count_name: str) -> None:
    if index >= count:
        raise ValueError(
            f"[launch] {index_name} must be below {count_name}, but {index_name}={index} and "
            f"{count_name} gives {count}: {_ADVICE}"
        )


def _master(env: Mapping[str, str]) -> dict:
    port = _integer(env, "MASTER_PORT", least=1) if env.get("MASTER_PORT") else None
    if port is not None and port > 65535:
        raise ValueError(f"[launch] MASTER_PORT must be a TCP port of at most 65535, but it is {port}")
    return {"master_addr": env.get("MASTER_ADDR") or None, "master_port": port}
