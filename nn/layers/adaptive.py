"""Softmax over many classes, those that are rare in small clusters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

from ...tensor import creation, functions
from ...tensor.dtypes import int64
from .. import functional as F
from ..containers import ModuleList, Sequential
from ..module import Module
from .linear import Linear


class ASMoutput(NamedTuple):
    """Log-probability of each target, and minus their mean."""

    output: Any
    loss: Any


class AdaptiveLogSoftmaxWithLoss(Module):
    """Log-softmax with a head of frequent classes and tails of rare ones (Grave et al. 2017).

    cutoffs: where clusters begin, ascending and below n_classes; classes are sorted by frequency. Tail i is a
    product through in_features / div_value^(i + 1) features.
    """

    def __init__(
        self,
        in_features: int,
        n_classes: int,
        cutoffs: Sequence[int],
        div_value: float = 4.0,
        head_bias: bool = False,
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        cuts = list(cutoffs)
        if not cuts:
            raise ValueError(
                "[AdaptiveLogSoftmaxWithLoss] cutoffs should be a sequence of length larger than 0"
            )
        ascending = cuts == sorted(set(cuts)) and min(cuts) > 0 and max(cuts) < n_classes
        if not ascending or any(int(c) != c for c in cuts):
            raise ValueError(
                "[AdaptiveLogSoftmaxWithLoss] cutoffs must be unique ascending positive ints below"
                f" n_classes={n_classes}, came {cuts}"
            )
        self.in_features, self.n_classes = in_features, n_classes
        self.cutoffs, self.div_value, self.head_bias = [*cuts, n_classes], div_value, head_bias
        self.shortlist_size, self.n_clusters = cuts[0], len(cuts)
        self.head_size = self.shortlist_size + self.n_clusters
        made = {"device": device, "dtype": dtype}
        self.head = Linear(in_features, self.head_size, bias=head_bias, **made)
        self.tail = ModuleList()
        for i in range(self.n_clusters):
            inner = int(in_features // (div_value ** (i + 1)))
            size = self.cutoffs[i + 1] - self.cutoffs[i]
            self.tail.append(
                Sequential(
                    Linear(in_features, inner, bias=False, **made), Linear(inner, size, bias=False, **made)
                )
            )

    def reset_parameters(self) -> None:
        """As Linear does, in head and tails."""
        self.head.reset_parameters()
        for tail in self.tail:
            for part in tail.children():
                part.reset_parameters()

    def forward(self, input_: Any, target_: Any) -> ASMoutput:
        """input (N, in_features) or (in_features), target (N) or ()."""
        if target_.ndim > 1 or input_.ndim != target_.ndim + 1:
            raise RuntimeError(
                "[AdaptiveLogSoftmaxWithLoss] input must be (N, in_features) with target (N), or (in_features) with"
                f" (), came {list(input_.shape)} and {list(target_.shape)}"
            )
        single = target_.ndim == 0
        input = input_.unsqueeze(0) if single else input_
        target = target_.unsqueeze(0) if single else target_
        classes = target.array
        if len(input.array) != len(classes):
            raise RuntimeError(
                "[AdaptiveLogSoftmaxWithLoss] input and target must have one batch size,"
                f" came {len(input.array)} and {len(classes)}"
            )
        if classes.size and not (classes.min() >= 0 and classes.max() < self.n_classes):
            raise RuntimeError(
                f"[AdaptiveLogSoftmaxWithLoss] targets must be in [0, {self.n_classes}),"
                f" came {classes.min()} to {classes.max()}"
            )
        rows, parts = [], []
        head = F.log_softmax(self.head(input), 1)
        for i, low in enumerate([0, *self.cutoffs[:-1]]):
            inside = functions.nonzero((target >= low) & (target < self.cutoffs[i])).reshape(-1)
            if not inside.numel():
                continue
            local = target[inside]
            found = head[inside]
            if i == 0:
                part = functions.gather(found, 1, local.unsqueeze(1))
            else:
                tail = F.log_softmax(self.tail[i - 1](input[inside]), 1)
                part = functions.gather(tail, 1, (local - low).unsqueeze(1))
                part = part + found[:, self.shortlist_size + i - 1].unsqueeze(1)
            rows.append(inside)
            parts.append(part.squeeze(1))
        order = functions.cat(rows).array.argsort()
        output = functions.cat(parts)[creation.tensor(order, dtype=int64)]
        loss = -output.mean()
        return ASMoutput(output.squeeze(0) if single else output, loss)

    def log_prob(self, input: Any) -> Any:
        """Log-probabilities of all classes: (N, n_classes)."""
        head = self.head(input)
        log_head = F.log_softmax(head, 1)
        parts = [log_head[:, : self.shortlist_size]]
        for i, tail in enumerate(self.tail):
            place = self.shortlist_size + i
            parts.append(F.log_softmax(tail(input), 1) + log_head[:, place].unsqueeze(1))
        return functions.cat(parts, 1)

    def predict(self, input: Any) -> Any:
        """The most probable class of each row: (N)."""
        return self.log_prob(input).argmax(1)
