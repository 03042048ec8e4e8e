"""Averages of weights: AveragedModel and update_bn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import ringgrad as rg
from ringgrad import nn
from ringgrad.optim import swa_utils


class Net(nn.Module):
    """A layer and a buffer of each kind."""

    def __init__(self, seed: int = 0) -> None:
        super().__init__()
        rng = np.random.default_rng(seed)
        self.weight = nn.Parameter(rg.tensor(rng.standard_normal((3, 2)).astype(np.float32)))
        self.register_buffer("mean", rg.tensor(rng.standard_normal(3).astype(np.float32)))
        self.register_buffer("count", rg.tensor(4))

    def forward(self, x: Any) -> Any:
        return x @ self.weight + self.mean[:2]

    def move(self) -> Any:
        with rg.no_grad():
            self.weight.add_(1.0)
            self.mean.mul_(2.0)
            self.count.add_(3)
        return self.weight.detach().clone()


def history(average: Any, net: Net, steps: int = 4) -> list[Any]:
    seen = []
    for _ in range(steps):
        seen.append(net.move().array)
        average.update_parameters(net)
    return seen


def ema(seen: list[Any], decay: float) -> Any:
    held = seen[0]
    for x in seen[1:]:
        held = decay * held + (1 - decay) * x
    return held


@pytest.mark.parametrize(
    "options, expected",
    [
        ({}, lambda seen: np.mean(seen, axis=0)),
        ({"avg_fn": swa_utils.get_swa_avg_fn()}, lambda seen: np.mean(seen, axis=0)),
        ({"multi_avg_fn": swa_utils.get_swa_multi_avg_fn()}, lambda seen: np.mean(seen, axis=0)),
        ({"avg_fn": swa_utils.get_ema_avg_fn(0.75)}, lambda seen: ema(seen, 0.75)),
        ({"multi_avg_fn": swa_utils.get_ema_multi_avg_fn(0.75)}, lambda seen: ema(seen, 0.75)),
        ({"avg_fn": lambda average, x, n: x * 2}, lambda seen: seen[-1] * 2),
    ],
)
def test_averages(options: dict[str, Any], expected: Any) -> None:
    net = Net()
    average = swa_utils.AveragedModel(net, **options)
    seen = history(average, net)
    np.testing.assert_allclose(average.module.weight.array, expected(seen), rtol=1e-6)
    assert average.n_averaged.item() == 4 and average.module.weight.requires_grad
    np.testing.assert_array_equal(average.module.mean.array, net.mean.array)  # buffers are copied
    x = rg.ones(1, 3)
    np.testing.assert_array_equal(average(x).detach().array, average.module(x).detach().array)


def test_buffers_are_averaged_if_asked() -> None:
    net = Net()
    average = swa_utils.AveragedModel(net, use_buffers=True)
    start = net.mean.array.copy()
    history(average, net, 2)
    np.testing.assert_allclose(average.module.mean.array, start * 3, rtol=1e-6)
    assert average.module.count.item() == 8  # (7 + 10) / 2, cut off


def test_the_average_is_a_module_with_a_state() -> None:
    net = Net()
    average = swa_utils.AveragedModel(net)
    history(average, net)
    state = average.state_dict()
    assert set(state) == {"n_averaged", "module.weight", "module.mean", "module.count"}
    other = swa_utils.AveragedModel(Net(seed=5))
    other.load_state_dict(state)
    history(average, net, 1)
    other.update_parameters(net)
    np.testing.assert_array_equal(other.module.weight.array, average.module.weight.array)


def test_mistakes() -> None:
    with pytest.raises(ValueError, match=r"in \[0, 1\], came 1.5"):
        swa_utils.get_ema_avg_fn(1.5)
    with pytest.raises(ValueError, match="came -1"):
        swa_utils.get_ema_multi_avg_fn(-1)
    with pytest.raises(ValueError, match="came both"):
        swa_utils.AveragedModel(
            Net(), avg_fn=swa_utils.get_swa_avg_fn(), multi_avg_fn=swa_utils.get_swa_multi_avg_fn()
        )


class TinyBatchNorm(nn.Module):
    """What update_bn asks of a batch norm: momentum None takes the plain mean over the batches."""

    def __init__(self) -> None:
        super().__init__()
        self.momentum: Any = 0.1
        self.register_buffer("running_mean", rg.full((2,), 9.0))
        self.batches = 0

    def reset_running_stats(self) -> None:
        self.running_mean.zero_()
        self.batches = 0

    def forward(self, x: Any) -> Any:
        if self.training:
            self.batches += 1
            share = 1 / self.batches if self.momentum is None else self.momentum
            self.running_mean.mul_(1 - share).add_(x.mean(0), alpha=share)
        return x - self.running_mean


@pytest.mark.parametrize("pack", [lambda x: x, lambda x: (x, 3), lambda x: [x]])
def test_update_bn_takes_the_mean_over_the_loader(pack: Any) -> None:
    norm = TinyBatchNorm()
    model = nn.Sequential(norm)
    model.eval()
    batches = [rg.full((4, 2), float(i)) for i in range(5)]
    swa_utils.update_bn([pack(b) for b in batches], model)
    assert norm.running_mean.tolist() == pytest.approx([2.0, 2.0])
    assert norm.momentum == 0.1 and not model.training


def test_update_bn_runs_nothing_without_batch_norms() -> None:
    def loader() -> Any:
        raise AssertionError("nothing is to be read")
        yield

    swa_utils.update_bn(loader(), Net())
