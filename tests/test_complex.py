"""Complex numbers under autograd: PyTorch's convention, the gradient that points uphill."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import ringgrad as rg

PROGRAMS: dict[str, Callable[..., Any]] = {
    "mul": lambda m, z, w, r: z * w,
    "mul by real": lambda m, z, w, r: z * r,
    "div": lambda m, z, w, r: z / w,
    "real by complex": lambda m, z, w, r: r / z,
    "number": lambda m, z, w, r: z * (2 + 1j) - r,
    "exp": lambda m, z, w, r: z.exp() * w,
    "square": lambda m, z, w, r: z**2,
    "power": lambda m, z, w, r: z**w,
    "functions": lambda m, z, w, r: z.sqrt() + w.log() + z.sin() * w.tanh(),
    "matmul": lambda m, z, w, r: z.reshape(2, 1) @ w.reshape(1, 2),
    "linear": lambda m, z, w, r: m.nn.functional.linear(z, w.reshape(1, 2)),
    "abs": lambda m, z, w, r: z.abs() * w,
}


def gradients(m: Any, program: Callable[..., Any]) -> list[Any]:
    z = m.tensor([1 + 2j, 3 - 1j], requires_grad=True)
    w = m.tensor([2 - 1j, 0.5 + 1j], requires_grad=True)
    r = m.tensor([1.5, 2.5], requires_grad=True)
    y = program(m, z, w, r)
    (y.real.sum() + (y.imag * 2).sum()).backward()
    return [None if t.grad is None else t.grad.numpy() for t in (z, w, r)]


@pytest.mark.parity
@pytest.mark.parametrize("name", PROGRAMS)
def test_gradients_are_pytorchs(name: str) -> None:
    torch = pytest.importorskip("torch")
    for ours, theirs in zip(gradients(rg, PROGRAMS[name]), gradients(torch, PROGRAMS[name])):
        assert (ours is None) == (theirs is None)
        if ours is not None:
            assert ours.dtype == theirs.dtype
            np.testing.assert_allclose(ours, theirs, 1e-4, 1e-5)


@pytest.mark.parametrize("name", PROGRAMS)
def test_gradients_agree_with_differences(name: str) -> None:
    """d loss = Re(conj(g) dz): along the real axis the real part of g, along the imaginary one its imaginary part."""
    program = PROGRAMS[name]

    def loss(z: Any, w: Any) -> float:
        y = program(rg, rg.tensor(z), rg.tensor(w), rg.tensor([1.5, 2.5], dtype=rg.float64))
        return float(y.real.sum() + (y.imag * 2).sum())

    z, w = np.array([1 + 2j, 3 - 1j]), np.array([2 - 1j, 0.5 + 1j])
    tz = rg.tensor(z, requires_grad=True)
    y = program(rg, tz, rg.tensor(w), rg.tensor([1.5, 2.5], dtype=rg.float64))
    (y.real.sum() + (y.imag * 2).sum()).backward()
    for i in range(2):
        for step, part in ((1e-6, tz.grad.numpy()[i].real), (1e-6j, tz.grad.numpy()[i].imag)):
            moved = z.copy()
            moved[i] += step
            assert (loss(moved, w) - loss(z, w)) / 1e-6 == pytest.approx(part, rel=1e-3, abs=1e-4)


def test_gradients_of_gradients() -> None:
    z = rg.tensor([1 + 2j, 3 - 1j], requires_grad=True, dtype=rg.complex128)
    (g,) = rg.autograd.grad((z * z * z).real.sum(), z, create_graph=True)
    np.testing.assert_allclose(g.detach().numpy(), np.conj(3 * z.detach().numpy() ** 2))
    (h,) = rg.autograd.grad(g.real.sum(), z)
    np.testing.assert_allclose(h.numpy(), np.conj(6 * z.detach().numpy()))
