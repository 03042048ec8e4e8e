"""Functions of this folder as methods of Tensor: which ones, in place and not; rare modules load when first used."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np

from ..autograd.engine import wrap
from ..autograd.inplace import apply_inplace, check_writable
from ..autograd.op import Op, tensor_ops
from . import arranging, elementwise, scattering, sorting, statistics
from . import device as devices
from . import functions as f
from .dtypes import category
from .keywords import SPELLED, public
from .ops import elementwise as _e
from .ops import pointwise as _p

LATE = {
    "linalg": "cholesky_inverse cholesky_solve det inverse=inv logdet matrix_exp matrix_power pinverse slogdet"
    " svd=old_svd qr=old_qr cholesky=old_cholesky eig=old_eig triangular_solve",
    "lu": "lu=old_lu lu_solve=old_lu_solve",
    "special": "lgamma digamma mvlgamma erfinv erfc i0",
    "fft": "stft istft",
    "storage": "untyped_storage storage resize_ resize_as_ set_ share_memory_ apply_ map_",
    "sparse": "to_sparse to_sparse_coo=to_sparse",
    "products": "kron cross",
}


def late(module: str, name: str) -> Callable[..., Any]:
    """A function of a module that is loaded when it is called."""

    def call(*args: Any, **kw: Any) -> Any:
        found = getattr(importlib.import_module(f".{module}", __package__), name)
        return found(*args, **kw)

    call.__name__ = call.__qualname__ = name
    return call


def inplace(op: Any) -> Callable[..., Any]:
    """An op or function of PyTorch's signature as a method that overwrites the tensor."""

    def method(self: Any, *args: Any, **kw: Any) -> Any:
        return apply_inplace(op, self, *args, **kw)

    return method


def overwritten(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function made of several ops as a method that overwrites the tensor with its result."""

    def method(self: Any, *args: Any, **kw: Any) -> Any:
        found = function(self.clone(), *args, **kw)
        if category(found.array.dtype) > category(self.array.dtype):
            raise RuntimeError(
                f"[{function.__name__}_] the result's type {found.dtype} cannot be cast to the tensor's {self.dtype}"
            )
        return self.copy_(found)

    return method


def late_inplace(module: str, name: str) -> Callable[..., Any]:
    """An op of a module of ops that is loaded when the method is called, as one that overwrites the tensor."""

    def method(self: Any) -> Any:
        importlib.import_module(f".ops.{module}", __package__)
        return apply_inplace(tensor_ops[name], self)

    return method


def bound(op: Op) -> Callable[..., Any]:
    """An op as a method: the object itself would be called without the tensor."""

    def method(self: Any, *args: Any, **kw: Any) -> Any:
        return op(self, *args, **kw)

    return method


def reviewed(op: Any) -> Callable[..., Any]:
    """A view op as a method that makes the tensor itself that view: unsqueeze_, t_ and their kin."""

    def method(self: Any, *args: Any, **kw: Any) -> Any:
        check_writable(op.__name__ + "_", self)
        view = op(self, *args, **kw)
        self.array, self._node = view.array, view._node
        if self._base is not None:
            self._replay, self._view_version = view._replay, view._view_version
        return self

    return method


def _listed(module: Any, names: str) -> dict[str, Any]:
    return {name: getattr(module, name) for name in names.split()}


def _squeeze_view(self: Any, dim: Any = None) -> Any:
    return f.squeeze(self, dim)


METHODS: dict[str, Any] = {
    **_listed(
        sorting,
        "sort argsort msort topk kthvalue median nanmedian mode cummax cummin aminmax unique unique_consecutive"
        " bincount histc histogram count_nonzero argwhere quantile nanquantile",
    ),
    **_listed(
        scattering,
        "scatter scatter_ scatter_add scatter_add_ scatter_reduce scatter_reduce_ index_add index_add_ index_copy"
        " index_copy_ index_fill index_fill_ index_reduce index_reduce_ index_put index_put_ masked_scatter"
        " masked_scatter_ take put put_ take_along_dim select_scatter slice_scatter diagonal_scatter"
        " fill_diagonal_ repeat_interleave",
    ),
    **_listed(
        arranging,
        "movedim moveaxis rot90 fliplr flipud ravel adjoint tile tensor_split hsplit vsplit dsplit split_with_sizes"
        " diag_embed diag diagflat trace unfold as_strided sum_to_size",
    ),
    **_listed(
        statistics,
        "nansum nanmean cov corrcoef dist renorm diff logcumsumexp",
    ),
    **_listed(
        elementwise,
        "asinh arcsinh acosh arccosh atanh arctanh deg2rad rad2deg signbit sinc isposinf isneginf isreal fmax fmin"
        " hypot copysign heaviside nextafter gcd lcm logaddexp logaddexp2 xlogy sgn angle frac positive nan_to_num"
        " logit clamp_min clamp_max float_power ldexp frexp baddbmm addbmm addmv addr ger inner vdot is_complex"
        " is_signed is_nonzero is_same_size conj conj_physical resolve_conj resolve_neg",
    ),
    "bitwise_left_shift": _p.lshift,
    "bitwise_right_shift": _p.rshift,
    "fix": f.trunc,
}
for _module, _names in LATE.items():
    for _name in _names.split():
        _public, _, _own = _name.partition("=")
        METHODS[_public] = late(_module, _own or _public)


def _polygamma(self: Any, n: int) -> Any:
    return late("special", "polygamma")(n, self)


METHODS["polygamma"] = _polygamma

# ---- in place

_ONE = "abs acos asin atan ceil cos cosh erf exp exp2 expm1 floor log log10 log1p log2 neg reciprocal round rsqrt"
_ONE += " sigmoid sign sin sinh sqrt square tan tanh trunc"
_MORE = "asinh acosh atanh deg2rad rad2deg sinc frac nan_to_num logit fmax fmin hypot copysign heaviside nextafter"
_MORE += " gcd lcm"
_TWO = (
    "pow atan2 floor_divide remainder fmod bitwise_and bitwise_or bitwise_xor bitwise_not eq ne lt le gt ge"
)
_TWO += " logical_and logical_or logical_xor logical_not xlogy cumsum cumprod tril triu"
_ALIASES = {
    "absolute": "abs",
    "arccos": "acos",
    "arcsin": "asin",
    "arctan": "atan",
    "arctan2": "atan2",
    "arcsinh": "asinh",
    "arccosh": "acosh",
    "arctanh": "atanh",
    "negative": "neg",
    "fix": "trunc",
    "clip": "clamp",
    "greater": "gt",
    "greater_equal": "ge",
    "less": "lt",
    "less_equal": "le",
    "not_equal": "ne",
}
_FUNCTIONS: dict[str, Any] = {
    "addmm": f.addmm,
    "addbmm": elementwise.addbmm,
    "baddbmm": elementwise.baddbmm,
    "addmv": elementwise.addmv,
    "addr": elementwise.addr,
    "clamp_min": elementwise.clamp_min,
    "clamp_max": elementwise.clamp_max,
    "renorm": statistics.renorm,
    "float_power": elementwise.float_power,
    "ldexp": elementwise.ldexp,
    "conj_physical": elementwise.conj,
    "cumsum": f.cumsum,
    "cumprod": f.cumprod,
    "tril": f.tril,
    "triu": f.triu,
    "mvlgamma": late("special", "mvlgamma"),
}
_VIEWS: dict[str, Any] = {
    "unsqueeze": f.unsqueeze,
    "squeeze": _squeeze_view,
    "transpose": f.transpose,
    "swapaxes": f.transpose,
    "swapdims": f.transpose,
    "t": f.t,
}


def _overwriting() -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name in f"{_ONE} {_MORE} {_TWO}".split():
        op = getattr(_p, name, None) or getattr(_e, name, None)
        if name not in _FUNCTIONS:
            assert op is not None, name
            found[name + "_"] = inplace(op)
    for name in ("erfc", "erfinv", "lgamma", "digamma", "i0"):
        found[name + "_"] = late_inplace("special", name)
    found["sgn_"] = inplace(elementwise.sgn)
    for name, function in _FUNCTIONS.items():
        found[name + "_"] = overwritten(function)
    found["clamp_"] = inplace(_p.clamp)
    found["bitwise_left_shift_"], found["bitwise_right_shift_"] = inplace(_p.lshift), inplace(_p.rshift)
    for alias, name in _ALIASES.items():
        found[alias + "_"] = found[name + "_"]
    for name, op in _VIEWS.items():
        found[name + "_"] = reviewed(op)
    return found


def div_(self: Any, other: Any, *, rounding_mode: str | None = None) -> Any:
    """`div` in place."""
    if rounding_mode is None:
        return apply_inplace(_p.div, self, other)
    return self.copy_(f.div(self, other, rounding_mode=rounding_mode))


def round_(self: Any, *, decimals: int = 0) -> Any:
    """`round` in place."""
    return apply_inplace(_p.round, self, decimals=decimals)


# ---- facts


def new(self: Any, *args: Any, **kw: Any) -> Any:
    """PyTorch's older constructor: sizes or data, in this tensor's dtype."""
    from . import creation

    if args and not all(isinstance(a, int) for a in args) and not hasattr(args[0], "numel"):
        return creation.tensor(args[0], dtype=self.dtype)
    if len(args) == 1 and not isinstance(args[0], int):
        data = args[0]
        return (
            creation.empty(*data, dtype=self.dtype)
            if type(data) is type(self.shape)
            else self.new_tensor(data)
        )
    return creation.empty(*args, dtype=self.dtype) if args else creation.empty(0, dtype=self.dtype)


def get_device(self: Any) -> int:
    """-1: the tensor is on the CPU."""
    return -1 if self.device.type == "cpu" else int(self.device.index or 0)


def placed(self: Any, device: Any, non_blocking: bool) -> Any:
    """The tensor on a device; itself where it stands there. Recorded."""
    to = devices.check(device)
    if devices.of(self.array) == to:
        return self
    return tensor_ops["copy_to"](self, device=to, non_blocking=non_blocking)


def is_pinned(self: Any) -> bool:
    if not isinstance(self.array, np.ndarray) or not _gpu_in_use():
        return False
    from .backend.cuda import transfer

    return transfer.is_pinned(self.array)


def pin_memory(self: Any) -> Any:
    if not isinstance(self.array, np.ndarray):
        raise RuntimeError(f"[pin_memory] the tensor must be on the CPU, came {self.device}")
    if not _gpu_in_use():
        return self
    from .backend.cuda import transfer

    return wrap(transfer.pin(self.array))


def _gpu_in_use() -> bool:
    """Whether pinning has a use: a GPU backend is loaded, or can be."""
    from .backend.cuda import runtime

    return runtime.loaded() or runtime.device_count() > 0


def record_stream(self: Any, stream: Any) -> None:
    if isinstance(self.array, np.ndarray):
        raise RuntimeError("[record_stream] the tensor must be on a CUDA device, came cpu")
    from .backend.cuda import streams

    streams.record(self.array, stream)


def to_dense(self: Any, dtype: Any = None, **_: Any) -> Any:
    """The tensor itself, which is dense."""
    return self if dtype is None else f.cast(self, dtype)


def is_set_to(self: Any, tensor: Any) -> bool:
    """Whether both look at the same memory in the same way."""
    a, b = self.array, tensor.array
    return self.data_ptr() == tensor.data_ptr() and a.shape == b.shape and a.strides == b.strides


def cfloat(self: Any) -> Any:
    """In complex64."""
    return f.cast(self, "complex64")


def cdouble(self: Any) -> Any:
    """In complex128."""
    return f.cast(self, "complex128")


def new_empty_strided(self: Any, size: Any, stride: Any, dtype: Any = None, **kw: Any) -> Any:
    """A tensor of undefined content with the given steps between elements, in this dtype."""
    return late("storage", "empty_strided")(size, stride, dtype=dtype or self.dtype, **kw)


def _set_real(self: Any, value: Any) -> None:
    elementwise.real(self).copy_(value)


def _set_imag(self: Any, value: Any) -> None:
    elementwise.imag(self).copy_(value)


def _false(self: Any) -> bool:
    return False


METHODS.update(_overwriting())
METHODS.update(
    div_=div_,
    divide_=div_,
    true_divide_=div_,
    round_=round_,
    new=new,
    get_device=get_device,
    to_dense=to_dense,
    is_set_to=is_set_to,
    cfloat=cfloat,
    cdouble=cdouble,
    new_empty_strided=new_empty_strided,
    is_conj=_false,
    is_neg=_false,
    is_inference=_false,
    is_distributed=_false,
    is_coalesced=_false,
    prelu=lambda self, weight: tensor_ops["prelu"](self, weight),
    moveaxis=arranging.movedim,
    real=property(elementwise.real, _set_real),
    imag=property(elementwise.imag, _set_imag),
    H=property(arranging.adjoint),
    mH=property(arranging.adjoint),
    is_cpu=property(lambda self: self.device.type == "cpu"),
)
INPLACE_ARITHMETIC = {"multiply_": "mul_", "subtract_": "sub_"}


def expose(cls: Any) -> None:
    """Gives the class all methods listed here that it does not define itself."""
    for name, method in METHODS.items():
        if name not in cls.__dict__:
            setattr(cls, name, method)
    for name, found in list(cls.__dict__.items()):
        if isinstance(found, Op):
            setattr(cls, name, bound(found))
    for alias, name in INPLACE_ARITHMETIC.items():
        setattr(cls, alias, cls.__dict__[name])
    for name in SPELLED.split():
        if name in cls.__dict__:
            setattr(cls, name, public(cls.__dict__[name], axis=True))
