"""`ringgrad doctor`: what this machine and this job offer, what ringgrad chooses from it and why, and what is wrong.

Runs alone, under mpirun, srun, ringrun and torchrun. Every rank looks at its own process; if they can join, their
facts are compared and what messages cost is measured. Rank 0 prints. The exit code is 1 if something would keep a job
from running or make its results wrong, else 0; warnings are about speed.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import platform
import sys
import time
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..launch.environment import Environment, detect
from ..launch.host import usable_cores
from . import bootstrap, checks, process_group
from .checks import Finding
from .errors import DistributedError
from .group import Group

JOIN_TIMEOUT = 30.0  # s for the other ranks to come: a doctor should answer soon
SIZES = (4 << 10, 1 << 20, 16 << 20)  # bytes of the all-reduces that are timed


def main(argv: Sequence[str] | None = None) -> int:
    """Run `ringgrad doctor argv`; returns its exit code."""
    parser = argparse.ArgumentParser(
        prog="ringgrad doctor", description="Look for what is wrong with a set-up."
    )
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument(
        "--no-join", action="store_true", help="look at this process alone, do not meet the others"
    )
    options = parser.parse_args(argv)
    try:
        here = detect()
    except ValueError as error:
        return report(
            Environment(),
            {},
            [],
            [Finding.wrong(str(error), "start the workers with one launcher")],
            options.json,
        )
    facts = checks.facts()
    findings = checks.own(here, facts)
    chosen: list[str] = ["transport: none, as there is one worker"]
    if here.world_size > 1 and not options.no_join:
        chosen, more = together(here, facts, findings)
        findings += more
    worst = report(here, facts, chosen, findings, options.json) if here.rank == 0 else code_of(findings)
    leave()
    return worst


def together(here: Environment, facts: dict[str, Any], own: list[Finding]) -> tuple[list[str], list[Finding]]:
    """Meet the other ranks: what was chosen, and what does not fit between them."""
    try:
        process_group.init_process_group(timeout=JOIN_TIMEOUT)
        group = process_group.world_group()
        everybody = group.all_gather_object(facts)
        found = checks.between(everybody) + _of_others(group, own)
        return chosen(here, group), found
    except (DistributedError, RuntimeError, ImportError, ValueError, OSError) as error:
        return ["transport: none"], [Finding.wrong(f"the ranks cannot join: {error}", checks.JOIN_ADVICE)]


def _of_others(group: Group, own: list[Finding]) -> list[Finding]:
    """What only other ranks have found."""
    known = {finding.text for finding in own} if group.rank == 0 else set()
    known = set(group.broadcast_object(sorted(known)))
    rows = group.all_gather_object([list(finding) for finding in own])
    found: dict[str, Finding] = {}
    for rank, row in enumerate(rows):
        for level, text, advice in row:
            if text not in known:
                found.setdefault(text, Finding(level, f"rank {rank}: {text}", advice))
    return list(found.values())


def chosen(here: Environment, group: Group) -> list[str]:
    """The transport and why, what it costs, and what follows from that."""
    assert group.transport is not None
    costs = group.tune()
    lines = [f"transport: {group.transport.name}, {bootstrap.reason(here, group.transport.name)}"]
    lines.append(
        f"cost of a message: {costs.next_latency * 1e6:.0f} us + {_rate(costs.next_byte)} to one rank, "
        f"{costs.all_latency * 1e6:.0f} us + {_rate(costs.all_byte)} to all"
    )
    plans = {size: group.plan_of(size) for size in SIZES}
    lines.append("plans of all-reduce: " + ", ".join(f"{_size(n)} {plan}" for n, plan in plans.items()))
    times = {size: _timed(group, size) for size in SIZES}
    lines.append("all-reduce takes: " + ", ".join(f"{_size(n)} {t * 1e6:,.0f} us" for n, t in times.items()))
    lines.append(f"buckets of gradients: {_size(costs.bucket_bytes(group.size))}")
    overlap = (
        "a thread, as each rank has a second core"
        if group.transport.spare_cores
        else ("the worker's own thread between ops, as no core is free for another")
    )
    return [*lines, f"communication during backward: on {overlap}"]


def _timed(group: Group, nbytes: int) -> float:
    array, best = group.empty(nbytes // 4), float("inf")
    array[...] = 0
    for _ in range(4):
        group.barrier()
        start = time.perf_counter()
        group.all_reduce(array)
        best = min(best, time.perf_counter() - start)
    worst = np.array([best])
    group.all_reduce(worst, "max")
    return float(worst[0])


def _rate(seconds_a_byte: float) -> str:
    return f"{1e-9 / max(seconds_a_byte, 1e-12):.2f} GB/s"


def _size(nbytes: int) -> str:
    return f"{nbytes >> 10} KiB" if nbytes < 1 << 20 else f"{nbytes / (1 << 20):.3g} MiB"


def leave() -> None:
    if process_group.is_initialized():
        with contextlib.suppress(DistributedError):
            process_group.world_group().barrier()
        process_group.destroy_process_group()


def code_of(findings: Sequence[Finding]) -> int:
    return int(any(finding.level == "wrong" for finding in findings))


def report(
    here: Environment, facts: dict[str, Any], chosen: list[str], findings: list[Finding], as_json: bool
) -> int:
    """Print what was found; the exit code."""
    if as_json:
        rows = [finding._asdict() for finding in findings]
        print(
            json.dumps(
                {"place": here._asdict(), "facts": facts, "chosen": chosen, "findings": rows}, indent=1
            )
        )
        return code_of(findings)
    place = (
        "alone"
        if here.world_size == 1
        else f"rank {here.rank} of {here.world_size}, started by {here.launcher}"
    )
    print("found")
    print(f"  this process: {place}; {usable_cores()} usable cores on {platform.node()}")
    for name, value in facts.items():
        print(f"  {name}: {value}")
    print("chosen")
    for line in chosen:
        print(f"  {line}")
    print("to mend" if findings else "nothing to mend")
    for finding in sorted(findings, key=lambda f: f.level != "wrong"):
        print(f"  {finding.level}: {finding.text}\n      do: {finding.advice}")
    sys.stdout.flush()
    return code_of(findings)
