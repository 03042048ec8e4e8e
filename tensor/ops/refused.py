"""Dtypes that an op has no kernel for in PyTorch, and is therefore not computed for here: NumPy would, silently.

Read when an op is declared. Kinds are NumPy's: b bool, i and u integers, c complex. They are those of the tensors that
reach the kernel, so after the promotion of the op, if it has any.
"""

from ...autograd.op import refused

KINDS = {
    "b": "abs ceil floor trunc cross",
    "bc": "argkth argmedian argtopk hardtanh median_all relu round threshold",
    "biu": "hypot logaddexp logaddexp2 logcumsumexp rms_norm mean_all nextafter norm2",
    "biuc": "batch_norm frac layer_norm",
    "iu": "unfold_patches",
    "c": "amax amin argcummax argcummin argmax argmin argmode argsort avg_pool clamp deg2rad digamma"
    " elu entr erfc erfcx erfinv fmax fmin ge gt hardsigmoid hardswish huber i0 i0e i1 i1e isneginf isposinf"
    " le leaky_relu lgamma log_ndtr log_softmax logit logsigmoid lt maximum minimum mish mse_loss"
    " ndtr ndtri nll_loss rad2deg sign smooth_l1 softmax softplus softshrink xlog1py xlogy zeta",
}

for _kinds, _names in KINDS.items():
    refused.update(dict.fromkeys(_names.split(), _kinds))
