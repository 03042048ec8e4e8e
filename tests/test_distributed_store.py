"""Stores: all kinds do what PyTorch's do, and TCPStore lets nobody in without the secret."""

import os
import socket
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable, Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from free_port import free_port

from ringgrad import distributed as dist
from ringgrad.distributed import meeting
from ringgrad.distributed.meeting import meet_through
from ringgrad.distributed.store import DistStoreError, Store
from ringgrad.launch.environment import Environment

SHORT = timedelta(seconds=0.1)


@pytest.fixture(autouse=True)
def no_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RINGGRAD_TOKEN", raising=False)


@pytest.fixture(params=["hash", "file", "tcp", "prefix"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    makers: dict[str, Callable[[], Store]] = {
        "hash": dist.HashStore,
        "file": lambda: dist.FileStore(str(tmp_path / "store"), 1),
        "tcp": lambda: dist.TCPStore("127.0.0.1", 0, 1, True),
        "prefix": lambda: dist.PrefixStore("some", dist.HashStore()),
    }
    yield makers[request.param]()


def session(store: Any, fail: tuple[type[Exception], ...]) -> list[Any]:
    """What a store answers to calls of all kinds."""
    store.set_timeout(SHORT)
    seen: list[Any] = [store.timeout]
    store.set("a", "1")
    seen += [store.get("a"), store.add("n", 2), store.add("n", -5), store.get("n")]
    seen += [store.check(["a"]), store.check(["a", "none"])]
    seen += [store.compare_set("a", "1", "2"), store.compare_set("a", "1", "3"), store.get("a")]
    seen += [
        store.compare_set("new", "", "x"),
        store.compare_set("absent", "q", "x"),
        store.check(["absent"]),
    ]
    store.append("long", "x")
    store.append("long", "y")
    store.multi_set(["m1", "m2"], ["", "z"])
    seen += [store.get("long"), store.multi_get(["m1", "m2"])]
    seen += [store.delete_key("a"), store.delete_key("a"), store.check(["a"])]
    for call in (
        lambda: store.get("none"),
        lambda: store.wait(["none", "n"]),
        lambda: store.wait(["none"], SHORT),
    ):
        with pytest.raises(fail):
            call()
    with pytest.raises(ValueError):
        store.add("long", 1)
    return seen


def test_every_kind_answers_as_pytorch_does(store: Store) -> None:
    torch = pytest.importorskip("torch.distributed")
    theirs = torch.HashStore()
    assert session(store, (DistStoreError,)) == session(theirs, (torch.DistStoreError,))
    extra = isinstance(store, dist.TCPStore)  # the key that counts who has come, as PyTorch's has
    assert store.num_keys() == theirs.num_keys() + extra
    assert set(theirs.list_keys()) <= set(store.list_keys())


def test_what_is_added_at_once_adds_up(store: Store) -> None:
    stores = [store] * 4
    if isinstance(store, dist.TCPStore):
        stores = [dist.TCPStore("127.0.0.1", store.port) for _ in range(4)]
    elif isinstance(store, dist.FileStore):
        stores = [dist.FileStore(store.path) for _ in range(4)]
    threads = [threading.Thread(target=lambda s=s: [s.add("sum", 1) for _ in range(25)]) for s in stores]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    assert store.get("sum") == b"100"


def test_get_waits_for_the_key(store: Store) -> None:
    late = threading.Timer(0.05, store.set, ("key", b"\x00\xff"))
    late.start()
    assert store.get("key") == b"\x00\xff"
    late.join()


def test_a_missing_key_is_named(store: Store) -> None:
    store.set("there", "1")
    with pytest.raises(DistStoreError, match=r"within 0:00:00.100000, and these were not: \['not there'\]"):
        store.wait(["there", "not there"], SHORT)


def test_prefixes_keep_users_apart() -> None:
    whole = dist.HashStore()
    one, two = dist.PrefixStore("one", whole), dist.PrefixStore("two", whole)
    one.set("key", "1")
    assert whole.get("one/key") == b"1" and not two.check(["key"])
    assert one.list_keys() == ["key"] and two.num_keys() == 0 and one.underlying_store is whole


def test_a_file_cut_in_the_middle_of_a_record_is_gone_on_with(tmp_path: Path) -> None:
    path = tmp_path / "store"
    dist.FileStore(str(path)).set("whole", "1")
    with open(path, "ab") as file:
        file.write(b"\x92\xa3ha")  # the writer was killed
    again = dist.FileStore(str(path))
    again.set("next", "2")
    assert dist.FileStore(str(path)).multi_get(["whole", "next"]) == [b"1", b"2"]


# Who gets in.


def test_another_token_is_refused_and_strangers_keep_nobody_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RINGGRAD_TOKEN", "the first secret of two")
    store = dist.TCPStore("127.0.0.1", 0, 1, True, timeout=timedelta(seconds=5))
    strangers = [socket.create_connection(("127.0.0.1", store.port)) for _ in range(3)]
    strangers[0].sendall(b"GET / HTTP/1.1\r\n\r\n" + b"x" * 200)
    assert dist.TCPStore("127.0.0.1", store.port).add("n", 1) == 1
    monkeypatch.setenv("RINGGRAD_TOKEN", "the second secret of two")
    with pytest.raises(dist.DistributedError, match="must hold this job's token, and does not"):
        dist.TCPStore("127.0.0.1", store.port)
    for stranger in strangers:
        stranger.close()
    assert store.add("n", 1) == 2


def test_nobody_listens_for_other_hosts_without_a_token() -> None:
    with pytest.raises(RuntimeError, match=r"\[TCPStore\] workers that listen on 0.0.0.0 need a secret"):
        dist.TCPStore("0.0.0.0", 0, 1, True)


def test_who_does_not_come_and_who_does_not_listen_are_told() -> None:
    with pytest.raises(DistStoreError, match=r"2 workers must come .* and 1 did"):
        dist.TCPStore("127.0.0.1", 0, 2, True, timeout=SHORT)
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        with pytest.raises(DistStoreError, match="none is reached"):
            dist.TCPStore("127.0.0.1", free.getsockname()[1], timeout=SHORT)


MEETING = """
    import sys
    from datetime import timedelta
    from ringgrad import distributed as dist
    rank, path = int(sys.argv[1]), sys.argv[2]
    store = dist.FileStore(path, 2)
    dist.init_process_group("gloo", store=store, rank=rank, world_size=2, timeout=timedelta(seconds=30))
    print(dist.get_world_size())
    dist.destroy_process_group()
    tcp = dist.TCPStore("localhost", int(sys.argv[3]), 2, rank == 0)
    tcp.set(f"from {rank}", "x" * 100_000)
    print(len(tcp.get(f"from {1 - rank}")), tcp.add("done", 1) and "")
    while rank == 0 and tcp.add("done", 0) < 2:
        pass
"""


def test_processes_meet_through_a_store(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(textwrap.dedent(MEETING))
    port = str(free_port())
    command = [sys.executable, str(script)]
    environ = {k: v for k, v in os.environ.items() if not k.startswith(("RINGGRAD", "PMI", "OMPI"))}
    workers = [
        subprocess.Popen(
            [*command, str(rank), str(tmp_path / "store"), port],
            env=environ,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for rank in range(2)
    ]
    for worker in workers:
        out, _ = worker.communicate(timeout=100)
        assert worker.returncode == 0, out
        assert out.split() == ["2", "100000"]


def test_who_does_not_come_to_the_store_is_named() -> None:
    with pytest.raises(
        dist.CollectiveTimeout, match=r"3 ranks must come to the store within 0 s, and 1, 2 did not"
    ):
        meet_through(dist.HashStore(), Environment(0, 3, launcher="torchrun"), 0.05)


def test_hosts_that_share_no_address_hear_so_on_every_rank(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(meeting, "this_host", lambda: threading.current_thread().name)
    store, told = dist.HashStore(), []

    def come(rank: int) -> None:
        with pytest.raises(
            RuntimeError, match="HashStore does not tell: set MASTER_ADDR for rank 0"
        ) as caught:
            meet_through(store, Environment(rank, 2, launcher="torchrun"), 10)
        told.append(str(caught.value))

    other = threading.Thread(target=come, args=(1,))
    other.start()
    come(0)
    other.join()
    assert len(told) == 2 and told[0] == told[1]


def test_the_names_of_backends() -> None:
    torch = pytest.importorskip("torch.distributed")
    for name in ("GLOO", "nccl", "Mpi", "else"):
        assert dist.Backend(name) == torch.Backend(name)
    assert dist.Backend.GLOO == torch.Backend.GLOO and dist.Backend.UNDEFINED == torch.Backend.UNDEFINED
    for device in ("cpu", "cuda", "cuda:1"):
        assert dist.get_default_backend_for_device(device) == torch.get_default_backend_for_device(device)
    with pytest.raises(ValueError, match="must be one of cpu, cuda, got 'meta'"):
        dist.get_default_backend_for_device("meta")
    with pytest.raises(ValueError, match="must be a string"):
        dist.Backend(3)  # type: ignore[arg-type]
