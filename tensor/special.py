"""Special functions under the names of `torch.special`."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from . import functions as f
from .checks import refuse
from .elementwise import logit as logit
from .elementwise import sinc as sinc
from .elementwise import xlogy as xlogy
from .ops import elementwise as _e
from .ops import pointwise as _p
from .ops import special as _x

if TYPE_CHECKING:
    from .tensor import Tensor

lgamma = gammaln = _x.lgamma
digamma = psi = _x.digamma
erf, erfc, erfcx, erfinv = _p.erf, _x.erfc, _x.erfcx, _x.erfinv
ndtr, ndtri, log_ndtr, entr, zeta = _x.ndtr, _x.ndtri, _x.log_ndtr, _x.entr, _x.zeta
i0, i0e, i1, i1e = _x.i0, _x.i0e, _x.i1, _x.i1e
expm1, exp2, log1p, expit, xlog1py = _p.expm1, _p.exp2, _p.log1p, _p.sigmoid, _e.xlog1py
logsumexp = f.logsumexp


def round(input: Tensor, *, decimals: int = 0) -> Tensor:
    """Halves to even; floating dtypes only, unlike `ringgrad.round`."""
    refuse("special.round", "biu", input)
    return f.round(input, decimals=decimals)


def polygamma(n: int, input: Tensor) -> Tensor:
    """The n-th derivative of digamma."""
    return _x.polygamma(f.cast(input, "float32") if not input.is_floating_point() else input, n=n)


def multigammaln(input: Tensor, p: int) -> Tensor:
    """log of the multivariate gamma function of dimension p."""
    terms: Any = [_x.lgamma(_p.sub(input, k / 2)) for k in range(p)]
    total = terms[0]
    for term in terms[1:]:
        total = _p.add(total, term)
    return _p.add(total, p * (p - 1) / 4 * math.log(math.pi))


mvlgamma = multigammaln


def softmax(input: Tensor, dim: int, *, dtype: Any = None) -> Tensor:
    """exp(input) divided by its sum along `dim`."""
    return f.softmax(input, dim, dtype)


def log_softmax(input: Tensor, dim: int, *, dtype: Any = None) -> Tensor:
    """log(softmax(input))."""
    return f.log_softmax(input, dim, dtype)
