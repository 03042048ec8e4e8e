"""`ringgrad doctor`: each fault that it knows is found and has a remedy, and a sound set-up passes everywhere."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from ringgrad.distributed import checks
from ringgrad.distributed.checks import Finding
from ringgrad.launch.environment import Environment

MPIRUN = Path(sys.executable).parent / "mpirun"
LAUNCHERS = ("PMI", "PMIX", "OMPI_COMM_WORLD", "RINGGRAD_", "SLURM_")
OPENMPI, MPICH = "Open MPI v5.0.11, package: Open MPI root@x", "MPICH Version:      5.0.2"


def only(findings: list[Finding], level: str) -> str:
    (finding,) = findings
    assert finding.level == level and finding.advice
    return finding.text


def test_more_ranks_than_cores() -> None:
    assert "8 ranks share 2 usable cores" in only(checks.oversubscription(8, 2), "slow")
    assert not checks.oversubscription(2, 2)


@pytest.mark.parametrize(
    ("env", "threads"), [({}, 8), ({"OMP_NUM_THREADS": "4"}, 4), ({"OPENBLAS_NUM_THREADS": "8"}, 8)]
)
def test_thread_pools_larger_than_a_rank_s_share(env: dict[str, str], threads: int) -> None:
    (finding,) = checks.thread_pools(env, 4, 8)
    assert finding.level == "slow" and f"up to {threads} threads" in finding.text
    assert "OMP_NUM_THREADS=2" in finding.advice
    assert not checks.thread_pools({"OMP_NUM_THREADS": "2"}, 4, 8)
    assert not checks.thread_pools({}, 1, 8)


def test_shared_memory_that_is_small_missing_or_refused() -> None:
    assert "/dev/shm has 64 MiB" in only(checks.shared_memory(64 << 20, "", 2), "slow")
    assert "/dev/shm is missing" in only(checks.shared_memory(0, "", 2), "slow")
    assert "cannot share memory: No space" in only(checks.shared_memory(2 << 30, "No space", 2), "wrong")
    assert not checks.shared_memory(2 << 30, "", 2)
    assert checks.total_bytes("/no/such/folder") == 0
    assert checks.memfd_works(1 << 20) == ""


def test_an_mpi_that_does_not_fit_its_launcher() -> None:
    here = Environment(0, 2, 0, 2, launcher="mpi", mpi="openmpi")
    text = only(checks.mpi(here, "4.1.2", MPICH, ""), "wrong")
    assert "is Open MPI's, and mpi4py has loaded MPICH Version" in text
    assert "mpi4py is not installed" in only(checks.mpi(here, "not installed", "none", ""), "wrong")
    assert "finds no MPI library" in only(checks.mpi(here, "4.1.2", "none (cannot load)", ""), "wrong")
    assert "the shell's mpirun is MPICH's" in only(checks.mpi(here, "4.1.2", OPENMPI, "HYDRA build"), "slow")
    assert not checks.mpi(here, "4.1.2", OPENMPI, "mpirun (Open MPI) 5.0.11")


def test_an_mpi_without_cuda() -> None:
    assert "not CUDA-aware" in only(checks.cuda_aware(False), "slow")
    assert not checks.cuda_aware(True)


def test_an_address_that_other_hosts_do_not_reach(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RINGGRAD_TOKEN", "x" * 32)
    here = Environment(0, 2, 0, 1, launcher="ringrun", master_addr="head")
    assert "a name that this host does not know" in only(checks.network(here, None, ""), "wrong")
    assert "head is 127.0.1.1, which is each host itself" in only(
        checks.network(here, "127.0.1.1", "lo"), "wrong"
    )
    assert "through docker0" in only(checks.network(here, "172.17.0.1", "docker0"), "wrong")
    assert not checks.network(here, "10.0.0.1", "eth0")
    monkeypatch.delenv("RINGGRAD_TOKEN")
    assert "RINGGRAD_TOKEN is not set" in only(checks.network(here, "10.0.0.1", "eth0"), "wrong")


def test_a_slow_guard_of_messages() -> None:
    assert "HMAC-SHA-256" in only(checks.seals("", "not installed"), "slow")
    assert not checks.seals("", "46.0.0") and not checks.seals("crc", "not installed")


def test_the_interface_of_an_address_is_found() -> None:
    assert checks.interface_of("127.0.0.1") == "lo"
    assert checks.address_of("no-such-host.invalid") is None


@pytest.mark.parametrize("name", checks.ALIKE)
def test_versions_that_differ_between_ranks(name: str) -> None:
    alike = dict.fromkeys(checks.ALIKE, "1.0")
    text = only(checks.between([alike, alike | {name: "2.0"}, alike]), "wrong")
    assert f"different versions of {name}: 1.0 on rank 0, 2; 2.0 on rank 1" in text
    assert not checks.between([alike] * 3)


def doctor(*command: str, **env: str) -> subprocess.CompletedProcess[str]:
    clean = {k: v for k, v in os.environ.items() if not k.startswith(LAUNCHERS)}
    return subprocess.run(
        [*command, "-m", "ringgrad", "doctor"] if command[-1] == sys.executable else list(command),
        capture_output=True,
        text=True,
        timeout=90,
        env=clean | {"OMP_NUM_THREADS": "1"} | env,
    )


def test_alone() -> None:
    done = doctor(sys.executable)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "alone" in done.stdout and "transport: none, as there is one worker" in done.stdout


def test_under_ringrun() -> None:
    command = [sys.executable, "-m", "ringgrad.launch", "-n", "2", "--no-prefix", "-m", "ringgrad", "doctor"]
    done = doctor(*command)
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stdout.count("found\n") == 1 and "rank 0 of 2, started by ringrun" in done.stdout
    assert "transport: shm, as all ranks are on this host" in done.stdout
    assert "buckets of gradients" in done.stdout and "us" in done.stdout


@pytest.mark.parametrize("transport", ["", "mpi", "tcp"])
def test_under_mpirun(transport: str) -> None:
    pytest.importorskip("mpi4py")
    if not MPIRUN.exists():
        pytest.skip("no mpirun beside this Python")
    done = doctor(str(MPIRUN), "-n", "2", sys.executable, RINGGRAD_TRANSPORT=transport)
    assert done.returncode == 0, done.stdout + done.stderr
    chosen = "RINGGRAD_TRANSPORT asks for it" if transport else "as all ranks are on this host"
    assert f"transport: {transport or 'shm'}, {chosen}" in done.stdout.replace("as RINGGRAD", "RINGGRAD")
    assert "started by mpi" in done.stdout


def test_an_mpirun_of_another_mpi_fails_with_advice() -> None:
    pytest.importorskip("mpi4py")
    if checks.flavour(checks.launcher_version()) == "openmpi":
        other, loaded, names = (
            "MPICH",
            "Open MPI",
            ("PMI_RANK", "PMI_SIZE", "MPI_LOCALRANKID", "MPI_LOCALNRANKS"),
        )
    else:
        other, loaded = "Open MPI", "MPICH"
        names = tuple(f"OMPI_COMM_WORLD_{name}" for name in ("RANK", "SIZE", "LOCAL_RANK", "LOCAL_SIZE"))
    done = doctor(sys.executable, **dict(zip(names, ("0", "2", "0", "2"))))
    assert done.returncode == 1
    if "cannot open shared object" in done.stdout:
        pytest.skip("mpi4py finds no MPI library")
    assert (
        f"is {other}'s, and mpi4py has loaded {loaded}" in done.stdout and "do: use the mpirun" in done.stdout
    )


def test_variables_that_contradict_each_other_are_a_finding() -> None:
    done = doctor(sys.executable, RANK="3", WORLD_SIZE="2")
    assert done.returncode == 1 and "RANK must be below WORLD_SIZE" in done.stdout


def test_ranks_that_do_not_come_are_a_finding() -> None:
    code = "from ringgrad.distributed import doctor as d; d.JOIN_TIMEOUT = 0.5; exit(d.main(['--json']))"
    env = {"RANK": "0", "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29999"}
    done = doctor(sys.executable, "-c", code, **env)
    assert done.returncode == 1, done.stdout + done.stderr
    (wrong,) = [f for f in json.loads(done.stdout)["findings"] if f["level"] == "wrong"]
    assert "the ranks cannot join" in wrong["text"] and "did not come: [1]" in wrong["text"]
