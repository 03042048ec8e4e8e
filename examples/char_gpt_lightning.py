"""The character GPT as a LightningModule: one file for one worker, several, and a cluster, with a report of the run.

    python examples/char_gpt_lightning.py
    python examples/char_gpt_lightning.py --devices 2    # starts its workers itself
    python examples/char_gpt_lightning.py --strategy reproducible --devices 2    # one worker's bits

The text is this machine's Python standard library. runs/char_gpt_lightning/report.html shows curves and throughput.
"""

from __future__ import annotations

import argparse
import json

import ringgrad as rg
import ringgrad.lightning as L
from ringgrad import nn
from ringgrad.data import DataLoader
from ringgrad.data.text import CharDataset, CharTokenizer, standard_library_text
from ringgrad.launch.environment import detect
from ringgrad.lightning.callbacks import HTMLReport, ModelCheckpoint
from ringgrad.lightning.metrics import Perplexity
from ringgrad.nn import functional as F
from ringgrad.optim import AdamW
from ringgrad.optim.lr_scheduler import CosineWarmupLR


class Layer(nn.Module):
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


class CharGPT(L.LightningModule):
    def __init__(
        self,
        vocabulary: int,
        block: int = 64,
        width: int = 64,
        heads: int = 4,
        layers: int = 2,
        lr: float = 3e-3,
    ) -> None:
        super().__init__()
        self.save_hyperparameters()
        self.token, self.position = nn.Embedding(vocabulary, width), nn.Embedding(block, width)
        self.layers = nn.Sequential(*[Layer(width, heads) for _ in range(layers)])
        self.norm, self.head = nn.LayerNorm(width), nn.Linear(width, vocabulary, bias=False)
        for p in self.parameters():
            if p.ndim == 2:
                nn.init.normal_(p, std=0.02)
        self.head.weight = self.token.weight  # tied
        self.perplexity = Perplexity()
        self.example_input_array = rg.zeros(1, block, dtype=rg.int64)

    def forward(self, tokens: rg.Tensor) -> rg.Tensor:
        x = self.token(tokens) + self.position(rg.arange(tokens.shape[1]))
        return self.head(self.norm(self.layers(x)))

    def training_step(self, batch: list[rg.Tensor], batch_idx: int) -> rg.Tensor:
        x, y = batch
        loss = F.cross_entropy(self(x).flatten(0, 1), y.flatten())
        self.log("train_loss", loss, prog_bar=True)
        return loss

    def validation_step(self, batch: list[rg.Tensor], batch_idx: int) -> None:
        x, y = batch
        scores = self(x)
        self.perplexity(scores, y)
        self.log("val_loss", F.cross_entropy(scores.flatten(0, 1), y.flatten()), prog_bar=True)
        self.log("val_perplexity", self.perplexity)

    def configure_optimizers(self) -> dict:
        decay = [p for p in self.parameters() if p.ndim >= 2]
        rest = [p for p in self.parameters() if p.ndim < 2]
        groups = [{"params": decay}, {"params": rest, "weight_decay": 0.0}]
        optimizer = AdamW(groups, lr=self.hparams.lr, betas=(0.9, 0.99), weight_decay=0.1)
        steps = int(self.trainer.estimated_stepping_batches)
        scheduler = CosineWarmupLR(optimizer, min(100, max(1, steps // 10)), steps, min_lr_ratio=0.1)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}

    @rg.no_grad()
    def generate(self, tokens: rg.Tensor, count: int, temperature: float = 0.8) -> rg.Tensor:
        for _ in range(count):
            logits = self(tokens[:, -self.hparams.block :])[:, -1] / temperature
            tokens = rg.cat([tokens, rg.multinomial(F.softmax(logits, dim=-1), 1)], dim=1)
        return tokens


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--devices", default="auto", help="workers on this host")
    parser.add_argument("--strategy", default="auto")
    parser.add_argument("--steps", type=int, default=600)
    parser.add_argument("--batch", type=int, default=24, help="sequences a step, of all workers")
    parser.add_argument("--resume", action="store_true", help="go on from the newest checkpoint")
    parser.add_argument("--folder", default="runs/char_gpt_lightning")
    args = parser.parse_args()

    L.seed_everything(1337, verbose=False)
    checkpoint = ModelCheckpoint(f"{args.folder}/checkpoints", monitor="val_loss", save_last=True)
    report = HTMLReport(f"{args.folder}/report.html", length_fn=lambda batch: batch[0].numel())
    trainer = L.Trainer(
        devices=args.devices,
        strategy=args.strategy,
        max_steps=args.steps,
        max_epochs=-1,
        val_check_interval=min(200, args.steps),
        check_val_every_n_epoch=None,
        limit_val_batches=20,
        gradient_clip_val=1.0,
        log_every_n_steps=10,
        callbacks=[checkpoint, report],
        default_root_dir=args.folder,
    )
    text = standard_library_text(2 << 20)
    tokenizer = CharTokenizer(text)
    tokens = rg.tensor(tokenizer.encode(text))
    cut = int(len(tokens) * 0.95)
    train, held_out = (CharDataset(part, 64, stride=64) for part in (tokens[:cut], tokens[cut:]))
    # The reproducible strategy takes the whole batch and shares it out; otherwise each worker has a part.
    batch = args.batch if args.strategy == "reproducible" else args.batch // detect().world_size
    model = CharGPT(tokenizer.size)
    loaders = DataLoader(train, batch, shuffle=True, drop_last=True), DataLoader(held_out, 24)
    trainer.fit(model, *loaders, ckpt_path="last" if args.resume else None)
    if trainer.is_global_zero:
        model.eval()
        print(
            tokenizer.decode(model.generate(rg.tensor(tokenizer.encode("def ")).view(1, -1), 120)[0].tolist())
        )
        found = {
            name: round(value, 4) for name, value in trainer.callback_values.items() if name.startswith("val")
        }
        print("result:", json.dumps({"steps": trainer.global_step, "workers": trainer.world_size, **found}))


if __name__ == "__main__":
    main()
