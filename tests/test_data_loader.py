"""DataLoader: batches in this process and from workers, with everything that can go wrong with a worker."""

import gc
import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from collections import Counter

import ml_dtypes
import numpy as np
import pytest

import ringgrad as rg
from ringgrad.data import DataLoader, Dataset, IterableDataset, Subset, TensorDataset, get_worker_info
from ringgrad.data.slots import INLINE, LENT, SPARE, Packer, Unpacker

pytestmark = pytest.mark.timeout(60)
LARGE = INLINE  # float32 numbers that are sent through a slot


class Squares(Dataset):
    def __init__(self, count=20):
        self.count = count

    def __len__(self):
        return self.count

    def __getitem__(self, i):
        return rg.full((LARGE,), float(i * i)), i


class Doing(Dataset):
    """Calls a function for one index, else gives the index."""

    def __init__(self, index, act):
        self.index, self.act = index, act

    def __len__(self):
        return 16

    def __getitem__(self, i):
        if i == self.index:
            return self.act()
        return i


class Stream(IterableDataset):
    """0 ... n-1, each worker its share."""

    def __init__(self, count, divide=True):
        self.count, self.divide = count, divide

    def __iter__(self):
        info = get_worker_info()
        share = (info.id, info.num_workers) if info and self.divide else (0, 1)
        return iter(range(share[0], self.count, share[1]))


def numbers(loader):
    return [batch.tolist() for batch in loader]


def alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def wait_until_gone(pids):
    deadline = time.monotonic() + 60
    while any(alive(pid) for pid in pids):
        assert time.monotonic() < deadline, f"still alive: {[pid for pid in pids if alive(pid)]}"
        time.sleep(0.01)


@pytest.mark.parametrize("workers", [0, 1, 3])
def test_batches_come_in_order_and_complete(workers):
    loader = DataLoader(Squares(), batch_size=6, num_workers=workers)
    batches = list(loader)
    assert len(loader) == len(batches) == 4
    assert [tuple(x.shape) for x, _ in batches] == [(6, LARGE)] * 3 + [(2, LARGE)]
    assert [i for _, y in batches for i in y.tolist()] == list(range(20))
    assert [v for x, _ in batches for v in x[:, -1].tolist()] == [float(i * i) for i in range(20)]
    assert [len(y) for _, y in DataLoader(Squares(), 6, num_workers=workers, drop_last=True)] == [6, 6, 6]


@pytest.mark.parametrize("workers", [0, 2])
def test_shuffled_orders_depend_on_the_seed_alone(workers):
    def order():
        rg.manual_seed(5)
        loader = DataLoader(TensorDataset(rg.arange(10)), batch_size=4, shuffle=True, num_workers=workers)
        return [b[0].tolist() for _ in range(2) for b in loader]

    recorded_from_pytorch = [[8, 3, 0, 5], [9, 1, 6, 2], [4, 7], [5, 8, 9, 7], [2, 0, 4, 1], [3, 6]]
    assert order() == order() == recorded_from_pytorch


def test_single_samples_without_batches():
    assert numbers(DataLoader(np.arange(3), batch_size=None)) == [0, 1, 2]
    assert list(DataLoader([5, 6], batch_size=None, sampler=[1, 0])) == [6, 5]
    assert list(DataLoader(Stream(3), batch_size=None, num_workers=2)) == [0, 1, 2]


def test_tensor_datasets_give_the_same_batches_as_sample_by_sample():
    x, y = rg.arange(24, dtype=rg.float32).reshape(6, 2, 2), rg.arange(6)
    whole = TensorDataset(x, y)
    part = Subset(Subset(whole, [5, 3, 1, 0]), [2, 0, 1])
    for data in (whole, part):
        fast = list(DataLoader(data, batch_size=2))
        slow = list(DataLoader(data, batch_size=2, collate_fn=lambda s: [rg.stack(c) for c in zip(*s)]))
        assert [[t.tolist() for t in b] for b in fast] == [[t.tolist() for t in b] for b in slow]
        assert all(type(b) is list and b[1].dtype is rg.int64 for b in fast)
    fast[0][0].zero_()
    assert x.sum().item() == sum(range(24)), "a batch is a copy"


def test_a_subclass_that_changes_its_samples_is_asked_for_them():
    class Halved(TensorDataset):
        def __getitem__(self, i):
            return tuple(t / 2 for t in super().__getitem__(i))

    data = Halved(rg.tensor([2.0, 4.0]))
    assert next(iter(DataLoader(data, batch_size=2)))[0].tolist() == [1.0, 2.0]
    assert next(iter(DataLoader(Subset(data, [1]), batch_size=1)))[0].tolist() == [2.0]


def test_batches_of_leaves_that_require_grad_are_recorded():
    x = rg.ones(4, requires_grad=True)
    for (batch,) in DataLoader(TensorDataset(x), batch_size=2):
        (batch * 3).sum().backward()
    assert x.grad.tolist() == [3.0] * 4


def test_many_samples_by_one_call():
    class Many(Dataset):
        def __len__(self):
            return 5

        def __getitems__(self, indices):
            return [10 * i for i in indices]

    assert numbers(DataLoader(Many(), batch_size=3)) == [[0, 10, 20], [30, 40]]


def test_batch_samplers_and_collate_functions():
    loader = DataLoader(range(9), batch_sampler=[[8, 1], [3]], collate_fn=tuple, num_workers=1)
    assert list(loader) == [(8, 1), (3,)]
    assert loader.batch_size is None and len(loader) == 2


@pytest.mark.parametrize("workers", [0, 1, 2, 3])
def test_streams_are_read_to_their_end(workers):
    got = numbers(DataLoader(Stream(10), batch_size=2, num_workers=workers))
    assert Counter(i for batch in got for i in batch) == Counter(range(10))
    full = numbers(DataLoader(Stream(10), batch_size=3, num_workers=workers, drop_last=True))
    assert all(len(batch) == 3 for batch in full)


def test_streams_of_unequal_length_take_turns():
    class Uneven(IterableDataset):
        def __iter__(self):
            first = get_worker_info().id * 100
            return iter(range(first, first + (2 if first else 5)))

    assert [b[0].item() for b in DataLoader(Uneven(), num_workers=2)] == [0, 100, 1, 101, 2, 3, 4]


def test_a_stream_that_gives_more_than_it_said_is_told():
    class Sized(Stream):
        def __len__(self):
            return self.count

    loader = DataLoader(Sized(2, divide=False), num_workers=2)
    assert len(loader) == 2
    with pytest.warns(UserWarning, match=r"reported to be 2, but 3 samples.*get_worker_info"):
        for _, _ in zip(range(3), loader):
            pass


def test_workers_know_themselves_and_have_seeds_of_their_own():
    def look():
        info = get_worker_info()
        drawn = rg.rand(1).item(), random.random(), float(np.random.rand())
        return info.id, info.num_workers, info.seed, type(info.dataset).__name__, drawn

    class Looking(Dataset):
        def __len__(self):
            return 4

        def __getitem__(self, _):
            return look()

    def run():
        rg.manual_seed(7)
        return list(DataLoader(Looking(), batch_size=None, collate_fn=lambda x: x, num_workers=2))

    first = run()
    assert [r[:2] for r in first] == [(0, 2), (1, 2)] * 2
    assert first[1][2] == first[0][2] + 1 and first[0][3] == "Looking"
    assert len({r[4] for r in first}) == 4
    assert run() == first
    assert get_worker_info() is None


def test_worker_init_fn_runs_first_and_its_error_is_told():
    def prepare(worker):
        os.environ["PREPARED"] = str(worker)

    class Prepared(Squares):
        def __getitem__(self, i):
            return int(os.environ["PREPARED"])

    got = numbers(DataLoader(Prepared(4), num_workers=2, worker_init_fn=prepare))
    assert got == [[0], [1], [0], [1]] and "PREPARED" not in os.environ

    def fail(worker):
        raise OSError(f"no disk for {worker}")

    with pytest.raises(OSError, match=r"(?s)worker process 0.*no disk for 0"):
        list(DataLoader(Squares(), num_workers=1, worker_init_fn=fail))


def test_persistent_workers_stay_and_leave_an_unfinished_epoch_behind():
    class Where(Squares):
        def __getitem__(self, i):
            return i, os.getpid()

    loader = DataLoader(Where(12), batch_size=2, num_workers=2, persistent_workers=True)
    epochs = [[(i.tolist(), int(pid[0])) for i, pid in loader] for _ in range(2)]
    for n, _ in enumerate(loader):
        if n == 1:
            break
    epochs.append([(i.tolist(), int(pid[0])) for i, pid in loader])
    assert epochs[0] == epochs[1] == epochs[2]
    pids = {pid for _, pid in epochs[0]}
    assert len(pids) == 2 and all(alive(pid) for pid in pids)
    del loader
    gc.collect()
    wait_until_gone(pids)


def test_without_persistence_workers_end_with_their_epoch():
    class Where(Squares):
        def __getitem__(self, i):
            return os.getpid()

    loader = DataLoader(Where(), num_workers=2)
    pids = {int(b) for b in loader}
    wait_until_gone(pids)
    iterator = iter(loader)
    pids = {int(next(iterator)), int(next(iterator))}
    del iterator
    gc.collect()
    wait_until_gone(pids)


def test_ready_batches_pass_a_slow_one_when_order_is_free(tmp_path):
    release = tmp_path / "release"

    class Gate(Dataset):
        def __len__(self):
            return 6

        def __getitem__(self, i):
            while i == 0 and not release.exists():
                time.sleep(0.005)
            return i

    got = []
    for batch in DataLoader(Gate(), num_workers=2, in_order=False):
        got.append(batch.item())
        if len(got) == 3:
            release.touch()
    assert sorted(got) == list(range(6)) and 0 not in got[:3]


@pytest.mark.parametrize("error", [ValueError, KeyError, StopIteration])
def test_an_exception_in_a_worker_is_raised_here_with_its_traceback(error):
    def act():
        raise error("spoilt sample")

    expected = RuntimeError if error is StopIteration else error
    loader = DataLoader(Doing(5, act), batch_size=4, num_workers=2)
    got = []
    with pytest.raises(expected, match=r"(?s)worker process 1.*in __getitem__.*spoilt sample") as caught:
        for batch in loader:
            got.append(batch.tolist())
    assert got == [[0, 1, 2, 3]]
    assert "\\n" not in str(caught.value) and str(caught.value).count("\n") > 5


def test_after_an_exception_the_next_batch_can_be_had():
    loader = iter(DataLoader(Doing(0, lambda: 1 / 0), batch_size=8, num_workers=1))
    with pytest.raises(ZeroDivisionError):
        next(loader)
    assert next(loader).tolist() == list(range(8, 16))


def test_exceptions_that_cannot_be_sent_or_built_come_as_runtime_errors():
    class Local(Exception):
        def __init__(self, a, b):
            super().__init__(f"{a} and {b}")

    def act():
        raise Local(1, 2)

    with pytest.raises(RuntimeError, match=r"(?s)Caught Local .*1 and 2"):
        list(DataLoader(Doing(0, act), num_workers=1))


def test_stop_iteration_in_a_dataset_does_not_end_the_epoch_unnoticed():
    def act():
        raise StopIteration

    with pytest.raises(RuntimeError, match=r"came StopIteration from one of them for \[3\]"):
        list(DataLoader(Doing(3, act)))


def test_a_batch_that_cannot_be_pickled_names_the_reason():
    with pytest.raises((AttributeError, TypeError), match=r"(?s)worker process 0.*lambda|pickle"):
        list(DataLoader(Doing(0, lambda: lambda: 1), collate_fn=lambda s: s, num_workers=1))


@pytest.mark.parametrize(
    "act, fate",
    [
        (
            lambda: os.kill(os.getpid(), signal.SIGKILL),
            r"killed by SIGKILL \(9\), as the kernel does when memory",
        ),
        (lambda: os.kill(os.getpid(), signal.SIGTERM), r"killed by SIGTERM \(15\)"),
        (lambda: os._exit(3), "exited with code 3"),
        (lambda: sys.exit(4), "exited with code 4"),
    ],
)
def test_a_dead_worker_is_an_error_that_names_it_and_its_batch(act, fate):
    loader = iter(DataLoader(Doing(6, act), batch_size=4, num_workers=2))
    assert next(loader).tolist() == [0, 1, 2, 3]
    with pytest.raises(RuntimeError, match=rf"worker 1 \(pid \d+\).*{fate}.*indices \[4, 5, 6, 7\]"):
        next(loader)
    with pytest.raises(StopIteration):
        next(loader)


def test_after_a_death_persistent_workers_are_started_anew(tmp_path):
    once = tmp_path / "once"

    def act():
        if not once.exists():
            once.touch()
            os._exit(1)
        return 6

    loader = DataLoader(Doing(6, act), batch_size=4, num_workers=2, persistent_workers=True)
    with pytest.raises(RuntimeError, match="exited with code 1"):
        list(loader)
    assert len(list(loader)) == 4


def test_a_worker_killed_from_outside_while_its_child_lives_is_noticed(tmp_path):
    child = tmp_path / "child"

    def act():
        pid = os.fork()  # holds copies of the worker's ends of its connections
        if pid == 0:
            time.sleep(60)
            os._exit(0)
        child.write_text(str(pid))
        os.kill(os.getpid(), signal.SIGKILL)

    with pytest.raises(RuntimeError, match="killed by SIGKILL"):
        list(DataLoader(Doing(0, act), num_workers=1))
    os.kill(int(child.read_text()), signal.SIGKILL)


def test_a_hanging_worker_is_an_error_after_the_timeout_and_leaves_nothing(tmp_path):
    def act():
        (tmp_path / "pid").write_text(str(os.getpid()))
        while True:
            time.sleep(1)

    loader = DataLoader(Doing(0, act), batch_size=2, num_workers=1, timeout=0.5)
    with pytest.raises(
        RuntimeError, match=r"timed out after 0.5 seconds: worker 0 \(pid \d+\).*indices \[0, 1\]"
    ):
        next(iter(loader))
    wait_until_gone([int((tmp_path / "pid").read_text())])


def test_large_lists_of_indices_and_large_batches_do_not_block_each_other():
    class Bulky(Dataset):
        def __len__(self):
            return 200_000

        def __getitem__(self, i):
            return i

    text = "x" * 3_000_000  # travels inside the message, past any socket's buffer
    got = [
        len(b)
        for b, _ in DataLoader(
            Bulky(), batch_size=50_000, num_workers=2, collate_fn=lambda s: (s, text), prefetch_factor=4
        )
    ]
    assert got == [50_000] * 4


def test_slots_are_used_again_but_never_while_a_tensor_lies_in_them():
    loader = DataLoader(Squares(64), batch_size=2, num_workers=1)
    iterator = iter(loader)
    kept = [x for x, _ in iterator]
    assert [x[:, 0].tolist() for x in kept] == [[float(i * i), float((i + 1) ** 2)] for i in range(0, 64, 2)]
    iterator = iter(loader)
    for _ in iterator:
        used = len(iterator.workers[0].memory.slots)
    assert used <= 2 + SPARE
    row = kept[3][1]
    kept.clear()
    gc.collect()
    assert row[5].item() == 49.0


def test_keeping_many_batches_takes_no_file_descriptor_for_each():
    def opened():
        return len(os.listdir("/proc/self/fd"))

    gc.collect()
    before = opened()
    kept = [[x[0, 0].item(), x] for _ in range(2) for x, _ in DataLoader(Squares(LENT), num_workers=1)]
    assert len(kept) == 2 * LENT and before < opened() <= before + LENT + SPARE
    assert all(x[0, 5].item() == value == (i % LENT) ** 2 for i, (value, x) in enumerate(kept))
    kept.clear()
    gc.collect()
    assert opened() == before


def test_slots_carry_any_array_and_grow_and_shrink():
    packer, unpacker = Packer(), Unpacker()

    def travel(batch):
        offered, dropped = unpacker.offer()
        for slot in dropped:
            packer.drop(slot)
        parcel = packer.pack(batch, offered)
        return unpacker.unpack(parcel, offered, packer.fd if parcel.fresh else -1)

    half = np.arange(3000).reshape(30, 100).astype(ml_dtypes.bfloat16)
    frozen = np.arange(5000)
    frozen.flags.writeable = False
    batch = {"half": half, "turned": np.asfortranarray(np.eye(50)), "every other": np.arange(9000)[::2]}
    batch |= {
        "frozen": frozen,
        "tensor": rg.arange(6000).reshape(60, 100),
        "small": np.ones(2),
        "empty": np.ones((0, 3)),
    }
    batch |= {
        "strings": np.array(["a", "bc"] * 3000),
        "objects": np.array([{}, None], dtype=object),
        "text": "t",
    }
    got = travel(batch)
    for name, value in batch.items():
        if isinstance(value, np.ndarray):
            assert got[name].dtype == value.dtype
            np.testing.assert_array_equal(got[name], value)
    assert got["tensor"].tolist() == batch["tensor"].tolist() and got["text"] == "t"
    got["frozen"][0] = 7
    del got
    for count in (10_000, 12_000, 10_000, 2_000_000, 3000, 1, 10_000):
        back = travel(np.arange(count))
        np.testing.assert_array_equal(back, np.arange(count))
        del back
    assert set(unpacker.slots) == set(packer.slots) == set(unpacker.free)
    assert len(packer.slots) == 1


def test_spawned_workers_take_picklable_datasets():
    data = TensorDataset(rg.arange(6))
    loader = DataLoader(data, batch_size=3, num_workers=1, multiprocessing_context="spawn")
    assert [b[0].tolist() for b in loader] == [[0, 1, 2], [3, 4, 5]]


@pytest.mark.parametrize("stuck", ["time.sleep(60)", "re.match('(a+)+$', 'a' * 50 + 'b')"])
def test_workers_end_when_their_parent_is_killed(tmp_path, stuck):
    script = tmp_path / "parent.py"
    script.write_text(
        textwrap.dedent(
            f"""
            import os, re, sys, time
            import ringgrad as rg
            from ringgrad.data import DataLoader, Dataset
            class Stuck(Dataset):
                def __len__(self): return 8
                def __getitem__(self, i):
                    os.write(1, b"%d\\n" % os.getpid())  # in one piece: print may take two
                    while True: {stuck}
            other = iter(DataLoader(Stuck(), num_workers=1))
            loader = iter(DataLoader(Stuck(), num_workers=2))
            sys.stdin.read()
            """
        )
    )
    parent = subprocess.Popen(
        [sys.executable, str(script)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    pids = {int(parent.stdout.readline()) for _ in range(3)}
    parent.kill()
    parent.wait()
    parent.stdin.close(), parent.stdout.close()
    wait_until_gone(pids)


def test_a_script_that_ends_in_the_middle_of_an_epoch_ends_clean(tmp_path):
    script = tmp_path / "main.py"
    script.write_text(
        textwrap.dedent(
            """
            from ringgrad.data import DataLoader
            loader = iter(DataLoader(range(1000), num_workers=2))
            print(next(loader).tolist())
            """
        )
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, timeout=100)
    assert (done.returncode, done.stdout, done.stderr) == (0, "[0]\n", "")


def test_a_process_forked_from_the_parent_does_not_stop_its_workers():
    iterator = iter(DataLoader(range(8), num_workers=1))
    assert next(iterator).tolist() == [0]
    pid = os.fork()
    if pid == 0:
        iterator.stop()
        os._exit(0)
    os.waitpid(pid, 0)
    assert [b.item() for b in iterator] == list(range(1, 8))


@pytest.mark.parametrize(
    "options, message",
    [
        ({"num_workers": -1}, "num_workers option should be non-negative, came -1"),
        ({"num_workers": 1, "timeout": -1}, "timeout option should be non-negative"),
        ({"timeout": 3}, "timeout option needs num_workers > 0"),
        ({"prefetch_factor": 2}, "prefetch_factor option needs num_workers > 0"),
        ({"prefetch_factor": 0, "num_workers": 1}, "prefetch_factor option should be positive"),
        ({"persistent_workers": True}, "persistent_workers option needs num_workers > 0"),
        ({"shuffle": True, "sampler": [0]}, "sampler option is mutually exclusive with shuffle"),
        ({"batch_sampler": [[0]], "batch_size": 2}, "batch_sampler option is mutually exclusive"),
        ({"batch_size": None, "drop_last": True}, "batch_size=None option disables auto-batching"),
        ({"batch_size": 0}, "batch_size should be a positive integer value, but got batch_size=0"),
        ({"batch_size": 2.0}, "batch_size should be a positive integer value, but got batch_size=2.0"),
        ({"multiprocessing_context": "fork"}, "only be used with multi-process loading"),
        ({"multiprocessing_context": "thread", "num_workers": 1}, "valid start method in .*'thread'"),
        (
            {"dataset": Stream(3), "shuffle": True},
            "expected unspecified shuffle option, but got shuffle=True",
        ),
        ({"dataset": Stream(3), "sampler": [1]}, "expected unspecified sampler option"),
        ({"dataset": Stream(3), "batch_sampler": [[1]]}, "expected unspecified batch_sampler option"),
        ({"dataset": [], "shuffle": True}, "num_samples should be a positive integer value"),
    ],
)
def test_settings_that_contradict_each_other(options, message):
    with pytest.raises(ValueError, match=message):
        DataLoader(**{"dataset": range(4), **options})


def test_what_is_fixed_and_what_has_no_length():
    loader = DataLoader(range(4))
    with pytest.raises(ValueError, match="batch_size attribute should not be set after"):
        loader.batch_size = 2
    loader.timeout = 0
    with pytest.raises(TypeError):
        len(DataLoader(Stream(4)))
    with pytest.raises(TypeError, match="valid context object"):
        DataLoader(range(4), num_workers=1, multiprocessing_context=3)
    with pytest.raises(NotImplementedError, match="cannot be pickled"):
        __import__("pickle").dumps(iter(loader))


def test_pinning_asks_every_member_that_can_be_pinned():
    class Pinnable:
        def pin_memory(self):
            return "pinned"

    made = {"a": Pinnable(), "b": [Pinnable(), 3], "c": "text"}
    (batch,) = DataLoader([0], collate_fn=lambda _: made, pin_memory=True)
    assert batch == {"a": "pinned", "b": ["pinned", 3], "c": "text"}
