"""Data-parallel training as PyTorch does it: the same script on two ranks of gloo and on two of ours.

Run as a script it is one rank of PyTorch's job: `test_distributed_parity.py RANK PORT`, which prints its results.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import numpy as np
import pytest
from free_port import free_port

WORLD = 2
pytestmark = [pytest.mark.parity, pytest.mark.slow]


def net_of(torch: Any) -> Any:
    net = torch.nn.Sequential(torch.nn.Linear(6, 8), torch.nn.Tanh(), torch.nn.Linear(8, 4))
    with torch.no_grad():
        for i, p in enumerate(net.parameters()):
            values = np.random.default_rng(i).standard_normal(tuple(p.shape)).astype(np.float32)
            p.copy_(torch.from_numpy(values))
    return net


def rows(torch: Any, rank: int, step: int) -> Any:
    rng = np.random.default_rng(100 * step + rank)
    return torch.from_numpy(rng.standard_normal((4, 6)).astype(np.float32))


def script(torch: Any, rank: int, group: Any) -> dict[str, Any]:
    """group: None for the default one. Results by name, as nested lists."""
    from importlib import import_module

    ours = torch.__name__ == "ringgrad"
    hooks = import_module(
        "ringgrad.distributed.hooks" if ours else "torch.distributed.algorithms.ddp_comm_hooks.default_hooks"
    )
    zero = import_module("ringgrad.distributed.zero" if ours else "torch.distributed.optim")
    functional = import_module(
        "ringgrad.distributed.functional" if ours else "torch.distributed.nn.functional"
    )
    DDP = torch.nn.parallel.DistributedDataParallel
    more = {"group": group} if ours else {}
    out: dict[str, Any] = {}

    def trained(model: Any, optimizer: Any, steps: int) -> Any:
        for step in range(steps):
            optimizer.zero_grad()
            (model(rows(torch, rank, step)) ** 2).mean().backward()
            optimizer.step()
        return [p.detach().tolist() for p in model.parameters()]

    for divide in (True, False):
        model = DDP(net_of(torch), process_group=group)
        with model.join(divide_by_initial_world_size=divide):
            trained(model, torch.optim.SGD(model.parameters(), lr=0.1), 2 + 2 * rank)
        out[f"join {divide}"] = [p.detach().tolist() for p in model.parameters()]
    for name in ("allreduce_hook", "fp16_compress_hook"):  # gloo has no bfloat16
        model = DDP(net_of(torch), process_group=group)
        model.register_comm_hook(group, getattr(hooks, name))
        out[name] = trained(model, torch.optim.SGD(model.parameters(), lr=0.1), 2)
    model = DDP(net_of(torch), process_group=group, gradient_as_bucket_view=True)
    optimizer = zero.ZeroRedundancyOptimizer(
        model.parameters(), optimizer_class=torch.optim.Adam, process_group=group, lr=0.05
    )
    out["zero"] = trained(model, optimizer, 3)
    optimizer.consolidate_state_dict(to=0)
    if rank == 0:
        state = optimizer.state_dict()["state"]
        out["zero state"] = {
            str(n): {k: v.tolist() for k, v in sorted(s.items())} for n, s in sorted(state.items())
        }
    calls = {
        "all_reduce": lambda x: functional.all_reduce(x, **more),
        "broadcast": lambda x: functional.broadcast(x, 1, **more),
        "reduce": lambda x: functional.reduce(x, 1, **more) * float(rank == 1),  # elsewhere it is undefined
        "all_gather": lambda x: torch.stack(list(functional.all_gather(x, **more))) ** 2,
        "scatter": lambda x: functional.scatter([x, 2 * x], 0, **more),
        "gather": lambda x: torch.stack(list(functional.gather(x, 0, **more))) * float(rank == 0),
    }
    for name, call in calls.items():
        x = rows(torch, rank, 9).requires_grad_()
        y = call(x)
        (y * (rank + 1)).sum().backward()
        out[name] = [y.detach().tolist(), x.grad.tolist()]
    return out


def test_results_are_those_of_pytorch_over_gloo() -> None:
    pytest.importorskip("torch")
    import ringgrad
    from ringgrad.distributed.group import Group
    from ringgrad.distributed.transport.local import run_threads

    port = free_port()
    ranks = [
        subprocess.Popen(
            [sys.executable, __file__, str(rank), str(port)],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            env={**os.environ, "OMP_NUM_THREADS": "1"},
        )
        for rank in range(WORLD)
    ]
    ours = run_threads(WORLD, lambda t: script(ringgrad, t.rank, Group(t, timeout=60)))
    for rank, process in enumerate(ranks):
        stdout, stderr = process.communicate(timeout=90)
        assert process.returncode == 0, stderr
        theirs = json.loads(stdout.splitlines()[-1])
        found: Any = ours[rank]
        assert found.keys() == theirs.keys()
        for name, value in theirs.items():
            tolerance = 2e-3 if "16" in name else 2e-5
            if name == "zero state":
                assert found[name].keys() == value.keys()
                for number, state in value.items():
                    assert found[name][number].keys() == state.keys()
                    for key in state:
                        np.testing.assert_allclose(found[name][number][key], state[key], rtol=1e-4, atol=1e-6)
                continue
            for a, b in zip(found[name], value, strict=True):
                np.testing.assert_allclose(a, b, rtol=tolerance, atol=tolerance, err_msg=name)


if __name__ == "__main__":
    import torch

    place = {"rank": int(sys.argv[1]), "world_size": WORLD}
    torch.distributed.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{sys.argv[2]}", **place)
    print(json.dumps(script(torch, place["rank"], None)), flush=True)
    torch.distributed.destroy_process_group()
