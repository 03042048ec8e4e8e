"""The names that PyTorch gives to the nodes of ops: `grad_fn=<SumBackward1>` where the op's own name says less.

A name is text, or found from what the node keeps for backward: the arrays, shapes and keywords of the call.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ...autograd.op import titles


def _shape(saved: Any, name: str) -> tuple[int, ...]:
    """Of an input: the array or its shape is kept, or neither."""
    kept = saved.get(name)
    return saved.get(f"{name}_shape", ()) if kept is None else kept.shape


def _matmul(node: Any, saved: Any) -> str:
    a, b = len(_shape(saved, "a")), len(_shape(saved, "b"))
    return {(2, 2): "Mm", (2, 1): "Mv", (1, 1): "Dot"}.get((a, b), "UnsafeView")


def _linear(node: Any, saved: Any) -> str:
    if len(_shape(saved, "x")) == 2:
        return "Addmm" if len(node.edges) > 2 else "Mm"
    return "View" if len(node.edges) > 2 else "UnsafeView"


def _getitem(node: Any, saved: Any) -> str:
    """Of the last part of the index that does something: each is a view of its own in PyTorch."""
    index = saved["index"]
    for part in reversed(index if isinstance(index, tuple) else (index,)):
        if part is None:
            return "Unsqueeze"
        if isinstance(part, slice) and part != slice(None):
            return "Slice"
        if isinstance(part, int):
            return "Select"
    return "Alias"


def _of_two(node: Any, saved: Any) -> str:
    """Whether the second operand is a number (0) or a tensor (1)."""
    return "1" if node.edges[1] is not None or _shape(saved, "b") else "0"


def _pow(node: Any, saved: Any) -> str:
    if node.edges[0] is None and not _shape(saved, "a"):
        return "2"  # a number to the power of a tensor
    return _of_two(node, saved)


def _clamp(node: Any, saved: Any) -> str:
    return "0" if any(edge is not None for edge in node.edges[1:]) else "1"


def _by_dimensions(start: str, end: str = "") -> Callable[[Any, Any], str]:
    def name(node: Any, saved: Any) -> str:
        dims = len(saved["kernel"])
        return f"{start}{dims}D{end}Backward0" if dims > 1 else "SqueezeBackward1"

    return name


def _nll(node: Any, saved: Any) -> str:
    return "NllLoss2D" if len(_shape(saved, "x")) > 2 else "NllLoss"


def _attention(node: Any, saved: Any) -> str:
    return "ScaledDotProductFlashAttentionForCpu" if len(_shape(saved, "q")) == 4 else "UnsafeView"


RENAMED = """
alias:Alias cast:ToCopy contiguous:Clone conv:Convolution conv_input:Convolution cross:LinalgCross deg2rad:Deg2Rad
diagonal_adjoint:DiagEmbed fold_patches:Col2Im layer_norm:NativeLayerNorm
batch_norm:NativeBatchNorm log1p:Log1P logsigmoid:LogSigmoid narrow:Slice norm2:LinalgVectorNorm pad:ConstantPadNd
rad2deg:Rad2Deg reshape:View square:Pow unfold_patches:Im2Col fft_c2c:FftC2C fft_c2r:FftC2R fft_r2c:FftR2C
cholesky:LinalgCholeskyEx det:LinalgDet eig:LinalgEig eigh:LinalgEigh inv:LinalgInvEx matrix_exp:LinalgMatrixExp
pinv:LinalgPinv qr:LinalgQr slogdet:LinalgSlogdet solve:LinalgSolveEx solve_triangular:LinalgSolveTriangular
svd:LinalgSvd entr:SpecialEntr erfcx:SpecialErfcx i0e:SpecialI0E i1:SpecialI1 i1e:SpecialI1E log_ndtr:SpecialLogNdtr
ndtri:SpecialNdtri xlog1py:SpecialXlog1Py zeta:SpecialZeta index_add_zeros:IndexAdd
"""
for _pair in RENAMED.split():
    _op, _, _name = _pair.partition(":")
    titles[_op] = f"{_name}Backward0"


def _found(find: Callable[[Any, Any], str], form: str = "{}Backward0") -> Callable[[Any, Any], str]:
    return lambda node, saved: form.format(find(node, saved))


titles |= {
    "sum": "SumBackward1",
    "mean": "MeanBackward1",
    "sum_all": "SumBackward0",
    "mean_all": "MeanBackward0",
    "matmul": _found(_matmul),
    "linear": _found(_linear),
    "getitem": _found(_getitem),
    "cross_entropy": _found(_nll),
    "nll_loss": _found(_nll),
    "scaled_dot_product_attention": _found(_attention),
    "clamp": _found(_clamp, "ClampBackward{}"),
    "pow": _found(_pow, "PowBackward{}"),
    "fmod": _found(_of_two, "FmodBackward{}"),
    "remainder": _found(_of_two, "RemainderBackward{}"),
    "median_all": lambda node, saved: "NanmedianBackward0" if saved.get("ignore_nan") else "MedianBackward0",
    "max_pool": _by_dimensions("MaxPool", "WithIndices"),
    "avg_pool": _by_dimensions("AvgPool"),
}
