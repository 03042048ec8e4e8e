"""What this host grants the job: cores to compute on, and whether the kernel ran out of memory."""

import os
from pathlib import Path
from typing import NamedTuple


def usable_cores() -> int:
    """Cores this process may run on: its affinity mask, cut by the CPU quota of its control group."""
    affinity = getattr(os, "sched_getaffinity", None)
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    quota = _cpu_quota()
    return max(1, min(cores, int(quota + 0.5))) if quota else cores


def _cpu_quota() -> float | None:
    """CPU time a second that the control group grants, in cores; None if unlimited."""
    quota, period = (_read(_group_file("", "cpu.max")).split() + ["", ""])[:2]
    if not quota:
        quota, period = (
            _read(_group_file("cpu", f"cpu.cfs_{what}_us")).strip() for what in ("quota", "period")
        )
    try:
        return int(quota) / int(period) if int(quota) > 0 else None
    except (ValueError, ZeroDivisionError):  # "max", or no control groups here
        return None


class MemoryKills(NamedTuple):
    """How many processes the kernel has killed for want of memory: in our control group, and on the host."""

    group: int
    host: int

    @classmethod
    def now(cls) -> "MemoryKills":
        group = _field(_group_file("", "memory.events"), "oom_kill")
        if group is None:
            group = _field(_group_file("memory", "memory.oom_control"), "oom_kill")
        return cls(group or 0, _field(Path("/proc/vmstat"), "oom_kill") or 0)

    def explain_since(self, before: "MemoryKills") -> str:
        """Who sent a SIGKILL, as far as the kernel's counters show."""
        if self.group > before.group:
            limit = _memory_limit()
            bound = f" (limit {limit >> 20} MiB)" if limit else ""
            return f"the kernel's out-of-memory killer struck in this job's control group{bound}"
        if self.host > before.host:
            return "the kernel's out-of-memory killer struck on this host meanwhile"
        return "sender unknown, the kernel reports no lack of memory"


def _memory_limit() -> int | None:
    for path in (_group_file("", "memory.max"), _group_file("memory", "memory.limit_in_bytes")):
        value = _read(path).strip()
        if value.isdigit() and int(value) < 1 << 60:  # version 1 writes "no limit" as nearly 2**63
            return int(value)
    return None


def _group_file(controller: str, name: str) -> Path:
    """A file of our control group; controller "" is version 2. A container sees its group as the root."""
    root = Path("/sys/fs/cgroup", controller)
    for line in _read(Path("/proc/self/cgroup")).splitlines():
        _, controllers, path = line.split(":", 2)
        if controller in controllers.split(",") and (root / path.lstrip("/") / name).exists():
            return root / path.lstrip("/") / name
    return root / name


def _field(path: Path, name: str) -> int | None:
    for line in _read(path).splitlines():
        key, _, value = line.partition(" ")
        if key == name and value.isdigit():
            return int(value)
    return None


def _read(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
