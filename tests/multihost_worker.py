"""One rank of the jobs over two hosts: `multihost_worker.py MODE FOLDER`."""

from __future__ import annotations

import os
import signal
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from group_cases import run_all


def train(
    rank: int, world: int, wrap: Callable[[Any], Any] = lambda model: model, steps: int = 6
) -> np.ndarray:
    """Parameters, flat, after some steps of a small transformer on its share of a global batch of 8."""
    import ringgrad as torch
    from ringgrad import nn
    from ringgrad.nn import functional as F

    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed, self.place = nn.Embedding(32, 48), nn.Embedding(16, 48)
            self.norm, self.qkv, self.out = nn.LayerNorm(48), nn.Linear(48, 144), nn.Linear(48, 48)
            self.head = nn.Sequential(nn.LayerNorm(48), nn.Linear(48, 96), nn.GELU(), nn.Linear(96, 32))

        def forward(self, x: Any) -> Any:
            h = self.embed(x) + self.place(torch.arange(16))
            q, k, v = self.qkv(self.norm(h)).reshape(x.shape[0], 16, 3, 4, 12).permute(2, 0, 3, 1, 4)
            a = F.scaled_dot_product_attention(q, k, v, is_causal=True).transpose(1, 2).reshape(h.shape)
            return self.head(h + self.out(a))

    torch.manual_seed(7)
    block = Block()
    model = wrap(block)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
    text = np.random.default_rng(3).integers(0, 32, (steps, 8, 17))
    share = slice(rank * 8 // world, (rank + 1) * 8 // world)
    for batch in text:
        rows = torch.tensor(batch[share])
        loss = F.cross_entropy(model(rows[:, :-1]).reshape(-1, 32), rows[:, 1:].reshape(-1))
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return np.concatenate([p.detach().numpy().ravel() for p in block.parameters()])


def loop(rank: int, folder: Path) -> None:
    from ringgrad.distributed.process_group import world_group

    group = world_group()
    array = np.zeros(50_000, np.float32)
    try:
        for step in range(10**9):
            group.all_reduce(array)
            if step == 3:
                (folder / f"started{rank}").touch()
    finally:
        (folder / f"ended{rank}").write_text(str(time.monotonic()))


def meet(address: str, port: str, rank: str) -> None:
    import ringgrad.distributed as dist
    from ringgrad.launch.environment import detect

    world = 4
    store = dist.TCPStore(address, int(port), world, rank == "0")
    dist.init_process_group(
        store=dist.PrefixStore("job", store), rank=int(rank), world_size=world, timeout=60
    )
    here, total = detect(), np.full(3, int(rank))
    dist.all_reduce(total)
    print(f"{dist.get_backend()} {here.local_rank} of {here.local_world_size}, sum {total[0]}")
    dist.barrier()  # rank 0 holds the store
    dist.destroy_process_group()


def main(mode: str, folder: Path, *more: str) -> None:
    import ringgrad.distributed as dist
    from ringgrad.distributed.process_group import world_group

    if mode == "store":
        return meet(*more)
    dist.init_process_group(timeout=60)
    rank, world = dist.get_rank(), dist.get_world_size()
    if mode == "cases":
        if rank == 0:
            (folder / "transport").write_text(dist.get_backend())
        run_all(world_group(), folder)
    elif mode == "train":
        np.save(folder / f"rank{rank}.npy", train(rank, world, dist.DistributedDataParallel))
        print(dist.get_backend())
    elif mode == "restart":
        share = np.full(3, rank + 1.0)
        world_group().all_reduce(share)
        if rank == 3 and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
            os.kill(os.getpid(), signal.SIGKILL)
        dist.barrier()
        (folder / f"sum{rank}").write_text(str(share[0]))
    elif mode == "raise":
        dist.barrier()
        if rank == 3:
            raise ValueError("boom")
        dist.barrier()
    else:
        loop(rank, folder)
    dist.destroy_process_group()


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])
