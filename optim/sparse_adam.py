"""SparseAdam: Adam that leaves alone what has no gradient."""

from __future__ import annotations

from typing import Any

import numpy as np

from .optimizer import Optimizer, Params, below_one, number


class SparseAdam(Optimizer):
    """Adam on the rows (along dimension 0) whose gradient is not all zero; the moments of the others stay as they are.

    For embeddings of which a step uses few rows. PyTorch's takes sparse gradients and goes by the rows listed there;
    gradients are dense here, so a listed row of zeros is left alone as well.
    """

    def __init__(
        self,
        params: Params,
        lr: Any = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        maximize: bool = False,
    ) -> None:
        if not number(lr) > 0:
            raise ValueError(f"[SparseAdam] lr must be above 0, came {lr}")
        if not eps > 0:
            raise ValueError(f"[SparseAdam] eps must be above 0, came {eps}")
        below_one("SparseAdam", "betas", betas)
        super().__init__(params, dict(lr=lr, betas=betas, eps=eps, maximize=maximize))

    def step(self, closure: Any = None) -> Any:
        """One step; `closure` computes the loss anew and returns it."""
        from ..autograd import enable_grad, no_grad

        loss = None
        if closure is not None:
            with enable_grad():
                loss = closure()
        with no_grad():
            for group in self.param_groups:
                for p in group["params"]:
                    if p.grad is not None:
                        self._update(group, p)
        return loss

    def _update(self, group: dict[str, Any], p: Any) -> None:
        state, (beta1, beta2) = self.state[p], group["betas"]
        if not state:
            state.update(step=0, exp_avg=p.new_zeros(p.shape), exp_avg_sq=p.new_zeros(p.shape))
        state["step"] += 1
        g = p.grad.array
        rows = np.flatnonzero((g != 0).reshape(len(g), -1).any(axis=1)) if g.ndim else ...
        g = -g[rows] if group["maximize"] else g[rows]
        m, v = state["exp_avg"].array, state["exp_avg_sq"].array
        m[rows] += (g - m[rows]) * (1 - beta1)
        v[rows] += (g * g - v[rows]) * (1 - beta2)
        rate = number(group["lr"]) * (1 - beta2 ** state["step"]) ** 0.5 / (1 - beta1 ** state["step"])
        p.array[rows] -= (rate * m[rows] / (np.sqrt(v[rows]) + group["eps"])).astype(p.array.dtype)
        p._version[0] += 1
