"""What messages cost between these ranks, and which plan that makes the quickest for a size.

A round of messages costs a latency and a time for each byte (R. W. Hockney's model). Both are measured for the two
kinds of round that plans are made of: everybody to the next rank, and everybody to everybody. The slowest rank's
figures count, so that all ranks choose alike. Rank 0 keeps them in the user's cache for jobs of the same shape.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import math
import os
import tempfile
import time
from collections.abc import Generator, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from .call import Call
from .transport import Channel, Incoming, Outgoing, Pace

SMALL_BYTES, LARGE_BYTES = 64, 512 * 1024
ROUNDS = 4  # timed as one: of a single one, a rank whose peer was ahead of it finds all sent already
SMALL_TIMES, LARGE_TIMES = 20, 3  # of which the quickest counts, as everything else only adds to it
ADD = 0.2e-9  # s a byte, to add it up or copy it
LEAST_BUCKET, MOST_BUCKET = 256 * 1024, 25 << 20
SHARE = 0.1  # of a bucket's time that latency may take


class Costs(NamedTuple):
    """Seconds before anything arrives and seconds a byte, of a round to the next rank and of one to all others.

    The defaults are those of a gigabit line.
    """

    next_latency: float = 60e-6
    next_byte: float = 8e-9
    all_latency: float = 80e-6
    all_byte: float = 8e-9

    def one_round(self, nbytes: int, world: int) -> float:
        """All-reduce in which every rank sends everything to every other."""
        return self.all_latency + (world - 1) * nbytes * self.all_byte + world * nbytes * ADD

    def direct(self, nbytes: int, world: int) -> float:
        return 2 * self.all_latency + 2 * (world - 1) / world * nbytes * self.all_byte + nbytes * ADD

    def halving(self, nbytes: int, world: int) -> float:
        power = 1 << (world.bit_length() - 1)
        rounds = 2 * int(math.log2(power)) + 2 * (world != power)
        whole = 2 * (power - 1) / power + 2 * (world != power)
        return rounds * self.next_latency + whole * nbytes * self.next_byte + nbytes * ADD

    def ring(self, nbytes: int, world: int) -> float:
        return (
            2 * (world - 1) * self.next_latency
            + 2 * (world - 1) / world * nbytes * self.next_byte
            + nbytes * ADD
        )

    def all_reduce_plan(self, nbytes: int, world: int, kinds: Sequence[str]) -> str:
        """The quickest of `kinds` ("one_round", "direct", "halving", "ring"); the first of equals."""
        return min(kinds, key=lambda kind: getattr(self, kind)(nbytes, world))

    def broadcast_plan(self, nbytes: int, world: int) -> str:
        """ "tree" (few rounds) or "ring" (scatter and all-gather: few bytes)."""
        tree = math.ceil(math.log2(world)) * (self.next_latency + nbytes * self.next_byte)
        ring = self.all_latency + (world - 1) * self.next_latency + 2 * nbytes * self.next_byte
        return "tree" if tree <= ring else "ring"

    def all_gather_plan(self, nbytes: int, world: int) -> str:
        """ "direct" or "ring", for nbytes of all ranks together."""
        share = (world - 1) / world * nbytes
        direct = self.all_latency + share * self.all_byte
        ring = (world - 1) * self.next_latency + share * self.next_byte
        return "direct" if direct <= ring else "ring"

    def bucket_bytes(self, world: int) -> int:
        """How many bytes of gradients to reduce at once: no more than it takes for latency to be a small part."""
        per_byte = 2 * (world - 1) / world * self.all_byte
        bytes_ = 2 * self.all_latency * (1 / SHARE - 1) / max(per_byte, 1e-13)
        return int(min(max(bytes_, LEAST_BUCKET), MOST_BUCKET))


ONE_HOST = Costs(15e-6, 1e-10, 15e-6, 1e-10)  # as long as nothing was measured


def measure(channel: Channel, call: Call, pace: Pace, into: np.ndarray) -> Iterator[None]:
    """Leave this rank's four figures in `into`, in the order of Costs. All ranks of the channel call it."""
    rank, world = channel.rank, len(channel.members)
    following, previous = [(rank + 1) % world], [(rank - 1) % world]
    others = [p for p in range(world) if p != rank]
    for at, (targets, sources) in ((0, (following, previous)), (2, (others, others))):
        small = yield from _quickest(channel, call, pace, targets, sources, SMALL_BYTES, SMALL_TIMES)
        part = max(LARGE_BYTES // len(targets), SMALL_BYTES)
        large = yield from _quickest(channel, call, pace, targets, sources, part, LARGE_TIMES)
        into[at] = small
        into[at + 1] = max(large - small, 0.0) / (part * len(targets))


def _quickest(
    channel: Channel, call: Call, pace: Pace, targets: list[int], sources: list[int], nbytes: int, times: int
) -> Generator[None, None, float]:
    source, place = np.zeros(nbytes, np.uint8), [np.empty(nbytes, np.uint8) for _ in sources]
    sends = [Outgoing(p, source) for p in targets]
    recvs = [Incoming(p, into, None, source.dtype) for p, into in zip(sources, place)]
    best = math.inf
    for _ in range(times):
        start = time.perf_counter()
        for _ in range(ROUNDS):
            yield from channel.exchange(call, sends, recvs, pace)
        best = min(best, (time.perf_counter() - start) / ROUNDS)
    return best


class Cache:
    """Measured costs by shape of the job, in a file of this user: {shape: [four figures]}."""

    def __init__(self, path: Path | None = None) -> None:
        base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
        folder = os.environ.get("RINGGRAD_CACHE") or os.path.join(base, "ringgrad")
        self.path = Path(folder, "costs.json") if path is None else path

    def find(self, shape: str) -> Costs | None:
        """What was measured for this shape; None if nothing usable is there."""
        with contextlib.suppress(OSError, ValueError, TypeError, LookupError):
            found = json.loads(self.path.read_text())[shape]
            costs = Costs(*map(float, found))
            if len(found) == len(Costs._fields) and all(math.isfinite(c) and c >= 0 for c in costs):
                return costs
        return None

    def keep(self, shape: str, costs: Costs) -> None:
        """Add an entry; a cache that cannot be written is no error."""
        with contextlib.suppress(OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            entries = {}
            with contextlib.suppress(OSError, ValueError, TypeError):
                entries = dict(json.loads(self.path.read_text()))
            entries[shape] = list(costs)
            with tempfile.NamedTemporaryFile("w", dir=self.path.parent, delete=False) as file:
                json.dump(entries, file, indent=1)
            os.replace(file.name, self.path)


def shape(transport: str, hosts: Sequence[Sequence[object]]) -> str:
    """A name for jobs in which messages cost the same: transport, and the hosts by rank with their cores."""
    digest = hashlib.sha256(json.dumps(hosts).encode()).hexdigest()[:16]
    return f"{transport}, {len(hosts)} ranks, {digest}"
