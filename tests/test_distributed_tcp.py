"""The tcp transport: what every group promises, and who gets in, who does not, and what ends a wait."""

import contextlib
import errno
import os
import signal
import socket
import subprocess
import sys
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
from free_port import free_port
from tcp_worker import TOKEN, join
from test_distributed_failures import Job
from test_distributed_group import JobBehaviour, run_workers

from ringgrad.distributed import plan
from ringgrad.distributed.call import Call
from ringgrad.distributed.errors import CollectiveMismatch, CollectiveTimeout, DistributedError
from ringgrad.distributed.group import Group
from ringgrad.distributed.rendezvous import chosen_seal, join_tcp
from ringgrad.distributed.transport import Incoming, Outgoing, handshake
from ringgrad.distributed.transport.handshake import (
    Hello,
    Identity,
    Refused,
    Session,
    answer,
    derive_key,
    dial,
)
from ringgrad.distributed.transport.tcp import TcpTransport
from ringgrad.distributed.transport.tcp_channel import Inbox, Outbox, _Pull, _Push
from ringgrad.distributed.transport.tcp_control import Link, LinkBroken
from ringgrad.launch.environment import Environment

WORKER = str(Path(__file__).with_name("tcp_worker.py"))


class TestTcp(JobBehaviour):
    __test__ = True
    worlds = [2, 3, 5]

    def start(self, world: int, folder: Path) -> str:
        return run_workers(
            [
                [sys.executable, WORKER, str(folder), str(r), str(world), str(free_port_of(folder))]
                for r in range(world)
            ]
        )


class TestHosts(JobBehaviour):
    """Several hosts of several ranks, of which this host plays all: shared memory inside each, tcp between."""

    __test__ = True
    worlds = [3, 4, 6]

    def start(self, world: int, folder: Path) -> str:
        port = str(free_port())
        command = [sys.executable, WORKER, str(folder)]
        return run_workers([[*command, str(r), str(world), port, LAYOUTS[world]] for r in range(world)])


# The host of each rank: uneven, host after host, and dealt in turn as `mpirun --map-by node` does.
LAYOUTS = {3: "011", 4: "0011", 6: "012012"}

_ports: dict[Path, int] = {}


def free_port_of(folder: Path) -> int:
    return _ports.setdefault(folder, free_port())


# Who gets in.


def identity(**other: Any) -> Identity:
    return Identity(derive_key(TOKEN), job=7, generation=3, world=4, seal="mac")._replace(**other)


def greet(dialer: Identity, listener: Identity, **options: Any) -> tuple[Any, Any]:
    """What each side's greeting returned or raised: rank 1 dials rank 0."""
    server = socket.create_server(("127.0.0.1", 0))
    outcome: list[Any] = []

    def listen() -> None:
        sock, _ = server.accept()
        with sock:
            try:
                outcome.append(answer(sock, listener, options.get("rank", 0)))
            except (OSError, Refused) as error:
                outcome.append(error)

    thread = threading.Thread(target=listen)
    thread.start()
    with server, socket.create_connection(server.getsockname()) as sock:
        sock.settimeout(5)
        try:
            ours: Any = dial(sock, dialer, 1, options.get("target", 0), 1, 42)
        except (OSError, Refused) as error:
            ours = error
    thread.join()
    return ours, outcome[0]


def test_both_sides_get_one_key_that_is_new_each_time() -> None:
    ours, theirs = greet(identity(), identity())
    assert ours.key == theirs.key and theirs.hello.rank == 1 and theirs.hello.channel == 42
    assert greet(identity(), identity())[0].key != ours.key


@pytest.mark.parametrize(("dialer", "listener"), [(True, True), (True, False), (False, True), (False, False)])
def test_gmac_is_taken_where_both_ends_have_it(
    monkeypatch: pytest.MonkeyPatch, dialer: bool, listener: bool
) -> None:
    mine = threading.current_thread()
    has = lambda: dialer if threading.current_thread() is mine else listener
    monkeypatch.setattr(handshake, "gmac", lambda: object if has() else None)
    for seal in ("mac", "crc"):
        ours, theirs = greet(identity(seal=seal), identity(seal=seal))
        assert ours.seal == theirs.seal == ("gmac" if dialer and listener and seal == "mac" else seal)


def test_another_token_is_refused_on_both_sides() -> None:
    ours, theirs = greet(identity(key=derive_key("another token")), identity())
    assert isinstance(ours, Refused) and "must hold this job's token, and does not" in str(ours)
    assert isinstance(theirs, (Refused, OSError))


@pytest.mark.parametrize(
    ("other", "told", "older"),
    [
        ({"job": 8}, "job 8", False),
        ({"generation": 2}, "generation 2", True),
        ({"generation": 4}, "generation 4", False),
        ({"world": 6}, "world size 6", False),
        ({"seal": "crc"}, "4-byte tags", False),
    ],
)
def test_a_listener_of_another_kind_is_named(other: dict[str, Any], told: str, older: bool) -> None:
    ours, theirs = greet(identity(), identity(**other))
    assert isinstance(ours, Refused) and told in str(ours) and ours.older == older
    assert isinstance(theirs, (Refused, OSError))


def test_who_reaches_another_rank_than_it_wants_is_refused() -> None:
    ours, theirs = greet(identity(), identity(), rank=2)
    assert isinstance(ours, Refused) and "must be rank 0" in str(ours)
    assert isinstance(theirs, (Refused, OSError))


def test_a_recorded_greeting_does_not_open_the_door_again() -> None:
    left, right = socket.socketpair()
    said: list[bytes] = []

    class Recorder:
        def __getattr__(self, name: str) -> Any:
            return getattr(left, name)

        def getpeername(self) -> tuple[str, int]:
            return "127.0.0.1", 1

        def sendall(self, data: bytes) -> None:
            said.append(bytes(data))
            left.sendall(data)

    thread = threading.Thread(target=answer, args=(right, identity(), 0))
    thread.start()
    dial(Recorder(), identity(), 1, 0, 0)  # type: ignore[arg-type]
    thread.join()
    again, door = socket.socketpair()
    again.sendall(b"".join(said))
    with pytest.raises(Refused, match="does not hold this job's token"):
        answer(door, identity(), 0)
    for sock in (left, right, again, door):
        sock.close()


def test_strangers_do_not_keep_the_others_out(tmp_path: Path) -> None:
    port = free_port()
    results: list[Any] = []

    def rank(number: int) -> None:
        transport = join(str(tmp_path), number, 2, str(port))
        group = Group(transport, timeout=60)
        results.append(group.all_gather_object(number))
        group.close()
        transport.close()

    first = threading.Thread(target=rank, args=(0,))
    first.start()
    strangers = []
    for number in range(60):  # silent ones, talkative ones, and those who hang up
        stranger = None
        while stranger is None:
            with contextlib.suppress(ConnectionRefusedError):
                stranger = socket.create_connection(("127.0.0.1", port))
        if number % 3:
            stranger.sendall(b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * (1 if number % 2 else 50))
        strangers.append(stranger)
    for stranger in strangers[::4]:
        stranger.close()
    rank(1)
    first.join()
    assert results == [[0, 1], [0, 1]]
    for stranger in strangers:
        stranger.close()


def test_who_dials_too_early_and_reaches_itself_tries_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel may give a dialing socket the very port that it dials, while nobody listens there."""
    port, itself, turn = free_port(), threading.Event(), threading.Lock()

    class Dialer(socket.socket):
        def connect(self, target: Any) -> None:
            with turn:
                if not itself.is_set():
                    self.bind(target)
                    super().connect(target)
                    itself.set()
                    return
            super().connect(target)

    monkeypatch.setattr(socket, "socket", Dialer)
    results: list[Any] = []

    def rank(number: int) -> None:
        transport = join(str(tmp_path), number, 2, str(port))
        group = Group(transport, timeout=60)
        results.append(group.all_gather_object(number))
        group.close()
        transport.close()

    second = threading.Thread(target=rank, args=(1,))
    second.start()
    assert itself.wait(20)
    rank(0)
    second.join()
    assert results == [[0, 1], [0, 1]]


def place(address: str, local: int = 2) -> Environment:
    return Environment(1, 2, 1 % local, local, 0, "torchrun", None, "job", address, 29999, None)


def test_no_listener_that_others_reach_without_a_token(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("RINGGRAD_TOKEN", raising=False)
    with pytest.raises(RuntimeError, match=r"listen on 192\.0\.2\.1 need a secret.*not set\n.*do: set it"):
        join_tcp(place("192.0.2.1", 1), None, 5)
    monkeypatch.setenv("RINGGRAD_TOKEN", "short")
    with pytest.raises(RuntimeError, match="at least 16 characters, it has 5"):
        join_tcp(place("192.0.2.1", 1), None, 5)


@pytest.mark.parametrize(
    ("environment", "error", "text"),
    [
        (place("127.0.0.1", 1), RuntimeError, "one that the other hosts reach, and 127.0.0.1 is this host"),
        (place("no.such.host.invalid"), DistributedError, "'no.such.host.invalid' must be a name or number"),
        (place("127.0.0.1")._replace(master_addr=None), RuntimeError, "MASTER_ADDR=None, MASTER_PORT=29999"),
    ],
)
def test_bad_addresses_are_told_at_once(
    environment: Environment, error: type[Exception], text: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RINGGRAD_TOKEN", TOKEN)
    with pytest.raises(error, match=text):
        join_tcp(environment, None, 5)


def test_an_address_of_another_host_cannot_be_listened_on() -> None:
    with pytest.raises(DistributedError, match=r"must be able to listen on 192\.0\.2\.1:29999"):
        TcpTransport("192.0.2.1", 29999, 0, 2, token=TOKEN, join_timeout=1)


def test_a_wrong_choice_of_seal_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RINGGRAD_TCP_SEAL", "rot13")
    with pytest.raises(ValueError, match="must be one of mac, crc, none, got 'rot13'"):
        chosen_seal()


def test_ranks_that_never_come_are_named() -> None:
    port = free_port()
    with pytest.raises(CollectiveTimeout, match=r"these did not come: \[1, 2\]"):
        TcpTransport("127.0.0.1", port, 0, 3, token=TOKEN, join_timeout=0.2)
    with pytest.raises(CollectiveTimeout, match=r"rank 2 of 3 waits for rank 0 at 127\.0\.0\.1:"):
        TcpTransport("127.0.0.1", port, 2, 3, token=TOKEN, join_timeout=0.2)


def test_torchrun_variables_on_one_host_need_no_token_and_leave_nothing(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import numpy as np\nimport ringgrad.distributed as dist\n"
        "for _ in range(2):\n"
        "    dist.init_process_group()\n"
        "    a = np.full(3, 1 << dist.get_rank()); dist.all_reduce(a)\n"
        "    if dist.get_rank() == 0:\n"
        "        print(dist.get_backend(), a, dist.process_group._world.transport._listener.getsockname()[0])\n"
        "    dist.destroy_process_group()\n"
    )
    port, workers = str(free_port()), []
    (tmp_path / "tmp").mkdir()
    for rank in range(2):
        environ = {name: value for name, value in os.environ.items() if not name.startswith("RINGGRAD_")}
        environ |= {"RANK": str(rank), "WORLD_SIZE": "2", "MASTER_ADDR": "localhost", "MASTER_PORT": port}
        environ |= {"RINGGRAD_TRANSPORT": "tcp", "TMPDIR": str(tmp_path / "tmp")}
        workers.append(
            subprocess.Popen(
                [sys.executable, str(script)],
                env=environ,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
        )
    output = [worker.communicate(timeout=100)[0] for worker in workers]
    assert output[0].count("tcp [3 3 3] 127.0.0.1") == 2 or output[0].count("tcp [3 3 3] ::1") == 2, output
    assert [worker.returncode for worker in workers] == [0, 0]
    assert not list((tmp_path / "tmp").iterdir())


# What the wire does to messages.


class Wire:
    """What a message becomes on its way from rank 0 to rank 1: `change` gets the bytes of the whole stream."""

    def __init__(self, seal: str, change: Callable[[bytearray], object]) -> None:
        self.ends = socket.socketpair()
        self.change = change
        session = Session(Hello(b"", 0, 0, 2, 0, 1, 1, 0, 0), b"key of the tests", seal)
        self.box = Inbox(self.ends[1], session)
        self.out = Outbox(self.ends[0], session, 1)
        self.members, self.transport = [0, 1], SimpleNamespace(rank=1)

    def inbox(self, member: int) -> Inbox:
        return self.box

    def send(self, array: np.ndarray, text: str = "all_reduce") -> None:
        stream = bytearray()
        taken = SimpleNamespace(sendmsg=lambda parts: stream.extend(b"".join(parts)) or sum(map(len, parts)))
        self.out.socket = taken  # type: ignore[assignment]
        push = _Push(self.out, Outgoing(1, array), Call(text, "here:1", 1))
        push.move()
        assert push.finished()
        self.change(stream)
        self.ends[0].setblocking(False)
        with contextlib.suppress(BlockingIOError):
            self.ends[0].sendall(stream)

    def receive(self, target: np.ndarray, text: str = "all_reduce") -> bool:
        pull = _Pull(self, Incoming(0, target, None, target.dtype), Call(text, "here:1", 1))  # type: ignore[arg-type]
        pull.move()
        return pull.finished()

    def close(self) -> None:
        for end in self.ends:
            end.close()


@pytest.fixture
def wire() -> Iterator[Callable[..., Wire]]:
    wires: list[Wire] = []

    def make(seal: str, change: Callable[[bytearray], object] = lambda stream: None) -> Wire:
        if seal == "gmac":
            pytest.importorskip("cryptography")
        wires.append(Wire(seal, change))
        return wires[-1]

    yield make
    for made in wires:
        made.close()


@pytest.mark.parametrize("seal", ["mac", "gmac", "crc"])
def test_no_flipped_bit_passes(wire: Callable[..., Wire], seal: str) -> None:
    sent = np.arange(64, dtype=np.float32)
    length = 0

    def measure(stream: bytearray) -> None:
        nonlocal length
        length = len(stream)

    whole = wire(seal, measure)
    whole.send(sent)
    target = np.zeros_like(sent)
    assert whole.receive(target) and (target == sent).all()
    for at in range(length):
        broken = wire(seal, lambda stream, at=at: stream.__setitem__(at, stream[at] ^ (1 << at % 8)))
        broken.send(sent)
        # A head that claims to be longer than what comes is waited for; it never passes.
        with contextlib.suppress(DistributedError):
            assert not broken.receive(np.zeros_like(sent)), f"byte {at} of {length}"
        broken.close()


@pytest.mark.parametrize("seal", ["mac", "gmac", "crc"])
def test_a_message_said_twice_does_not_pass(wire: Callable[..., Wire], seal: str) -> None:
    twice = wire(seal, lambda stream: stream.extend(bytes(stream)))
    sent = np.ones(8, np.float32)
    twice.send(sent)
    assert twice.receive(np.zeros_like(sent))
    with pytest.raises(DistributedError, match="was changed on its way"):
        twice.receive(np.zeros_like(sent))


@pytest.mark.parametrize("claimed", [0, 33, 2**31 - 1, 2**63, 2**64 - 1])
def test_a_size_on_the_wire_is_compared_and_never_trusted(wire: Callable[..., Wire], claimed: int) -> None:
    liar = wire("none", lambda stream: stream.__setitem__(slice(8, 16), claimed.to_bytes(8, "little")))
    liar.send(np.ones(8, np.float32))
    tracemalloc.start()
    try:
        with pytest.raises(
            CollectiveMismatch, match=f"has room for 32 bytes from rank 0, which sent {claimed}"
        ):
            liar.receive(np.zeros(8, np.float32))
        assert tracemalloc.get_traced_memory()[1] < 100_000
    finally:
        tracemalloc.stop()


@pytest.mark.parametrize("at", [0, 5])
def test_a_broken_head_is_refused(wire: Callable[..., Wire], at: int) -> None:
    liar = wire("none", lambda stream: stream.__setitem__(at, 255))
    liar.send(np.ones(8, np.float32))
    with pytest.raises(DistributedError, match="rank 0 sent a broken head"):
        liar.receive(np.zeros(8, np.float32))


def links() -> tuple[Link, Link, list[socket.socket]]:
    left, right = socket.socketpair()
    session = Session(Hello(b"", 0, 0, 2, 0, 1, 0, 0, 0), b"key of the tests", "mac")
    return Link(left, session, True, 1000), Link(right, session, False, 1000), [left, right]


def test_control_messages_come_whole_and_in_order() -> None:
    left, right, sockets = links()
    for body in (b"", b"x" * 1000, b"yes"):
        left.send(b"A", 5, body)
    assert right.receive() == [(b"A", 5, b""), (b"A", 5, b"x" * 1000), (b"A", 5, b"yes")]
    for sock in sockets:
        sock.close()


def test_control_messages_that_are_too_long_changed_or_sent_back_break_the_link() -> None:
    left, right, sockets = links()
    left.send(b"A", 5, b"x" * 1001)
    with pytest.raises(LinkBroken, match="1001 bytes, and at most 1000 are taken"):
        right.receive()
    left, right, more = links()
    left.send(b"A", 5, b"hello")
    data = more[1].recv(1000)
    more[0].send(data[:12] + b"j" + data[13:])
    with pytest.raises(LinkBroken, match="was changed on its way"):
        right.receive()
    more[1].send(data)  # back to its sender
    with pytest.raises(LinkBroken, match="was changed on its way"):
        left.receive()
    for sock in sockets + more:
        sock.close()


@pytest.mark.parametrize(
    ("code", "what"),
    [
        (errno.ECONNRESET, "died"),
        (errno.ENETUNREACH, "can not be reached"),
        (errno.ETIMEDOUT, "can not be reached"),
    ],
)
def test_a_line_that_is_cut_is_told_from_a_death(code: int, what: str) -> None:
    left, _, sockets = links()
    left.socket = Mock(recv=Mock(side_effect=OSError(code, os.strerror(code))))
    with pytest.raises(LinkBroken, match=f"^{what}.*{os.strerror(code)}"):
        left.receive()
    for sock in sockets:
        sock.close()


# Failures.

JOIN = f"""
    import os, signal, sys, time
    import numpy as np
    sys.path.insert(0, {str(Path(__file__).parent)!r})
    from tcp_worker import join
    from ringgrad.distributed.group import Group
    folder, rank, world = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    transport = join(folder, rank, world, PORT, LAYOUT, silence=SILENCE)
    group = Group(transport, timeout=60)
    group.barrier()
"""


@pytest.fixture(params=["", pytest.param("0011", marks=pytest.mark.slow)], ids=["tcp", "hosts"])
def job(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[..., Job]]:
    jobs: list[Job] = []

    def start(script: str, silence: float = 8.0) -> Job:
        values = {"PORT": repr(str(free_port())), "LAYOUT": repr(request.param), "SILENCE": str(silence)}
        begin = JOIN
        for name, value in values.items():
            begin = begin.replace(name, value)
        jobs.append(Job(tmp_path, 4 if request.param else 3, script, begin))
        return jobs[-1]

    yield start
    for j in jobs:
        j.close()


@pytest.mark.parametrize("victim", [0, 2])
def test_a_killed_rank_is_named_to_all_within_a_second_or_so(job: Callable[..., Job], victim: int) -> None:
    running = job(
        f"""
        a = group.empty(100_000)
        a[:] = 1
        try:
            for step in range(10**6):
                if rank == {victim} and step == 20:
                    print(time.monotonic(), flush=True)
                    os.kill(os.getpid(), signal.SIGKILL)
                group.all_reduce(a)
        finally:
            print(time.monotonic(), flush=True)
        """
    )
    killed = float(running.says(victim))
    for rank in set(range(len(running.workers))) - {victim}:
        noticed = float(running.says(rank)) - killed
        code, text = running.ends(rank)
        assert code == 1 and "PeerFailure: [distributed] rank" in text, text
        assert noticed < 20  # on a machine with nothing else to do, some milliseconds


@pytest.mark.parametrize("victim", [0, 2])
def test_a_stopped_rank_is_silent_and_named(job: Callable[..., Job], victim: int) -> None:
    running = job(
        f"""
        if rank == {victim}:
            os.kill(os.getpid(), signal.SIGSTOP)
        group.all_reduce(np.ones(10))
        """,
        silence=1.5,
    )
    texts = [running.ends(r)[1] for r in range(len(running.workers)) if r != victim]
    assert all("PeerFailure: [distributed] rank" in text for text in texts), texts
    assert any(f"rank {victim} has shown no sign of life for" in text for text in texts), texts


def test_a_job_that_is_stopped_as_a_whole_goes_on(tmp_path: Path) -> None:
    """As by Ctrl-Z, or with its machine: longer than the silence allowed of one rank."""
    begin = JOIN.replace("PORT", str(free_port())).replace("LAYOUT", "''").replace("SILENCE", "2.0")
    script = """
        print("ready", flush=True)
        while True:
            group.barrier()
            time.sleep(0.01)
        """
    running = Job(tmp_path, 3, script, begin)
    try:
        for rank in range(3):
            running.says(rank)
        for signum, seconds in ((signal.SIGSTOP, 3.0), (signal.SIGCONT, 0.3)):
            for worker in running.workers:
                os.kill(worker.pid, signum)
            time.sleep(seconds)
        assert [worker.poll() for worker in running.workers] == [None] * 3, running.ends(0)
    finally:
        running.close()


def test_the_error_of_a_raising_rank_reaches_all(job: Callable[..., Job]) -> None:
    running = job(
        """
        open(os.path.join(folder, f"past{rank}"), "w").close()
        while rank == 1 and any(not os.path.exists(os.path.join(folder, f"past{r}")) for r in range(world)):
            time.sleep(0.01)  # others may still be in the barrier, and are to hear of it later
        if rank == 1:
            group.abort("ValueError: boom\\nTraceback: somewhere")
            time.sleep(30)
        try:
            group.all_reduce(np.ones(100_000))
        except Exception as error:
            print(error.rank, error, error.traceback, flush=True)
        group.close()
        transport.close()
        """
    )
    for rank in set(range(len(running.workers))) - {1}:
        assert running.says(rank) == "1 [distributed] rank 1 failed: ValueError: boom Traceback: somewhere"


def test_a_disagreement_ends_all_with_one_text(job: Callable[..., Job]) -> None:
    running = job(
        """
        a = np.ones(5 if rank == 1 else 4)
        for _ in range(2):
            group.all_reduce(a)
        """
    )
    for rank in range(len(running.workers)):
        code, text = running.ends(rank)
        assert code == 1 and "CollectiveMismatch: [distributed] all ranks must make the same" in text, text
        assert "rank 1: all_reduce sum float64[5]" in text and ": all_reduce sum float64[4]" in text, text


def test_who_leaves_is_named(job: Callable[..., Job]) -> None:
    running = job(
        """
        if rank == 2:
            group.close()
            transport.close()
        else:
            group.barrier()
        """
    )
    texts = [running.ends(rank)[1] for rank in range(len(running.workers))]
    assert any("PeerFailure: [distributed] rank 2 left the group while barrier" in text for text in texts), (
        texts
    )
    assert not texts[2]


def test_what_was_sent_before_leaving_arrives(job: Callable[..., Job]) -> None:
    running = job(
        """
        last = world - 1
        if rank == last:
            group.send(np.arange(20_000), 0)
            group.close()
            transport.close()
        if rank == 0:
            gone = getattr(transport, "outer", transport).gone
            while last not in gone:
                time.sleep(0.01)
            time.sleep(0.8)
            got = np.zeros(20_000, np.int64)
            group.recv(got, last)
            assert (got == np.arange(20_000)).all()
            print("all of it", flush=True)
        """
    )
    assert running.says(0) == "all of it"


def test_a_rank_that_comes_late_is_waited_for(job: Callable[..., Job]) -> None:
    running = job(
        """
        if rank == 1:
            time.sleep(2.5)  # longer than the silence allowed: but the process lives
        group.all_reduce(np.ones(10))
        group.barrier()
        group.close()
        transport.close()
        """,
        silence=1.5,
    )
    assert [running.ends(rank) for rank in range(len(running.workers))] == [(0, "")] * len(running.workers)


def test_who_stays_away_is_named_after_the_timeout(job: Callable[..., Job]) -> None:
    running = job(
        """
        group.timeout = 0.5
        if rank == 1:
            time.sleep(30)
        group.all_reduce(np.ones(10))
        """
    )
    assert any("rank 1 " in running.ends(r)[1] for r in range(len(running.workers)) if r != 1)


@pytest.mark.parametrize("owners", [1, 2, 3])
@pytest.mark.parametrize("count", [0, 1, 7, 64])
def test_parts_owned_by_the_first_ranks_only(owners: int, count: int) -> None:
    world = 3
    arrays = [np.full(count, 1 << rank) for rank in range(world)]
    parts = [plan.direct_reduce_scatter(rank, world, count, owners) for rank in range(world)]
    plan.play([part.steps for part in parts], arrays)
    for rank, part in enumerate(parts):
        assert (arrays[rank][part.start : part.stop] == 7).all()
        assert rank < owners or part.start == part.stop
    plan.play([plan.direct_all_gather(rank, world, count, owners) for rank in range(world)], arrays)
    assert all((array == 7).all() for array in arrays)
