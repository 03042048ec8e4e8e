"""Ops as kernels that write into arrays they are given, where there is one: see ../kernel_table.py."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ...tensor.backend.cpu import convolution, library
from .. import kernel_table
from ..graph import Graph, Node, Ref, Value
from .simplify import PURE, contiguous

F32, F64 = np.dtype("float32"), np.dtype("float64")
SMALL = 64  # elements below which an op is left to NumPy

UFUNCS = {
    "add": "add", "sub": "subtract", "mul": "multiply", "div": "divide", "neg": "negative", "exp": "exp", "log": "log",
    "sqrt": "sqrt", "tanh": "tanh", "maximum": "maximum", "minimum": "minimum", "abs": "absolute", "sin": "sin",
    "cos": "cos", "log1p": "log1p", "expm1": "expm1", "floor": "floor", "ceil": "ceil", "trunc": "trunc",
    "square": "square",
}  # fmt: skip


class Lowering:
    """Turns the nodes of a graph into kernels one by one."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph.copy()
        self.nodes: list[Node] = []
        self.counts: dict[int, int] = {}  # exponentials of a cross entropy -> how many rows counted
        self.cdfs: dict[int, Ref] = {}  # argument of a gelu -> its distribution function, if eager kept none
        self.rows: dict[int, Ref] = {}  # value -> its copy in row-major order
        self.mutated = graph.mutated()
        self.roots = max((v.root for v in graph.values.values()), default=0)

    @staticmethod
    def test(node: Node) -> bool:
        """Whether a node only computes. That others write what it reads does not matter: its place stays."""
        return node.kind in (*PURE, "array") and not node.effect and not node.writes

    def run(self) -> Graph:
        for node in self.graph.nodes:
            rule = RULES.get((node.kind, node.op))
            if rule is None and node.kind == "op" and node.op in UFUNCS:
                rule = _ufunc
            if rule in COMPILED and not kernel_table.available():
                rule = None
            if rule is None or not self.test(node) or not rule(self, node):
                self.nodes.append(node)
        self.graph.nodes = self.nodes
        return self.graph

    def value(self, id: int) -> Value:
        return self.graph.values[id]

    def new(self, shape: tuple[int, ...], dtype: Any) -> int:
        """A value of its own memory."""
        self.roots += 1
        id = max(self.graph.values) + 1
        self.graph.values[id] = Value(id, _Shape(shape, dtype), "result", root=self.roots)
        return id

    def kernel(self, op: str, args: tuple[Any, ...], outputs: list[int], like: Node, **kw: Any) -> None:
        self.nodes.append(Node("kernel", op, args, kw, outputs, like.where))

    def flat(self, id: int, like: Node) -> Ref:
        """A contiguous value as a matrix of its last dimension."""
        x = self.value(id)
        if len(x.shape) == 2:
            return Ref(id)
        rows = math.prod(x.shape[:-1])
        made = self.new((rows, x.shape[-1]), x.dtype)
        self.value(made).root = x.root
        self.nodes.append(
            Node("op", "reshape", (Ref(id),), {"shape": (rows, x.shape[-1])}, [made], like.where)
        )
        return Ref(made)

    def dense(self, ref: Ref, like: Node) -> Ref:
        """A value in row-major order: itself, or a copy, which others that read it share unless it is written."""
        x = self.value(ref.id)
        if contiguous(x) or x.dtype != F32:
            return ref
        if ref.id not in self.rows or x.root in self.mutated:
            made = self.new(x.shape, F32)
            self.kernel("copy", (ref,), [made], like)
            self.rows[ref.id] = Ref(made)
        return self.rows[ref.id]


class _Shape:
    """What a Value is made of, without an array."""

    def __init__(self, shape: tuple[int, ...], dtype: Any) -> None:
        self.shape, self.dtype = shape, np.dtype(dtype)
        steps, step = [], self.dtype.itemsize
        for n in reversed(shape):
            steps.append(step)
            step *= n
        self.strides = tuple(reversed(steps))


RULES: dict[tuple[str, str], Any] = {}


def rule(kind: str, *ops: str) -> Any:
    def enter(function: Any) -> Any:
        for op in ops:
            RULES[kind, op] = function
        return function

    return enter


def lower(graph: Graph) -> Graph:
    """Nodes become kernels with `out` arrays where the table has one for their dtypes and layouts."""
    return Lowering(graph).run()


def _plain(*values: Any) -> bool:
    return all(v.dtype is F32 or v.dtype == F32 for v in values) and all(map(contiguous, values))


def _ufunc(low: Lowering, node: Node) -> bool:
    """An elementwise op of one dtype as one NumPy ufunc with `out`."""
    made = low.value(node.outputs[0])
    if len(node.outputs) != 1 or made.dtype not in (F32, F64) or not made.shape:
        return False
    for a in node.args:
        if not isinstance(a, Ref) or low.value(a.id).dtype != made.dtype:
            return False
    low.kernel("ufunc", tuple(node.args), node.outputs, node, ufunc=UFUNCS[node.op])
    return True


@rule("op", "relu")
def _relu(low: Lowering, node: Node) -> bool:
    x, y = low.value(node.args[0].id), low.value(node.outputs[0])
    if not _plain(x, y):
        return False
    low.kernel("relu", node.args, node.outputs, node)
    return True


@rule("op", "threshold_backward")
def _masked(low: Lowering, node: Node) -> bool:
    g, x, y = low.value(node.args[0].id), low.value(node.args[1].id), low.value(node.outputs[0])
    if not _plain(g, x, y) or g.shape != x.shape:
        return False
    low.kernel("masked", node.args, node.outputs, node, threshold=node.kw["threshold"])
    return True


@rule("op", "linear")
def _linear(low: Lowering, node: Node) -> bool:
    x, w, y = (low.value(i) for i in (node.args[0].id, node.args[1].id, node.outputs[0]))
    if y.dtype not in (F32, F64) or not contiguous(x) or not contiguous(y) or not y.shape or len(x.shape) < 2:
        return False
    bias = node.args[2] if len(node.args) > 2 else None
    rows = low.flat(x.id, node)
    if len(y.shape) == 2:
        low.kernel("gemm", (rows, Ref(w.id), bias), node.outputs, node, ta=False, tb=True, act="")
    else:
        flat = low.new((math.prod(y.shape[:-1]), y.shape[-1]), y.dtype)
        low.kernel("gemm", (rows, Ref(w.id), bias), [flat], node, ta=False, tb=True, act="")
        low.value(flat).root = y.root
        low.nodes.append(Node("op", "reshape", (Ref(flat),), {"shape": y.shape}, node.outputs, node.where))
    return True


@rule("backward", "linear")
def _linear_backward(low: Lowering, node: Node) -> bool:
    kw = node.kw
    g = low.value(node.args[0].id)
    if g.dtype not in (F32, F64) or not contiguous(g) or len(g.shape) < 2:
        return False
    x, w = kw["saved"].get("x"), kw["saved"].get("weight")
    if x is not None and not contiguous(low.value(x.id)):
        return False
    rows = low.flat(g.id, node)
    for place, made in zip(kw["wanted"], node.outputs):
        y = low.value(made)
        if place == 0 and len(y.shape) == 2:
            low.kernel("gemm", (rows, w, None), [made], node, ta=False, tb=False, act="")
        elif place == 0:
            flat = low.new((math.prod(y.shape[:-1]), y.shape[-1]), y.dtype)
            low.kernel("gemm", (rows, w, None), [flat], node, ta=False, tb=False, act="")
            low.value(flat).root = y.root
            low.nodes.append(Node("op", "reshape", (Ref(flat),), {"shape": y.shape}, [made], node.where))
        elif place == 1:
            low.kernel("gemm", (rows, low.flat(x.id, node), None), [made], node, ta=True, tb=False, act="")
        else:
            low.kernel("column_sum", (rows,), [made], node)
    return True


@rule("op", "matmul")
def _matmul(low: Lowering, node: Node) -> bool:
    a, b, y = (low.value(i) for i in (node.args[0].id, node.args[1].id, node.outputs[0]))
    alike = len(a.shape) == len(b.shape) >= 2 and contiguous(y)
    if y.dtype not in (F32, F64) or a.dtype != y.dtype or b.dtype != y.dtype or not alike:
        return False
    low.kernel("gemm", (*node.args, None), node.outputs, node, ta=False, tb=False, act="")
    return True


@rule("op", "layer_norm")
def _layer_norm(low: Lowering, node: Node) -> bool:
    x, y = low.value(node.args[0].id), low.value(node.outputs[0])
    weight, bias = node.args[1], node.args[2]
    if weight is None or bias is None or not _plain(x, y) or len(node.kw["shape"]) != 1 or y.shape[-1] == 0:
        return False
    rows = math.prod(x.shape[:-1])
    made = dict(zip(("y", *node.extras), node.outputs))
    normal = made.get("normal") or low.new((rows, x.shape[-1]), F32)
    scale = made.get("scale") or low.new((rows, 1), F32)
    args = (Ref(x.id), weight, bias)
    low.kernel("layer_norm", args, [y.id, normal, scale], node, eps=float(node.kw["eps"]))
    return True


@rule("backward", "layer_norm")
def _layer_norm_backward(low: Lowering, node: Node) -> bool:
    saved, wanted = node.kw["saved"], node.kw["wanted"]
    g = low.value(node.args[0].id)
    if saved["weight"] is None or tuple(wanted) != (0, 1, 2) or not _plain(g) or len(saved["shape"]) != 1:
        return False
    args = (node.args[0], saved["weight"], saved["normal"], saved["scale"])
    low.kernel("layer_norm_backward", args, node.outputs, node)
    return True


@rule("op", "gelu")
def _gelu(low: Lowering, node: Node) -> bool:
    x, y = low.value(node.args[0].id), low.value(node.outputs[0])
    if not _plain(x, y) or math.prod(x.shape) < SMALL:
        return False
    cdf = node.outputs[1] if node.extras else low.new(x.shape, F32)
    low.kernel("gelu", node.args, [y.id, cdf], node)
    if x.root not in low.mutated:
        low.cdfs[x.id] = Ref(cdf)
    return True


@rule("backward", "gelu")
def _gelu_backward(low: Lowering, node: Node) -> bool:
    saved = node.kw["saved"]
    g, x = low.value(node.args[0].id), low.value(saved["x"].id)
    cdf = saved["cdf"] or low.cdfs.get(x.id)
    if cdf is None or not _plain(g, x) or math.prod(x.shape) < SMALL:
        return False
    low.kernel("gelu_backward", (node.args[0], saved["x"], cdf), node.outputs, node)
    return True


@rule("op", "cross_entropy")
def _cross_entropy(low: Lowering, node: Node) -> bool:
    """The usual case: matrix, int64 classes, mean or sum; with its backward in the same form, or none."""
    x, target = low.value(node.args[0].id), low.value(node.args[1].id)
    kw = node.kw
    usual = node.args[2] is None and not kw["label_smoothing"] and kw["reduction"] in ("mean", "sum")
    if not usual or len(x.shape) != 2 or not _plain(x) or target.dtype != np.int64 or not contiguous(target):
        return False
    made = dict(zip(("y", *node.extras), node.outputs))
    users = [n for n in low.graph.nodes if any(i in n.inputs() for k, i in made.items() if k != "y")]
    if (
        any(n.kind != "backward" or n.op != "cross_entropy" or not low.test(n) for n in users)
        or not x.shape[0]
    ):
        return False
    e = made.get("e") or low.new(x.shape, F32)
    total = made.get("total") or low.new(x.shape[:1], F32)
    count = low.new((), F32)
    low.counts[e] = count
    low.kernel(
        "cross_entropy", (node.args[0], node.args[1]), [made["y"], e, total, count], node,
        ignore=int(kw["ignore_index"]), mean=kw["reduction"] == "mean",
    )  # fmt: skip
    return True


@rule("backward", "cross_entropy")
def _cross_entropy_backward(low: Lowering, node: Node) -> bool:
    saved = node.kw["saved"]
    e = saved["e"]
    if not isinstance(e, Ref) or e.id not in low.counts:
        return False
    args = (node.args[0], saved["target"], e, saved["total"], Ref(low.counts[e.id]))
    low.kernel("cross_entropy_backward", args, node.outputs, node, ignore=int(saved["ignore_index"]))
    return True


@rule("op", "embedding")
def _embedding(low: Lowering, node: Node) -> bool:
    index, weight, y = (low.value(i) for i in (node.args[0].id, node.args[1].id, node.outputs[0]))
    if index.dtype != np.int64 or not _plain(weight, y) or not contiguous(index) or not index.shape:
        return False
    low.kernel("embedding", node.args, node.outputs, node)
    return True


@rule("op", "embedding_adjoint")
def _embedding_adjoint(low: Lowering, node: Node) -> bool:
    g, index = low.value(node.args[0].id), low.value(node.args[1].id)
    if (
        node.kw["padding_idx"] is not None
        or index.dtype != np.int64
        or not _plain(g)
        or not contiguous(index)
    ):
        return False
    low.kernel("embedding_adjoint", node.args, node.outputs, node)
    return True


def _fits(x: Value, w: Value, y: Value, kw: dict[str, Any]) -> bool:
    """Whether this is a convolution of (N, C, ...) by (O, C / groups, ...) to (N, O, ...), as oneDNN computes it."""
    if not 3 <= len(x.shape) <= 5 or not _plain(x, w, y) or 0 in (*x.shape, *y.shape):
        return False
    if min(map(min, kw["padding"])) < 0:
        return False
    numbers = (kw[name] for name in ("stride", "padding", "dilation"))
    places = convolution.sizes(x.shape[2:], w.shape[2:], *numbers)
    channels = x.shape[1] == w.shape[1] * kw["groups"] and y.shape[:2] == (x.shape[0], w.shape[0])
    return channels and places == y.shape[2:]


def _conv_kernel(
    low: Lowering, node: Node, kind: str, args: tuple[Any, ...], x: Value, w: Value, y: Value, add: Any = None
) -> bool:
    """add: a bias that the primitive does not know."""
    own = library.load()
    if own is None or not _fits(x, w, y, node.kw):
        return False
    numbers = tuple(node.kw[name] for name in ("stride", "padding", "dilation", "groups"))
    made = (kind, x.shape, w.shape, y.shape, *numbers, len(args) == 3, own.threads)
    if convolution.runner(*made) is None:
        return False
    low.kernel("conv", args if add is None else (*args, add), node.outputs, node, primitive=made)
    return True


@rule("op", "conv")
def _conv(low: Lowering, node: Node) -> bool:
    args = tuple(low.dense(a, node) for a in node.args if a is not None)
    x, w = (low.value(a.id) for a in args[:2])
    return _conv_kernel(low, node, "forward", args, x, w, low.value(node.outputs[0]))


@rule("op", "conv_input")
def _conv_input(low: Lowering, node: Node) -> bool:
    args = tuple(low.dense(a, node) for a in node.args if a is not None)
    y, w = (low.value(a.id) for a in args[:2])
    return _conv_kernel(low, node, "input", args[:2], low.value(node.outputs[0]), w, y, *args[2:])


@rule("op", "conv_weight")
def _conv_weight(low: Lowering, node: Node) -> bool:
    args = tuple(low.dense(a, node) for a in node.args)
    y, x = (low.value(a.id) for a in args)
    return _conv_kernel(low, node, "weight", args, x, low.value(node.outputs[0]), y)


@rule("array", "moments")
def _moments(low: Lowering, node: Node) -> bool:
    x = low.value(node.args[0].id)
    if not _plain(x) or len(x.shape) < 3 or 0 in x.shape or len(node.outputs) != 2:
        return False
    low.kernel("moments", node.args, node.outputs, node)
    return True


@rule("op", "batch_norm")
def _batch_norm(low: Lowering, node: Node) -> bool:
    x, y = low.value(node.args[0].id), low.value(node.outputs[0])
    moments = node.kw["mean"], node.kw["variance"]
    refs = all(isinstance(a, Ref) for a in (*node.args[1:], *moments)) and len(node.args) == 3
    if (
        not refs
        or not _plain(x, y, *(low.value(a.id) for a in (*node.args[1:], *moments)))
        or len(x.shape) < 3
    ):
        return False
    scale = node.outputs[1] if node.extras else low.new(x.shape[1:2], F32)
    low.kernel("batch_norm", (*node.args, *moments), [y.id, scale], node, eps=float(node.kw["eps"]), act="")
    return True


@rule("backward", "batch_norm")
def _batch_norm_backward(low: Lowering, node: Node) -> bool:
    saved = node.kw["saved"]
    names = ("x", "weight", "mean", "scale")
    if tuple(node.kw["wanted"]) != (0, 1, 2) or not all(isinstance(saved.get(n), Ref) for n in names):
        return False
    g, x = low.value(node.args[0].id), low.value(saved["x"].id)
    if not _plain(g, x) or len(x.shape) < 3:
        return False
    low.kernel("batch_norm_backward", (node.args[0], *(saved[n] for n in names)), node.outputs, node)
    return True


def _pool(low: Lowering, node: Node, *values: Value) -> bool:
    numbers = {k: node.kw[k] for k in ("kernel", "stride", "padding")}
    if not _plain(*values) or len(values[0].shape) != 4 or set(node.kw["dilation"]) != {1}:
        return False
    low.kernel(node.op, node.args, node.outputs, node, **numbers)
    return True


@rule("op", "max_pool")
def _max_pool(low: Lowering, node: Node) -> bool:
    return _pool(low, node, low.value(node.args[0].id), low.value(node.outputs[0]))


@rule("op", "max_pool_adjoint")
def _max_pool_adjoint(low: Lowering, node: Node) -> bool:
    return _pool(low, node, low.value(node.outputs[0]), *(low.value(a.id) for a in node.args))


@rule("op", "scaled_dot_product_attention")
def _attention(low: Lowering, node: Node) -> bool:
    """Without a mask or dropout, for a positive scale (a row's largest score stays its largest)."""
    q, k, v, mask, keep = node.args
    y = low.value(node.outputs[0])
    parts = [low.value(a.id) for a in (q, k, v)]
    shaped = all(len(p.shape) >= 3 and p.dtype == F32 and 0 not in p.shape for p in parts)
    if mask is not None or keep is not None or not shaped or not _plain(y) or node.kw["scale"] <= 0:
        return False
    made = dict(zip(("y", *node.extras), node.outputs))
    scores = (*parts[0].shape[:-1], parts[1].shape[-2])
    e = made.get("e") or low.new(scores, F32)
    total = made.get("total") or low.new((*scores[:-1], 1), F32)
    kw = {"causal": bool(node.kw["causal"]), "scale": float(node.kw["scale"])}
    low.kernel("attention", (q, k, v), [y.id, e, total], node, **kw)
    return True


@rule("backward", "scaled_dot_product_attention")
def _attention_backward(low: Lowering, node: Node) -> bool:
    saved = node.kw["saved"]
    names = ("q", "k", "v", "y", "e", "total")
    usual = saved.get("mask") is None and saved.get("keep") is None and tuple(node.kw["wanted"]) == (0, 1, 2)
    if not usual or not all(isinstance(saved.get(n), Ref) for n in names):
        return False
    y, e = low.value(saved["y"].id), low.value(saved["e"].id)
    outs = [low.value(i) for i in node.outputs]
    if len(y.shape) < 3 or not _plain(y, e) or low.value(node.args[0].id).dtype != F32 or not _plain(*outs):
        return False
    parts = [low.new(y.shape, F32), low.new(e.shape, F32)]
    args = (node.args[0], *(saved[n] for n in names))
    low.kernel("attention_backward", args, [*node.outputs, *parts], node, scale=float(saved["scale"]))
    return True


COMPILED = (  # those that are worth it as compiled kernels alone
    _masked, _layer_norm, _layer_norm_backward, _gelu, _gelu_backward, _cross_entropy, _cross_entropy_backward,
    _embedding_adjoint, _moments, _batch_norm, _batch_norm_backward, _max_pool, _max_pool_adjoint,
    _attention, _attention_backward,
)  # fmt: skip
