"""A recurrent network whose graph is another one for every sample: it follows the syntax tree of a Python function.

    python examples/tree_rnn.py

Functions come from this machine's standard library. From the kinds of nodes alone (no names) the network says whether
a function is a method. A node's state is that of its children, summed, through a gated cell (a child-sum tree LSTM:
K. S. Tai et al., "Improved Semantic Representations From Tree-Structured LSTMs", ACL 2015).
"""

from __future__ import annotations

import argparse
import ast
import json
import random
import sysconfig
from collections.abc import Iterator
from pathlib import Path

import ringgrad as rg
from ringgrad import nn, optim
from ringgrad.nn import functional as F

KINDS = {kind: i for i, kind in enumerate(sorted(n for n in dir(ast) if isinstance(getattr(ast, n), type)))}


def functions(limit: int) -> Iterator[tuple[ast.AST, int]]:
    """(tree, 1 for a method) of functions with 8 to 40 nodes, as many methods as not."""
    paths = sorted(Path(sysconfig.get_path("stdlib")).glob("*.py"))
    random.shuffle(paths)
    left = [limit - limit // 2, limit // 2]
    for path in paths:
        for parent in ast.walk(ast.parse(path.read_text(encoding="utf-8", errors="replace"))):
            if not isinstance(parent, ast.Module | ast.ClassDef):
                continue
            method = int(isinstance(parent, ast.ClassDef))
            for node in parent.body:
                if isinstance(node, ast.FunctionDef) and left[method]:
                    node.args = ast.arguments([], [], None, [], [], None, [])  # `self` would give it away
                    if 8 <= sum(1 for _ in ast.walk(node)) <= 40:
                        left[method] -= 1
                        yield node, method
        if not any(left):
            return


class TreeLSTM(nn.Module):
    def __init__(self, width: int = 32) -> None:
        super().__init__()
        self.width = width
        self.kind = nn.Embedding(len(KINDS), width)
        self.gates, self.forget = nn.Linear(2 * width, 3 * width), nn.Linear(2 * width, width)
        self.out = nn.Linear(width, 2)

    def node(self, tree: ast.AST) -> tuple[rg.Tensor, rg.Tensor]:
        """(hidden, memory), each [1, width]: recursion over the tree is all there is to a graph that changes."""
        children = [self.node(child) for child in ast.iter_child_nodes(tree)]
        x = self.kind(rg.tensor([KINDS[type(tree).__name__]]))
        if children:
            hidden = rg.cat([h for h, _ in children])
            summed = hidden.sum(0, keepdim=True)
            forget = self.forget(rg.cat([x.expand(len(children), -1), hidden], 1)).sigmoid()
            kept = (forget * rg.cat([c for _, c in children])).sum(0, keepdim=True)
        else:
            summed = kept = rg.zeros(1, self.width)
        i, o, u = self.gates(rg.cat([x, summed], 1)).chunk(3, 1)
        memory = i.sigmoid() * u.tanh() + kept
        return o.sigmoid() * memory.tanh(), memory

    def forward(self, tree: ast.AST) -> rg.Tensor:
        return self.out(self.node(tree)[0])


@rg.no_grad()
def accuracy(model: TreeLSTM, samples: list[tuple[ast.AST, int]]) -> float:
    return sum(int(model(tree).argmax().item() == label) for tree, label in samples) / len(samples)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--functions", type=int, default=600)
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--batch", type=int, default=16)
    args = parser.parse_args()

    rg.manual_seed(0)
    random.seed(0)
    samples = list(functions(args.functions))
    random.shuffle(samples)
    cut = len(samples) * 4 // 5
    train, test = samples[:cut], samples[cut:]
    model = TreeLSTM()
    optimizer = optim.Adam(model.parameters(), lr=3e-3)
    for epoch in range(args.epochs):
        random.shuffle(train)
        total = 0.0
        for start in range(0, len(train), args.batch):
            part = train[start : start + args.batch]
            scores = rg.cat([model(tree) for tree, _ in part])
            loss = F.cross_entropy(scores, rg.tensor([label for _, label in part]))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            total += loss.item() * len(part)
        print(f"epoch {epoch}: loss {total / len(train):.3f}, accuracy {accuracy(model, test):.3f}")
    share = sum(label for _, label in test) / len(test)
    result = {"accuracy": accuracy(model, test), "guess": max(share, 1 - share), "functions": len(samples)}
    print("result:", json.dumps(result))


if __name__ == "__main__":
    main()
