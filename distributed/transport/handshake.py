"""Both ends of a TCP connection prove that they hold the job's token, which itself never travels.

The dialer says who it is with a fresh nonce; the listener answers with its own and a proof over both; the
dialer proves in turn (challenge-response with HMAC-SHA256, ISO/IEC 9798-4). Nothing else of a connection is
looked at before that. The same exchange yields the key of the connection's frames.
"""

from __future__ import annotations

import functools
import hashlib
import hmac
import os
import socket
import struct
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from ...tensor.crc import crc32
from ..errors import DistributedError

CONTROL, DATA = 0, 1
TIMEOUT = 2.0  # s that a stranger may take: connections that say nothing are dropped soon
PROOF_BYTES = 32
_MAGIC = b"rgtcp-02"
_HELLO = struct.Struct("<8s16sQIIIIBBQ")
_SEALS = {"none": 0, "crc": 4, "mac": 16, "gmac": 16}  # bytes of a frame's tag
_GMAC_TOO = 1  # added to what a hello says of "mac": GMAC can be taken where both ends say so


class Refused(DistributedError):
    """The other end is not one of ours. `older`: it is of an earlier group of this job, and will go."""

    def __init__(self, message: str, older: bool = False) -> None:
        super().__init__(message)
        self.older = older


class Identity(NamedTuple):
    """What all ranks of one job agree on. key: derived from the token."""

    key: bytes
    job: int
    generation: int
    world: int
    seal: str


class Hello(NamedTuple):
    """What one end says first. target: the rank spoken to. purpose: CONTROL or DATA, the latter for `channel`."""

    nonce: bytes
    job: int
    generation: int
    world: int
    rank: int
    target: int
    purpose: int
    seal: int
    channel: int

    def pack(self) -> bytes:
        return _HELLO.pack(_MAGIC, *self)


class Session(NamedTuple):
    """An authenticated connection: the peer's hello, the key of its frames, and how they are sealed."""

    hello: Hello
    key: bytes
    seal: str


def derive_key(token: str) -> bytes:
    return hmac.digest(token.encode(), b"ringgrad tcp transport 1", "sha256")


def dial(
    sock: socket.socket, who: Identity, rank: int, target: int, purpose: int, channel: int = 0
) -> Session:
    """The dialer's side, on a connected socket with a timeout. Raises Refused, or OSError if the line breaks."""
    mine = _hello(who, rank, target, purpose, channel).pack()
    sock.sendall(mine)
    reply = read_exactly(sock, _HELLO.size + PROOF_BYTES)
    theirs, proof = reply[: _HELLO.size], reply[_HELLO.size :]
    hello = _parse(theirs, sock.getpeername())
    if not hmac.compare_digest(proof, _proof(who.key, b"listener", mine, theirs)):
        raise Refused(
            f"[tcp] who listens on {_shown(sock.getpeername())} must hold this job's token, and does not: "
            "RINGGRAD_TOKEN differs between the hosts, or another job uses this port (choose one with "
            "--master-port)"
        )
    _check(who, hello, target, sock.getpeername())
    sock.sendall(_proof(who.key, b"dialer", mine, theirs))
    return _session(who, hello, mine + theirs)


def answer(sock: socket.socket, who: Identity, rank: int) -> Session:
    """The listener's side. Raises Refused for a stranger, OSError if it goes away."""
    theirs = read_exactly(sock, _HELLO.size)
    hello = _parse(theirs, sock.getpeername())
    mine = _hello(who, rank, hello.rank, hello.purpose, hello.channel).pack()
    # Also to one of another job or generation, who so learns whom it has reached.
    sock.sendall(mine + _proof(who.key, b"listener", theirs, mine))
    proof = read_exactly(sock, PROOF_BYTES)
    if not hmac.compare_digest(proof, _proof(who.key, b"dialer", theirs, mine)):
        raise Refused(f"[tcp] {_shown(sock.getpeername())} does not hold this job's token")
    if hello.target != rank or hello.rank >= who.world or hello.rank == rank:
        raise Refused(f"[tcp] rank {hello.rank} asked for rank {hello.target}, and this is rank {rank}")
    _check(who, hello, hello.rank, sock.getpeername())
    return _session(who, hello, theirs + mine)


def _session(who: Identity, hello: Hello, greetings: bytes) -> Session:
    """The proofs cover both greetings: nobody between can talk the two ends out of GMAC."""
    both = gmac() is not None and hello.seal == _offer("mac")
    seal = "gmac" if who.seal == "mac" and both else who.seal
    return Session(hello, hmac.digest(who.key, b"session" + greetings, "sha256"), seal)


def read_exactly(sock: socket.socket, size: int) -> bytes:
    """`size` bytes within TIMEOUT in all, however slowly they drip. Raises OSError."""
    data, end = b"", time.monotonic() + TIMEOUT
    while len(data) < size:
        sock.settimeout(max(end - time.monotonic(), 0.001))
        part = sock.recv(size - len(data))
        if not part:
            raise ConnectionResetError("the connection was closed during the greeting")
        data += part
    return data


def tag_bytes(seal: str) -> int:
    return _SEALS[seal]


@functools.cache
def gmac() -> Any:
    """The class of ciphers that makes GMAC's tags, of the package cryptography; None where that is not installed."""
    try:
        from cryptography.hazmat.primitives.ciphers.aead import AESGCM
    except ImportError:
        return None
    return AESGCM


def sealer(seal: str, key: bytes) -> Callable[[int, bytes | memoryview], bytes]:
    """The function (number of the frame, its bytes) -> tag. With "mac" and "gmac" nobody without the key can make one.

    "gmac" (NIST SP 800-38D) must not see a number twice with one key: keys are of one connection and direction.
    """
    if seal == "none":
        return lambda number, data: b""
    if seal == "crc":
        return lambda number, data: crc32(data, number & 0xFFFFFFFF).to_bytes(4, "little")
    if seal == "gmac":
        cipher = gmac()(hmac.digest(key, b"gmac", "sha256"))
        return lambda number, data: cipher.encrypt(number.to_bytes(12, "little"), b"", data)
    base = hmac.new(key, digestmod=hashlib.sha256)

    def tag(number: int, data: bytes | memoryview) -> bytes:
        state = base.copy()
        state.update(number.to_bytes(8, "little"))
        state.update(data)
        return state.digest()[:16]

    return tag


def _hello(who: Identity, rank: int, target: int, purpose: int, channel: int) -> Hello:
    seal = _offer(who.seal)
    return Hello(
        os.urandom(16), who.job, who.generation, who.world, rank, target, purpose, seal, channel & (2**64 - 1)
    )


def _offer(seal: str) -> int:
    return _SEALS[seal] + (_GMAC_TOO if seal == "mac" and gmac() is not None else 0)


def _parse(data: bytes, address: object) -> Hello:
    fields = _HELLO.unpack(data)
    if fields[0] != _MAGIC:
        raise Refused(
            f"[tcp] a peer must greet with {_MAGIC!r}, {_shown(address)} sent {data[:16]!r}: it is another "
            "program or another version of ringgrad"
        )
    return Hello(*fields[1:])


def _proof(key: bytes, role: bytes, first: bytes, second: bytes) -> bytes:
    return hmac.digest(key, role + first + second, "sha256")


def _check(who: Identity, hello: Hello, expected_rank: int, address: object) -> None:
    ours = (who.job, who.generation, who.world, _SEALS[who.seal])
    theirs = (hello.job, hello.generation, hello.world, min(hello.seal, _SEALS["mac"]))
    if theirs == ours and hello.rank == expected_rank:
        return
    # A listener of an earlier group is on its way out: its dialers try again.
    older = theirs[0] == ours[0] and theirs[1] < ours[1]
    raise Refused(
        f"[tcp] a peer must be rank {expected_rank} of (job {ours[0]:x}, generation {ours[1]}, world size "
        f"{ours[2]}, {ours[3]}-byte tags), {_shown(address)} is rank {hello.rank} of (job {theirs[0]:x}, "
        f"generation {theirs[1]}, world size {theirs[2]}, {theirs[3]}-byte tags): start all hosts with the "
        "same -n, --nnodes and RINGGRAD_TCP_SEAL",
        older,
    )


def _shown(address: object) -> str:
    return f"{address[0]}:{address[1]}" if isinstance(address, tuple) else str(address)
