"""A Slurm of our own on the two hosts of `two_hosts`: munged, slurmctld and a slurmd a host, all in one folder."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import time
from pathlib import Path

from two_hosts import HOSTS, Network

DAEMONS = ("munged", "mungekey", "slurmctld", "slurmd", "srun", "sbatch", "sinfo")
SBIN = "/usr/sbin:/sbin"


class Cluster:
    def __init__(self, network: Network, folder: Path) -> None:
        self.network, self.folder = network, folder
        self.log, self.config = folder / "log", folder / "slurm.conf"
        self.daemons: list[subprocess.Popen[bytes]] = []
        self.path = f"{os.environ['PATH']}:{SBIN}"

    @staticmethod
    def missing() -> str | None:
        lacking = [name for name in DAEMONS if not shutil.which(name, path=f"{os.environ['PATH']}:{SBIN}")]
        return f"a Slurm needs {', '.join(lacking)}" if lacking else Network.missing()

    def up(self) -> None:
        """Returns when both hosts take jobs. Raises RuntimeError, with the daemons' words, if they do not."""
        key, munge = self.folder / "munge.key", self.folder / "munge.socket"
        subprocess.run(["mungekey", "-c", "-k", str(key)], check=True, env={"PATH": self.path})
        files = [f"--{what}-file={self.folder}/munge.{what}" for what in ("pid", "log", "seed")]
        self._start(0, "munged", "--foreground", "--force", f"--key-file={key}", f"--socket={munge}", *files)
        self.config.write_text(self._settings(munge))
        for name in ("state", *(f"slurmd-{name}" for name in self.network.names)):
            (self.folder / name).mkdir()
        self._start(0, "slurmctld", "-D", "-f", str(self.config))
        for host, name in enumerate(self.network.names):
            self._start(host, "slurmd", "-D", "-N", name, "-f", str(self.config))
        end = time.monotonic() + 30
        while self.run("sinfo", "--noheader", "--format=%D %t").stdout.split() != [str(HOSTS), "idle"]:
            if time.monotonic() > end:
                raise RuntimeError(
                    f"the cluster must come up within 30 s, its daemons say:\n{self.log.read_text()}"
                )
            time.sleep(0.1)

    def run(self, *command: str, timeout: float = 100, **environ: str) -> subprocess.CompletedProcess[str]:
        """The command as typed on the first host."""
        line = self._on(0, *command)
        return subprocess.run(
            line, env=self._environ() | environ, capture_output=True, text=True, timeout=timeout
        )

    def down(self) -> None:
        """Ends the daemons, then what their jobs have left in the hosts."""
        for daemon in self.daemons:
            daemon.kill()
            daemon.wait()
        for name in self.network.names:
            left = subprocess.run(
                ["ip", "netns", "pids", name], capture_output=True, text=True
            ).stdout.split()
            for pid in left:
                with contextlib.suppress(ProcessLookupError):
                    os.kill(int(pid), signal.SIGKILL)

    def _start(self, host: int, *command: str) -> None:
        with open(self.log, "ab") as log:
            line = self._on(host, *command)
            pipes = {"stdin": subprocess.DEVNULL, "stdout": log, "stderr": log}
            self.daemons.append(subprocess.Popen(line, env=self._environ(), **pipes))  # type: ignore[call-overload]
        if command[0] == "munged":
            wait_for(self.folder / "munge.socket")

    def _on(self, host: int, *command: str) -> list[str]:
        """As `Network.on`, but with the machine's /sys, where slurmd looks for its control groups."""
        name = self.network.names[host]
        enter = f"nsenter --net=/run/netns/{name} unshare --uts --mount sh -c".split()
        lay = f"mount --bind /etc/netns/{name}/hosts /etc/hosts; hostname {name}"
        return [*enter, f'{lay}; exec "$@"', "-", *command]

    def _environ(self) -> dict[str, str]:
        drop = ("RINGGRAD_", "SLURM_", "PMI")
        kept = {name: value for name, value in os.environ.items() if not name.startswith(drop)}
        return kept | {"PATH": self.path, "SLURM_CONF": str(self.config), "HOME": str(self.folder)}

    def _settings(self, munge: Path) -> str:
        first, *_ = names = self.network.names
        ports = free_ports(2 + HOSTS)
        nodes = [
            f"NodeName={name} NodeHostname={name} NodeAddr={address} Port={port} CPUs=4 RealMemory=1000"
            for name, address, port in zip(names, self.network.addresses, ports[2:])
        ]
        return "\n".join(
            [
                "ClusterName=tests",
                f"SlurmctldHost={first}({self.network.addresses[0]})",
                f"SlurmctldPort={ports[0]}",
                "SlurmUser=root",
                f"AuthInfo=socket={munge}",
                "CredType=cred/munge",
                "ProctrackType=proctrack/linuxproc",
                "TaskPlugin=task/none",
                "SlurmdParameters=config_overrides",
                "ReturnToService=2",
                "SelectType=select/cons_tres",
                "SelectTypeParameters=CR_Core",
                "KillWait=5",
                f"SlurmctldPidFile={self.folder}/slurmctld.pid",
                f"SlurmdPidFile={self.folder}/slurmd-%n.pid",
                f"SlurmdSpoolDir={self.folder}/slurmd-%n",
                f"StateSaveLocation={self.folder}/state",
                *nodes,
                f"PartitionName=all Nodes={','.join(names)} Default=YES MaxTime=INFINITE State=UP",
            ]
        )


def free_ports(count: int) -> list[int]:
    probes = [socket.create_server(("", 0)) for _ in range(count)]
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def wait_for(path: Path, seconds: float = 10) -> None:
    end = time.monotonic() + seconds
    while not path.exists():
        if time.monotonic() > end:
            raise RuntimeError(f"{path} must be there within {seconds} s")
        time.sleep(0.02)
