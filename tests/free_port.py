"""A port for a job of the tests."""

import contextlib
import random
import socket
from pathlib import Path

_DRAWN = random.SystemRandom()  # not by a seed: runs side by side on one machine must differ


def free_port() -> int:
    """A port of this host below those that the kernel gives away: nobody gets it by chance before it is bound."""
    first = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    for _ in range(100):
        port = _DRAWN.randrange(first // 3, first)
        with contextlib.suppress(OSError), socket.socket() as probe:
            probe.bind(("127.0.0.1", port))
            return port
    raise OSError(f"no free port found from {first // 3} to {first}")
