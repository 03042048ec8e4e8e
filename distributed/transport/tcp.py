"""Ranks joined by TCP: for several hosts without MPI. Nobody takes part who does not hold the job's token.

Rank 0 listens where the launcher said; the others dial it, each listens on the address from which it reached
rank 0, and rank 0 tells all where all are. Those connections stay as the control plane (tcp_control); messages
travel on connections of their own (tcp_channel). A watcher thread takes both kinds in and reads the news.
"""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import select
import socket
import threading
import time
from collections.abc import Callable, Sequence

from ..call import Call
from ..errors import CollectiveMismatch, CollectiveTimeout, DistributedError, PeerFailure
from . import ABORT_BYTES, Channel, Transport, peer_failure
from .handshake import CONTROL, DATA, TIMEOUT, Identity, Refused, Session, answer, derive_key, dial
from .tcp_channel import Inbox, Outbox, TcpChannel
from .tcp_control import ABORT, ALIVE, BYE, DIED, JOIN, MISMATCH, TABLE, Link, LinkBroken

HEARTBEAT = 1.0  # s between signs of life
SILENCE = 8.0  # s without one, after which a host counts as unreachable: noticed within 10 s by all
NEWS = 0.5  # s for the reason of a broken connection to arrive on the control plane
_RETRY = 0.05  # s between attempts to reach rank 0


class TcpTransport(Transport):
    name = "tcp"
    one_host = False

    def __init__(
        self,
        address: str,
        port: int,
        rank: int,
        world_size: int,
        *,
        token: str,
        job: int = 0,
        generation: int = 0,
        host: int = 0,
        seal: str | None = None,
        join_timeout: float = 60.0,
        silence: float = SILENCE,
    ) -> None:
        """address, port: where rank 0 listens. host: number of this host; ranks of one host give the same.

        seal: the tag of each piece of data, "mac", "crc" or "none"; None is "mac", on loopback "crc". Waits
        for all ranks to come. Raises CollectiveTimeout naming those that did not, DistributedError for a wrong
        token, OSError for an address that cannot be bound.
        """
        self.rank, self.world_size, self.silence = rank, world_size, silence
        self.job, self.generation = job, generation
        family, target = resolve(address, port)
        self.seal = seal or ("crc" if is_loopback(target[0]) else "mac")
        self._who = Identity(derive_key(token), job, generation, world_size, self.seal)
        self._beat_every = min(HEARTBEAT, silence / 8)
        self.gone: dict[int, str] = {}
        self._left_at: dict[int, float] = {}
        self.failure: DistributedError | None = None
        self.on_news: Callable[[], None] | None = None  # called when `failure` is set
        self.inboxes: dict[tuple[int, int], Inbox] = {}
        self.hosts = [0] * world_size  # number of its host, by rank
        self._addresses: dict[int, tuple[str, int]] = {}
        self._channels: set[TcpChannel] = set()
        self._links: dict[int, Link] = {}
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self._greeting = threading.BoundedSemaphore(4 * world_size + 16)
        self._wake = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._closing = False
        deadline = time.monotonic() + join_timeout
        first = None if rank == 0 else self._dial_first(family, target, deadline)
        own = (target[0], target[1]) if first is None else (first.socket.getsockname()[0], 0)
        self._listener = _listen(family, own[0], own[1], world_size)
        self._addresses[rank], self.hosts[rank] = self._listener.getsockname()[:2], host
        self._watcher = threading.Thread(target=self._watch, name="ringgrad tcp watcher", daemon=True)
        if first is not None:
            self._links[0] = first
            first.send(JOIN, rank, _packed([host, *self._addresses[rank]]))
        self._watcher.start()
        try:
            self._await_all(deadline)
        except BaseException:
            self.close()
            raise
        cores = len(os.sched_getaffinity(0))
        here = self.hosts.count(host)
        self.may_spin, self.spare_cores = cores >= here, cores >= 2 * here

    def channel(self, number: int, members: Sequence[int]) -> Channel:
        channel = TcpChannel(self, number, members)
        with self._lock:
            self._channels.add(channel)
        return channel

    def forget(self, channel: TcpChannel) -> None:
        """Close what peers opened for this channel."""
        with self._lock:
            self._channels.discard(channel)
            mine = [key for key in self.inboxes if key[0] == channel.number]
            for key in mine:
                self.inboxes.pop(key).socket.close()

    def open_outbox(self, member: int, number: int, call: Call, deadline: float) -> Outbox:
        """Connect to `member` for channel `number`. Raises PeerFailure if it cannot be reached."""
        address = self._addresses[member]
        limit = min(deadline - time.monotonic(), self.silence)
        try:
            sock = socket.create_connection(address, max(limit, 0.001), (self._addresses[self.rank][0], 0))
            try:
                session = dial(sock, self._who, self.rank, member, DATA, number)
            except BaseException:
                sock.close()
                raise
        except OSError as error:
            raise self.lost(member, call, error) from None
        _set_options(sock, self.silence)
        return Outbox(sock, session, member)

    # Failures.

    def check(self, call: Call, awaited: int, connected: bool) -> None:
        """Raise if `awaited` cannot come any more.

        What it sent before it left may still be on its way: a connection that it opened to us tells its end
        itself, and one that is being opened does so within NEWS seconds.
        """
        if self.failure is not None:
            raise self.failure
        if connected or awaited not in self.gone or time.monotonic() < self._left_at[awaited] + NEWS:
            return
        raise PeerFailure(
            f"[distributed] rank {awaited} {self.gone[awaited]} while {call} waits for it", awaited
        )

    def lost(self, member: int, call: Call, error: OSError) -> DistributedError:
        """The error for a broken data connection: the reason, if it comes soon, else that it broke."""
        with self._changed:
            self._changed.wait_for(lambda: self.failure is not None or member in self.gone, NEWS)
        if self.failure is not None:
            return self.failure
        why = self.gone.get(member) or f"can not be reached any more ({error.strerror or error})"
        return PeerFailure(f"[distributed] rank {member} {why} while {call} waits for it", member)

    def abort(self, text: str, *, mismatch: bool = False) -> None:
        kind = MISMATCH if mismatch else ABORT
        for link in list(self._links.values()):
            link.send(kind, self.rank, text.encode()[:ABORT_BYTES])
        self._flush(2.0)

    def close(self) -> None:
        if self._closing:
            return
        for link in list(self._links.values()):
            link.send(BYE, self.rank)
        self._flush(2.0)
        self._closing = True
        self._ring()
        if self._watcher.ident is not None:
            self._watcher.join(timeout=2)
        for channel in list(self._channels):
            channel.close()
        for link in self._links.values():
            link.socket.close()
        self._listener.close()

    def _flush(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while any(link.pending() for link in self._links.values()) and time.monotonic() < end:
            for link in self._links.values():
                link.flush()
            time.sleep(0.001)

    def _fail(self, error: DistributedError) -> None:
        """The first failure counts. Wakes all who wait."""
        with self._changed:
            if self.failure is not None:
                return
            self.failure = error
        self._tell_waiters()
        if self.on_news is not None:
            self.on_news()

    def _leave(self, rank: int, how: str) -> None:
        self._left_at.setdefault(rank, time.monotonic())
        self.gone.setdefault(rank, how)
        self._tell_waiters()

    def _tell_waiters(self) -> None:
        with self._changed:
            self._changed.notify_all()
            for channel in self._channels:
                channel.wake()

    # Meeting.

    def _dial_first(self, family: int, target: tuple, deadline: float) -> Link:
        """A control connection to rank 0, which may start later than we."""
        reason: Exception | None = None
        while time.monotonic() < deadline:
            sock = socket.socket(family, socket.SOCK_STREAM)
            try:
                reach(sock, target, deadline)
                session = dial(sock, self._who, self.rank, 0, CONTROL)
                _set_options(sock, self.silence)
                return Link(sock, session, True, ABORT_BYTES + 128 * self.world_size)
            except Refused as error:
                sock.close()
                if not error.older:
                    raise
                reason = error
            except OSError as error:
                sock.close()
                reason = error
            time.sleep(_RETRY)
        raise CollectiveTimeout(
            f"[init_process_group] rank {self.rank} of {self.world_size} waits for rank 0 at "
            f"{target[0]}:{target[1]}, which can not be reached ({reason}): start it there, or check "
            "--master-addr, --master-port and the firewall"
        )

    def _await_all(self, deadline: float) -> None:
        """Rank 0: until all have come, then tell all where all are. Others: until rank 0 has told."""
        with self._changed:
            while len(self._addresses) < self.world_size and self.failure is None:
                left = deadline - time.monotonic()
                if left <= 0:
                    raise CollectiveTimeout(self._missing())
                self._changed.wait(min(left, 1.0))
        if self.failure is not None:
            raise self.failure
        if self.rank == 0:
            table = [[self.hosts[r], *self._addresses[r]] for r in range(self.world_size)]
            for link in self._links.values():
                link.send(TABLE, 0, _packed(table))

    def _missing(self) -> str:
        if self.rank:
            return f"[init_process_group] rank 0 came, but not all others did before rank {self.rank}'s time was up"
        missing = sorted(set(range(self.world_size)) - set(self._addresses))
        return f"[init_process_group] all ranks must join, and these did not come: {missing}"

    # The watcher.

    def _watch(self) -> None:
        poll = select.poll()
        poll.register(self._listener, select.POLLIN)
        poll.register(self._wake, select.POLLIN)
        known: dict[int, Link] = {}
        sent_at = 0.0
        while not self._closing:
            for link in list(self._links.values()):
                if link.socket.fileno() not in known and link.rank not in self.gone:
                    known[link.socket.fileno()] = link
                if link.socket.fileno() in known:
                    poll.register(link.socket, select.POLLIN | (select.POLLOUT if link.pending() else 0))
            for fd, event in poll.poll(self._beat_every * 1000):
                if fd == self._wake:
                    os.eventfd_read(fd)
                elif fd == self._listener.fileno():
                    self._accept()
                else:
                    known[fd].flush()
                    if event & ~select.POLLOUT and not self._read(known[fd]):
                        poll.unregister(fd)
                        del known[fd]
            now = time.monotonic()
            if now - sent_at >= self._beat_every:
                if (
                    now - sent_at > self.silence / 2
                ):  # we were stopped ourselves, and the others with us perhaps
                    for link in known.values():
                        link.heard = now
                sent_at = now
                self._show_life(now, known)
        # News that has reached us goes to the others before we do.
        for fd, event in poll.poll(0):
            if fd in known and event & select.POLLIN:
                self._read(known[fd])
        self._flush(1.0)

    def _show_life(self, now: float, known: dict[int, Link]) -> None:
        for link in known.values():
            link.send(ALIVE, self.rank)
            quiet = now - link.heard
            if quiet > self.silence and link.rank not in self.gone:
                self._died(
                    link.rank,
                    f"has shown no sign of life for {quiet:.0f} s: it is stopped, or its host cannot be reached",
                )

    def _read(self, link: Link) -> bool:
        """Hear what has come; False when there will be no more."""
        try:
            for kind, rank, body in link.receive():
                self._hear(kind, rank if link.rank == 0 else link.rank, body)
        except LinkBroken as error:
            if link.rank not in self.gone and not self._closing:
                self._died(link.rank, str(error))
            return False
        return True

    def _died(self, rank: int, how: str) -> None:
        self._hear(DIED, rank, how.encode())

    def _hear(self, kind: bytes, rank: int, body: bytes) -> None:
        if self.rank == 0 and kind in (ABORT, MISMATCH, BYE, DIED):
            for link in list(self._links.values()):
                if link.rank != rank and link.rank not in self.gone:
                    link.send(kind, rank, body)
        text = body.decode(errors="replace")
        if kind == BYE:
            self._leave(rank, "left the group")
        elif kind == DIED:
            self._leave(rank, text)
            self._fail(PeerFailure(f"[distributed] rank {rank} {text}", rank))
        elif kind == ABORT:
            self._fail(peer_failure(rank, text))
        elif kind == MISMATCH:
            self._fail(CollectiveMismatch(text))
        elif kind == JOIN and self.rank == 0:
            self._place(rank, _unpacked(body))
        elif kind == TABLE and self.rank != 0:
            for place, row in enumerate(_unpacked(body)):
                self._place(place, row)

    def _place(self, rank: int, row: list) -> None:
        with self._changed:
            self.hosts[rank] = int(row[0])
            self._addresses[rank] = (str(row[1]), int(row[2]))
            self._changed.notify_all()

    def _accept(self) -> None:
        try:
            sock, _ = self._listener.accept()
        except OSError:
            return
        # More strangers at once than could be ours: those who are try again.
        if self._closing or not self._greeting.acquire(blocking=False):
            sock.close()
            return
        threading.Thread(target=self._greet, args=(sock,), name="ringgrad tcp greeting", daemon=True).start()

    def _greet(self, sock: socket.socket) -> None:
        try:
            sock.settimeout(TIMEOUT)
            session = answer(sock, self._who, self.rank)
            _set_options(sock, self.silence)
            if not self._take(sock, session):
                sock.close()
        except (OSError, Refused):
            sock.close()  # no word to strangers, nor a line in the log for each of their tries
        finally:
            self._greeting.release()

    def _take(self, sock: socket.socket, session: Session) -> bool:
        """Make an authenticated connection ours; False for the second of a kind."""
        hello = session.hello
        with self._changed:
            if hello.purpose == DATA:
                key = (hello.channel, hello.rank)
                if key in self.inboxes:
                    return False
                self.inboxes[key] = Inbox(sock, session)
                for channel in self._channels:
                    channel.wake()
                return True
            if self.rank != 0 or hello.rank in self._links:
                return False
            self._links[hello.rank] = Link(sock, session, False, ABORT_BYTES)
        self._ring()
        return True

    def _ring(self) -> None:
        with contextlib.suppress(OSError):
            os.eventfd_write(self._wake, 1)


def resolve(address: str, port: int) -> tuple[int, tuple]:
    """(family, socket address) of rank 0; an address that other hosts reach goes before loopback.

    Raises DistributedError for a name that nobody knows.
    """
    try:
        found = socket.getaddrinfo(address, port, type=socket.SOCK_STREAM)
    except socket.gaierror as error:
        raise DistributedError(
            f"[init_process_group] rank 0's address {address!r} must be a name or number that this host "
            f"knows, and it does not ({error.strerror}): give the number with --master-addr or MASTER_ADDR"
        ) from None
    family, _, _, _, target = sorted(found, key=lambda row: is_loopback(str(row[4][0])))[0]
    return family, target


def reach(sock: socket.socket, target: tuple, deadline: float) -> None:
    """Connect to who listens there, within 5 s. Raises OSError; nobody may listen yet.

    A port on this host at which nobody listens can be the very one that the kernel gives to the dialing socket, which
    then reaches itself. The listener's bind must not fail for that, and this one must not wait for its own answer.
    """
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    sock.settimeout(max(min(deadline - time.monotonic(), 5.0), 0.001))
    sock.connect(target)
    if sock.getsockname() == sock.getpeername():
        raise ConnectionRefusedError(errno.ECONNREFUSED, os.strerror(errno.ECONNREFUSED))


def is_loopback(address: str) -> bool:
    return ipaddress.ip_address(address.partition("%")[0]).is_loopback


def free_port(address: str) -> int:
    """A port of `address`, which is this host's, that is free now."""
    family, target = resolve(address, 0)
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.bind(target)
        return int(probe.getsockname()[1])


def _listen(family: int, address: str, port: int, world: int) -> socket.socket:
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((address, port))
    except OSError as error:
        listener.close()
        raise DistributedError(
            f"[init_process_group] rank 0 must be able to listen on {address}:{port}, and can not "
            f"({error.strerror}): --master-addr must be an address of rank 0's own host that the others reach, "
            "and --master-port one that is free there"
        ) from error
    listener.listen(max(2 * world, 64))
    listener.setblocking(False)
    return listener


def _set_options(sock: socket.socket, silence: float) -> None:
    """No waiting to fill packets; an end to waiting for a host that is gone, idle or not."""
    tcp = socket.IPPROTO_TCP
    sock.setsockopt(tcp, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(tcp, socket.TCP_KEEPIDLE, max(int(silence / 3), 1))
    sock.setsockopt(tcp, socket.TCP_KEEPINTVL, max(int(silence / 4), 1))
    sock.setsockopt(tcp, socket.TCP_KEEPCNT, 3)
    sock.setsockopt(tcp, socket.TCP_USER_TIMEOUT, int(silence * 1000))


def _packed(value: object) -> bytes:
    import msgpack

    packed: bytes = msgpack.packb(value)
    return packed


def _unpacked(body: bytes) -> list:
    import msgpack

    value = msgpack.unpackb(body, raw=False, max_ext_len=0)
    if not isinstance(value, list):
        raise LinkBroken("sent a place that is not a list")
    return value
