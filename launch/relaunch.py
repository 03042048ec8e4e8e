"""From `python train.py` to a job of several workers: this process becomes ringrun, which runs the script on each."""

import os
import sys
from typing import NoReturn

GRACE = 30  # s for workers to save after SIGTERM: what Slurm and Kubernetes give by default


def relaunch(workers: int, nodes: int = 1) -> NoReturn:
    """Replace this process by `ringrun -n workers` of the same command line; what it has not flushed is flushed.

    So ringrun's promises hold: the first failure's traceback first, its exit code, Ctrl-C, nothing left behind.
    On several hosts, each started by hand: NODE_RANK, MASTER_ADDR and RINGGRAD_TOKEN (a secret) say how they meet.
    Raises RuntimeError where there is no script to start again, ValueError where a host's number is missing.
    """
    options = ["-n", str(workers), "--grace", str(GRACE), *_hosts(nodes), *_target()]
    print(f"[ringgrad] starting {workers} workers: ringrun {' '.join(options)}", file=sys.stderr)
    for stream in (sys.stdout, sys.stderr):
        stream.flush()
    os.execv(sys.executable, [sys.executable, *_flags(), "-m", "ringgrad.launch", *options])


def _target() -> list[str]:
    """What was started, as ringrun takes it: a script or -m and a module, with its arguments."""
    main = sys.modules["__main__"]
    path, spec = getattr(main, "__file__", None), getattr(main, "__spec__", None)
    within = [name for name in ("ipykernel", "pytest") if name in sys.modules]
    if path is None or within or sys.flags.interactive:
        where = within[0] if within else "an interactive Python"
        raise RuntimeError(
            f"[ringgrad] several workers start from a script, which each of them runs; this is {where}: write a "
            "script and start it with `python script.py` or `ringrun -n WORKERS script.py`, or use one worker"
        )
    if spec is not None:
        return ["-m", spec.name.removesuffix(".__main__"), *sys.argv[1:]]
    return [os.path.abspath(path), *sys.argv[1:]]


def _flags() -> list[str]:
    import subprocess

    return subprocess._args_from_interpreter_flags()  # type: ignore[attr-defined]


def _hosts(nodes: int) -> list[str]:
    if nodes == 1:
        return []
    names = ("NODE_RANK", "MASTER_ADDR", "RINGGRAD_TOKEN")
    missing = [name for name in names if not os.environ.get(name)]
    if missing:
        raise ValueError(
            f"[ringgrad] {nodes} hosts need {', '.join(names)} in the environment of each, and {', '.join(missing)} is "
            "not set: start the script with srun, mpirun or ringrun, or set them (NODE_RANK: 0, 1, ...; MASTER_ADDR: "
            "the first host; RINGGRAD_TOKEN: a secret, the same everywhere)"
        )
    hosts = ["--nnodes", str(nodes), "--node-rank", os.environ["NODE_RANK"]]
    hosts += ["--master-addr", os.environ["MASTER_ADDR"]]
    port = os.environ.get("MASTER_PORT")
    return [*hosts, "--master-port", port] if port else hosts
