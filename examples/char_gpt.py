"""Train a character-level GPT on the source text of this machine's Python standard library.

The same file runs on one worker and on many:

    python examples/char_gpt.py
    mpirun -n 2 python examples/char_gpt.py
    ringrun -n 2 examples/char_gpt.py
    ringrun -n 2 --max-restarts 3 examples/char_gpt.py --resume    # goes on by itself after a failure

The global batch is shared out over the workers, so that any number of them gives the same loss curve.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from pathlib import Path

import ringgrad as rg
from ringgrad import distributed as dist
from ringgrad import nn
from ringgrad.data import DataLoader, DistributedSampler
from ringgrad.data.text import CharDataset, CharTokenizer, standard_library_text
from ringgrad.nn import functional as F
from ringgrad.nn.parallel import DistributedDataParallel
from ringgrad.nn.utils import clip_grad_norm_
from ringgrad.optim import AdamW
from ringgrad.optim.lr_scheduler import CosineWarmupLR


class Layer(nn.Module):
    """Attention and a two-layer perceptron, each on normalised input and added to the stream."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mlp = nn.Sequential(nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width))

    def forward(self, x: rg.Tensor) -> rg.Tensor:
        batch, length, width = x.shape
        qkv = self.qkv(self.norm1(x)).view(batch, length, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)
        mixed = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(mixed.transpose(1, 2).reshape(batch, length, width))
        return x + self.mlp(self.norm2(x))


class CharGPT(nn.Module):
    """A decoder-only transformer over characters."""

    def __init__(
        self, vocabulary: int, block: int, width: int = 128, heads: int = 4, layers: int = 4
    ) -> None:
        super().__init__()
        self.block = block
        self.token, self.position = nn.Embedding(vocabulary, width), nn.Embedding(block, width)
        self.layers = nn.Sequential(*[Layer(width, heads) for _ in range(layers)])
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)
        for name, p in self.named_parameters():
            if p.ndim == 2:
                deep = name.endswith(("out.weight", "mlp.2.weight"))
                nn.init.normal_(p, std=0.02 / math.sqrt(2 * layers) if deep else 0.02)
        self.head.weight = self.token.weight  # tied

    def forward(self, tokens: rg.Tensor) -> rg.Tensor:
        x = self.token(tokens) + self.position(rg.arange(tokens.shape[1], device=tokens.device))
        return self.head(self.norm(self.layers(x)))

    @rg.no_grad()
    def generate(self, tokens: rg.Tensor, count: int, temperature: float = 0.8) -> rg.Tensor:
        for _ in range(count):
            logits = self(tokens[:, -self.block :])[:, -1] / temperature
            tokens = rg.cat([tokens, rg.multinomial(F.softmax(logits, dim=-1), 1)], dim=1)
        return tokens


def loss_of(model: nn.Module, x: rg.Tensor, y: rg.Tensor) -> rg.Tensor:
    """Mean negative log-likelihood of the next character, in nats."""
    logits = model(x)
    return F.cross_entropy(logits.view(-1, logits.shape[-1]), y.reshape(-1))


@rg.no_grad()
def validate(model: nn.Module, loader: DataLoader, batches: int) -> float:
    """Loss on text that was held out, the mean over all workers' batches."""
    model.eval()
    losses = [loss_of(model, x, y).item() for _, (x, y) in zip(range(batches), loader)]
    model.train()
    total = rg.tensor([sum(losses), len(losses)], dtype=rg.float64)
    dist.all_reduce(total)
    return (total[0] / total[1]).item()


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--steps", type=int, default=900)
    parser.add_argument("--batch", type=int, default=32, help="sequences in a step, over all workers")
    parser.add_argument("--block", type=int, default=64, help="characters in a sequence")
    parser.add_argument("--lr", type=float, default=2e-3)
    parser.add_argument("--seed", type=int, default=1337)
    parser.add_argument("--device", default="cpu")
    parser.add_argument(
        "--checkpoint", type=Path, default=Path("runs/char_gpt"), help="folder for what is kept"
    )
    parser.add_argument(
        "--resume", action="store_true", help="go on from that folder's checkpoint, if there is one"
    )
    args = parser.parse_args()
    if args.steps < 1 or args.batch < 1:
        parser.error(f"--steps and --batch must be positive, came {args.steps} and {args.batch}")
    return args


def main() -> None:
    args = arguments()
    dist.init_process_group()
    rank, workers = dist.get_rank(), dist.get_world_size()
    if args.batch % workers:
        raise SystemExit(
            f"[char_gpt] --batch must be divisible by the workers, came {args.batch} for {workers}"
        )
    rg.manual_seed(args.seed)

    text = standard_library_text(8 << 20)
    tokenizer = CharTokenizer(text)
    tokens = rg.tensor(tokenizer.encode(text))
    cut = int(len(tokens) * 0.95)
    train, held_out = (
        CharDataset(part, args.block, stride=args.block) for part in (tokens[:cut], tokens[cut:])
    )
    sampler = DistributedSampler(train, workers, rank, shuffle=True, seed=args.seed, drop_last=True)
    loader = DataLoader(train, batch_size=args.batch // workers, sampler=sampler, drop_last=True)
    val_sampler = DistributedSampler(held_out, workers, rank, shuffle=True, seed=0, drop_last=True)
    val_loader = DataLoader(held_out, batch_size=32, sampler=val_sampler)

    model = DistributedDataParallel(CharGPT(tokenizer.size, args.block).to(args.device))
    decay = [p for p in model.parameters() if p.ndim >= 2]
    rest = [p for p in model.parameters() if p.ndim < 2]
    groups = [{"params": decay}, {"params": rest, "weight_decay": 0.0}]
    optimizer = AdamW(groups, lr=args.lr, betas=(0.9, 0.99), weight_decay=0.1)
    scheduler = CosineWarmupLR(
        optimizer, warmup_steps=min(100, args.steps // 10), total_steps=args.steps, min_lr_ratio=0.1
    )

    path, losses, step = args.checkpoint / "checkpoint.rg", [], 0
    if args.resume and path.exists():
        state = rg.load(path)
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
        scheduler.load_state_dict(state["scheduler"])
        losses, step = state["losses"], state["step"]

    def save() -> None:
        args.checkpoint.mkdir(parents=True, exist_ok=True)
        state = {
            "model": model.state_dict(),
            "optimizer": optimizer.state_dict(),
            "scheduler": scheduler.state_dict(),
        }
        rg.save({**state, "losses": losses, "step": step}, path)

    progress = Progress(args.steps, enabled=rank == 0)
    started, done, epoch = time.perf_counter(), step, step // len(loader)
    with progress:
        while step < args.steps:
            sampler.set_epoch(epoch)
            for i, (x, y) in enumerate(loader):
                if epoch * len(loader) + i < step:
                    continue  # seen before the checkpoint that we go on from
                loss = loss_of(model, x.to(args.device), y.to(args.device))
                loss.backward()
                clip_grad_norm_(model.parameters(), 1.0)
                optimizer.step()
                scheduler.step()
                optimizer.zero_grad()
                mean = loss.detach()
                dist.all_reduce(mean, op=dist.ReduceOp.AVG)
                losses.append(mean.item())
                step += 1
                rate = (step - done) * args.batch * args.block / (time.perf_counter() - started)
                progress.update(step, losses[-1], rate)
                if rank == 0 and step % 500 == 0:
                    save()
                if step == args.steps:
                    break
            epoch += 1
    val_loss = validate(model, val_loader, batches=max(1, 64 // workers))
    if rank == 0:
        save()
        plot(losses, val_loss, args.checkpoint / "loss.png")
        start = rg.tensor(tokenizer.encode("def ")).view(1, -1)
        print(tokenizer.decode(model.module.generate(start, 300)[0].tolist()))
        result = {"steps": step, "loss": losses[-1], "val_loss": val_loss, "world_size": workers}
        print(
            "result:", json.dumps({**result, "tokens_per_s": round(rate) if step > done else 0}), flush=True
        )
    dist.destroy_process_group()


class Progress:
    """A progress bar with loss, rate and time left on the first worker; nothing on the others."""

    def __init__(self, total: int, enabled: bool) -> None:
        from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
        from rich.progress import Progress as Bar

        columns = (
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}"),
            TimeRemainingColumn(),
        )
        self.bar = Bar(*columns, disable=not enabled, refresh_per_second=4)
        self.task = self.bar.add_task("", total=total, text="")

    def __enter__(self) -> None:
        self.bar.start()

    def __exit__(self, *_: object) -> None:
        self.bar.stop()

    def update(self, step: int, loss: float, rate: float) -> None:
        self.bar.update(self.task, completed=step, text=f"loss {loss:.3f}  {rate:,.0f} tokens/s")


def plot(losses: list[float], val_loss: float, path: Path) -> None:
    """The loss curve as a picture."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4), layout="constrained")
    axes = figure.subplots()
    axes.plot(range(1, len(losses) + 1), losses, linewidth=0.8, label="training")
    axes.axhline(val_loss, color="tab:orange", linestyle="--", label=f"held out, at the end: {val_loss:.2f}")
    axes.set(
        xlabel="step", ylabel="loss in nats per character", title="character GPT on Python's standard library"
    )
    axes.legend()
    figure.savefig(path, dpi=120)


if __name__ == "__main__":
    main()
