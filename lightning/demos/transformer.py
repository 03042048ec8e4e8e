"""A small encoder-decoder language model and the words of WikiText-2 to train it with."""

from __future__ import annotations

import math
import os
import urllib.request
from typing import Any

from ... import nn
from ...data import DataLoader, Dataset
from ...optim import SGD
from ...tensor import Tensor
from ...tensor.creation import arange, tensor, zeros
from ..module import LightningModule

URL = "https://raw.githubusercontent.com/pytorch/examples/main/word_language_model/data/wikitext-2/train.txt"


class PositionalEncoding(nn.Module):
    """Adds sines and cosines of the position to embeddings (..., length, dim), then dropout."""

    def __init__(self, dim: int, dropout: float = 0.1, max_len: int = 5000) -> None:
        super().__init__()
        self.dropout = nn.Dropout(dropout)
        angles = arange(max_len).unsqueeze(1) * (arange(0, dim, 2) * (-math.log(1e4) / dim)).exp()
        table = zeros(max_len, dim)
        table[:, 0::2], table[:, 1::2] = angles.sin(), angles.cos()[:, : dim // 2]
        self.register_buffer("table", table, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.dropout(x + self.table[: x.shape[-2]])


class Transformer(nn.Module):
    """(inputs, target), both (batch, length) of words' numbers -> log probabilities (batch * length, vocab_size)."""

    def __init__(
        self,
        vocab_size: int = 33278,
        ninp: int = 200,
        nhead: int = 2,
        nhid: int = 200,
        nlayers: int = 2,
        dropout: float = 0.2,
    ) -> None:
        super().__init__()
        self.pos_encoder = PositionalEncoding(ninp, dropout)
        self.embedding = nn.Embedding(vocab_size, ninp)
        self.transformer = nn.Transformer(ninp, nhead, nlayers, nlayers, nhid, dropout, batch_first=True)
        self.decoder = nn.Linear(ninp, vocab_size)
        self.ninp, self.vocab_size = ninp, vocab_size

    def forward(self, inputs: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
        if mask is None:
            mask = nn.Transformer.generate_square_subsequent_mask(inputs.shape[1])
        source, words = (
            self.pos_encoder(self.embedding(ids) * math.sqrt(self.ninp)) for ids in (inputs, target)
        )
        scores = self.decoder(self.transformer(source, words, tgt_mask=mask))
        return nn.functional.log_softmax(scores, dim=-1).reshape(-1, self.vocab_size)


class WikiText2(Dataset[Any]):
    """(words, the words one further), `block_size` of each, of data_dir/wikitext-2.txt, which is downloaded if missing.

    Any text will do: its words, split at blanks, with `<eos>` at the end of each line, are the vocabulary.
    """

    def __init__(
        self, data_dir: str | os.PathLike[str] = "data", block_size: int = 35, download: bool = True
    ) -> None:
        self.path = os.path.join(data_dir, "wikitext-2.txt")
        if not os.path.exists(self.path):
            if not download:
                raise FileNotFoundError(
                    f"[WikiText2] there must be a file {self.path}, or download=True be given"
                )
            os.makedirs(data_dir, exist_ok=True)
            urllib.request.urlretrieve(URL, self.path)
        with open(self.path, encoding="utf-8") as file:
            words = [word for line in file for word in [*line.split(), "<eos>"]]
        numbers = {word: i for i, word in enumerate(dict.fromkeys(words))}
        self.vocab_size, self.block_size = len(numbers), block_size
        self.data = tensor([numbers[word] for word in words])

    def __len__(self) -> int:
        return (len(self.data) - 1) // self.block_size

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        start, end = index * self.block_size, (index + 1) * self.block_size
        return self.data[start:end], self.data[start + 1 : end + 1]


class LightningTransformer(LightningModule):
    """The model with its training step on WikiText2."""

    def __init__(self, vocab_size: int = 33278, nlayers: int = 2) -> None:
        super().__init__()
        self.model = Transformer(vocab_size=vocab_size, nlayers=nlayers)

    def forward(self, inputs: Tensor, target: Tensor) -> Tensor:
        return self.model(inputs, target)

    def training_step(self, batch: Any, batch_idx: int) -> Tensor:
        inputs, target = batch
        return nn.functional.nll_loss(self(inputs, target), target.reshape(-1))

    def configure_optimizers(self) -> Any:
        return SGD(self.parameters(), lr=0.1)

    def train_dataloader(self) -> Any:
        return DataLoader(WikiText2())


__all__ = ["LightningTransformer", "PositionalEncoding", "Transformer", "WikiText2"]
