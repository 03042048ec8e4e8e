"""Which functions of this folder are public as `ringgrad.<name>`, and where they stand.

EAGER modules are loaded with the package; of these, what is defined there is public. LATE ones are loaded when a
name of theirs is first used: `name=other` is the function `other` of that module.
"""

from __future__ import annotations

from types import FunctionType
from typing import Any

from . import arranging, elementwise, products, scattering, sorting, statistics
from .keywords import SPELLED, WITH_OUT, public

EAGER = (arranging, elementwise, products, scattering, sorting, statistics)
ALIASES = {
    "elementwise": "asinh arcsinh acosh arccosh atanh arctanh deg2rad rad2deg signbit sinc isposinf isneginf isreal"
    " fmax fmin hypot copysign heaviside nextafter gcd lcm logaddexp logaddexp2 xlogy sgn angle ger"
}
PRIVATE = {
    "sum_to_size",
    "unfold",
    "multi_dot",
    "parse_equation",
    "AMinMax",
    "Histogram",
    "put_",
    "fill_diagonal_",
}
LATE = {
    "tensor.linalg": "cholesky_inverse cholesky_solve det inverse=inv logdet matrix_exp matrix_power matrix_rank"
    " pinverse slogdet svd=old_svd qr=old_qr cholesky=old_cholesky eig=old_eig lstsq triangular_solve",
    "tensor.lu": "lu=old_lu lu_unpack lu_solve=old_lu_solve",
    "tensor.special": "lgamma digamma polygamma mvlgamma erfinv erfc i0",
    "tensor.fft": "stft istft hann_window hamming_window blackman_window bartlett_window kaiser_window",
    "tensor.settings": "finfo iinfo is_tensor is_storage typename promote_types result_type can_cast"
    " set_default_tensor_type set_default_device get_default_device set_float32_matmul_precision"
    " get_float32_matmul_precision use_deterministic_algorithms are_deterministic_algorithms_enabled"
    " is_deterministic_algorithms_warn_only_enabled set_deterministic_debug_mode get_deterministic_debug_mode"
    " set_warn_always is_warn_always_enabled set_flush_denormal _assert is_autocast_enabled is_autocast_cpu_enabled"
    " get_autocast_dtype get_autocast_cpu_dtype get_autocast_gpu_dtype get_num_threads set_num_threads"
    " get_num_interop_threads set_num_interop_threads memory_format contiguous_format preserve_format channels_last"
    " channels_last_3d layout strided sparse_coo OutOfMemoryError",
    "tensor.storage": "UntypedStorage TypedStorage empty_strided scalar_tensor range",
    "tensor.sparse": "sparse_coo_tensor spmm",
    "nn.functional": "adaptive_avg_pool1d avg_pool1d bilinear binary_cross_entropy_with_logits celu conv1d conv2d"
    " conv3d conv_transpose1d conv_transpose2d conv_transpose3d cosine_embedding_loss"
    " cosine_similarity ctc_loss dropout alpha_dropout embedding embedding_bag group_norm"
    " instance_norm layer_norm batch_norm kl_div max_pool1d max_pool2d max_pool3d"
    " pairwise_distance pixel_shuffle pixel_unshuffle prelu rms_norm rrelu selu threshold"
    " hardshrink triplet_margin_loss hinge_embedding_loss margin_ranking_loss poisson_nll_loss"
    " channel_shuffle grid_sampler=grid_sample",
}
IN_PLACE = (
    "abs acos acosh arccos arccosh arcsin arcsinh arctan arctanh asin asinh atan atanh ceil clamp"
    " clamp_max clamp_min clip cos cosh deg2rad erf erfc exp exp2 expm1 fill floor frac log log10 log1p"
    " log2 logit nan_to_num neg negative rad2deg reciprocal relu resize_as round rsqrt sigmoid sin sinc"
    " sinh sqrt square tan tanh trunc xlogy zero ldexp gcd lcm addmv detach index_put"
)
FOREACH = (
    "abs acos asin atan ceil cos cosh erf erfc exp expm1 floor frac lgamma log log10 log1p log2 neg reciprocal round"
    " rsqrt sigmoid sign sin sinh sqrt tan tanh trunc add sub mul div pow maximum minimum clamp_min clamp_max addcmul"
    " addcdiv lerp"
)


def contents() -> dict[str, Any]:
    """Names and functions of the EAGER modules."""
    found: dict[str, Any] = {}
    for module in EAGER:
        for name, value in vars(module).items():
            own = getattr(value, "__module__", "") == module.__name__ and callable(value)
            if own and name[0] != "_" and name[-1] != "_" and name not in PRIVATE:
                found[name] = value
        short = module.__name__.rsplit(".", 1)[-1]
        for name in ALIASES.get(short, "").split():
            found[name] = getattr(module, name)
    return found


def with_keywords(found: dict[str, Any]) -> dict[str, Any]:
    """The same functions, those of `keywords` also with `axis`, `keepdims` and `out`."""
    axis, out = set(SPELLED.split()), set(WITH_OUT.split())
    for name, function in found.items():
        if name in axis or name in out or isinstance(function, FunctionType):
            found[name] = public(function, name in axis, name in out)
    return found


def late() -> dict[str, tuple[str, str]]:
    """Public name: (module, name there)."""
    found: dict[str, tuple[str, str]] = {}
    for module, names in LATE.items():
        for entry in names.split():
            public, _, own = entry.partition("=")
            found[public] = (module, own or public)
    for name in ["norm", "copy_", "zero_", *FOREACH.split(), *(f"{name}_" for name in FOREACH.split())]:
        found[f"_foreach_{name}"] = ("tensor.foreach", f"_foreach_{name}")
    return found


def in_place(cls: Any) -> dict[str, Any]:
    """PyTorch's functions that write into their first argument: methods called as functions."""
    methods = {name + "_": cls.__dict__.get(name + "_") for name in IN_PLACE.split()}
    found = {name: public(method) for name, method in methods.items() if method is not None}
    for name, function in found.items():
        function.__name__ = name
    return found


__all__ = ["contents", "in_place", "late", "with_keywords"]
