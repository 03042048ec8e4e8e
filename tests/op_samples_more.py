"""Sample inputs of the ops that are loaded when first used: transforms, linear algebra, special functions."""

from __future__ import annotations

import numpy as np
from op_samples import A, S, Sample, one

import ringgrad.tensor.ops.fft
import ringgrad.tensor.ops.special
import ringgrad.tensor.ops.spectral  # noqa: F401  (declares these ops, and those of linalg)

SAMPLES: dict[str, list[Sample]] = {}
SAMPLES |= {name: one() for name in ("erfc", "erfcx", "ndtr", "log_ndtr", "i0", "i0e", "i1", "i1e")}
SAMPLES |= {name: one(0.3, 5.0) for name in ("lgamma", "digamma", "entr")}
SAMPLES["erfinv"] = one(-0.9, 0.9)
SAMPLES["ndtri"] = one(0.1, 0.9)
SAMPLES["polygamma"] = [S(a.args[0], n=n) for a in one(0.5, 4.0) for n in (0, 1, 2)]
SAMPLES["zeta"] = [
    S(A((3, 4), 1.5, 4.0), A((4,), 0.5, 3.0, seed=1)),
    S(A((), 1.5, 4.0), A((), 0.5, 3.0, seed=1)),
]

# Matrices with a strong diagonal: small elements, and their values apart.
M3, B3 = A((3, 3), -1.0, 1.0), A((2, 3, 3), -1.0, 1.0)
TALL, WIDE = A((5, 3)), A((3, 5))
SAMPLES |= {
    name: [S(M3), S(B3), S(M3._replace(layout="transposed"))]
    for name in ("inv", "det", "slogdet", "matrix_exp")
}
SAMPLES["solve"] = [S(M3, A((3, 2), seed=1)), S(B3, A((2, 3, 2), seed=1)), S(M3, A((4, 3, 1), seed=1))]
SAMPLES["solve_triangular"] = [
    S(M3, A((3, 2), seed=1), upper=upper, unitriangular=unit)
    for upper in (True, False)
    for unit in (True, False)
]
SAMPLES["pinv"] = [S(a, rtol=1e-5, hermitian=False) for a in (TALL, WIDE)]
SAMPLES["qr"] = [S(TALL, mode="reduced"), S(WIDE, mode="reduced"), S(B3, mode="reduced")]
SAMPLES["svd"] = [S(TALL), S(WIDE), S(B3)]
SAMPLES["svd_values"] = [S(TALL), S(B3)]
SAMPLES["cross"] = [S(A((4, 3)), A((4, 3), seed=1), dim=1), S(A((3, 2)), A((3, 2), seed=1), dim=0)]

# Ops of which a sample must be a matrix with a property (positive definite, symmetric), or whose numbers are complex:
# tests/test_linalg.py.
ELSEWHERE = {"cholesky", "eigh", "eig", "fft_c2c", "fft_r2c", "fft_c2r"}
SAMPLES |= {
    "cholesky": [S(np.array([[4.0, 1.0], [1.0, 3.0]]))],
    "eigh": [S(np.array([[4.0, 1.0], [1.0, 3.0]]))],
    "eig": [S(M3)],
    "fft_c2c": [S(A((3,), kind="complex"), dim=(0,), norm="ortho", forward=True)],
    "fft_r2c": [S(A((6,)), dim=(0,), norm="backward")],
    "fft_c2r": [S(A((4,), kind="complex"), dim=(0,), norm="backward", n=6)],
}
