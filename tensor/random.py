"""Random tensors. With the same seed the numbers are PyTorch's (docs/parity.md)."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from ..autograd.engine import Variable, array_namespace, wrap
from . import device as devices
from . import generator as _g
from .creation import finish, size_of
from .dtypes import I64, default_float, to_numpy
from .generator import Generator
from .ops import pointwise as _p
from .ops.dropout import as_drawn, in_memory_order


def _of(generator: Any, device: Any = None) -> Any:
    """The generator to draw with: the one given, else that of the device (None: the default device)."""
    if generator is not None:
        return generator
    place = devices.check(device)
    return _g.default_generator if place is devices.cpu else _gpu(place.index)


def _gpu(index: int | None) -> Any:
    from .backend.cuda import random

    return random.default(index)


def default_generator(tensor: Any) -> Any:
    """The generator of the device that a tensor is on."""
    return _g.default_generator if isinstance(tensor.array, np.ndarray) else _gpu(tensor.device.index)


def _float(dtype: Any) -> Any:
    return default_float() if dtype is None else to_numpy(dtype)


def rand(
    *size: Any,
    generator: Generator | None = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    **others: Any,
) -> Any:
    """Uniform numbers in [0, 1)."""
    return finish(
        _of(generator, device).uniform(size_of("rand", size, others), dtype=_float(dtype)),
        requires_grad,
        device,
    )


def randn(
    *size: Any,
    generator: Generator | None = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    **others: Any,
) -> Any:
    """Normal numbers of mean 0 and variance 1."""
    return finish(
        _of(generator, device).normal(size_of("randn", size, others), dtype=_float(dtype)),
        requires_grad,
        device,
    )


def randint(
    low: Any = None,
    high: Any = None,
    size: Any = None,
    *,
    generator: Generator | None = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
) -> Any:
    """Integers in [low, high): `randint(high, size)` or `randint(low, high, size)`."""
    if size is None:
        low, high, size = 0, low, high
    elif low is None or high is None:
        low, high = 0, low if high is None else high
    if high is None or size is None:
        raise TypeError(f"[randint] must be given the upper end and a size, came high={high}, size={size}")
    n = I64 if dtype is None else to_numpy(dtype)
    return finish(
        _of(generator, device).randint(low, high, size_of("randint", (size,)), dtype=n), requires_grad, device
    )


def randperm(
    n: int, *, generator: Generator | None = None, dtype: Any = None, device: Any = None, **_: Any
) -> Any:
    """A random order of 0 ... n-1."""
    return finish(
        _of(generator, device).randperm(n, dtype=I64 if dtype is None else to_numpy(dtype)), False, device
    )


def rand_like(
    input: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False, **_: Any
) -> Any:
    """Uniform numbers in [0, 1) of the input's shape, drawn in the order of its memory."""
    shape, placed = in_memory_order(input.array)
    drawn = default_generator(input).uniform(shape, dtype=to_numpy(dtype or input.dtype))
    return finish(placed(drawn), requires_grad, device or input.device)


def randn_like(
    input: Any, *, dtype: Any = None, device: Any = None, requires_grad: bool = False, **_: Any
) -> Any:
    """Normal numbers of the input's shape, drawn in the order of its memory."""
    shape, placed = in_memory_order(input.array)
    one_by_one = placed is not as_drawn
    drawn = default_generator(input).normal(
        shape, dtype=to_numpy(dtype or input.dtype), one_by_one=one_by_one
    )
    return finish(placed(drawn), requires_grad, device or input.device)


def randint_like(
    input: Any, low: int, high: Any = None, *, dtype: Any = None, device: Any = None, **_: Any
) -> Any:
    """Integers in [0, low) or [low, high) of the input's shape, drawn in the order of its memory."""
    low, high = (0, low) if high is None else (low, high)
    shape, placed = in_memory_order(input.array)
    drawn = default_generator(input).randint(low, high, shape, dtype=to_numpy(dtype or input.dtype))
    return finish(placed(drawn), False, device or input.device)


def normal(
    mean: Any, std: Any = 1.0, size: Any = None, *, generator: Generator | None = None, dtype: Any = None
) -> Any:
    """Normal numbers with the given mean and standard deviation, each a number or a tensor."""
    if size is not None:
        return wrap(_of(generator).normal(size_of("normal", (size,)), mean, std, dtype=_float(dtype)))
    if isinstance(std, Variable):
        shape = np.broadcast_shapes(std.array.shape, mean.array.shape if isinstance(mean, Variable) else ())
        drawn = wrap(_of(generator, std.device).normal(shape, dtype=std.array.dtype))
        return _p.add(_p.mul(drawn, std), mean)
    drawn = _of(generator, mean.device).normal(mean.array.shape, 0.0, std, dtype=mean.array.dtype)
    return _p.add(wrap(drawn), mean)


def bernoulli(input: Any, p: Any = None, *, generator: Generator | None = None) -> Any:
    """0 or 1 in the input's dtype: 1 with the probability that each element names (or `p` for all)."""
    if p is not None:
        drawn = _of(generator, input.device).bernoulli(p, input.array.shape, dtype=input.array.dtype)
        return wrap(drawn)
    return wrap(_of(generator, input.device).bernoulli(input.array))


def multinomial(
    input: Any, num_samples: int, replacement: bool = False, *, generator: Generator | None = None
) -> Any:
    """Indices drawn by the weights in each row."""
    from .generator_sampling import multinomial as draw

    if input.is_cuda:  # the host draws
        return multinomial(input.cpu(), num_samples, replacement, generator=generator).to(input.device)
    return wrap(draw(_of(generator), input.array, num_samples, replacement))


def poisson(input: Any, generator: Generator | None = None) -> Any:
    """Poisson numbers of the given rates."""
    from .generator_sampling import poisson as draw

    if input.is_cuda:  # the host draws
        return poisson(input.cpu(), generator).to(input.device)
    return wrap(draw(_of(generator), input.array))


def get_rng_state() -> Any:
    """The state of the default generator, as a uint8 tensor that PyTorch's takes too."""
    return wrap(_g.default_generator.get_state())


def set_rng_state(new_state: Any) -> None:
    """Puts the default generator into a state from `get_rng_state`."""
    _g.default_generator.set_state(new_state.array if isinstance(new_state, Variable) else new_state)


class fork_rng:
    """Random numbers drawn inside leave the default generator as it was."""

    def __init__(self, devices: Any = None, enabled: bool = True, **_: Any) -> None:
        self.enabled = enabled

    def __enter__(self) -> None:
        self.state = _g.default_generator.get_state()

    def __exit__(self, *_: Any) -> None:
        if self.enabled:
            _g.default_generator.set_state(self.state)


# ---- in place, as methods of Tensor


def _fill(self: Any, name: str, draw: Callable[[Any], Any]) -> Any:
    """Overwrites with numbers that are drawn in the order of the tensor's memory."""
    shape, placed = in_memory_order(self.array)
    return self.set_content(name, placed(draw(shape)))


def uniform_(
    self: Any, from_: float = 0.0, to: float = 1.0, *, generator: Generator | None = None, **kw: Any
) -> Any:
    """Overwrites with uniform numbers in [from, to)."""
    low = kw.get("from", from_)
    return _fill(
        self,
        "uniform_",
        lambda shape: _of(generator, self.device).uniform(shape, low, to, dtype=self.array.dtype),
    )


def normal_(self: Any, mean: float = 0.0, std: float = 1.0, *, generator: Generator | None = None) -> Any:
    """Overwrites with normal numbers."""
    one_by_one = not self.array.flags.c_contiguous

    def draw(shape: Any) -> Any:
        return _of(generator, self.device).normal(
            shape, mean, std, dtype=self.array.dtype, one_by_one=one_by_one
        )

    return _fill(self, "normal_", draw)


def log_normal_(self: Any, mean: float = 1.0, std: float = 2.0, *, generator: Generator | None = None) -> Any:
    """Overwrites with exponentials of normal numbers."""
    return _fill(
        self,
        "log_normal_",
        lambda shape: _of(generator, self.device).log_normal(shape, mean, std, dtype=self.array.dtype),
    )


def exponential_(self: Any, lambd: float = 1.0, *, generator: Generator | None = None) -> Any:
    """Overwrites with exponential numbers of rate `lambd`."""
    return _fill(
        self,
        "exponential_",
        lambda shape: _of(generator, self.device).exponential(shape, lambd, dtype=self.array.dtype),
    )


def cauchy_(self: Any, median: float = 0.0, sigma: float = 1.0, *, generator: Generator | None = None) -> Any:
    """Overwrites with Cauchy numbers."""
    return _fill(
        self,
        "cauchy_",
        lambda shape: _of(generator, self.device).cauchy(shape, median, sigma, dtype=self.array.dtype),
    )


def geometric_(self: Any, p: float, *, generator: Generator | None = None) -> Any:
    """Overwrites with numbers of trials up to the first success."""
    return _fill(
        self,
        "geometric_",
        lambda shape: _of(generator, self.device).geometric(shape, p, dtype=self.array.dtype),
    )


def _spread(array: Any, shape: Any) -> Any:
    return array_namespace[type(array)].broadcast_to(array, shape)


def bernoulli_(self: Any, p: Any = 0.5, *, generator: Generator | None = None) -> Any:
    """Overwrites with 0 and 1; `p` is the probability of 1, a number or a tensor."""
    if isinstance(p, Variable):
        drawn = (
            _of(generator, self.device).bernoulli(_spread(p.array, self.array.shape)).astype(self.array.dtype)
        )
    else:
        return _fill(
            self,
            "bernoulli_",
            lambda shape: _of(generator, self.device).bernoulli(p, shape, dtype=self.array.dtype),
        )
    return self.set_content("bernoulli_", drawn)


def random_(
    self: Any, from_: Any = None, to: Any = None, *, generator: Generator | None = None, **kw: Any
) -> Any:
    """Overwrites with integers: in [from, to), in [0, to), or over the whole range of the dtype."""
    low = kw.get("from", from_)
    dtype = self.array.dtype
    if low is None and to is None:
        return _fill(self, "random_", lambda shape: _of(generator, self.device).random(shape, dtype=dtype))
    start, stop = (0, low) if to is None else (low or 0, to)
    return _fill(
        self, "random_", lambda shape: _of(generator, self.device).randint(start, stop, shape, dtype=dtype)
    )
