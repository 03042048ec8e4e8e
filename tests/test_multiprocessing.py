"""torch.multiprocessing: shared tensors, Hogwild training, spawn and its errors."""

import os
import signal
import subprocess
import sys
import textwrap

import numpy as np
import pytest

import ringgrad as rg
import ringgrad.multiprocessing as mp
from ringgrad import nn, optim
from ringgrad.tensor.shared import block_of

pytestmark = pytest.mark.filterwarnings("ignore:.*multi-threaded, use of fork.*:DeprecationWarning")
METHODS = ["fork", "spawn"]


@pytest.fixture(autouse=True)
def importable(monkeypatch):
    """Spawned processes import this file by its name."""
    here = os.path.dirname(os.path.abspath(__file__))
    monkeypatch.syspath_prepend(os.path.dirname(here) if "." in __name__ else here)


def increment(i, x, lock, rounds):
    for _ in range(rounds):
        with lock:
            x.add_(1)


@pytest.mark.parametrize("method", METHODS)
def test_two_processes_write_one_tensor(method):
    context = mp.get_context(method)
    x = rg.zeros(3, 2).share_memory_()
    lock = context.Lock()
    mp.start_processes(increment, (x, lock, 50), nprocs=2, start_method=method)
    assert x.tolist() == [[100.0, 100.0]] * 3


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(rg.zeros(3, 1))
        self.register_buffer("steps", rg.zeros((), dtype=rg.int64))

    def forward(self, x):
        return x @ self.weight


def train(i, model, lock):
    optimizer = optim.SGD(model.parameters(), lr=0.1)
    generator = rg.Generator().manual_seed(i)
    for _ in range(60):
        x = rg.randn(8, 3, generator=generator)
        target = x @ rg.tensor([[1.0], [-2.0], [0.5]])
        optimizer.zero_grad()
        loss = ((model(x) - target) ** 2).mean()
        loss.backward()
        optimizer.step()
        with lock:
            model.steps += 1


@pytest.mark.parametrize("method", METHODS)
def test_hogwild(method):
    model = Net()
    model.share_memory()
    assert model.weight.is_shared() and isinstance(model.weight, nn.Parameter)
    lock = mp.get_context(method).Lock()
    mp.start_processes(train, (model, lock), nprocs=2, start_method=method)
    assert model.steps.item() == 120
    np.testing.assert_allclose(model.weight.detach().numpy().ravel(), [1.0, -2.0, 0.5], atol=0.05)


def double(received, answers):
    while (t := received.get()) is not None:
        t *= 2
        answers.put((t.shape, t.requires_grad, t.sum().item()))


@pytest.mark.parametrize("method", METHODS)
def test_queues_carry_tensors_without_copies(method):
    context = mp.get_context(method)
    there, back = context.SimpleQueue(), context.Queue()
    process = context.Process(target=double, args=(there, back))
    process.start()
    base = rg.arange(12, dtype=rg.float32).reshape(3, 4)
    for t in (base, base[1:, ::2].t(), rg.zeros(0, 2), rg.ones(2, dtype=rg.bfloat16)):
        before = t.sum().item()
        there.put(t)
        shape, needs, total = back.get(timeout=60)
        assert shape == t.shape and not needs and total == 2 * before == t.sum().item()
    there.put(None)
    process.join(20)
    assert process.exitcode == 0


def test_pickling_keeps_kind_and_shared_parts():
    from multiprocessing.reduction import ForkingPickler

    with pytest.raises(RuntimeError, match="must be a leaf"):
        ForkingPickler.dumps(rg.ones(2, requires_grad=True) * 2)
    receiver, sender = mp.Pipe(duplex=False)
    p, t = nn.Parameter(rg.ones(2)), rg.zeros(3)
    sender.send((p, t, t))
    q, u, v = receiver.recv()
    assert type(q) is nn.Parameter and q.requires_grad and u is v
    u[0] = 5
    assert t[0].item() == 5 and block_of(u.array) is block_of(t.array)


def test_files_are_closed_with_the_last_tensor():
    before = len(os.listdir("/proc/self/fd"))
    large = [rg.ones(5_000_000).share_memory_() for _ in range(3)]
    assert all(t.is_shared() for t in large) and len(os.listdir("/proc/self/fd")) > before
    view = large[0][1:]
    del large
    assert view.is_shared()
    del view
    small = rg.ones(10).share_memory_()
    assert small.share_memory_() is small and not rg.ones(10).is_shared()
    assert len(os.listdir("/proc/self/fd")) <= before + 2  # the file that small tensors share


def fail(i, how):
    if i == 1:
        if how == "raise":
            raise KeyError("the cause")
        if how == "exit":
            sys.exit(7)
        os.kill(os.getpid(), signal.SIGKILL)
    signal.pause()  # the other one is ended from outside


@pytest.mark.parametrize("how", ["raise", "exit", "kill"])
def test_a_failure_ends_all_and_is_named(how):
    kind = mp.ProcessRaisedException if how == "raise" else mp.ProcessExitedException
    with pytest.raises(kind) as caught:
        mp.start_processes(fail, (how,), nprocs=2, start_method="fork")
    assert caught.value.error_index == 1 and caught.value.error_pid > 0
    if how == "raise":
        assert "KeyError: 'the cause'" in str(caught.value) and "in fail" in str(caught.value)
    elif how == "exit":
        assert caught.value.exit_code == 7
    else:
        assert caught.value.signal_name == "SIGKILL" and caught.value.exit_code == -9


def nothing(i):
    pass


def test_join_later():
    context = mp.start_processes(nothing, nprocs=2, join=False, start_method="fork")
    assert len(context.pids()) == 2
    while not context.join(timeout=20):
        pass
    assert context.join() and all(p.exitcode == 0 for p in context.processes)
    with pytest.raises(ValueError, match="nprocs"):
        mp.spawn(nothing, nprocs=0)


def test_sharing_strategies():
    mp.set_sharing_strategy("file_descriptor")
    with pytest.warns(UserWarning, match="file_system"):
        mp.set_sharing_strategy("file_system")
    with pytest.raises(ValueError, match="came 'magic'"):
        mp.set_sharing_strategy("magic")
    assert mp.get_sharing_strategy() in mp.get_all_sharing_strategies()


def test_spawn_under_the_alias(tmp_path):
    """A script that imports torch: its spawned processes import the script, and must find ringgrad too."""
    script = tmp_path / "script.py"
    script.write_text(
        textwrap.dedent(
            """
            import torch
            import torch.multiprocessing as mp

            def work(rank, x):
                assert torch.__name__ == "ringgrad"
                x[rank] = rank + 1

            if __name__ == "__main__":
                x = torch.zeros(2).share_memory_()
                mp.spawn(work, args=(x,), nprocs=2)
                mp.set_start_method("spawn", force=True)
                p = mp.Process(target=work, args=(0, x))
                p.start(); p.join()
                print(p.exitcode, x.tolist())
            """
        )
    )
    command = [sys.executable, "-m", "ringgrad.torch", str(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=100)
    assert done.stdout == "0 [1.0, 2.0]\n", done.stderr
