"""Ranks that disagree, raise, leave, die, stop or stay away: the others get one error that names them."""

import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ringgrad.distributed.errors import CollectiveMismatch, CollectiveTimeout, DistributedError, PeerFailure
from ringgrad.distributed.group import Group
from ringgrad.distributed.transport.local import LocalTransport, run_threads

Body = Callable[[Group], None]


def errors_of(world: int, body: Body) -> list[DistributedError]:
    """What each rank raised."""

    def rank(transport: LocalTransport) -> DistributedError:
        with pytest.raises(DistributedError) as caught:
            body(Group(transport, timeout=60))
        return caught.value

    return run_threads(world, rank)  # type: ignore[return-value]


def ones(count: int, dtype: Any = np.float32) -> np.ndarray:
    return np.ones(count, dtype)


# (what rank 1 calls while the others sum 8 float32, what the error says of it)
DISAGREEMENTS: dict[str, tuple[Body, str]] = {
    "count": (lambda g: g.all_reduce(ones(9)) and None, "all_reduce sum float32[9]"),
    "dtype": (lambda g: g.all_reduce(ones(8, np.float64)) and None, "all_reduce sum float64[8]"),
    "op": (lambda g: g.all_reduce(ones(8), "max") and None, "all_reduce max float32[8]"),
    "name": (lambda g: g.all_reduce(ones(8), name="layer.bias") and None, "'layer.bias'"),
    "verb": (lambda g: g.barrier() and None, "barrier"),
    "root": (lambda g: g.broadcast(ones(8), 1) and None, "broadcast float32[8] root=1"),
    "large": (lambda g: g.all_reduce(ones(500_000)) and None, "all_reduce sum float32[500000]"),
}


@pytest.mark.parametrize("world", [2, 3, 4])
@pytest.mark.parametrize("what", DISAGREEMENTS)
def test_a_disagreement_is_the_same_error_on_every_rank(what: str, world: int) -> None:
    other, told = DISAGREEMENTS[what]

    def body(group: Group) -> None:
        if group.rank == 1:
            other(group)
        else:
            group.all_reduce(ones(8))
        group.barrier()  # who was not asked in the first call finds out here at the latest

    errors = errors_of(world, body)
    assert all(type(e) is CollectiveMismatch for e in errors)
    text = str(errors[0])
    assert told in text and "all_reduce sum float32[8]" in text and "rank 1: " in text
    assert f"{__file__}:" in text
    if world == 2:
        assert str(errors[1]) == text


def test_one_call_may_stand_on_several_lines() -> None:
    def rank(transport: LocalTransport) -> None:
        group = Group(transport, timeout=60)
        exec(
            compile("\n" * 10 ** (group.rank + 1) + "group.barrier()", "script.py", "exec"), {"group": group}
        )

    run_threads(3, rank)


def test_swapped_calls_are_found_by_their_names() -> None:
    def body(group: Group) -> None:
        for name in ("a", "b") if group.rank else ("b", "a"):
            group.all_reduce(ones(4), name=name)

    for error in errors_of(2, body):
        assert "rank 0: all_reduce sum float32[4] 'b'" in str(error)
        assert "rank 1: all_reduce sum float32[4] 'a'" in str(error)


def test_a_group_stays_broken() -> None:
    def body(group: Group) -> None:
        with pytest.raises(CollectiveMismatch):
            group.all_reduce(ones(3 + group.rank))
        group.barrier()

    assert all(type(e) is CollectiveMismatch for e in errors_of(2, body))


def test_messages_of_different_size_between_a_pair() -> None:
    def body(group: Group) -> None:
        if group.rank:
            group.send(ones(4), 0)
        else:
            group.recv(ones(5), 1)
        group.barrier()

    assert any("message 1 to 0 float32[4]" in str(e) for e in errors_of(2, body))


def test_all_to_all_with_splits_that_do_not_fit() -> None:
    def body(group: Group) -> None:
        # Each sends 2 to the other, and rank 0 expects 3.
        array, out = ones(3), ones(4 if group.rank == 0 else 3)
        group.all_to_all(
            out, array, [1, 3] if group.rank == 0 else [2, 1], [1, 2] if group.rank == 0 else [2, 1]
        )
        group.barrier()

    assert any("has room for 12 bytes from rank 1, which sent 8" in str(e) for e in errors_of(2, body))


def test_who_stays_away_is_named_after_the_timeout() -> None:
    def body(group: Group) -> None:
        if group.rank == 0:
            group.timeout = 0.3
            group.all_reduce(ones(4))
        else:
            # Alive, and waiting for something else; its own time is not up before that of rank 0.
            group.recv(ones(1), 0)

    first = errors_of(2, body)[0]
    assert type(first) is CollectiveTimeout
    assert "rank 1 did not take part in time in all_reduce sum float32[4], called at " in str(first)


def test_who_leaves_is_named() -> None:
    def rank(transport: LocalTransport) -> None:
        group = Group(transport, timeout=60)
        group.barrier()
        if group.rank == 0:
            with pytest.raises(PeerFailure, match="rank 1 left the group while barrier, ") as caught:
                group.barrier()
            assert caught.value.rank == 1 and caught.value.ringgrad_consequence

    run_threads(2, rank)


def test_the_error_of_a_raising_rank_reaches_the_others() -> None:
    def rank(transport: LocalTransport) -> str:
        group = Group(transport, timeout=60)
        if group.rank == 1:
            group.abort("ValueError: boom\nTraceback: somewhere")
            return ""
        with pytest.raises(PeerFailure, match=r"rank 1 failed: ValueError: boom$") as caught:
            group.all_reduce(ones(4))
        return caught.value.traceback

    assert run_threads(3, rank)[0] == "Traceback: somewhere"


def test_run_threads_raises_the_cause_and_not_its_consequences() -> None:
    def rank(transport: LocalTransport) -> None:
        if transport.rank == 2:
            raise KeyError("the cause")
        Group(transport, timeout=60).barrier()

    with pytest.raises(KeyError, match="the cause"):
        run_threads(3, rank)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda g: g.all_reduce(ones(1), "mean"), ValueError, "op must be one of sum, avg.*got 'mean'"),
        (
            lambda g: g.all_reduce(ones(1, np.int32), "avg"),
            TypeError,
            "avg needs a floating point dtype, got int32",
        ),
        (
            lambda g: g.all_reduce(ones(1), "band"),
            TypeError,
            "band needs an integer or bool dtype, got float32",
        ),
        (lambda g: g.all_reduce(np.array(["a"])), TypeError, "needs a numeric dtype"),
        (lambda g: g.all_reduce(np.broadcast_to(ones(1), (3,))), ValueError, "must be writable"),
        (lambda g: g.broadcast(ones(1), 1), ValueError, r"rank must be in 0\.\.0, got 1"),
        (lambda g: g.send(ones(1), 0), ValueError, "cannot send with itself"),
        (lambda g: g.all_gather(ones(3), ones(2)), ValueError, "must hold 1 .ranks. x 2 elements, got 3"),
        (lambda g: g.all_gather(ones(2), ones(2, np.int32)), TypeError, "one dtype, got float32 and int32"),
        (lambda g: g.gather(ones(2)), ValueError, "rank 0 must give `out`"),
        (lambda g: g.all_to_all(ones(2), ones(2), [1], [2]), ValueError, "splits of out must be 1 counts"),
        (lambda g: g.all_gather_object({1, 2}), TypeError, "no pickle on the wire"),
        (lambda g: g.scatter_object([1, 2]), ValueError, "must give 1 values, one a rank, got 2 values"),
    ],
)
def test_bad_arguments_are_told_before_anything_is_sent(
    call: Callable[[Group], object], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        call(Group())


# Real processes over shared memory.

JOIN = """
    import os, signal, sys, time
    import numpy as np
    from ringgrad.distributed.group import Group
    from ringgrad.distributed.transport.shm import ShmTransport
    folder, rank, world = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    transport = ShmTransport(folder, rank, world, silence=2.0)
    group = Group(transport, timeout=60)
    group.barrier()
"""


class Job:
    """Workers that run one script, each told (folder, rank, world)."""

    def __init__(self, folder: Path, world: int, script: str, start: str = JOIN, first: int = 0) -> None:
        """first: the ranks below it are not started."""
        path = folder / "worker.py"
        path.write_text(textwrap.dedent(start) + textwrap.dedent(script))
        meet = folder / "meet"
        meet.mkdir(mode=0o700)
        self.workers = [
            subprocess.Popen(
                [sys.executable, str(path), str(meet), str(r), str(world)],
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for r in range(first, world)
        ]
        self.first = first  # rank

    def ends(self, rank: int, limit: float = 60) -> tuple[int, str]:
        """Exit code and error text of a rank; fails if it still runs after `limit` seconds."""
        try:
            _, text = self.workers[rank - self.first].communicate(timeout=limit)
        except subprocess.TimeoutExpired:
            pytest.fail(f"rank {rank} still runs after {limit} s")
        return self.workers[rank - self.first].returncode, text

    def says(self, rank: int) -> str:
        stdout = self.workers[rank - self.first].stdout
        assert stdout is not None
        return stdout.readline().strip()

    def close(self) -> None:
        for worker in self.workers:
            if worker.poll() is None:
                os.kill(worker.pid, signal.SIGCONT)
                worker.kill()
            worker.communicate()


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Callable[..., Job]]:
    jobs: list[Job] = []

    def start(*args: Any, **kw: Any) -> Job:
        jobs.append(Job(tmp_path, *args, **kw))
        return jobs[-1]

    yield start
    for j in jobs:
        j.close()


@pytest.mark.parametrize("victim", [0, 1])
def test_a_killed_rank_is_named_within_seconds(job: Callable[..., Job], victim: int) -> None:
    running = job(
        3,
        f"""
        a = group.empty(1000)
        a[:] = 1
        while True:
            if rank == {victim} and a[0] > 3**10:
                os.kill(os.getpid(), signal.SIGKILL)
            group.all_reduce(a)
        """,
    )
    for rank in {0, 1, 2} - {victim}:
        code, text = running.ends(rank)
        # Its death itself, or what the first to notice died of.
        assert code == 1 and "PeerFailure: [distributed] rank" in text
    assert running.ends(victim)[0] == -signal.SIGKILL


def test_a_death_is_noticed_although_a_child_keeps_the_socket_open(job: Callable[..., Job]) -> None:
    running = job(
        2,
        """
        if rank == 1:
            child = os.fork()
            if child == 0:
                os.close(1)
                os.close(2)
                time.sleep(30)
                os._exit(0)
            print(child, flush=True)
            os.kill(os.getpid(), signal.SIGKILL)
        start = time.monotonic()
        try:
            group.barrier()
        finally:
            print(time.monotonic() - start, flush=True)
        """,
    )
    child = int(running.says(1))
    seconds = float(running.says(0))
    os.kill(child, signal.SIGKILL)  # it still lived, or this raises
    assert "rank 1 (pid" in running.ends(0)[1]
    assert seconds < 20  # by its silence, and not when the child ends


def test_a_stopped_rank_is_silent_and_named(job: Callable[..., Job]) -> None:
    running = job(
        2,
        """
        if rank == 1:
            os.kill(os.getpid(), signal.SIGSTOP)
        group.barrier()
        """,
    )
    code, text = running.ends(0)
    assert code == 1 and "PeerFailure: [distributed] rank 1 (pid" in text and "no sign of life for" in text


def test_a_rank_that_waits_long_is_not_taken_for_dead(job: Callable[..., Job]) -> None:
    running = job(
        2,
        """
        if rank == 1:
            time.sleep(3.5)  # longer than the silence allowed: but the process lives
        group.barrier()
        transport.close()
        """,
    )
    assert [running.ends(r)[0] for r in range(2)] == [0, 0]


def test_a_goodbye_is_read_behind_the_news_that_the_peer_closed() -> None:
    from ringgrad.distributed.transport.mesh import Peer

    here, there = map(Peer, socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
    here.send(b"S", b"that nobody reads")
    there.send(b"B", b"")
    there.socket.close()
    assert [here.receive()[0] for _ in range(2)] == [b"B", b""]
    here.socket.close()


@pytest.mark.parametrize("said", ["left the group", "failed: ValueError: boom"])
def test_last_words_count_although_the_death_is_known_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    from ringgrad.distributed.transport.mesh import Peer
    from ringgrad.distributed.transport.shm import ShmTransport

    other = f"""
        arrays = [group.empty(10) for _ in range(3)]
        {"transport.abort('ValueError: boom')" if "boom" in said else "transport.close()"}
        os._exit(0)
        """
    listening, receive = threading.Event(), Peer.receive
    job = Job(tmp_path, 2, other, first=1)
    transport = ShmTransport(str(tmp_path / "meet"), 0, 2)
    group = Group(transport, timeout=60)
    group.barrier()

    def late(self: Peer, wait: bool = True) -> tuple[bytes, bytes, int | None]:
        listening.wait()
        return receive(self, wait)

    monkeypatch.setattr(Peer, "receive", late)
    assert job.ends(1)[0] == 0
    kept = group.empty(10)  # told to a peer that is not there
    listening.set()
    with pytest.raises(PeerFailure, match=f"rank 1 {said}"):
        group.barrier()
    transport.close()
    job.close()
    assert kept.size == 10


def test_ranks_that_never_come_are_named(tmp_path: Path) -> None:
    from ringgrad.distributed.transport.shm import ShmTransport

    with pytest.raises(CollectiveTimeout, match=r"these did not come: \[1, 2\]"):
        ShmTransport(str(tmp_path), 0, 3, join_timeout=0.1)
    with pytest.raises(CollectiveTimeout, match="rank 2 of 3 waits for rank 0"):
        ShmTransport(str(tmp_path), 2, 3, join_timeout=0.1)
    assert not list(tmp_path.iterdir())


def test_a_directory_open_to_others_is_refused(tmp_path: Path) -> None:
    from ringgrad.distributed.transport.mesh import private_directory

    (tmp_path / "open").mkdir(mode=0o755)
    with pytest.raises(PermissionError, match=r"must belong to uid .* with mode 700, got uid .* mode 755"):
        private_directory(str(tmp_path / "open"))
    assert private_directory(str(tmp_path / "new")) == str(tmp_path / "new")


def test_a_long_path_is_no_obstacle(job: Callable[..., Job], tmp_path: Path) -> None:
    deep = "d" * 120
    start = JOIN.replace(
        "transport = ShmTransport(folder,",
        f"folder = os.path.join(folder, '{deep}')\n    os.makedirs(folder, exist_ok=True)\n"
        "    transport = ShmTransport(folder,",
    )
    running = job(2, "transport.close()\n", start=start)
    assert [running.ends(r)[0] for r in range(2)] == [0, 0]


# Under mpirun.

MPIRUN = Path(sys.executable).parent / "mpirun"


def mpirun(tmp_path: Path, script: str, transport: str) -> tuple[int, str]:
    pytest.importorskip("mpi4py")
    if not MPIRUN.exists():
        pytest.skip("no mpirun beside this Python")
    path = tmp_path / "script.py"
    path.write_text(
        "import ringgrad.distributed as dist\ndist.init_process_group()\n" + textwrap.dedent(script)
    )
    environ = os.environ | {
        "RINGGRAD_TRANSPORT": transport,
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    }
    done = subprocess.run(
        [str(MPIRUN), "-n", "3", sys.executable, str(path)],
        capture_output=True,
        text=True,
        timeout=100,
        env=environ,
    )
    return done.returncode, done.stdout + done.stderr


@pytest.mark.parametrize("transport", ["shm", "mpi"])
def test_a_raising_rank_ends_all_with_its_traceback_once_and_first(tmp_path: Path, transport: str) -> None:
    code, text = mpirun(
        tmp_path,
        """
        if dist.get_rank() == 1:
            raise ValueError("boom")
        dist.barrier()
        """,
        transport,
    )
    assert code != 0
    assert text.count('raise ValueError("boom")') == 1
    assert text.index("Traceback") < text.index("ValueError: boom")
    assert "PeerFailure" not in text[: text.index("ValueError: boom")]


@pytest.mark.parametrize("transport", ["shm", "mpi"])
def test_a_rank_that_exits_early_does_not_leave_the_others_waiting(tmp_path: Path, transport: str) -> None:
    code, text = mpirun(
        tmp_path,
        """
        if dist.get_rank() == 1:
            raise SystemExit(3)
        dist.barrier()
        """,
        transport,
    )
    assert code != 0 and "rank 1 left the group while barrier" in text


@pytest.mark.parametrize("transport", ["shm", "mpi"])
def test_ranks_that_disagree_under_mpirun_end(tmp_path: Path, transport: str) -> None:
    code, text = mpirun(
        tmp_path,
        """
        import numpy as np
        dist.all_reduce(np.ones(3 if dist.get_rank() else 4))
        """,
        transport,
    )
    assert code != 0
    assert "rank 0: all_reduce sum float64[4]" in text and ": all_reduce sum float64[3]" in text


def test_an_mpirun_of_another_mpi_is_found(tmp_path: Path) -> None:
    pytest.importorskip("mpi4py")
    # What Open MPI's mpirun tells its workers; the library then sees a world of this process alone.
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("PMI", "OMPI", "PRTE"))}
    for name, value in {"RANK": "0", "SIZE": "2", "LOCAL_RANK": "0", "LOCAL_SIZE": "2"}.items():
        environ[f"OMPI_COMM_WORLD_{name}"] = value
    code = "import ringgrad.distributed as dist; dist.init_process_group()"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=100, env=environ
    )
    assert done.returncode == 1
    if "cannot open shared object" in done.stderr:
        pytest.skip("mpi4py finds no MPI library")
    assert "Open MPI's mpirun started 2 workers, but the MPI library that mpi4py loaded (" in done.stderr
    assert "sees 1: launcher and library must be of one MPI" in done.stderr


def test_missing_mpi4py_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    from ringgrad.distributed.transport.mpi import load

    monkeypatch.setitem(sys.modules, "mpi4py", None)
    with pytest.raises(ImportError, match=r'pip install "ringgrad\[mpi\]"'):
        load()
