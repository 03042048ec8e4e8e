"""Two hosts of two ranks each, played by network namespaces: under ringrun and under mpirun, alive and dying.

Needs root and iproute2. The ranks run multihost_worker.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import pytest
from group_cases import CASES
from multihost_worker import train
from test_distributed_group import read_results
from two_hosts import HOSTS, Network

pytestmark = pytest.mark.slow
BIN = Path(sys.executable).parent
RANKS = 2
WORKER = str(Path(__file__).with_name("multihost_worker.py"))


@pytest.fixture(scope="module")
def network(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Network]:
    if reason := Network.missing():
        pytest.skip(reason)
    net = Network(tmp_path_factory.mktemp("network"))
    try:
        try:
            net.up()
        except (subprocess.CalledProcessError, OSError) as error:
            pytest.skip(f"this kernel or container makes no network namespaces: {error}")
        yield net
    finally:
        net.down()


ENVIRON = {name: value for name, value in os.environ.items() if not name.startswith("RINGGRAD_")} | {
    "OPENBLAS_NUM_THREADS": "1",
    "OMP_NUM_THREADS": "1",
    **Network.mpi_environment,
}


def start(command: list[str], token: str = "") -> subprocess.Popen[str]:
    environ = ENVIRON | ({"RINGGRAD_TOKEN": token} if token else {})
    return subprocess.Popen(
        command,
        env=environ,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )


def finish(job: subprocess.Popen[str], limit: float = 60) -> str:
    """Its output. Fails if it does not end."""
    try:
        return job.communicate(timeout=limit)[0]
    except subprocess.TimeoutExpired:
        os.killpg(job.pid, signal.SIGKILL)
        pytest.fail(f"the job must end within {limit} s, and still runs:\n{job.communicate()[0]}")


def ringrun(
    net: Network, mode: str, folder: Path, tokens: Sequence[str] | None = None, options: Sequence[str] = ()
) -> list[subprocess.Popen[str]]:
    """One ringrun a host, on a port of their own; with one token, or one each."""
    secret = os.urandom(16).hex()
    port = str(20000 + int(secret[:4], 16) % 10000)
    place = [
        "--nnodes",
        str(HOSTS),
        "--master-addr",
        net.addresses[0],
        "--master-port",
        port,
        "-n",
        str(RANKS),
        *options,
    ]
    jobs = []
    for host in range(HOSTS):
        script = ["--node-rank", str(host), WORKER, mode, str(folder)]
        command = net.on(host, sys.executable, "-m", "ringgrad.launch", *place, *script)
        jobs.append(start(command, tokens[host] if tokens else secret))
    return jobs


def mpirun(net: Network, mode: str, folder: Path) -> str:
    pytest.importorskip("mpi4py")
    if not (BIN / "mpirun").exists() or "HYDRA" not in _version():
        pytest.skip("no MPICH mpirun beside this Python")
    return finish(start(net.mpirun(BIN / "mpirun", RANKS, sys.executable, WORKER, mode, str(folder))))


def _version() -> str:
    return subprocess.run([str(BIN / "mpirun"), "--version"], capture_output=True, text=True).stdout.upper()


def run(net: Network, launcher: str, mode: str, folder: Path) -> str:
    if launcher == "mpirun":
        return mpirun(net, mode, folder)
    return "".join(finish(job) for job in ringrun(net, mode, folder))


@pytest.mark.parametrize("launcher", ["ringrun", "mpirun"])
def test_every_collective_over_two_hosts(network: Network, launcher: str, tmp_path: Path) -> None:
    output = run(network, launcher, "cases", tmp_path)
    for name in CASES:
        read_results(tmp_path, HOSTS * RANKS, name, output)
    between = "mpi" if launcher == "mpirun" else "tcp"
    assert (tmp_path / "transport").read_text() == f"shm+{between}"


@pytest.mark.parametrize("launcher", ["ringrun", "mpirun"])
def test_data_parallel_training_agrees_with_one_process(
    network: Network, launcher: str, tmp_path: Path
) -> None:
    output = run(network, launcher, "train", tmp_path)
    rows = [tmp_path / f"rank{rank}.npy" for rank in range(HOSTS * RANKS)]
    assert all(row.exists() for row in rows), output
    assert "WARN" not in output, output  # nothing of MPI's: each message was taken
    parameters = [np.load(row) for row in rows]
    assert all((p == parameters[0]).all() for p in parameters[1:])
    alone = train(0, 1)
    assert np.abs(alone - parameters[0]).max() < 1e-5
    assert np.abs(alone - train(0, 1, steps=0)).max() > 1e-2  # it did learn something


TRAINER = """
import sys
import ringgrad as rg, ringgrad.lightning as L
from ringgrad.data import DataLoader, TensorDataset

class Net(L.LightningModule):
    def __init__(self):
        super().__init__()
        self.layer = rg.nn.Linear(4, 1)
    def training_step(self, batch, batch_idx):
        return (self.layer(batch[0]) - 1).pow(2).mean()
    def configure_optimizers(self):
        return rg.optim.SGD(self.parameters(), lr=0.1)

L.seed_everything(0, verbose=False)
trainer = L.Trainer(num_nodes=2, devices=2, max_epochs=1, barebones=True, default_root_dir=sys.argv[1])
model = Net()
trainer.fit(model, DataLoader(TensorDataset(rg.randn(16, 4)), 2))
counts = trainer.num_nodes, trainer.num_devices, trainer.world_size, trainer.local_rank
with open(f"{sys.argv[1]}/{trainer.global_rank}", "w") as file:
    print(*counts, *model.layer.weight.reshape(-1).tolist(), file=file)
"""


@pytest.mark.parametrize("kind", ["by hand", "torchrun's variables"])
def test_the_trainer_trains_over_two_hosts(
    network: Network, kind: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Started on each host with `python script.py`, where it starts two workers; or each worker by somebody else."""
    (tmp_path / "job.py").write_text(TRAINER)
    secret = os.urandom(16).hex()
    meet = {"MASTER_ADDR": network.addresses[0], "MASTER_PORT": str(20000 + int(secret[:4], 16) % 10000)}
    jobs = []
    for number in range(HOSTS if kind == "by hand" else HOSTS * RANKS):
        host, local = (number, 0) if kind == "by hand" else divmod(number, RANKS)
        place = {
            "RANK": number,
            "WORLD_SIZE": 4,
            "LOCAL_RANK": local,
            "LOCAL_WORLD_SIZE": 2,
            "GROUP_RANK": host,
        }
        with monkeypatch.context() as patch:
            for name, value in (meet | ({"NODE_RANK": host} if kind == "by hand" else place)).items():
                patch.setitem(ENVIRON, name, str(value))
            command = network.on(host, sys.executable, str(tmp_path / "job.py"), str(tmp_path))
            jobs.append(start(command, secret))
    output = "".join(finish(job) for job in jobs)
    assert [job.returncode for job in jobs] == [0] * len(jobs), output
    told = [(tmp_path / str(rank)).read_text().split() for rank in range(4)]
    assert [row[:4] for row in told] == [["2", "2", "4", str(rank % 2)] for rank in range(4)]
    assert told[0][4:] == told[1][4:] == told[2][4:] == told[3][4:]


def test_workers_meet_through_a_store(network: Network, tmp_path: Path) -> None:
    """Dealt to the hosts in turn, with nothing in their environment but the secret."""
    secret = os.urandom(16).hex()
    place = [network.addresses[0], str(20000 + int(secret[:4], 16) % 10000)]
    jobs = []
    for rank in range(HOSTS * RANKS):
        script = [WORKER, "store", str(tmp_path), *place, str(rank)]
        jobs.append(start(network.on(rank % HOSTS, sys.executable, *script), secret))
    output = "".join(finish(job) for job in jobs)
    assert [job.returncode for job in jobs] == [0] * len(jobs), output
    assert sorted(output.split("\n")[:-1]) == [f"shm+tcp {rank // 2} of 2, sum 6" for rank in range(4)]


def started(jobs: list[subprocess.Popen[str]], folder: Path) -> None:
    """Wait until all ranks are in their loop."""
    end = time.monotonic() + 60
    while len(list(folder.glob("started*"))) < HOSTS * RANKS:
        assert time.monotonic() < end and all(job.poll() is None for job in jobs), [
            job.communicate()[0] for job in jobs if job.poll() is not None
        ]
        time.sleep(0.02)


def test_the_death_of_a_host_ends_the_others(network: Network, tmp_path: Path) -> None:
    first, second = jobs = ringrun(network, "loop", tmp_path)
    started(jobs, tmp_path)
    killed = time.monotonic()
    second.kill()  # its guard ends its workers
    output = finish(first, limit=60)
    assert first.returncode == 1, output
    assert "PeerFailure: [distributed] rank " in output and " died" in output, output
    for rank in range(RANKS):
        assert float((tmp_path / f"ended{rank}").read_text()) - killed < 30
    finish(second)


def test_an_error_on_one_host_is_told_on_the_other(network: Network, tmp_path: Path) -> None:
    first, second = ringrun(network, "raise", tmp_path)
    told, raised = finish(first, limit=60), finish(second, limit=60)
    assert first.returncode == second.returncode == 1
    assert 'raise ValueError("boom")' in raised and "failed first: ValueError: boom" in raised, raised
    assert "rank 3 failed: ValueError: boom" in told, told


def test_a_cut_wire_ends_both_sides(network: Network, tmp_path: Path) -> None:
    jobs = ringrun(network, "loop", tmp_path)
    started(jobs, tmp_path)
    network.cut(True)
    cut = time.monotonic()
    try:
        outputs = [finish(job, limit=60) for job in jobs]
    finally:
        network.cut(False)
    for job, output in zip(jobs, outputs):
        assert job.returncode == 1, output
        assert "PeerFailure: [distributed] rank " in output, output
        assert "no sign of life" in output or "can not be reached" in output, output
    ends = [float((tmp_path / f"ended{rank}").read_text()) - cut for rank in range(HOSTS * RANKS)]
    assert max(ends) < 40, ends


def test_both_hosts_start_again_after_a_death_on_one(network: Network, tmp_path: Path) -> None:
    jobs = ringrun(network, "restart", tmp_path, options=("--max-restarts", "1"))
    outputs = [finish(job) for job in jobs]
    for job, output in zip(jobs, outputs):
        assert job.returncode == 0 and "restart 1 of 1" in output, output
    assert "rank 3 failed" in outputs[1] and "killed by SIGKILL" in outputs[1], outputs[1]
    assert [(tmp_path / f"sum{rank}").read_text() for rank in range(HOSTS * RANKS)] == ["10.0"] * 4


def test_a_host_with_another_token_is_told_so(network: Network, tmp_path: Path) -> None:
    first, second = ringrun(
        network, "loop", tmp_path, tokens=["a token of the tests", "another of the tests"]
    )
    try:
        output = finish(second, limit=60)
        assert "must hold this job's token, and does not" in output, output
    finally:
        first.terminate()
        finish(first)
