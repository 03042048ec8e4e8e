"""Programs in two halves: results are returned, and the way back from them is replayed when backward() comes.

The program of such a recording is a generator. It computes the results and yields them; given their gradients, it
goes on and returns those of the leaves. A node of the engine's graph holds it in between, so that hooks, accumulation
and DistributedDataParallel see gradients as after eager calls. Source of the idea: AOTAutograd (PyTorch).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np

from ..autograd import engine
from ..autograd.engine import Node, Output, Variable
from ..autograd.mode import mode
from .graph import leaves


def tensors(value: Any) -> Iterator[Any]:
    """The Tensors of nested tuples, lists and dicts, in order."""
    return leaves(value, Variable)


class Halves:
    """The way back of one recording: from which results, to which leaves (of inputs: their number).

    read: what the second half reads of tensors outside and inputs; they must not be written in between.
    """

    def __init__(self, places: list[int], leaves: list[Any]) -> None:
        self.places, self.leaves = places, leaves
        self.read: list[Any] = []
        self.busy = False

    def bind(self, graph: Any) -> None:
        """Finds what the second half of the optimized graph reads."""
        at = next(i for i, node in enumerate(graph.nodes) if node.kind == "pause")
        values = [graph.values[id] for node in graph.nodes[at + 1 :] for id in node.inputs()]
        roots = {v.root for v in values}
        self.read = [v.tensor for v in graph.values.values() if v.kind == "external" and v.root in roots]
        self.read += [i for i, id in enumerate(graph.inputs) if graph.values[id].root in roots]

    def run(self, program: Any, *inputs: Any) -> Any:
        """The first half; its results are joined to the graph."""
        generator = program(*inputs)
        result = next(generator)
        node = Replayed(self, generator, inputs)
        parts = list(tensors(result))
        for i, place in enumerate(self.places):
            t = parts[place]
            t._needs, t._node = True, node if len(self.places) == 1 else Output(node, i)
            node.like.append(t.array)
        return result


class Replayed(Node):
    """The second half, waiting for the gradients of the results."""

    __slots__ = ("generator", "halves", "like", "versions")

    def __init__(self, halves: Halves, generator: Any, inputs: Any) -> None:
        leaves = [inputs[t] if isinstance(t, int) else t for t in halves.leaves]
        super().__init__([engine.edge_of(t) for t in leaves], len(halves.places))
        self.halves, self.generator = halves, generator
        self.like: list[Any] = []
        counters = ((inputs[t] if isinstance(t, int) else t)._version for t in halves.read)
        self.versions = [(counter, counter[0]) for counter in counters]
        halves.busy = True

    def name(self) -> str:
        return "CompiledBackward"

    def vjp(self, g: Any, create: bool) -> list[Any]:
        if self.generator is None:
            raise RuntimeError(
                "[compile] a graph can be walked back once, then what was saved is freed; came a second time"
            )
        if create or mode.keep:
            raise RuntimeError(
                "[compile] a compiled call can be walked back once, and not be differentiated again: retain_graph"
                " and create_graph must be False, came True. Compile the function that calls backward(), or leave this"
                " one eager"
            )
        for counter, version in self.versions:
            if counter[0] != version:
                raise RuntimeError(
                    f"[compile] saved tensors must not be overwritten, came one at version {counter[0]} that was saved"
                    f" at version {version}; last written by {counter[1]}"
                )
        given = [g] if self.outputs == 1 else g
        whole = [
            np.zeros(y.shape, y.dtype)
            if part is None
            else np.ascontiguousarray(part, y.dtype).reshape(y.shape)
            for part, y in zip(given, self.like)
        ]
        try:
            self.generator.send(whole)
        except StopIteration as end:
            return end.value
        raise AssertionError("a program pauses once")

    def release(self) -> None:
        """The program's memory is free for the next call."""
        if self.generator is not None:
            self.generator = None
            self.halves.busy = False

    def __del__(self) -> None:
        self.release()


__all__ = ["Halves", "Replayed", "tensors"]
