"""Random tensors. With the same seed the numbers are PyTorch's (docs/parity.md)."""

from __future__ import annotations

from typing import Any

import numpy as np

from ..autograd.engine import Variable, wrap
from . import generator as _g
from .creation import finish, size_of
from .dtypes import I64, default_float, to_numpy
from .generator import Generator
from .ops import pointwise as _p


def _of(generator: Generator | None) -> Generator:
    return _g.default_generator if generator is None else generator


def _float(dtype: Any) -> Any:
    return default_float() if dtype is None else to_numpy(dtype)


def rand(
    *size: Any,
    generator: Generator | None = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    **_: Any,
) -> Any:
    """Uniform numbers in [0, 1)."""
    return finish(_of(generator).uniform(size_of("rand", size), dtype=_float(dtype)), requires_grad, device)


def randn(
    *size: Any,
    generator: Generator | None = None,
    dtype: Any = None,
    device: Any = None,
    requires_grad: bool = False,
    **_: Any,
) -> Any:
    """Normal numbers of mean 0 and variance 1."""
    return finish(_of(generator).normal(size_of("randn", size), dtype=_float(dtype)), requires_grad, device)


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
        _of(generator).randint(low, high, size_of("randint", (size,)), dtype=n), requires_grad, device
    )


def randperm(
    n: int, *, generator: Generator | None = None, dtype: Any = None, device: Any = None, **_: Any
) -> Any:
    """A random order of 0 ... n-1."""
    return finish(_of(generator).randperm(n, dtype=I64 if dtype is None else to_numpy(dtype)), False, device)


def rand_like(input: Any, *, dtype: Any = None, requires_grad: bool = False, **_: Any) -> Any:
    return rand(input.array.shape, dtype=dtype or input.dtype, requires_grad=requires_grad)


def randn_like(input: Any, *, dtype: Any = None, requires_grad: bool = False, **_: Any) -> Any:
    return randn(input.array.shape, dtype=dtype or input.dtype, requires_grad=requires_grad)


def randint_like(input: Any, low: int, high: Any = None, *, dtype: Any = None, **_: Any) -> Any:
    low, high = (0, low) if high is None else (low, high)
    return randint(low, high, input.array.shape, dtype=dtype or input.dtype)


def normal(
    mean: Any, std: Any = 1.0, size: Any = None, *, generator: Generator | None = None, dtype: Any = None
) -> Any:
    """Normal numbers with the given mean and standard deviation, each a number or a tensor."""
    if size is not None:
        return wrap(_of(generator).normal(size_of("normal", (size,)), mean, std, dtype=_float(dtype)))
    if isinstance(std, Variable):
        shape = np.broadcast_shapes(std.array.shape, mean.array.shape if isinstance(mean, Variable) else ())
        drawn = wrap(_of(generator).normal(shape, dtype=std.array.dtype))
        return _p.add(_p.mul(drawn, std), mean)
    return _p.add(wrap(_of(generator).normal(mean.array.shape, 0.0, std, dtype=mean.array.dtype)), mean)


def bernoulli(input: Any, p: Any = None, *, generator: Generator | None = None) -> Any:
    """0 or 1 in the input's dtype: 1 with the probability that each element names (or `p` for all)."""
    if p is not None:
        return wrap(_of(generator).bernoulli(p, input.array.shape, dtype=input.array.dtype))
    return wrap(_of(generator).bernoulli(input.array))


def multinomial(
    input: Any, num_samples: int, replacement: bool = False, *, generator: Generator | None = None
) -> Any:
    """Indices drawn by the weights in each row."""
    from .generator_sampling import multinomial as draw

    return wrap(draw(_of(generator), input.array, num_samples, replacement))


def poisson(input: Any, generator: Generator | None = None) -> Any:
    """Poisson numbers of the given rates."""
    from .generator_sampling import poisson as draw

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


def uniform_(
    self: Any, from_: float = 0.0, to: float = 1.0, *, generator: Generator | None = None, **kw: Any
) -> Any:
    """Overwrites with uniform numbers in [from, to)."""
    low = kw.get("from", from_)
    return self.set_content(
        "uniform_", _of(generator).uniform(self.array.shape, low, to, dtype=self.array.dtype)
    )


def normal_(self: Any, mean: float = 0.0, std: float = 1.0, *, generator: Generator | None = None) -> Any:
    """Overwrites with normal numbers."""
    return self.set_content(
        "normal_", _of(generator).normal(self.array.shape, mean, std, dtype=self.array.dtype)
    )


def log_normal_(self: Any, mean: float = 1.0, std: float = 2.0, *, generator: Generator | None = None) -> Any:
    """Overwrites with exponentials of normal numbers."""
    return self.set_content(
        "log_normal_", _of(generator).log_normal(self.array.shape, mean, std, dtype=self.array.dtype)
    )


def exponential_(self: Any, lambd: float = 1.0, *, generator: Generator | None = None) -> Any:
    """Overwrites with exponential numbers of rate `lambd`."""
    return self.set_content(
        "exponential_", _of(generator).exponential(self.array.shape, lambd, dtype=self.array.dtype)
    )


def cauchy_(self: Any, median: float = 0.0, sigma: float = 1.0, *, generator: Generator | None = None) -> Any:
    """Overwrites with Cauchy numbers."""
    return self.set_content(
        "cauchy_", _of(generator).cauchy(self.array.shape, median, sigma, dtype=self.array.dtype)
    )


def geometric_(self: Any, p: float, *, generator: Generator | None = None) -> Any:
    """Overwrites with numbers of trials up to the first success."""
    return self.set_content(
        "geometric_", _of(generator).geometric(self.array.shape, p, dtype=self.array.dtype)
    )


def bernoulli_(self: Any, p: Any = 0.5, *, generator: Generator | None = None) -> Any:
    """Overwrites with 0 and 1; `p` is the probability of 1, a number or a tensor."""
    if isinstance(p, Variable):
        drawn = _of(generator).bernoulli(np.broadcast_to(p.array, self.array.shape)).astype(self.array.dtype)
    else:
        drawn = _of(generator).bernoulli(p, self.array.shape, dtype=self.array.dtype)
    return self.set_content("bernoulli_", drawn)


def random_(
    self: Any, from_: Any = None, to: Any = None, *, generator: Generator | None = None, **kw: Any
) -> Any:
    """Overwrites with integers: in [from, to), in [0, to), or over the whole range of the dtype."""
    low = kw.get("from", from_)
    if low is None and to is None:
        return self.set_content("random_", _of(generator).random(self.array.shape, dtype=self.array.dtype))
    if to is None:
        low, to = 0, low
    return self.set_content(
        "random_", _of(generator).randint(low or 0, to, self.array.shape, dtype=self.array.dtype)
    )
