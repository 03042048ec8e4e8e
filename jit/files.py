"""Programs as files: a graph with its weights, which runs without the code that it was traced from.

The file is one of our checkpoints (docs/checkpoints.md): checksums over every byte, no pickle, nothing in it is code. A
node names one of the ops here by name; an unknown name, or an argument of no known kind, is an error.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

import numpy as np

from ..autograd import no_grad
from ..autograd.engine import Variable, array_functions, wrap
from ..autograd.op import registry
from ..nn.module import Module
from ..tensor.device import device
from ..tensor.serialization import CheckpointError
from ..tensor.serialization import load as load_tree
from ..tensor.serialization import save as save_tree
from .compare import difference
from .compiled import Compiled
from .door import OptimizedModule
from .graph import Graph, Node, Ref, Value
from .guards import Reach
from .passes import common_subexpressions, dead_code, fold_constants, optimize, remove_views, simplify_algebra
from .program import Program
from .trace import DRAWS, Tracer

FORMAT, VERSION = "ringgrad program", 1
KINDS = ("op", "view", "backward", "random", "array")


class SavedProgram:
    """A loaded program: call it with Tensors of the shapes and dtypes that `inputs` lists."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.inputs = [(graph.values[i].shape, graph.values[i].dtype.name) for i in graph.inputs]
        self.report: list[Any] = []
        self._run = Program(optimize(graph, self.report), []).run

    def __call__(self, *args: Any) -> Any:
        if len(args) != len(self.inputs):
            raise TypeError(f"[program] {len(self.inputs)} inputs are needed, came {len(args)}")
        given = []
        for i, (arg, (shape, dtype)) in enumerate(zip(args, self.inputs)):
            array = arg.array if isinstance(arg, Variable) else np.asarray(arg)
            if array.shape != shape or array.dtype.name != dtype:
                raise ValueError(
                    f"[program] input {i} must be {dtype}{list(shape)}, came {array.dtype.name}{list(array.shape)}:"
                    " save another program for other shapes"
                )
            given.append(wrap(np.ascontiguousarray(array).reshape(shape)))
        with no_grad():
            return self._run(*given)


def save(fn: Any, f: str | os.PathLike[str], example_inputs: Any = None, _extra_files: Any = None) -> None:
    """Writes what a function or module computes for inputs like these as a file, with all weights.

    fn: a function, a module (saved in the mode that it is in: call eval() before), or what compile() gave.
    example_inputs: a Tensor or a tuple of them; shapes and dtypes are fixed by them.

    Raises RuntimeError, with reason and line, where the call cannot be replayed or changes anything outside of itself.
    """
    if isinstance(fn, OptimizedModule):
        fn = fn._orig_mod
    fn = fn.fn if isinstance(fn, Compiled) else fn
    if example_inputs is None:
        raise TypeError(
            "[jit.save] example_inputs must be given: a Tensor, or a tuple of them, for which the function is traced"
        )
    inputs = example_inputs if isinstance(example_inputs, tuple | list) else (example_inputs,)
    graph = _traced(fn, list(inputs))
    for run in (fold_constants, simplify_algebra, remove_views, common_subexpressions, dead_code):
        graph = run(graph)
    save_tree(_encoded(graph, fn), os.fspath(f))


def load(f: str | os.PathLike[str], map_location: Any = None, _extra_files: Any = None) -> SavedProgram:
    """Reads a program that `save` wrote.

    Raises CheckpointError where a byte of the file is wrong, ValueError where it is no program, or one of a newer
    version with ops that are not known here.
    """
    path = os.fspath(f)
    tree = load_tree(path)
    if not isinstance(tree, dict) or tree.get("format") != FORMAT:
        raise ValueError(
            f"[jit.load] the file must be a program written by jit.save, came {path!r}: a checkpoint?"
        )
    if tree.get("version") != VERSION:
        raise ValueError(f"[jit.load] the program's version must be {VERSION}, came {tree.get('version')!r}")
    try:
        return SavedProgram(_decoded(tree))
    except CheckpointError:
        raise
    except (KeyError, TypeError, IndexError, AttributeError, AssertionError) as error:
        raise ValueError(f"[jit.load] the program in {path!r} does not hold together: {error!r}") from error


def _traced(fn: Any, inputs: list[Any]) -> Graph:
    graphs = []
    with no_grad():
        for _ in range(2):
            reach = Reach(fn)
            tracer = Tracer("program", inputs, reach.tensors)
            if reach.too_large:
                tracer.stop(reach.too_large, "")
            tracer.run(lambda: fn(*inputs))
            changed = reach.broken()
            if tracer.halves is not None:
                tracer.stop("a tensor is returned on which backward() can be called: detach it", "")
            why = tracer.stopped or (f"it changes Python's state: {changed.describe()}" if changed else None)
            if why:
                raise RuntimeError(f"[jit.save] the call cannot be replayed: {why}")
            _check_kinds(tracer.graph)
            graphs.append(tracer.graph)
    why = difference(*graphs)
    if why:
        raise RuntimeError(f"[jit.save] the call cannot be replayed: {why}")
    return graphs[0]


def _check_kinds(graph: Graph) -> None:
    outside = {v.root for v in graph.values.values() if v.kind in ("external", "input", "grad")}
    for node in graph.nodes:
        if node.kind not in KINDS or any(graph.values[i].root in outside for i in node.writes):
            raise RuntimeError(
                f"[jit.save] what is saved must not change anything outside of itself, came {node.op} at {node.where}:"
                " call eval() on the module, or save its forward alone"
            )


# ---- to a tree of plain data, and back


def _encoded(graph: Graph, fn: Any) -> dict[str, Any]:
    names: dict[int, str] = {}
    if isinstance(fn, Module):
        names = {id(t): name for name, t in (*fn.named_parameters(), *fn.named_buffers())}
    values, weights = [], {}
    used = {i for node in graph.nodes for i in (*node.inputs(), *node.outputs)} | set(graph.returned())
    for value in graph.values.values():
        if value.id not in used | set(graph.inputs):
            continue
        kind = "constant" if value.kind == "external" else value.kind
        name = names.get(id(value.tensor), value.name)
        values.append(
            [value.id, kind, value.dtype.name, list(value.shape), list(value.strides), value.root, name]
        )
        if kind == "constant":
            array = value.tensor.array if value.kind == "external" else value.array
            weights[str(value.id)] = wrap(array)
    nodes = []
    for n in graph.nodes:
        nodes.append(
            [n.kind, n.op, _plain(n.args), _plain(n.kw), list(n.outputs), list(n.writes), list(n.extras)]
        )
    return {
        "format": FORMAT, "version": VERSION, "inputs": list(graph.inputs), "outputs": _plain(graph.outputs),
        "values": values, "nodes": nodes, "weights": weights,
    }  # fmt: skip


def _decoded(tree: dict[str, Any]) -> Graph:
    graph = Graph("program")
    for id, kind, dtype, shape, strides, root, name in tree["values"]:
        array = tree["weights"][str(id)].array if kind == "constant" else None
        value = object.__new__(Value)
        value.id, value.kind, value.name, value.where, value.root = id, kind, name, "", root
        value.shape, value.strides, value.dtype = tuple(shape), tuple(strides), _dtype(dtype)
        value.array, value.tensor = array, None
        graph.values[id] = value
    for kind, op, args, kw, outputs, writes, extras in tree["nodes"]:
        known: dict[str, Any] = {
            "op": registry,
            "backward": registry,
            "array": array_functions,
            "random": DRAWS,
            "view": ("strided",),
        }
        if kind not in known or op not in known[kind]:
            raise ValueError(
                f"[jit.load] the program needs {op!r} ({kind}), which is not known here: of a newer version?"
            )
        node = Node(
            kind,
            op,
            _whole(args),
            _whole(kw),
            list(outputs),
            "",
            tuple(writes),
            bool(writes) or kind == "random",
        )
        node.extras = tuple(extras)
        graph.nodes.append(node)
    graph.inputs, graph.outputs = list(tree["inputs"]), _whole(tree["outputs"])
    for node in graph.nodes:
        for id in (*node.inputs(), *node.outputs, *node.writes):
            graph.values[id]
    return graph


def _dtype(name: str) -> Any:
    from ..tensor import dtypes

    return np.dtype(name) if name != "bfloat16" else dtypes.bfloat16.numpy


def _plain(value: Any) -> Any:
    """Arguments as lists, strings and numbers: what is none of these becomes [what, content]."""
    if isinstance(value, Ref):
        return ["ref", value.id]
    if isinstance(value, tuple):
        return ["tuple", [_plain(v) for v in value]]
    if isinstance(value, list):
        return ["list", [_plain(v) for v in value]]
    if isinstance(value, dict):
        return ["dict", [[_plain(k), _plain(v)] for k, v in value.items()]]
    if isinstance(value, slice):
        return ["slice", [_plain(v) for v in (value.start, value.stop, value.step)]]
    if isinstance(value, np.dtype):
        return ["dtype", value.name]
    if isinstance(value, np.generic):
        return ["scalar", [value.dtype.name, value.item()]]
    if value is Ellipsis:
        return ["ellipsis", None]
    if isinstance(value, device):
        return ["device", str(value)]
    if value is None or isinstance(value, bool | int | float | str):
        return value
    raise RuntimeError(f"[jit.save] an argument of kind {type(value).__name__} cannot be saved")


def _whole(value: Any) -> Any:
    """Undoes `_plain`."""
    if not isinstance(value, list):
        return value
    kind, content = value
    if kind == "ref":
        return Ref(int(content))
    if kind in ("tuple", "list", "slice"):
        make: dict[str, Any] = {"tuple": tuple, "list": list, "slice": lambda parts: slice(*parts)}
        return make[kind]([_whole(v) for v in content])
    if kind == "dict":
        return {_whole(k): _whole(v) for k, v in content}
    if kind == "scalar":
        return _dtype(content[0]).type(content[1])
    makers: dict[str, Any] = {"dtype": _dtype, "ellipsis": lambda _: Ellipsis, "device": device}
    return makers[kind](content)


# ---- the command


def main(argv: Sequence[str] | None = None) -> int:
    """`ringgrad run-model file.rg --input x.npy`: the program's results, saved or described."""
    import argparse

    parser = argparse.ArgumentParser(
        prog="ringgrad run-model", description="Run a program that jit.save wrote."
    )
    parser.add_argument("file", help="the program")
    parser.add_argument(
        "--input", action="append", default=[], help=".npy file of an input; once for each, in order"
    )
    parser.add_argument("--output", action="append", default=[], help=".npy file for a result; once for each")
    parser.add_argument("--graph", action="store_true", help="print the graph")
    args = parser.parse_args(argv)
    try:
        program = load(args.file)
        if args.graph:
            print(program.graph)
        result = program(*[np.load(name, allow_pickle=False) for name in args.input]) if args.input else ()
    except (OSError, ValueError, TypeError, RuntimeError, IndexError) as error:
        print(error)
        return 1
    if not args.input:
        for i, (shape, dtype) in enumerate(program.inputs):
            print(f"input {i}: {dtype}{list(shape)}")
    for i, t in enumerate(_listed(result)):
        if i < len(args.output):
            np.save(args.output[i], t.array)
        else:
            print(f"result {i}: {t}")
    return 0


def _listed(result: Any) -> list[Any]:
    if isinstance(result, Variable):
        return [result]
    if isinstance(result, dict):
        return [t for v in result.values() for t in _listed(v)]
    return [t for v in result for t in _listed(v)] if isinstance(result, tuple | list) else []


__all__ = ["SavedProgram", "load", "main", "save"]
