"""A real Slurm of two hosts (`slurm_cluster`): srun with and without a PMI, and the sbatch file of the examples.

Needs root, iproute2 and Slurm's daemons (Debian: slurm-wlm).
"""

from __future__ import annotations

import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import multihost_worker
import numpy as np
import pytest
from group_cases import CASES
from slurm_cluster import Cluster
from test_distributed_group import read_results
from two_hosts import HOSTS, Network

from ringgrad.distributed.transport import slurm_pmi

pytestmark = pytest.mark.slow
EXAMPLES = Path(__file__).parent.parent / "examples"
RANKS = 2  # a host
PLACE = ("-N", str(HOSTS), f"--ntasks-per-node={RANKS}")


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    if reason := Cluster.missing():
        pytest.skip(reason)
    folder = tmp_path_factory.mktemp("slurm")
    folder.chmod(0o755)
    network = Network(folder)
    found = Cluster(network, folder)
    try:
        try:
            network.up()
        except (subprocess.CalledProcessError, OSError) as error:
            pytest.skip(f"this kernel or container makes no network namespaces: {error}")
        found.up()
        yield found
    finally:
        found.down()
        network.down()


def srun(cluster: Cluster, mpi: str, mode: str, folder: Path) -> subprocess.CompletedProcess[str]:
    # UCX, below MPICH, finds the hosts' own devices in a /sys of theirs.
    own_sys = ("unshare", "--mount", "sh", "-c", 'mount -t sysfs sysfs /sys; exec "$@"', "-")
    worker = (*own_sys, sys.executable, multihost_worker.__file__, mode, str(folder))
    return cluster.run(
        "srun",
        "--kill-on-bad-exit=1",
        f"--mpi={mpi}",
        *PLACE,
        *worker,
        OPENBLAS_NUM_THREADS="1",
        **Network.mpi_environment,
    )


PMI_CLIENT = """
import os, re, runpy, socket
assert runpy.run_path({module!r})["shorten_values"]()
slurm = socket.socket(fileno=int(os.environ["PMI_FD"]))
def ask(text):
    slurm.sendall(text.encode() + b"\\n")
    return slurm.recv(4096).decode()
ask("cmd=init pmi_version=1 pmi_subversion=1")
most = int(re.search("vallen_max=([0-9]+)", ask("cmd=get_maxes"))[1])
space = re.search("kvsname=([^ \\n]+)", ask("cmd=get_my_kvsname"))[1]
key, value = "k" * 64, "v" * (most - 1)
put = ask(f"cmd=put kvsname={{space}} key={{key}} value={{value}}")
ask("cmd=barrier_in")
print("whole:", f"value={{value}}\\n" in ask(f"cmd=get kvsname={{space}} key={{key}}"), most, put)
ask("cmd=finalize")
"""


def test_srun_alone_is_enough(cluster: Cluster, tmp_path: Path) -> None:
    """No PMI, no secret, no address: hosts meet at the first of the node list, over tcp."""
    done = srun(cluster, "none", "cases", tmp_path)
    assert done.returncode == 0, done.stderr
    for name in CASES:
        read_results(tmp_path, HOSTS * RANKS, name, done.stdout + done.stderr)
    assert (tmp_path / "transport").read_text() == "shm+tcp"
    assert not [p for p in (cluster.folder / ".cache/ringgrad").iterdir() if p.is_dir()]  # the secret is gone


def test_srun_serves_mpi_by_its_pmi(cluster: Cluster, tmp_path: Path) -> None:
    pytest.importorskip("mpi4py")
    done = srun(cluster, "pmi2", "train", tmp_path)
    assert done.returncode == 0 and "shm+mpi" in done.stdout, done.stdout + done.stderr
    parameters = [np.load(tmp_path / f"rank{rank}.npy") for rank in range(HOSTS * RANKS)]
    assert all((p == parameters[0]).all() for p in parameters[1:])
    assert np.abs(multihost_worker.train(0, 1) - parameters[0]).max() < 1e-5


def test_no_value_of_the_pmi_is_cut(cluster: Cluster, tmp_path: Path) -> None:
    """What MPICH does with addresses of nonzero bytes, and Slurm by itself cuts: values as long as may be."""
    script = PMI_CLIENT.format(module=slurm_pmi.__file__)
    done = cluster.run("srun", "--mpi=pmi2", "-N", "1", sys.executable, "-c", script, timeout=30)
    assert done.returncode == 0 and "whole: True" in done.stdout, done.stdout + done.stderr
    assert "not properly terminated" not in done.stderr


def test_a_pmi_of_another_mpi_is_told_and_tcp_taken(cluster: Cluster, tmp_path: Path) -> None:
    pytest.importorskip("mpi4py")
    worker = (sys.executable, multihost_worker.__file__, "train", str(tmp_path))
    done = cluster.run("srun", "--mpi=none", *PLACE, *worker, PMIX_RANK="0", PMIX_NAMESPACE="other")
    assert done.returncode == 0 and "shm+tcp" in done.stdout, done.stdout + done.stderr
    assert re.search(
        "hosts talk over TCP: srun started 4 workers, but the MPI library .* sees 1", done.stderr
    )


def test_an_error_ends_all_ranks_and_the_step(cluster: Cluster, tmp_path: Path) -> None:
    done = srun(cluster, "none", "raise", tmp_path)
    assert done.returncode == 1 and 'raise ValueError("boom")' in done.stderr, done.stderr
    assert "PeerFailure: [distributed] rank 3 failed: ValueError: boom" in done.stderr, done.stderr


def test_the_sbatch_file_saves_is_requeued_and_goes_on(cluster: Cluster, tmp_path: Path) -> None:
    options = ["--parsable", "-N", str(HOSTS), "--ntasks-per-node=1", "--cpus-per-task=1", "--time=10"]
    script = [str(EXAMPLES / "jobs" / "slurm.sbatch"), "--steps", "100000", "--resume"]
    environ = {"RINGGRAD_ROOT": str(tmp_path), "OPENBLAS_NUM_THREADS": "1"}
    (tmp_path / "examples").symlink_to(EXAMPLES)
    submitted = cluster.run("sbatch", *options, f"--output={tmp_path}/out", *script, **environ)
    assert submitted.returncode == 0, submitted.stderr
    job = submitted.stdout.strip()
    output = tmp_path / "out"
    folder = tmp_path / "runs" / f"char_gpt_{job}"
    until(lambda: (folder / "report.html").exists(), output)  # some steps are done
    assert (
        cluster.run("scancel", "--signal=USR1", job).returncode == 0
    )  # as Slurm does before the time is over
    until(lambda: "JobState=PENDING" in cluster.run("scontrol", "show", "job", job).stdout, output)

    def goes_on() -> bool:
        cluster.run("scontrol", "update", f"JobId={job}", "StartTime=now")  # Slurm would wait for two minutes
        return "[Trainer] goes on from" in output.read_text()

    until(goes_on, output)
    cluster.run("scancel", job)
    assert re.search(rf"goes on from .*/hpc_ckpt_{job}.ckpt, step [1-9]", output.read_text())


def until(condition, output: Path, seconds: float = 40) -> None:  # type: ignore[no-untyped-def]
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, output.read_text() if output.exists() else "the job did not start"
        time.sleep(0.1)
