"""Mixed precision: `autocast` chooses the dtype of ops, `GradScaler` keeps small gradients from vanishing.

Within autocast matrix products, convolutions and attention take 16-bit inputs, losses take float32, the rest what
it is given: PyTorch's lists for the CPU. The casts are ops that autograd records, so gradients arrive in the
parameters' own dtype.
"""

from __future__ import annotations

import threading
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterable
from functools import lru_cache, partial, wraps
from typing import Any

import numpy as np

from .autograd.engine import Variable, wrap
from .autograd.op import registry, tensor_ops
from .tensor import dtypes
from .tensor.dtypes import F32, F64, dtype

LOW = (
    "conv",
    "linear",
    "lstm",
    "matmul",
    "scaled_dot_product_attention",
)  # and what begins with one of these
FULL = (
    "bce_with_logits",
    "binary_cross_entropy",
    "cross_entropy",
    "huber",
    "mse_loss",
    "nll_loss",
    "prod",
    "smooth_l1",
)
FULL_ON_CUDA = ("layer_norm", "log_softmax", "rms_norm", "softmax")  # PyTorch's list for GPUs is longer
DEVICES = ("cpu", "cuda")


class State(threading.local):
    """What autocast is set to in this thread."""

    def __init__(self) -> None:
        self.enabled = dict.fromkeys(DEVICES, False)
        self.dtype = {"cpu": dtypes.bfloat16, "cuda": dtypes.float16}
        self.cache_enabled = True
        self.depth = 0
        self.cache: dict[Any, tuple[int, Any]] = {}  # a parameter's cast: used by all ops, so cast once


state = State()


def _check_device(device_type: Any) -> str:
    if not isinstance(device_type, str):
        raise ValueError(f"[autocast] device_type must be a string, came {type(device_type).__name__}")
    name = device_type.partition(":")[0]
    if name not in DEVICES:
        raise RuntimeError(
            f"[autocast] device_type must be one of {', '.join(DEVICES)}, came {device_type!r}"
        )
    return name


# ---- the casts: they stand in the `prepare` of the ops concerned, and only while somebody is within autocast


def cast(t: Any, target: np.dtype[Any]) -> Any:
    """A floating tensor in the target dtype; float64 and everything else as it is."""
    if not isinstance(t, Variable):
        return t
    array = t.array
    if array.dtype == target or array.dtype == F64 or not t.is_floating_point():
        return t
    keep = state.cache_enabled and t._needs and t._node is None and target != F32
    if keep and t in state.cache and state.cache[t][0] == t._version[0]:
        return state.cache[t][1]
    made = tensor_ops["cast"](t, dtype=target)
    if keep and made._node is not None:
        state.cache[t] = t._version[0], made
    return made


def _casting(prepare: Callable[..., Any] | None, full: bool, only: str | None) -> Callable[..., Any]:
    def prepared(*args: Any, **kw: Any) -> Any:
        device = _device_of(args)
        if state.enabled[device] and only in (None, device):
            target = F32 if full else state.dtype[device].numpy
            args = tuple(cast(a, target) for a in args)
        return (args, kw) if prepare is None else prepare(*args, **kw)

    return prepared


def _device_of(args: tuple[Any, ...]) -> str:
    """Where an op's first tensor is."""
    first = next((a for a in args if isinstance(a, Variable)), None)
    return "cpu" if first is None or isinstance(first.array, np.ndarray) else "cuda"


@lru_cache(maxsize=1)
def _concerned(ops: int) -> list[tuple[Any, bool, str | None]]:
    """(op, whether its inputs become float32, the only device) of those that cast; ops: how many are known."""
    found = []
    for name, op in registry.items():
        on_cuda = name in FULL_ON_CUDA
        if name.startswith(LOW) or name in FULL or on_cuda:
            found.append((op, on_cuda or name in FULL, "cuda" if on_cuda else None))
    return found


class Casts:
    """Puts the casts in place for the first one who needs them, and takes them away after the last."""

    def __init__(self) -> None:
        self.lock, self.users = threading.Lock(), 0
        self.before: dict[Any, Any] = {}

    def begin(self) -> None:
        with self.lock:
            self.users += 1
            if self.users == 1:
                for op, full, only in _concerned(len(registry)):
                    self.before[op] = op.prepare
                    op.prepare = _casting(op.prepare, full, only)

    def end(self) -> None:
        with self.lock:
            self.users -= 1
            if self.users == 0:
                for op, prepare in self.before.items():
                    op.prepare = prepare
                self.before.clear()


casts = Casts()


class autocast:
    """Context manager and decorator within which ops choose their dtype; see this module's head.

    dtype: bfloat16 (the default on a CPU) or float16. Nothing of it outlives the block but the results' dtypes.
    """

    def __init__(
        self,
        device_type: str,
        dtype: dtype | None = None,
        enabled: bool = True,
        cache_enabled: bool | None = None,
    ) -> None:
        self.device = _check_device(device_type)
        self.fast_dtype = state.dtype[self.device] if dtype is None else dtype
        self._cache_enabled = state.cache_enabled if cache_enabled is None else cache_enabled
        self._before: list[Any] = []
        if enabled and self.device == "cuda" and not _cuda():
            warnings.warn(
                "[autocast] no GPU can be used by this process: autocast('cuda') is off", stacklevel=2
            )
            enabled = False
        if enabled and self.fast_dtype not in (dtypes.bfloat16, dtypes.float16):
            warnings.warn(
                f"[autocast] dtype must be bfloat16 or float16, came {self.fast_dtype}: autocast is off",
                stacklevel=2,
            )
            enabled = False
        self._enabled = enabled

    def __enter__(self) -> autocast:
        self._before.append((state.enabled[self.device], state.dtype[self.device], state.cache_enabled))
        state.enabled[self.device], state.dtype[self.device] = self._enabled, self.fast_dtype
        state.cache_enabled = self._cache_enabled
        state.depth += 1
        if self._enabled:
            casts.begin()
        return self

    def __exit__(self, *_: Any) -> None:
        if self._enabled:
            casts.end()
        state.depth -= 1
        if state.depth == 0:
            state.cache.clear()
        state.enabled[self.device], state.dtype[self.device], state.cache_enabled = self._before.pop()

    def __call__(self, fn: Callable[..., Any]) -> Callable[..., Any]:
        if not callable(fn):
            raise TypeError(f"[autocast] as a decorator it needs a function, came {type(fn).__name__}")

        @wraps(fn)
        def wrapped(*args: Any, **kw: Any) -> Any:
            with self:
                return fn(*args, **kw)

        return wrapped


def _cuda() -> bool:
    from . import cuda

    return cuda.is_available()


def is_autocast_available(device_type: str) -> bool:
    """Whether autocast knows this kind of device."""
    return device_type in DEVICES


def is_autocast_enabled(device_type: str = "cuda") -> bool:
    """Whether this thread is within autocast for a device."""
    return state.enabled[_check_device(device_type)]


def get_autocast_dtype(device_type: str) -> dtype:
    """The dtype that autocast chooses on a device."""
    return state.dtype[_check_device(device_type)]


def is_autocast_cache_enabled() -> bool:
    """Whether a parameter's cast is kept until the end of autocast."""
    return state.cache_enabled


def set_autocast_dtype(device_type: str, dtype: dtype) -> None:
    """Sets the dtype that autocast chooses on a device from now on."""
    state.dtype[_check_device(device_type)] = dtype


def set_autocast_cache_enabled(enabled: bool) -> None:
    """Sets whether a parameter's cast is kept until the end of autocast."""
    state.cache_enabled = enabled


def clear_autocast_cache() -> None:
    """Forgets the casts of parameters."""
    state.cache.clear()


# ---- for autograd.Function


def _cast_all(value: Any, target: np.dtype[Any]) -> Any:
    if isinstance(value, dict):
        return {k: _cast_all(v, target) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return type(value)(_cast_all(v, target) for v in value)
    return cast(value, target)


def custom_fwd(
    fwd: Callable[..., Any] | None = None, *, device_type: str = "cuda", cast_inputs: dtype | None = None
) -> Any:
    """Decorates a Function's forward: under autocast its inputs come in `cast_inputs`, and it runs without autocast."""
    if fwd is None:
        return partial(custom_fwd, device_type=device_type, cast_inputs=cast_inputs)
    name = _check_device(device_type)

    @wraps(fwd)
    def wrapped(ctx: Any, *args: Any, **kw: Any) -> Any:
        ctx._dtype, inside = state.dtype[name], state.enabled[name]
        ctx._fwd_used_autocast = inside and cast_inputs is None
        if cast_inputs is None or not inside:
            return fwd(ctx, *args, **kw)
        with autocast(name, enabled=False):
            return fwd(ctx, *_cast_all(args, cast_inputs.numpy), **_cast_all(kw, cast_inputs.numpy))

    return wrapped


def custom_bwd(bwd: Callable[..., Any] | None = None, *, device_type: str = "cuda") -> Any:
    """Decorates a Function's backward: it runs under the autocast that its forward had."""
    if bwd is None:
        return partial(custom_bwd, device_type=device_type)
    name = _check_device(device_type)

    @wraps(bwd)
    def wrapped(ctx: Any, *args: Any, **kw: Any) -> Any:
        with autocast(name, dtype=ctx._dtype, enabled=ctx._fwd_used_autocast):
            return bwd(ctx, *args, **kw)

    return wrapped


# ---- GradScaler


def _fresh() -> dict[str, Any]:
    return {"stage": "ready", "found_inf_per_device": {}}


class GradScaler:
    """Multiplies the loss so that float16 gradients do not vanish, and skips steps whose gradients overflowed.

    scaler.scale(loss).backward(); scaler.step(optimizer); scaler.update(). The scale grows by growth_factor after
    growth_interval good steps and shrinks by backoff_factor after a bad one (Micikevicius et al. 2018).
    With device "cuda" and no GPU it warns, and then passes everything through.
    """

    def __init__(
        self,
        device: str = "cuda",
        init_scale: float = 2.0**16,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
        enabled: bool = True,
    ) -> None:
        self._device, self._enabled = device, enabled
        if enabled and device == "cuda" and not _cuda():
            warnings.warn("[GradScaler] no GPU can be used by this process: the scaler is off", stacklevel=2)
            self._enabled = False
        if not self._enabled:
            return
        if growth_factor <= 1.0:
            raise ValueError(f"[GradScaler] growth_factor must be above 1, came {growth_factor}")
        if backoff_factor >= 1.0:
            raise ValueError(f"[GradScaler] backoff_factor must be below 1, came {backoff_factor}")
        self._init_scale, self._init_growth_tracker = init_scale, 0
        self._growth_factor, self._backoff_factor = growth_factor, backoff_factor
        self._growth_interval = growth_interval
        self._scale: Any = None  # made by the first scale(): a 0-d float32 tensor
        self._growth_tracker: Any = None
        self._per_optimizer_states: dict[int, dict[str, Any]] = defaultdict(_fresh)

    def _begun(self, name: str) -> None:
        if self._scale is None:
            raise RuntimeError(f"[GradScaler] {name}() must come after scale(loss), came before")

    def scale(self, outputs: Any) -> Any:
        """A tensor, or tensors in nested sequences, times the scale."""
        if not self._enabled:
            return outputs
        if self._scale is None:
            self._scale = wrap(np.array(self._init_scale, np.float32))
            self._growth_tracker = wrap(np.array(self._init_growth_tracker, np.int32))
        if isinstance(outputs, Variable):
            return outputs * self._scale
        if not isinstance(outputs, Iterable):
            raise ValueError(
                f"[GradScaler] scale needs a tensor or an iterable of them, came {type(outputs).__name__}"
            )
        scaled = map(self.scale, outputs)
        return type(outputs)(scaled) if isinstance(outputs, list | tuple) else scaled

    def unscale_(self, optimizer: Any) -> None:
        """Divides the gradients by the scale, to clip them for example; `step` does it otherwise."""
        if not self._enabled:
            return
        self._begun("unscale_")
        held = self._per_optimizer_states[id(optimizer)]
        if held["stage"] == "unscaled":
            raise RuntimeError(
                "[GradScaler] unscale_() was already called for this optimizer since the last update()"
            )
        if held["stage"] == "stepped":
            raise RuntimeError("[GradScaler] unscale_() must come before step(), came after")
        inverse = np.float32(1.0 / float(self._scale.array))
        held["found_inf_per_device"] = self._unscale(optimizer, inverse)
        held["stage"] = "unscaled"

    def _unscale(self, optimizer: Any, inverse: Any) -> dict[str, Any]:
        overflowed, seen = False, False
        on_gpu: Any = None  # whether all is finite there; the host looks once
        for group in optimizer.param_groups:
            for p in group["params"]:
                grad = p._grad
                if grad is None:
                    continue
                g = grad.array
                if g.dtype == np.float16:
                    raise ValueError(
                        "[GradScaler] gradients to unscale must not be float16: keep the parameters in float32 and"
                        " run the model within autocast"
                    )
                seen = True
                if isinstance(g, np.ndarray):
                    overflowed = overflowed or not np.isfinite(g).all()
                else:
                    finite = (g - g == 0).all()
                    on_gpu = finite if on_gpu is None else on_gpu & finite
                g *= g.dtype.type(inverse)
                grad._version[0] += 1
        overflowed = overflowed or (on_gpu is not None and not bool(on_gpu))
        return {self._device: wrap(np.array(overflowed, np.float32))} if seen else {}

    def step(self, optimizer: Any, *args: Any, **kw: Any) -> Any:
        """Calls optimizer.step(), unless a gradient is infinite or NaN; returns what it returns."""
        if not self._enabled:
            return optimizer.step(*args, **kw)
        if "closure" in kw:
            raise RuntimeError(
                "[GradScaler] step() cannot take a closure: call the model before, then step(optimizer)"
            )
        self._begun("step")
        held = self._per_optimizer_states[id(optimizer)]
        if held["stage"] == "stepped":
            raise RuntimeError(
                "[GradScaler] step() was already called for this optimizer since the last update()"
            )
        if held["stage"] == "ready":
            self.unscale_(optimizer)
        if not held["found_inf_per_device"]:
            raise RuntimeError("[GradScaler] the optimizer must have parameters with gradients, came none")
        overflowed = any(float(t.array) for t in held["found_inf_per_device"].values())
        result = None if overflowed else optimizer.step(*args, **kw)
        held["stage"] = "stepped"
        return result

    def update(self, new_scale: Any = None) -> None:
        """Sets the scale for the next iteration: by what was found in this one, or to new_scale."""
        if not self._enabled:
            return
        self._begun("update")
        if new_scale is not None:
            self._scale.array[...] = new_scale.item() if isinstance(new_scale, Variable) else new_scale
        else:
            found = [
                t
                for held in self._per_optimizer_states.values()
                for t in held["found_inf_per_device"].values()
            ]
            if not found:
                raise RuntimeError(
                    "[GradScaler] update() must come after step(optimizer) or unscale_(), came before"
                )
            self._adapt(any(float(t.array) for t in found))
        self._per_optimizer_states = defaultdict(_fresh)

    def _adapt(self, overflowed: bool) -> None:
        scale, good = self._scale.array, self._growth_tracker.array
        if overflowed:
            scale *= np.float32(self._backoff_factor)
            good[...] = 0
            return
        good += 1
        if good == self._growth_interval:
            grown = scale * np.float32(self._growth_factor)
            if np.isfinite(grown):
                scale[...] = grown
            good[...] = 0

    def get_scale(self) -> float:
        """The scale, 1 when the scaler is off."""
        if not self._enabled:
            return 1.0
        return float(self._init_scale if self._scale is None else self._scale.array)

    def get_growth_factor(self) -> float:
        return self._growth_factor

    def set_growth_factor(self, new_factor: float) -> None:
        self._growth_factor = new_factor

    def get_backoff_factor(self) -> float:
        return self._backoff_factor

    def set_backoff_factor(self, new_factor: float) -> None:
        self._backoff_factor = new_factor

    def get_growth_interval(self) -> int:
        return self._growth_interval

    def set_growth_interval(self, new_interval: int) -> None:
        self._growth_interval = new_interval

    def _get_growth_tracker(self) -> int:
        if not self._enabled:
            return 0
        return int(self._init_growth_tracker if self._growth_tracker is None else self._growth_tracker.array)

    def is_enabled(self) -> bool:
        return self._enabled

    def state_dict(self) -> dict[str, Any]:
        """The scale and how it moves; empty when the scaler is off."""
        if not self._enabled:
            return {}
        return {
            "scale": self.get_scale(),
            "growth_factor": self._growth_factor,
            "backoff_factor": self._backoff_factor,
            "growth_interval": self._growth_interval,
            "_growth_tracker": self._get_growth_tracker(),
        }

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Takes over a state_dict() of a scaler that was on."""
        if not self._enabled:
            return
        if not state_dict:
            raise RuntimeError("[GradScaler] the state must be of a scaler that was on, came an empty one")
        self._init_scale, self._init_growth_tracker = state_dict["scale"], state_dict["_growth_tracker"]
        self._growth_factor, self._backoff_factor = state_dict["growth_factor"], state_dict["backoff_factor"]
        self._growth_interval = state_dict["growth_interval"]
        if self._scale is not None:
            self._scale.array[...] = self._init_scale
            self._growth_tracker.array[...] = self._init_growth_tracker


# ---- under the names of `cuda.amp`


class CudaGradScaler(GradScaler):
    """GradScaler for "cuda", its arguments without the device."""

    def __init__(
        self,
        init_scale: float = 2.0**16,
        growth_factor: float = 2.0,
        backoff_factor: float = 0.5,
        growth_interval: int = 2000,
        enabled: bool = True,
    ) -> None:
        super().__init__("cuda", init_scale, growth_factor, backoff_factor, growth_interval, enabled)


class CudaAutocast(autocast):
    """autocast for "cuda", its arguments without the device."""

    def __init__(
        self, enabled: bool = True, dtype: dtype = dtypes.float16, cache_enabled: bool = True
    ) -> None:
        super().__init__("cuda", dtype, enabled, cache_enabled)


__all__ = [
    "GradScaler",
    "autocast",
    "custom_bwd",
    "custom_fwd",
    "is_autocast_available",
]
