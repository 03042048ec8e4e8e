"""Start one worker: its place in the job, its variables, its pipes."""

import os
import subprocess
import sys
from collections.abc import Mapping
from typing import BinaryIO, NamedTuple

from .environment import Environment
from .output import Sink, Stream, prefix_of

# Variables of an outer mpirun or srun that started ringrun itself: a worker that kept them would
# take itself for that job's process.
_OUTER_JOB = ("OMPI_COMM_WORLD_", "PMI_", "PMIX_", "MPI_LOCAL", "HYDI_")
_THREADS = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS")


class Job(NamedTuple):
    """What to run, and on how many workers. `workers` counts this host's."""

    target: str
    arguments: list[str]
    workers: int
    is_module: bool = False
    as_torch: bool = False  # `import torch` in the workers gives ringgrad
    nodes: int = 1
    node_rank: int = 0
    master_addr: str = "127.0.0.1"
    master_port: int = 0
    token: str = ""
    threads: int | None = None
    prefix: str = "auto"
    log_dir: str | None = None
    grace: float = 5.0  # s for workers to finish after Ctrl-C or SIGTERM
    max_restarts: int = 0
    restart: int = 0  # how often the workers were started before

    @property
    def world_size(self) -> int:
        return self.nodes * self.workers

    def place(self, local_rank: int, run_dir: str) -> Environment:
        return Environment(
            rank=self.node_rank * self.workers + local_rank,
            world_size=self.world_size,
            local_rank=local_rank,
            local_world_size=self.workers,
            node_rank=self.node_rank,
            launcher="ringrun",
            run_dir=run_dir,
            job_id=self._job_id(run_dir),
            master_addr=self.master_addr,
            master_port=self.master_port,
            restart=self.restart,
        )

    def _job_id(self, run_dir: str) -> str:
        if self.nodes == 1:
            return os.path.basename(run_dir)
        import hashlib

        # All nodes must arrive at the same name without talking to each other.
        return hashlib.sha256(f"{self.token}|{self.master_addr}|{self.master_port}".encode()).hexdigest()[:16]


class Worker:
    """A started worker. `status` is its exit code, or minus the signal that ended it; None while it runs."""

    def __init__(self, place: Environment, process: subprocess.Popen[bytes], log: str | None) -> None:
        self.rank, self.process, self.log = place.rank, process, log
        self.pid = process.pid  # also its session and process group
        self.status: int | None = None


def worker_variables(job: Job, place: Environment, outer: Mapping[str, str], cores: int) -> dict[str, str]:
    """The environment of one worker: that of ringrun, its place in the job, and its share of the cores."""
    env = {name: value for name, value in outer.items() if not name.startswith(_OUTER_JOB)}
    env.update(place.variables(), RINGGRAD_TOKEN=job.token, PYTHONUNBUFFERED="1")
    env["TORCHELASTIC_MAX_RESTARTS"] = str(job.max_restarts)
    if job.threads is not None:
        env.update(dict.fromkeys(_THREADS, str(job.threads)))
    elif not env.get("OMP_NUM_THREADS"):  # the other libraries follow it when they have none of their own
        for name in _THREADS:
            env.setdefault(name, str(max(1, cores // job.workers)))
    # OpenBLAS's idle threads otherwise spin against those of other libraries.
    env.setdefault("OPENBLAS_THREAD_TIMEOUT", "4")
    return env


def start_worker(
    job: Job, place: Environment, variables: dict[str, str], out: Sink, err: Sink, report_fd: int
) -> tuple[Worker, list[Stream]]:
    """Start one worker, and return it with the streams of its output that do not go past us."""
    log_path = os.path.join(job.log_dir, f"rank{place.rank}.log") if job.log_dir else None
    log = _open_log(log_path, job.restart) if log_path else None
    streams: list[Stream] = []
    targets = {}
    theirs = []  # the workers' ends, which we close
    for name, sink in (("stdout", out), ("stderr", err)):
        if _goes_past_us(job, place, sink):
            targets[name] = sink.fd
            sink.shared = sink.tty and job.workers > 1
        elif name == "stderr" and err is out and streams:
            targets[name] = subprocess.STDOUT  # one pipe keeps the order of what is written to the two
        else:
            read_end, write_end = os.pipe()
            streams.append(Stream(read_end, sink, _prefix(job, place, sink), log))
            theirs.append(write_end)
            targets[name] = write_end
    kind, torch = "module" if job.is_module else "script", "ringgrad" if job.as_torch else "torch"
    variables = {**variables, "_RINGGRAD_WORKER": f"{os.getpid()},{report_fd},{kind},{torch}"}
    bootstrap = os.path.join(os.path.dirname(os.path.abspath(__file__)), "worker.py")
    flags = subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]  # python -W error -m ...
    try:
        process = subprocess.Popen(
            [sys.executable, *flags, bootstrap, job.target, *job.arguments],
            stdin=None if place.local_rank == 0 else subprocess.DEVNULL,
            stdout=targets["stdout"],
            stderr=targets["stderr"],
            env=variables,
            start_new_session=True,
            pass_fds=(report_fd,),
        )
    finally:
        for fd in theirs:
            os.close(fd)
    return Worker(place, process, log_path), streams


def _open_log(path: str, restart: int) -> BinaryIO:
    """A rank's log: new with the job, continued by a restart."""
    log = open(path, "ab" if restart else "wb", buffering=0)  # noqa: SIM115
    if restart:
        log.write(f"[ringrun] restart {restart}\n".encode())
    return log


def _goes_past_us(job: Job, place: Environment, sink: Sink) -> bool:
    """One worker alone, and rank 0 on a terminal, write there themselves: progress bars and colours work."""
    if job.prefix == "always" or job.log_dir:
        return False
    return job.world_size == 1 or (sink.tty and place.local_rank == 0)


def _prefix(job: Job, place: Environment, sink: Sink) -> bytes:
    if job.prefix == "never" or (job.prefix == "auto" and job.world_size == 1):
        return b""
    return prefix_of(place.rank, job.world_size, sink.colour)
