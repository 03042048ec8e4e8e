"""Two hosts on one wire, played by network namespaces. Needs root and iproute2."""

from __future__ import annotations

import os
import shutil
import subprocess
import time
from pathlib import Path

HOSTS = 2


class Network:
    """Names carry our process number, so that runs at once do not meet."""

    wire = "wire0"  # the same in both hosts: namespaces have their own names
    # UCX, below MPICH, would find that both hosts share a memory, and use that or loopback instead of the wire.
    mpi_environment = {"UCX_TLS": "tcp,self", "UCX_NET_DEVICES": wire}

    def __init__(self, folder: Path, rate: str | None = None) -> None:
        """rate: what the wire carries each way, as tc writes it ("1gbit"); None is as fast as the kernel."""
        tag = os.getpid() % 100000
        self.names = [f"rg{tag}n{i}" for i in range(HOSTS)]
        self.addresses = [f"10.{77 + tag // 250 % 100}.{tag % 250}.{i + 1}" for i in range(HOSTS)]
        self.folder, self.rate = folder, rate

    @staticmethod
    def missing() -> str | None:
        """What keeps this process from making namespaces, or None."""
        if os.geteuid() != 0:
            return "network namespaces need root"
        tools = [tool for tool in ("ip", "tc", "unshare") if not shutil.which(tool)]
        return f"network namespaces need {', '.join(tools)}" if tools else None

    def up(self) -> None:
        """Raises CalledProcessError or OSError where the kernel or the container does not allow it."""
        for name in self.names:
            run(f"ip netns add {name}")
            run(f"ip -n {name} link set lo up")
        ends = [f"{self.wire} netns {name}" for name in self.names]
        run(f"ip link add {ends[0]} type veth peer name {ends[1]}")
        hosts = "".join(f"{a} {n}\n" for a, n in zip(self.addresses, self.names))
        for name, address in zip(self.names, self.addresses):
            run(f"ip -n {name} addr add {address}/24 dev {self.wire}")
            run(f"ip -n {name} link set {self.wire} up")
            if self.rate:
                run(
                    f"tc -n {name} qdisc add dev {self.wire} root tbf rate {self.rate} burst 256kb latency 50ms"
                )
            # `ip netns exec` lays this file over /etc/hosts.
            Path("/etc/netns", name).mkdir(parents=True)
            Path("/etc/netns", name, "hosts").write_text(f"127.0.0.1 localhost\n{hosts}")
        # The kernel tells up to a second later that there is a carrier, and UCX takes no wire without one.
        while not all("state UP" in run(f"ip -n {name} link show {self.wire}") for name in self.names):
            time.sleep(0.01)

    def down(self) -> None:
        for name in self.names:
            subprocess.run(["ip", "netns", "del", name], capture_output=True)
            shutil.rmtree(Path("/etc/netns", name), ignore_errors=True)

    def cut(self, yes: bool) -> None:
        """Pull the cable, or put it in again."""
        run(f"ip -n {self.names[1]} link set {self.wire} {'down' if yes else 'up'}")

    def on(self, host: int, *command: str) -> list[str]:
        """The command as run by that host: its network, and its name, which tells MPI that memory ends here."""
        name = self.names[host]
        enter = f"ip netns exec {name} unshare --uts sh -c".split()
        return [*enter, f'hostname {name}; exec "$@"', "-", *command]

    def mpirun(self, mpirun: Path, ranks: int, *command: str) -> list[str]:
        """`command` on `ranks` ranks a host under MPICH's mpirun."""
        hosts = ",".join(f"{name}:{ranks}" for name in self.names)
        shell = str(self._remote_shell())
        options = ["-launcher", "ssh", "-launcher-exec", shell, "-hosts", hosts, "-n", str(HOSTS * ranks)]
        return self.on(0, str(mpirun), *options, *command)

    def _remote_shell(self) -> Path:
        """What mpirun takes for ssh: `shell [options] HOST COMMAND...`."""
        path = self.folder / "remote-shell"
        cases = "".join(f"{a}|{n}) name={n};;\n" for a, n in zip(self.addresses, self.names))
        path.write_text(
            '#!/bin/sh\nwhile [ "${1#-}" != "$1" ]; do shift; done\nhost=$1; shift\n'
            f'case $host in {cases} *) echo "no host $host" >&2; exit 1;; esac\n'
            'exec ip netns exec $name unshare --uts sh -c "hostname $name; exec sh -c \\"\\$0\\"" "$*"\n'
        )
        path.chmod(0o755)
        return path


def run(command: str) -> str:
    """What the command prints."""
    return subprocess.run(command.split(), check=True, capture_output=True, text=True).stdout
