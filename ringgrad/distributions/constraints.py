"""Where parameters and values of distributions may lie: `constraint.check(value)` tells for each element or event."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ..tensor import functions as f


class Constraint:
    """A region. `event_dim`: how many dimensions from the right one value takes."""

    is_discrete = False
    event_dim = 0

    def __init__(
        self,
        name: str = "",
        test: Callable[[Any], Any] | None = None,
        event_dim: int = 0,
        is_discrete: bool = False,
    ) -> None:
        self.name, self.test = name or type(self).__name__, test
        self.event_dim, self.is_discrete = event_dim, is_discrete

    def check(self, value: Any) -> Any:
        """Whether each value lies in the region: bools of the value's shape without its last `event_dim`."""
        assert self.test is not None
        return self.test(value)

    def __repr__(self) -> str:
        return self.name


class _Dependent(Constraint):
    """A region that depends on other parameters: not checked here."""

    def check(self, value: Any) -> Any:
        raise ValueError("[constraints] a dependent constraint cannot be checked by itself")


class dependent_property(property):
    """A support that depends on the parameters: a property that is a constraint for those who only look."""

    def __init__(self, fn: Any = None, *, is_discrete: bool = False, event_dim: int = 0) -> None:
        super().__init__(fn)
        self.is_discrete, self.event_dim = is_discrete, event_dim

    def __call__(self, fn: Any) -> dependent_property:
        return dependent_property(fn, is_discrete=self.is_discrete, event_dim=self.event_dim)


def is_dependent(constraint: Any) -> bool:
    """Whether a constraint needs the other parameters to be checked."""
    return isinstance(constraint, _Dependent | dependent_property)


def interval(lower_bound: Any, upper_bound: Any) -> Constraint:
    """lower <= x <= upper."""
    return Constraint(
        f"Interval(lower_bound={lower_bound}, upper_bound={upper_bound})",
        lambda x: (x >= lower_bound) & (x <= upper_bound),
    )


def half_open_interval(lower_bound: Any, upper_bound: Any) -> Constraint:
    """lower <= x < upper."""
    return Constraint(
        f"HalfOpenInterval(lower_bound={lower_bound}, upper_bound={upper_bound})",
        lambda x: (x >= lower_bound) & (x < upper_bound),
    )


def integer_interval(lower_bound: Any, upper_bound: Any) -> Constraint:
    """Integers with lower <= x <= upper."""
    return Constraint(
        f"IntegerInterval(lower_bound={lower_bound}, upper_bound={upper_bound})",
        lambda x: (x % 1 == 0) & (x >= lower_bound) & (x <= upper_bound),
        is_discrete=True,
    )


def greater_than(lower_bound: Any) -> Constraint:
    """x > lower."""
    return Constraint(f"GreaterThan(lower_bound={lower_bound})", lambda x: x > lower_bound)


def greater_than_eq(lower_bound: Any) -> Constraint:
    """x >= lower."""
    return Constraint(f"GreaterThanEq(lower_bound={lower_bound})", lambda x: x >= lower_bound)


def less_than(upper_bound: Any) -> Constraint:
    """x < upper."""
    return Constraint(f"LessThan(upper_bound={upper_bound})", lambda x: x < upper_bound)


def independent(base_constraint: Any, reinterpreted_batch_ndims: int) -> Any:
    """The same region for whole events of further dimensions: it holds where it holds for all their parts."""

    def test(x: Any) -> Any:
        found = base_constraint.check(x)
        return found.reshape(*found.shape[: found.ndim - reinterpreted_batch_ndims], -1).all(-1)

    if reinterpreted_batch_ndims == 0 or is_dependent(base_constraint):
        return base_constraint
    dims = base_constraint.event_dim + reinterpreted_batch_ndims
    return Constraint(f"IndependentConstraint({base_constraint})", test, dims, base_constraint.is_discrete)


def _simplex(x: Any) -> Any:
    return (x >= 0).all(-1) & ((x.sum(-1) - 1).abs() < 1e-6)


def _lower_cholesky(x: Any) -> Any:
    lower = (f.tril(x) == x).reshape(*x.shape[:-2], -1).all(-1)
    return lower & (x.diagonal(dim1=-2, dim2=-1) > 0).all(-1)


def _positive_definite(x: Any) -> Any:
    import numpy as np

    from ..autograd.engine import wrap

    a = x.detach().array.astype(np.float64)
    symmetric = np.isclose(a, np.swapaxes(a, -1, -2), atol=1e-6).all((-2, -1))
    return wrap(np.asarray(symmetric & (np.linalg.eigvalsh(a)[..., 0] > 0)))


dependent = _Dependent("dependent")
boolean = Constraint("Boolean()", lambda x: (x == 0) | (x == 1), is_discrete=True)
real = Constraint("Real()", lambda x: x == x)  # false for NaN alone
real_vector = Constraint("RealVector()", lambda x: (x == x).all(-1), 1)
positive = greater_than(0.0)
nonnegative = greater_than_eq(0.0)
nonnegative_integer = Constraint(
    "IntegerGreaterThan(lower_bound=0)", lambda x: (x % 1 == 0) & (x >= 0), is_discrete=True
)
positive_integer = Constraint(
    "IntegerGreaterThan(lower_bound=1)", lambda x: (x % 1 == 0) & (x >= 1), is_discrete=True
)
unit_interval = interval(0.0, 1.0)
simplex = Constraint("Simplex()", _simplex, 1)
one_hot = Constraint(
    "OneHot()", lambda x: ((x == 0) | (x == 1)).all(-1) & (x.sum(-1) == 1), 1, is_discrete=True
)
lower_cholesky = Constraint("LowerCholesky()", _lower_cholesky, 2)
positive_definite = Constraint("PositiveDefinite()", _positive_definite, 2)
