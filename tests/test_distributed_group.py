"""What a Group promises (group_cases), held by every transport: one base class, inherited once a transport.

Threads run each case in this process. For the others one job of processes (group_worker) runs all cases, each rank
writes down how they went, and each test reads its own line.
"""

import json
import os
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from group_cases import CASES
from group_sequences import VERBS, Step, run_sequence
from hypothesis import given, settings
from hypothesis import strategies as st

from ringgrad.distributed.group import Group
from ringgrad.distributed.transport.local import LocalTransport, run_threads

WORKER = str(Path(__file__).with_name("group_worker.py"))


def read_results(folder: Path, world: int, name: str, output: str) -> None:
    for rank in range(world):
        path = folder / f"rank{rank}.json"
        assert path.exists(), f"rank {rank} of {world} ended early:\n{output}"
        assert json.loads(path.read_text()).get(name, "not reached") == "ok", (
            f"rank {rank} of {world}: {json.loads(path.read_text()).get(name, 'stopped at an earlier case')}"
        )


class GroupBehaviour:
    """Inherit, and say how a world of ranks runs a case."""

    worlds: list[int] = []

    def pytest_generate_tests(self, metafunc: pytest.Metafunc) -> None:
        metafunc.parametrize("world", metafunc.cls.worlds)
        metafunc.parametrize("name", list(CASES))

    def test_case(self, world: int, name: str, tmp_path_factory: pytest.TempPathFactory) -> None:
        self.check(world, name, tmp_path_factory)

    def check(self, world: int, name: str, paths: pytest.TempPathFactory) -> None:
        raise NotImplementedError


# Not collected by itself: it has no worlds of its own.
GroupBehaviour.__test__ = False  # type: ignore[attr-defined]


class TestAlone(GroupBehaviour):
    __test__ = True
    worlds = [1]

    def check(self, world: int, name: str, paths: pytest.TempPathFactory) -> None:
        CASES[name](Group())


class TestLocal(GroupBehaviour):
    __test__ = True
    worlds = [1, 2, 3, 4, 5, 6, 7, 8]

    def check(self, world: int, name: str, paths: pytest.TempPathFactory) -> None:
        def body(transport: LocalTransport) -> None:
            CASES[name](Group(transport))

        run_threads(world, body)


STEPS = st.tuples(
    st.sampled_from(VERBS), st.integers(0, 300), st.integers(0, 7), st.integers(0, 2), st.booleans()
)


@settings(max_examples=25)
@given(world=st.integers(1, 8), steps=st.lists(STEPS, min_size=1, max_size=10))
def test_any_sequence_of_collectives_is_right(world: int, steps: list[Step]) -> None:
    run_threads(world, lambda transport: run_sequence(Group(transport, timeout=60), steps))


class JobBehaviour(GroupBehaviour):
    """One job of processes for each world size, whose results all tests of that size read."""

    jobs: dict[tuple[str, int], tuple[Path, str]] = {}
    __test__ = False

    def check(self, world: int, name: str, paths: pytest.TempPathFactory) -> None:
        key = (type(self).__name__, world)
        if key not in self.jobs:
            folder = paths.mktemp(f"{key[0]}{world}")
            self.jobs[key] = (folder, self.start(world, folder))
        read_results(self.jobs[key][0], world, name, self.jobs[key][1])

    def start(self, world: int, folder: Path) -> str:
        """Run the job to its end and return its output."""
        raise NotImplementedError


class TestShm(JobBehaviour):
    __test__ = True
    worlds = [2, 3, 5]

    def start(self, world: int, folder: Path) -> str:
        return run_workers(
            [[sys.executable, WORKER, "shm", str(folder), str(r), str(world)] for r in range(world)]
        )


class TestMpi(JobBehaviour):
    __test__ = True
    worlds = [2, 3]

    def start(self, world: int, folder: Path) -> str:
        pytest.importorskip("mpi4py")
        mpirun = Path(sys.executable).parent / "mpirun"
        if not mpirun.exists():
            pytest.skip("no mpirun beside this Python")
        command = [str(mpirun), "-n", str(world), sys.executable, WORKER, "mpi", str(folder)]
        return run_workers([command])


def test_every_plan_is_exact_between_processes(tmp_path: Path) -> None:
    world = 8
    output = run_workers(
        [[sys.executable, WORKER, "plans", str(tmp_path), str(r), str(world)] for r in range(world)]
    )
    for rank in range(world):
        assert (tmp_path / f"rank{rank}.json").read_text() == '"ok"', output


def run_workers(commands: list[list[str]], limit: float = 100) -> str:
    """Run all at once, kill them after `limit` seconds, return what they printed."""
    # More ranks than cores is the rule here, and Open MPI refuses that and root unless told.
    environ = os.environ | {
        "OPENBLAS_NUM_THREADS": "1",
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
        "OMPI_MCA_mpi_yield_when_idle": "1",
    }
    kinds = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True, "env": environ}
    workers = [subprocess.Popen(command, **kinds) for command in commands]  # type: ignore[call-overload]
    timer = threading.Timer(limit, lambda: [w.kill() for w in workers])
    timer.start()
    output = "".join(w.communicate()[0] for w in workers)
    timer.cancel()
    return output
