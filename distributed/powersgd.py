"""PowerSGD: gradient matrices travel as two factors of low rank.

T. Vogels, S. P. Karimireddy, M. Jaggi, "PowerSGD: Practical Low-Rank Gradient Compression for Distributed
Optimization", NeurIPS 2019 (arXiv:1905.13727).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from .group import Group
from .hooks import Future, GradBucket, Residual, mean
from .process_group import world_group


class PowerSGDState:
    """State of powerSGD_hook, with the arguments of PyTorch's.

    matrix_approximation_rank: columns that stand for a gradient matrix. start_powerSGD_iter: steps before which
    gradients are averaged as they are. min_compression_rate: only matrices that become smaller by this factor
    are compressed. warm_start: go on from the last step's factors. orthogonalization_epsilon: added to norms.
    """

    def __init__(
        self,
        process_group: Group | None = None,
        matrix_approximation_rank: int = 1,
        start_powerSGD_iter: int = 1000,
        min_compression_rate: float = 2,
        use_error_feedback: bool = True,
        warm_start: bool = True,
        orthogonalization_epsilon: float = 0,
        random_seed: int = 0,
    ) -> None:
        if matrix_approximation_rank < 1 or start_powerSGD_iter < 0:
            raise ValueError(
                "[PowerSGDState] matrix_approximation_rank must be at least 1 and start_powerSGD_iter at least 0, "
                f"got {matrix_approximation_rank} and {start_powerSGD_iter}"
            )
        if (use_error_feedback or warm_start) and start_powerSGD_iter <= 1:
            raise ValueError(
                "[PowerSGDState] start_powerSGD_iter must be above 1 with use_error_feedback or warm_start: "
                f"the first step orders the buckets; got {start_powerSGD_iter}"
            )
        self.process_group, self.rank = process_group, matrix_approximation_rank
        self.start, self.min_compression_rate = start_powerSGD_iter, min_compression_rate
        self.use_error_feedback, self.warm_start = use_error_feedback, warm_start
        self.epsilon, self.random = orthogonalization_epsilon, np.random.default_rng(random_seed)
        self.iteration = 0
        self.residual = Residual()
        self.factors: dict[int, np.ndarray] = {}  # the last Q of each parameter

    def factor(self, parameter: Any, width: int, rank: int) -> np.ndarray:
        """The Q [width, rank] to begin with: the same on all ranks, as their generators draw alike."""
        held = self.factors.get(id(parameter)) if self.warm_start else None
        if held is None:
            held = self.random.standard_normal((width, rank)).astype(parameter.array.dtype)
        return held


def powerSGD_hook(state: PowerSGDState, bucket: GradBucket) -> Future[Any]:
    """Gradients that are matrices travel as P Q^T of low rank, others as they are (Vogels et al., arXiv:1905.13727).

    With error feedback, what a step leaves out is added to the next step's gradient.
    """
    group, flat = world_group(state.process_group), bucket.buffer().array
    step = state.iteration
    if bucket.is_last():
        state.iteration += 1
    if step < state.start:
        return mean(group, flat)
    if state.use_error_feedback:
        state.residual.add_to(bucket)
    before = flat.copy() if state.use_error_feedback else None
    low, plain = _sorted(state, bucket)
    qs = [_orthogonal(state.factor(p, m.shape[1], r), state.epsilon) for p, m, r in low]
    products = [m @ q for (_, m, _), q in zip(low, qs)]
    whole = np.concatenate([m.reshape(-1) for m in plain]) if plain else np.empty(0, flat.dtype)
    rest = mean(group, whole)
    ps = mean(group, _joined(products, flat.dtype))

    def second(_: Future[Any]) -> Future[Any]:
        left = [_orthogonal(p, state.epsilon) for p in _parted(ps.value().array, products)]
        right = [m.T @ p for (_, m, _), p in zip(low, left)]
        return (
            mean(group, _joined(right, flat.dtype))
            .then(lambda f: _parted(f.value().array, right))
            .then(lambda f: finish(left, f.value()))
        )

    def finish(left: list[np.ndarray], right: list[np.ndarray]) -> Any:
        for (parameter, matrix, _), p, q in zip(low, left, right):
            np.matmul(p, q.T, out=matrix)
            if state.warm_start:
                state.factors[id(parameter)] = q
        at, together = 0, rest.wait().array
        if before is not None:
            np.subtract(before, flat, out=before)  # what the factors miss; what was sent whole leaves nothing
        for array in plain:
            array[...] = together[at : at + array.size].reshape(array.shape)
            at += array.size
        if before is not None:
            compressed = {id(parameter) for parameter, _, _ in low}
            for parameter, unsent in zip(bucket.parameters(), bucket.views(before)):
                if id(parameter) not in compressed:
                    unsent.array[...] = 0
            state.residual.keep(bucket, before)
        return bucket.buffer()

    return ps.then(second)


def _sorted(
    state: PowerSGDState, bucket: GradBucket
) -> tuple[list[tuple[Any, np.ndarray, int]], list[np.ndarray]]:
    """(parameter, gradient as a matrix, rank) of those to compress, and the gradients of the others."""
    low, plain = [], []
    for parameter, g in zip(bucket.parameters(), bucket.gradients()):
        matrix = g.array.reshape(g.array.shape[0], -1) if g.array.ndim > 1 else None
        if matrix is not None:
            rank = min(state.rank, *matrix.shape)
            if sum(matrix.shape) * rank * state.min_compression_rate < matrix.size:
                low.append((parameter, matrix, rank))
                continue
        plain.append(g.array)
    return low, plain


def _joined(matrices: list[np.ndarray], dtype: np.dtype) -> np.ndarray:
    return np.concatenate([m.reshape(-1) for m in matrices]) if matrices else np.empty(0, dtype)


def _parted(flat: np.ndarray, like: list[np.ndarray]) -> list[np.ndarray]:
    parts, at = [], 0
    for matrix in like:
        parts.append(flat[at : at + matrix.size].reshape(matrix.shape))
        at += matrix.size
    return parts


def _orthogonal(matrix: np.ndarray, epsilon: float) -> np.ndarray:
    """Orthonormal columns with the span of the matrix's, by Gram and Schmidt; columns of nothing stay zero."""
    result = np.array(matrix)
    tiny = np.finfo(result.dtype).tiny
    for i in range(result.shape[1]):
        column = result[:, i]
        column -= result[:, :i] @ (result[:, :i].T @ column)
        column /= np.linalg.norm(column) + epsilon + tiny
    return result
