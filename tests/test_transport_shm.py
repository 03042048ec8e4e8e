"""The parts under the shm transport: doorbells, sealed memory, and who is let in."""

import errno
import os
import socket
import threading
import time
from pathlib import Path

import numpy as np
import pytest

from ringgrad.distributed.errors import DistributedError
from ringgrad.distributed.transport import mesh, segment
from ringgrad.distributed.transport.futex import Doorbell
from ringgrad.distributed.transport.shm import ShmTransport


def pair(folder: Path) -> tuple[ShmTransport, ShmTransport]:
    """Two ranks in this process."""
    made: dict[int, ShmTransport] = {}

    def join(rank: int) -> None:
        made[rank] = ShmTransport(str(folder), rank, 2, join_timeout=60)

    threads = [threading.Thread(target=join, args=(r,)) for r in range(2)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    return made[0], made[1]


def listened_to() -> Doorbell:
    bell = Doorbell(memoryview(bytearray(Doorbell.BYTES)))
    bell.listen()
    return bell


def test_a_ring_between_look_and_sleep_is_not_lost() -> None:
    bell = listened_to()
    seen = bell.read()
    bell.ring()
    start = time.monotonic()
    bell.wait(seen, 30)
    assert time.monotonic() - start < 20 and bell.read() == seen + 1


def test_many_ringers_at_once_all_count() -> None:
    bell = listened_to()
    ringers = [threading.Thread(target=lambda: [bell.ring() for _ in range(500)]) for _ in range(4)]
    for t in ringers:
        t.start()
    for t in ringers:
        t.join()
    assert bell.read() == 2000


def test_a_ring_wakes_a_sleeper() -> None:
    bell = listened_to()
    woken = threading.Event()

    def sleep() -> None:
        bell.wait(0, 30)
        woken.set()

    sleeper = threading.Thread(target=sleep)
    sleeper.start()
    bell.ring()
    assert woken.wait(20)
    sleeper.join()


def test_no_post_is_missed_by_one_who_listens_looks_and_sleeps() -> None:
    """The poster rings only where somebody listens: a post that comes between look and sleep must still be heard."""
    bell, posted, longest = Doorbell(memoryview(bytearray(Doorbell.BYTES))), [0], 0.0

    def post() -> None:
        for _ in range(3000):
            posted[0] += 1
            bell.ring()
            while posted[0] > taken[0]:
                time.sleep(0)

    taken, poster = [0], threading.Thread(target=post)
    poster.start()
    while taken[0] < 3000:
        bell.listen()
        seen = bell.read()
        start = time.monotonic()
        if posted[0] == taken[0]:
            bell.wait(seen, 30)
        longest = max(longest, time.monotonic() - start)
        bell.unlisten()
        taken[0] = posted[0]
    poster.join()
    assert longest < 20


def test_huge_memory_is_mapped_without_a_long_stop() -> None:
    def resident() -> int:
        lines = Path("/proc/self/status").read_text().splitlines()
        return next(int(line.split()[1]) << 10 for line in lines if line.startswith("RssShmem:"))

    before = resident()
    fd, small = segment.create("test", 1 << 20)
    assert resident() >= before + (1 << 20)
    other, huge = segment.create("test", segment.POPULATED_BYTES + 1)
    assert resident() < before + (4 << 20)
    huge.bytes[-1] = small.bytes[0] = 1  # both can be written
    os.close(fd)
    os.close(other)


def test_memory_is_sealed_against_shrinking() -> None:
    fd, own = segment.create("test", 5000)
    assert own.size == 8192
    with pytest.raises(PermissionError):
        os.ftruncate(fd, 0)
    theirs = segment.attach(os.dup(fd), own.size, writable=False)
    own.bytes[7] = 9
    assert theirs.bytes[7] == 9 and not theirs.bytes.flags.writeable
    os.close(fd)


def test_memory_that_could_shrink_is_refused() -> None:
    fd = os.memfd_create("unsealed", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(fd, 4096)
    with pytest.raises(ValueError, match="must hold 4096 bytes and be sealed"):
        segment.attach(fd, 4096, writable=False)


def test_memory_smaller_than_said_is_refused() -> None:
    fd, _ = segment.create("small", 4096)
    with pytest.raises(ValueError, match="must hold 8192 bytes"):
        segment.attach(fd, 8192, writable=False)


def test_too_little_memory_is_an_error_and_not_a_bus_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(fd: int, offset: int, size: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(os, "posix_fallocate", full)
    before = len(os.listdir("/proc/self/fd"))
    with pytest.raises(MemoryError, match="gradients needs 8192 bytes of shared memory"):
        segment.create("gradients", 8000)
    assert len(os.listdir("/proc/self/fd")) == before


def test_arrays_from_empty_are_found_and_others_are_not(tmp_path: Path) -> None:
    first, second = pair(tmp_path)
    try:
        array = first.empty(1000, np.dtype(np.float64))
        number, offset = first.locate(array[10:]) or (0, 0)
        assert number > 0 and offset == 80
        assert first.locate(np.empty(1000)) is None
        # The peer learns of it, and forgets it when the last view is gone.
        arrived = _until(lambda: second.remote(0, number) is not None)
        view = array[5:]
        del array
        assert arrived and second.remote(0, number) is not None
        del view
        assert _until(lambda: second.remote(0, number) is None)
        assert first.locate(np.empty(3)) is None
    finally:
        first.close()
        second.close()


def test_nothing_is_left_behind(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    first, second = pair(tmp_path)
    assert not list(tmp_path.iterdir())
    first.close()
    second.close()
    second.close()  # twice does no harm
    del first, second
    assert _until(lambda: len(os.listdir("/proc/self/fd")) == before)


def test_a_peer_of_another_job_is_refused(tmp_path: Path) -> None:
    def stranger() -> None:
        for peer in mesh.connect(str(tmp_path), 1, 2, 5, 0, deadline=time.monotonic() + 5).values():
            peer.socket.close()

    thread = threading.Thread(target=stranger)
    thread.start()
    with pytest.raises(
        DistributedError, match=r"job, generation, world size. \(4, 0, 2\).* got \(5, 0, 2\) rank 1"
    ):
        mesh.connect(str(tmp_path), 0, 2, job=4, generation=0, deadline=time.monotonic() + 60)
    thread.join()


def test_who_does_not_greet_is_refused(tmp_path: Path) -> None:
    def stranger() -> None:
        folder = os.open(tmp_path, os.O_PATH)  # a socket's address has room for 108 characters
        with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as sock:
            while True:
                try:
                    sock.connect(f"/proc/self/fd/{folder}/0.sock")
                    break
                except (FileNotFoundError, ConnectionRefusedError):
                    time.sleep(0.001)
            sock.send(b"GET / HTTP/1.1")
        os.close(folder)

    thread = threading.Thread(target=stranger)
    thread.start()
    with pytest.raises(DistributedError, match="a peer must greet with"):
        mesh.connect(str(tmp_path), 0, 2, job=4, generation=0, deadline=time.monotonic() + 60)
    thread.join()


def _until(holds: object, limit: float = 60) -> bool:
    """Whether `holds()` becomes true: news travel through another thread."""
    end = time.monotonic() + limit
    while time.monotonic() < end:
        if holds():  # type: ignore[operator]
            return True
        time.sleep(0.002)
    return False
