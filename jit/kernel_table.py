"""The kernels that programs call: how a node of kind `kernel` is written as code.

Each writes into arrays it is given. Matrix products and ufuncs are NumPy's; the rest is compiled by numba (kernels.py)
and used only where that is installed: pip install "ringgrad[fast]".
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from functools import lru_cache
from typing import Any

import numpy as np

from .graph import Node, Ref

Emit = Callable[[Any, Node], None]
table: dict[str, Emit] = {}
F = np.float32


@lru_cache(maxsize=1)
def available() -> bool:
    """Whether compiled kernels can be had."""
    return importlib.util.find_spec("numba") is not None


def compiled() -> Any:
    """The module of compiled kernels."""
    from . import kernels

    return kernels


def kernel(name: str) -> Callable[[Emit], Emit]:
    def enter(emit: Emit) -> Emit:
        table[name] = emit
        return emit

    return enter


def emit(program: Any, node: Node) -> None:
    table[node.op](program, node)


@kernel("ufunc")
def _ufunc(p: Any, node: Node) -> None:
    args = ", ".join(p.expression(a) for a in node.args)
    out = "out=" if node.kw["ufunc"] in ("maximum", "minimum") else ""
    p.line(f"{p.name_of(getattr(np, node.kw['ufunc']))}({args}, {out}{p.out(node.outputs[0])})")


@kernel("relu")
def _relu(p: Any, node: Node) -> None:
    zero = p.name_of(p.graph.values[node.outputs[0]].dtype.type(0))
    p.line(f"{p.name_of(np.maximum)}({p.expression(node.args[0])}, {zero}, out={p.out(node.outputs[0])})")


@kernel("gemm")
def _gemm(p: Any, node: Node) -> None:
    a, b, bias = node.args
    from ..tensor.backend.cpu.gemm import into

    left = p.turned(a) if node.kw["ta"] else p.expression(a)
    right = p.turned(b) if node.kw["tb"] else p.expression(b)
    made = node.outputs[0]
    out = p.out(made)
    relu = node.kw["act"] == "relu"
    y = p.graph.values[made]
    p.line(f"{p.name_of(into)}({left}, {right}, {out})")
    if bias is not None and relu and available() and y.dtype == np.float32 and len(y.shape) == 2:
        p.line(f"{p.name_of(compiled().bias_relu)}({out}, {p.expression(bias)})")
        return
    if bias is not None:
        p.line(f"{p.name_of(np.add)}({out}, {p.expression(bias)}, {out})")
    if relu:
        p.line(f"{p.name_of(np.maximum)}({out}, {p.name_of(y.dtype.type(0))}, out={out})")


@kernel("column_sum")
def _column_sum(p: Any, node: Node) -> None:
    x = p.graph.values[node.args[0].id]
    ones = p.name_of(np.ones(x.shape[0], x.dtype))
    p.line(f"{p.name_of(np.matmul)}({ones}, {p.expression(node.args[0])}, {p.out(node.outputs[0])})")


@kernel("masked")
def _masked(p: Any, node: Node) -> None:
    g, x = map(p.flat, node.args)
    out = p.flat_out(node.outputs[0])
    p.line(f"{p.name_of(compiled().masked)}({g}, {x}, {p.name_of(F(node.kw['threshold']))}, {out})")


@kernel("gelu")
def _gelu(p: Any, node: Node) -> None:
    y, cdf = map(p.flat_out, node.outputs)
    p.line(f"{p.name_of(compiled().gelu)}({p.flat(node.args[0])}, {y}, {cdf})")


@kernel("gelu_backward")
def _gelu_backward(p: Any, node: Node) -> None:
    g, x, cdf = map(p.flat, node.args)
    p.line(f"{p.name_of(compiled().gelu_backward)}({g}, {x}, {cdf}, {p.flat_out(node.outputs[0])})")


@kernel("layer_norm")
def _layer_norm(p: Any, node: Node) -> None:
    x, weight, bias = node.args
    y, normal, scale = node.outputs
    outs = f"{p.rows_out(y)}, {p.out(normal)}, {p.out(scale)}"
    eps = p.name_of(F(node.kw["eps"]))
    given = f"{p.rows(x)}, {p.flat(weight)}, {p.flat(bias)}, {eps}"
    p.line(f"{p.name_of(compiled().layer_norm)}({given}, {outs})")


@kernel("layer_norm_backward")
def _layer_norm_backward(p: Any, node: Node) -> None:
    g, weight, normal, scale = node.args
    dx, dw, db = node.outputs
    given = f"{p.rows(g)}, {p.flat(weight)}, {p.expression(normal)}, {p.expression(scale)}"
    outs = f"{p.rows_out(dx)}, {p.flat_out(dw)}, {p.flat_out(db)}"
    p.line(f"{p.name_of(compiled().layer_norm_backward)}({given}, {outs})")


def _loss(x: Any, target: Any, ignore: int, mean: bool, e: Any, total: Any, count: Any) -> Any:
    loss, n = compiled().cross_entropy(x, target, ignore, e, total)
    if n < 0:
        raise IndexError(
            f"[cross_entropy] class indices must be in [0, {x.shape[1] - 1}] or ignore_index {ignore}, came"
            f" {int(target[-1 - n])}"
        )
    count[()] = n if mean else 1
    return np.array(loss / count if mean else loss, np.float32)


@kernel("cross_entropy")
def _cross_entropy(p: Any, node: Node) -> None:
    x, target = node.args
    y, e, total, count = node.outputs
    outs = f"{p.out(e)}, {p.out(total)}, {p.out(count)}"
    given = f"{p.expression(x)}, {p.flat(target)}, {node.kw['ignore']}, {node.kw['mean']}"
    p.line(f"v{y} = {p.name_of(_loss)}({given}, {outs})")


@kernel("cross_entropy_backward")
def _cross_entropy_backward(p: Any, node: Node) -> None:
    g, target, e, total, count = node.args
    scaled = f"{p.name_of(F)}({p.expression(g)} / {p.expression(count)})"
    given = f"{scaled}, {p.flat(target)}, {node.kw['ignore']}, {p.expression(e)}, {p.expression(total)}"
    call = p.name_of(compiled().cross_entropy_backward)
    p.line(f"{call}({given}, {p.out(node.outputs[0])})")


def _take(index: Any, weight: Any, out: Any) -> None:
    """Rows of weight; an index outside is an error with the op's words."""
    rows = weight.shape[0]
    if index.size and (index.min() < 0 or index.max() >= rows):
        bad = index.min() if index.min() < 0 else index.max()
        raise IndexError(
            f"[embedding] indices must be in [0, {rows - 1}] for a weight of {rows} rows, came {int(bad)}"
        )
    weight.take(index, axis=0, out=out, mode="clip")


@kernel("embedding")
def _embedding(p: Any, node: Node) -> None:
    index, weight = node.args
    p.line(f"{p.name_of(_take)}({p.expression(index)}, {p.expression(weight)}, {p.out(node.outputs[0])})")


@kernel("embedding_adjoint")
def _embedding_adjoint(p: Any, node: Node) -> None:
    g, index = node.args
    made = p.out(node.outputs[0])
    p.line(f"{p.name_of(compiled().add_rows)}({made}, {p.flat(index)}, {p.rows(g)})")


@kernel("attention")
def _attention(p: Any, node: Node) -> None:
    q, k, v = node.args
    y, e, total = node.outputs
    matmul = p.name_of(np.matmul)
    p.line(f"{matmul}({p.expression(q)}, {p.turned(k)}, {p.out(e)})")
    numbers = f"{p.name_of(F(node.kw['scale']))}, {node.kw['causal']}"
    p.line(f"{p.name_of(compiled().attention_weights)}({p.planes(Ref(e))}, {numbers}, {p.flat_out(total)})")
    out = p.out(y)
    p.line(f"{matmul}({p.expression(Ref(e))}, {p.expression(v)}, {out})")
    p.line(f"{p.name_of(np.divide)}({out}, v{total}, {out})")


@kernel("attention_backward")
def _attention_backward(p: Any, node: Node) -> None:
    """With P = e / total and D_i = g_i . y_i: dS = P (g v^T - D), by which the sums are divided out of g first."""
    g, q, k, v, y, e, total = node.args
    dq, dk, dv, scaled, ds = node.outputs
    matmul = p.name_of(np.matmul)
    p.line(f"{p.name_of(np.divide)}({p.expression(g)}, {p.expression(total)}, {p.out(scaled)})")
    p.line(f"{matmul}({p.turned(e)}, v{scaled}, {p.out(dv)})")
    p.line(f"{matmul}(v{scaled}, {p.turned(v)}, {p.out(ds)})")
    rows = ", ".join(map(p.rows, (Ref(ds), e, Ref(scaled), y)))
    p.line(f"{p.name_of(compiled().attention_slopes)}({rows}, {p.name_of(F(node.kw['scale']))})")
    p.line(f"{matmul}(v{ds}, {p.expression(k)}, {p.out(dq)})")
    p.line(f"{matmul}({p.turned(Ref(ds))}, {p.expression(q)}, {p.out(dk)})")


def images() -> Any:
    """The module of compiled kernels on images."""
    from ..tensor.backend.cpu import images as found

    return found


@kernel("moments")
def _moments(p: Any, node: Node) -> None:
    mean, variance = map(p.out, node.outputs)
    p.line(f"{p.name_of(images().moments)}({p.channels(node.args[0])}, {mean}, {variance})")


@kernel("batch_norm")
def _batch_norm(p: Any, node: Node) -> None:
    x, *others = node.args
    y, scale = node.outputs
    rest = ", ".join(map(p.flat, others))
    numbers = f"{p.name_of(F(node.kw['eps']))}, {node.kw['act'] == 'relu'}"
    p.line(
        f"{p.name_of(images().batch_norm)}({p.channels(x)}, {rest}, {numbers}, {p.channels_out(y)}, {p.out(scale)})"
    )


@kernel("batch_norm_backward")
def _batch_norm_backward(p: Any, node: Node) -> None:
    g, x, *others = node.args
    rest = ", ".join(map(p.flat, others))
    dx, dw, db = node.outputs
    outs = f"{p.channels_out(dx)}, {p.out(dw)}, {p.out(db)}"
    p.line(f"{p.name_of(images().batch_norm_backward)}({p.channels(g)}, {p.channels(x)}, {rest}, {outs})")


def _window(node: Node) -> str:
    kw = node.kw
    (top, _), (left, _) = kw["padding"]
    return ", ".join(str(int(n)) for n in (*kw["kernel"], *kw["stride"], top, left))


@kernel("max_pool")
def _max_pool(p: Any, node: Node) -> None:
    x, y = p.planes(node.args[0]), p.planes_out(node.outputs[0])
    p.line(f"{p.name_of(images().max_pool)}({x}, {_window(node)}, {y})")


@kernel("max_pool_adjoint")
def _max_pool_adjoint(p: Any, node: Node) -> None:
    given = ", ".join(map(p.planes, node.args))
    out = p.planes_out(node.outputs[0])
    p.line(f"{p.name_of(images().max_pool_backward)}({given}, {_window(node)}, {out})")


@kernel("conv")
def _conv(p: Any, node: Node) -> None:
    from ..tensor.backend.cpu.convolution import runner

    run = runner(*node.kw["primitive"])
    assert run is not None
    count = 3 if node.kw["primitive"][-2] else 2
    given = ", ".join(p.expression(a) for a in node.args[:count])
    out = p.out(node.outputs[0])
    p.line(f"{p.name_of(run)}({given}, {out})")
    for add in node.args[count:]:
        ones = (-1, *[1] * (len(p.graph.values[node.outputs[0]].shape) - 2))
        p.line(f"{p.name_of(np.add)}({out}, {p.expression(add)}.reshape({ones}), {out})")


@kernel("copy")
def _copy(p: Any, node: Node) -> None:
    p.line(f"copyto({p.out(node.outputs[0])}, {p.expression(node.args[0])})")


@kernel("fused")
def _fused(p: Any, node: Node) -> None:
    from .codegen import fused_kernel

    args = ", ".join(p.flat(a) if p.graph.values[a.id].shape else p.expression(a) for a in node.args)
    p.line(f"{p.name_of(fused_kernel(node.kw['steps']))}({args}, {p.flat_out(node.outputs[0])})")


IN_PLACE = {"ufunc", "relu"}  # may write over an operand; compiled loops run one by one where arrays overlap


def room(node: Node) -> list[int]:
    """The outputs that the kernel writes into arrays it is given."""
    return node.outputs[1:] if node.op == "cross_entropy" else node.outputs


__all__ = ["IN_PLACE", "Ref", "available", "compiled", "emit", "room", "table"]
