"""torch.distributed's functions, alone and under every launcher at hand."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import ringgrad
import ringgrad.distributed as dist

PYTHON, BIN = sys.executable, Path(sys.executable).parent


def check_everything() -> None:
    """All functions, on Tensors and arrays; run on every rank of an initialised job."""
    rank, world = dist.get_rank(), dist.get_world_size()
    tensor = ringgrad.from_numpy

    t = tensor(np.full(5, 1 << rank))
    assert dist.all_reduce(t) is None
    assert (t.array == (1 << world) - 1).all()
    t = tensor(np.full(70_000, float(rank)))
    work = dist.all_reduce(t, op=dist.ReduceOp.MAX, async_op=True)
    assert work.wait() and work.is_completed() and (t.array == world - 1).all()

    t = tensor(np.full(3, rank))
    dist.broadcast(t, src=world - 1)
    assert (t.array == world - 1).all()

    outs = [tensor(np.empty((2, 2))) for _ in range(world)]
    dist.all_gather(outs, tensor(np.full((2, 2), float(rank))))
    assert [float(o.array[0, 0]) for o in outs] == list(range(world))
    outs = [tensor(np.empty(2)) for _ in range(world)]
    work = dist.all_gather(outs, tensor(np.full(2, float(rank))), async_op=True)
    work.wait()
    assert [float(o.array[1]) for o in outs] == list(range(world))

    out = tensor(np.empty(world * 2))
    dist.all_gather_into_tensor(out, tensor(np.full(2, float(rank))))
    assert (out.array == np.repeat(np.arange(world), 2)).all()
    back = np.empty(2)
    dist.reduce_scatter_tensor(back, out, op="avg")
    assert (back == rank).all()
    dist.reduce_scatter(back, [np.full(2, float(p)) for p in range(world)])
    assert (back == rank * world).all()

    t = tensor(np.full(2, 1 << rank))
    dist.reduce(t, dst=0)
    assert (t.array == ((1 << world) - 1 if rank == 0 else 1 << rank)).all()

    parts = [np.empty(2) for _ in range(world)] if rank == 0 else None
    dist.gather(np.full(2, float(rank)), parts, dst=0)
    assert parts is None or [p[0] for p in parts] == list(range(world))
    dist.scatter(back, parts, src=0)
    assert (back == rank).all()

    dist.all_to_all_single(out, tensor(np.repeat(np.arange(world) * 10.0, 2) + rank))
    assert (out.array == np.repeat(np.arange(world), 2) + 10 * rank).all()
    got = [np.empty(p + 1) for p in range(world)]
    dist.all_to_all(got, [np.full(rank + 1, 10.0 * p + rank) for p in range(world)])
    assert [g.tolist() for g in got] == [[10 * rank + p] * (p + 1) for p in range(world)]

    if world > 1:
        right, left = (rank + 1) % world, (rank - 1) % world
        sent, came = dist.isend(np.full(9, rank), right), np.empty(9, np.int64)
        assert dist.recv(came, left) == left and sent.wait() and (came == left).all()
        sent, got_later = dist.isend(np.full(9, rank + 1), right), dist.irecv(came, left)
        assert sent.wait() and got_later.wait() and (came == left + 1).all()

    objects = [None] * world
    dist.all_gather_object(objects, {"rank": rank})
    assert objects == [{"rank": r} for r in range(world)]
    gathered = [None] * world if rank == 0 else None
    dist.gather_object(rank, gathered)
    assert gathered == (list(range(world)) if rank == 0 else None)
    words = ["a", 1] if rank == 0 else [None, None]
    dist.broadcast_object_list(words, src=0)
    assert words == ["a", 1]
    mine = [None]
    dist.scatter_object_list(mine, list(range(world)) if rank == 0 else None, src=0)
    assert mine == [rank]

    last = dist.new_group([world - 1])
    assert dist.get_world_size(last) == (1 if rank == world - 1 else -1)
    everyone = dist.new_group()
    assert dist.get_rank(everyone) == rank and dist.get_process_group_ranks(everyone) == list(range(world))
    t = tensor(np.ones(3))
    dist.all_reduce(t, group=everyone)
    assert (t.array == world).all()
    dist.destroy_process_group(everyone)
    dist.barrier()


def script() -> None:
    """What workers run: join twice (the second time must not meet the first), check, leave."""
    for _ in range(2):
        dist.init_process_group("gloo")
        check_everything()
        name = dist.get_backend()
        rank = dist.get_rank()
        dist.destroy_process_group()
    print(f"rank {rank} fine over {name}", flush=True)


@pytest.fixture
def alone(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    prefixes = ("OMPI_", "PMI", "SLURM_", "RINGGRAD_", "TORCHELASTIC_", "MASTER_")
    for name in list(os.environ):
        if name.startswith(prefixes) or name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
            monkeypatch.delenv(name)
    return monkeypatch


def test_alone_everything_works_at_once(alone: pytest.MonkeyPatch) -> None:
    assert not dist.is_initialized() and dist.is_available()
    dist.init_process_group()
    try:
        assert dist.is_initialized()
        assert (dist.get_rank(), dist.get_world_size(), dist.get_backend()) == (0, 1, "local")
        check_everything()
        with pytest.raises(RuntimeError, match="must be called once"):
            dist.init_process_group()
    finally:
        dist.destroy_process_group()
    assert not dist.is_initialized()


def test_before_init_the_error_says_what_to_call() -> None:
    with pytest.raises(ValueError, match=r"call init_process_group\(\) first"):
        dist.get_rank()
    with pytest.raises(ValueError, match=r"call init_process_group\(\) first"):
        dist.all_reduce(np.ones(1))


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"rank": 0}, "world_size must be at least 1 and rank in"),
        ({"rank": 2, "world_size": 2}, "got rank=2, world_size=2"),
        ({"timeout": 0}, "timeout must be positive"),
        (
            {"rank": 0, "world_size": 2, "backend": "carrier pigeon"},
            "backend must be one of shm, mpi, tcp or None",
        ),
        (
            {"rank": 0, "world_size": 2, "init_method": "http://x"},
            "init_method must be env://, tcp://host:port",
        ),
        ({"store": object()}, "store goes with rank and world_size"),
    ],
)
def test_bad_arguments(alone: pytest.MonkeyPatch, arguments: dict, text: str) -> None:
    with pytest.raises(ValueError, match=text):
        dist.init_process_group(**arguments)
    assert not dist.is_initialized()


def test_arguments_must_agree_with_the_launcher(alone: pytest.MonkeyPatch) -> None:
    for name, value in {"RANK": "1", "SIZE": "2", "LOCAL_RANK": "1", "LOCAL_SIZE": "2"}.items():
        alone.setenv(f"OMPI_COMM_WORLD_{name}", value)
    with pytest.raises(ValueError, match="mpi started this process as rank 1 of 2, got rank=0, world_size=2"):
        dist.init_process_group(rank=0, world_size=2)


def test_several_hosts_need_a_place_to_meet(alone: pytest.MonkeyPatch) -> None:
    values = {"RANK": "0", "WORLD_SIZE": "4", "LOCAL_RANK": "0", "LOCAL_WORLD_SIZE": "2", "MASTER_ADDR": "a"}
    for name, value in values.items():
        alone.setenv(name, value)
    with pytest.raises(
        RuntimeError, match="must know where rank 0 listens, and MASTER_ADDR=a, MASTER_PORT=None"
    ):
        dist.init_process_group()


def test_only_tensors_and_arrays_are_taken(alone: pytest.MonkeyPatch) -> None:
    dist.init_process_group()
    try:
        with pytest.raises(TypeError, match="needs a Tensor or a NumPy array, got list"):
            dist.all_reduce([1.0])
        with pytest.raises(ValueError, match="the list must have 1 tensors, one a rank, got 2"):
            dist.all_gather([np.ones(1), np.ones(1)], np.ones(1))
        with pytest.raises(
            ValueError, match=r"all tensors must be float64 of shape \(2,\), got float64 of shape"
        ):
            dist.all_gather([np.ones(1)], np.ones(2))
        with pytest.raises(ValueError, match="a rank cannot send with itself"):
            dist.isend(np.ones(1), 0, tag=3)
        with pytest.raises(ValueError, match="from any rank needs another rank"):
            dist.recv(np.ones(1))
        with pytest.raises(RuntimeError, match="op must be isend or irecv"):
            dist.P2POp(dist.send, np.ones(1), 0)
        with pytest.raises(ValueError, match="a list of at least one P2POp, got "):
            dist.batch_isend_irecv([])
        dist.monitored_barrier()
        with pytest.raises(
            ValueError, match=r"\[broadcast\] the other rank must be one of the group's, \[0\], got 5"
        ):
            dist.broadcast(np.ones(1), src=5)
    finally:
        dist.destroy_process_group()


def test_a_write_by_a_collective_is_seen_by_autograd(alone: pytest.MonkeyPatch) -> None:
    dist.init_process_group()
    try:
        x = ringgrad.ones(3, requires_grad=True)
        y = x.exp()  # saves its result
        dist.broadcast(y, src=0)
        with pytest.raises(RuntimeError, match=r"version|overwritten|in place|in-place"):
            y.sum().backward()
    finally:
        dist.destroy_process_group()


def run(command: list[str], **variables: str) -> str:
    clean = {
        k: v for k, v in os.environ.items() if not k.startswith(("OMPI_", "PMI", "RINGGRAD_", "MASTER_"))
    }
    mpi = {
        "OMPI_ALLOW_RUN_AS_ROOT": "1",
        "OMPI_ALLOW_RUN_AS_ROOT_CONFIRM": "1",
        "PRTE_MCA_rmaps_default_mapping_policy": ":oversubscribe",
    }
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=100, env={**clean, **mpi, **variables}, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize(("wish", "name"), [("", "shm"), ("mpi", "mpi")])
def test_under_mpirun(wish: str, name: str) -> None:
    pytest.importorskip("mpi4py")
    if not (BIN / "mpirun").exists():
        pytest.skip("no mpirun beside this Python")
    text = run([str(BIN / "mpirun"), "-n", "3", PYTHON, __file__], RINGGRAD_TRANSPORT=wish)
    assert all(f"rank {r} fine over {name}" in text for r in range(3))


def test_under_ringrun() -> None:
    text = run([PYTHON, "-m", "ringgrad.launch", "-n", "3", __file__])
    assert all(f"rank {r} fine over shm" in text for r in range(3))


@pytest.mark.parity
def test_under_torchrun() -> None:
    pytest.importorskip("torch")
    text = run([PYTHON, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", __file__])
    assert all(f"rank {r} fine over shm" in text for r in range(2))


def by_hand(body: str, variables: Callable[[int], dict[str, str]]) -> None:
    """Two workers without a launcher."""
    code = (
        f"import sys, ringgrad.distributed as dist\n{body}\nassert dist.get_world_size() == 2\ndist.barrier()"
    )
    clean = {
        k: v for k, v in os.environ.items() if not k.startswith(("OMPI_", "PMI", "RINGGRAD_", "MASTER_"))
    }
    workers = [
        subprocess.Popen(
            [PYTHON, "-c", code, str(r)], env=clean | variables(r), stderr=subprocess.PIPE, text=True
        )
        for r in range(2)
    ]
    try:
        errors = [w.communicate(timeout=100)[1] for w in workers]
    finally:
        for w in workers:
            w.kill()
    assert [w.returncode for w in workers] == [0, 0], "".join(errors)


def test_with_variables_set_by_hand() -> None:
    def variables(rank: int) -> dict[str, str]:
        return {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29641"}

    by_hand("dist.init_process_group()", variables)


@pytest.mark.parametrize("method", ["tcp", "file"])
def test_with_rank_and_world_size_given(method: str, tmp_path: Path) -> None:
    url = "tcp://127.0.0.1:29642" if method == "tcp" else f"file://{tmp_path}/meet"
    by_hand(
        f"dist.init_process_group('gloo', init_method={url!r}, rank=int(sys.argv[1]), world_size=2)",
        lambda rank: {},
    )


if __name__ == "__main__":
    script()


def test_samplers_know_the_place_that_arguments_gave(tmp_path: Path) -> None:
    """As scripts of mp.spawn do: rank and world size are arguments, no launcher has set variables."""
    script = tmp_path / "script.py"
    script.write_text(
        "import os, sys\n"
        "import ringgrad as rg\n"
        "from ringgrad import distributed as dist\n"
        "from ringgrad.data import DistributedSampler\n"
        "workers = []\n"
        "for rank in range(2):\n"
        "    workers.append(os.fork())\n"
        "    if not workers[-1]: break\n"
        "else:\n"
        "    sys.exit(max(os.waitpid(pid, 0)[1] for pid in workers))\n"
        "dist.init_process_group(rank=rank, world_size=2)\n"
        "taken = rg.tensor([float(len(list(DistributedSampler(range(10)))))])\n"
        "dist.all_reduce(taken)\n"
        "dist.destroy_process_group()\n"
        "assert taken.item() == 10, taken\n"
        "assert len(list(DistributedSampler(range(10)))) == 10\n"
    )
    env = {**os.environ, "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": "29631"}
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK", "LOCAL_WORLD_SIZE"):
        env.pop(name, None)
    done = subprocess.run([sys.executable, str(script)], env=env, capture_output=True, text=True, timeout=100)
    assert done.returncode == 0, done.stderr
