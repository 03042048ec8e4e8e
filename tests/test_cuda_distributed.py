"""Collectives of GPU arrays on the fake device, ranks as threads: NCCL, mapped memory, by the host; DDP over each."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import ringgrad as rg
from ringgrad.distributed.group import Group
from ringgrad.distributed.transport.local import LocalTransport, run_threads

sys.path.insert(0, str(Path(__file__).parent))
import fakecuda
import fakecuda_device as machine

WAYS = ["nccl", "ipc", "staged"]


@pytest.fixture(params=WAYS)
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setenv("RINGGRAD_GPU_TRANSPORT", request.param)
    with fakecuda.installed():
        yield request.param


def on_ranks(size: int, body: Any) -> list[Any]:
    """What body(group) gives on each rank; groups are closed by all together."""
    results: list[Any] = [None] * size

    def run(transport: LocalTransport) -> None:
        group = Group(transport, timeout=60)
        results[transport.rank] = body(group)
        group.barrier()
        group.close()

    run_threads(size, run)
    return results


@pytest.mark.parametrize("size", [2, 3])
def test_every_verb(way: str, size: int) -> None:
    import cupy as cp

    def body(group: Group) -> None:
        assert group.on_device.way.name == way
        tag = 2.0**group.rank  # a part that is lost or counted twice names itself
        everything = sum(2.0**r for r in range(size))
        x = cp.full(1000, tag, np.float32)
        group.all_reduce(x)
        assert (x.get() == everything).all()
        for op, want in (("avg", everything / size), ("max", 2.0 ** (size - 1)), ("min", 1.0)):
            x = cp.full((3, 5), tag, np.float32)
            group.all_reduce(x, op)
            np.testing.assert_allclose(x.get(), want, rtol=1e-6)
        x = cp.full(7, tag, np.float32)
        group.broadcast(x, size - 1)
        assert (x.get() == 2.0 ** (size - 1)).all()
        out = cp.empty(size * 4, np.int64)
        group.all_gather(out, cp.full(4, group.rank, np.int64))
        assert out.get().tolist() == [r for r in range(size) for _ in range(4)]
        part = cp.empty(2, np.float32)
        group.reduce_scatter(part, cp.arange(size * 2, dtype=np.float32) * tag)
        np.testing.assert_allclose(part.get(), (np.arange(2) + 2 * group.rank) * everything)

    on_ranks(size, body)


def test_bfloat16_and_arrays_with_gaps(way: str) -> None:
    import cupy as cp
    import ml_dtypes

    def body(group: Group) -> None:
        x = cp.full(33, group.rank + 1, ml_dtypes.bfloat16)
        group.all_reduce(x, "sum")
        assert (x.get() == 3).all()
        wide = cp.zeros((4, 6), np.float32)
        group.all_reduce(wide[:, ::2] + group.rank)
        view = wide[:, ::2]
        view += group.rank + 1
        group.all_reduce(view)
        assert wide.get()[:, ::2].tolist() == [[3.0] * 3] * 4 and (wide.get()[:, 1::2] == 0).all()

    on_ranks(2, body)


def test_long_arrays_go_in_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    from ringgrad.distributed.transport import staged

    monkeypatch.setattr(staged, "PIECE_BYTES", 64)
    monkeypatch.setenv("RINGGRAD_GPU_TRANSPORT", "staged")
    with fakecuda.installed() as cp:

        def body(group: Group) -> None:
            for n in (1, 16, 17, 100):
                x = cp.arange(n, dtype=np.float32) * (group.rank + 1)
                group.all_reduce(x)
                assert x.get().tolist() == [3.0 * i for i in range(n)]

        on_ranks(2, body)


def test_work_overlaps_and_wait_orders_it(way: str) -> None:
    """An asynchronous collective is on a stream of its own: its result is not to be touched before wait()."""
    import cupy as cp

    def body(group: Group) -> None:
        x = cp.full(64, 1.0, np.float32)
        work = group.all_reduce(x, async_op=True)
        if way == "nccl":
            with pytest.raises(machine.RaceError):
                x + 1
        work.wait()
        assert ((x + 1).get() == 3).all() and work.is_completed()

    on_ranks(2, body)


def test_the_other_verbs_go_by_the_host(way: str) -> None:
    import cupy as cp

    def body(group: Group) -> None:
        x = cp.full(4, group.rank + 1.0, np.float32)
        group.reduce(x, 0)
        assert x.get().tolist() == [3.0 if group.rank == 0 else 2.0] * 4
        out = cp.empty(8, np.float32)
        group.all_to_all(out, cp.arange(8, dtype=np.float32) + 10 * group.rank)
        mine = [4.0 * group.rank + i for i in range(4)]
        assert out.get().tolist() == [*mine, *(10 + v for v in mine)]

    on_ranks(2, body)


def test_data_parallel_training_is_that_of_the_whole_batch(way: str) -> None:
    from ringgrad.nn.parallel import DistributedDataParallel

    rg.manual_seed(0)
    x, y = rg.randn(12, 5), rg.randn(12, 3)
    initial = rg.nn.Sequential(rg.nn.Linear(5, 7), rg.nn.ReLU(), rg.nn.Linear(7, 3)).state_dict()

    def train(model: Any, inputs: Any, targets: Any, inner: Any) -> list[Any]:
        optimizer = rg.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
        for _ in range(3):
            optimizer.zero_grad()
            rg.nn.functional.mse_loss(model(inputs), targets).backward()
            optimizer.step()
        return [p.detach().cpu().numpy() for p in inner.parameters()]

    def model() -> Any:
        made = rg.nn.Sequential(rg.nn.Linear(5, 7), rg.nn.ReLU(), rg.nn.Linear(7, 3))
        made.load_state_dict(initial)
        return made

    plain = model()
    want = train(plain, x, y, plain)

    def body(group: Group) -> list[Any]:
        inner = model().cuda()
        half = slice(group.rank * 6, group.rank * 6 + 6)
        parallel = DistributedDataParallel(inner, process_group=group, bucket_cap_mb=0.0001)
        return train(parallel, x[half].cuda(), y[half].cuda(), inner)

    for got in on_ranks(2, body):
        for a, b in zip(got, want):
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_the_way_is_chosen_by_what_all_ranks_have(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RINGGRAD_GPU_TRANSPORT", raising=False)
    names = []
    with fakecuda.installed():  # two ranks on one GPU: NCCL would refuse
        names += on_ranks(2, lambda group: group.on_device.way.name)
    assert names == ["ipc", "ipc"]
    monkeypatch.setenv("RINGGRAD_GPU_TRANSPORT", "pigeon")
    with fakecuda.installed(), pytest.raises(Exception, match="must be one of nccl, ipc, mpi, staged"):
        on_ranks(2, lambda group: group.on_device)


def test_mpi_is_asked_whether_it_takes_gpu_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    from ringgrad.distributed.transport import cudaaware

    class Info:
        def Get(self, key: str) -> str | None:
            return {"mpi_memory_alloc_kinds": "mpi,system,cuda"}.get(key)

    class Comm:
        def Get_info(self) -> Info:
            return Info()

    assert cudaaware.cuda_aware(Comm())
    monkeypatch.setenv("RINGGRAD_MPI_CUDA", "0")
    assert not cudaaware.cuda_aware(Comm())
    monkeypatch.delenv("RINGGRAD_MPI_CUDA")
    pytest.importorskip("mpi4py")
    code = "from mpi4py import MPI; from ringgrad.distributed.transport.cudaaware import cuda_aware\n"
    code += "print(cuda_aware(MPI.COMM_WORLD))"  # the wheels' libraries are not CUDA-aware
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    if done.returncode == 0:
        assert done.stdout.strip() == "False"
