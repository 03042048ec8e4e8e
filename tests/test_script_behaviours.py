"""What public PyTorch scripts need besides names: one test for each behaviour that was seen in them."""

import copy
import inspect
import io
import warnings

import numpy as np
import pytest

import ringgrad as torch
from ringgrad import nn, optim
from ringgrad.autograd import Variable


def net():
    return nn.Sequential(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 2))


# 1. whole models and layers under PyTorch's paths


def test_classes_that_a_pickled_model_names():
    from ringgrad.serialization import safe_globals

    with safe_globals(
        [nn.Sequential, nn.modules.linear.Linear, nn.modules.linear.NonDynamicallyQuantizableLinear]
    ):
        buffer = io.BytesIO()
        torch.save(net().state_dict(), buffer)
        buffer.seek(0)
        net().load_state_dict(torch.load(buffer))


# 2. what is saved and loaded


def test_save_and_load_of_what_scripts_save(tmp_path):
    path = tmp_path / "a.pt"
    array = np.arange(6.0).reshape(2, 3)
    with open(path, "wb") as file:
        torch.save(array, file)
    np.testing.assert_array_equal(torch.load(path, weights_only=False), array)
    model = net()
    optimizer = optim.Adam(model.parameters())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    torch.save({"epoch": 3, "model": model.state_dict(), "optimizer": optimizer.state_dict()}, str(path))
    found = torch.load(str(path), map_location="cpu")
    other = net()
    other.load_state_dict(found["model"])
    again = optim.Adam(other.parameters())
    again.load_state_dict(found["optimizer"])
    assert found["epoch"] == 3 and torch.equal(other[0].weight, model[0].weight)
    assert torch.equal(again.state[other[0].weight]["exp_avg"], optimizer.state[model[0].weight]["exp_avg"])


@pytest.mark.parametrize(
    "location", ["cpu", torch.device("cpu"), {"cuda:0": "cpu"}, lambda storage, loc: storage, None]
)
def test_map_location_forms(location):
    buffer = io.BytesIO()
    torch.save({"w": torch.ones(2)}, buffer)
    buffer.seek(0)
    assert torch.load(buffer, map_location=location)["w"].tolist() == [1, 1]


# 3. devices


def test_devices_of_scripts_that_ask_first():
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    model = net().to(device)
    x = torch.ones(1, 3).to(device, non_blocking=True)
    assert model(x).device == device and str(x.device) == "cpu"
    found = torch.accelerator.current_accelerator() if torch.accelerator.is_available() else "cpu"
    assert net().to(found)(x.to(found)).shape == (1, 2)


def test_devices_as_integers():
    """An integer names a GPU: without one PyTorch raises, and so do we."""
    assert torch.device(1).index == 1
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeError):
            torch.ones(2).to(0)
        with pytest.raises(RuntimeError):
            net().to(0)


# 4. class probabilities as targets


def test_cross_entropy_with_targets_of_the_outputs_shape():
    model = nn.Linear(20, 1)
    loss = nn.functional.cross_entropy(model(torch.rand(8, 20)), torch.rand(8, 1))
    loss.backward()
    assert loss.item() == 0 and not model.weight.grad.any() and not model.bias.grad.any()


# 5. several processes: tests/test_multiprocessing.py


# 6. double backward


def test_gradient_penalty():
    critic = nn.Sequential(nn.Linear(4, 8), nn.LeakyReLU(0.2), nn.Linear(8, 1))
    x = torch.randn(5, 4, requires_grad=True)
    y = critic(x)
    (g,) = torch.autograd.grad(
        outputs=y,
        inputs=x,
        grad_outputs=torch.ones_like(y),
        create_graph=True,
        retain_graph=True,
        only_inputs=True,
    )
    ((g.norm(2, dim=1) - 1) ** 2).mean().backward()
    assert critic[0].weight.grad is not None and critic[0].weight.grad.abs().sum() > 0


def test_gradients_inside_a_backward():
    class Adjoint(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x, unused):
            ctx.save_for_backward(x)
            return x**3

        @staticmethod
        def backward(ctx, g):
            assert ctx.needs_input_grad == (True, False)
            (x,) = ctx.saved_tensors
            with torch.enable_grad():
                x = x.detach().requires_grad_()
                other = torch.ones(1, requires_grad=True)
                found = torch.autograd.grad(x**3, (x, other), g, allow_unused=True)
            assert found[1] is None
            return found[0], None

    x = torch.tensor([2.0], requires_grad=True)
    Adjoint.apply(x, 3).backward()
    assert x.grad.item() == 12
    assert torch.autograd.gradcheck(
        lambda v: Adjoint.apply(v, 3), torch.rand(3, dtype=torch.float64, requires_grad=True)
    )


# 7. grad_fn


def test_grad_fn_can_be_walked_and_printed():
    x = torch.ones(2, 2, requires_grad=True)
    y = (x + 2) * 3
    loss = y.mean()
    assert "MeanBackward" in repr(loss.grad_fn) and repr(loss.grad_fn).startswith("<")
    assert "AddBackward0" in repr((x + 2).grad_fn)
    inner = loss.grad_fn.next_functions[0][0].next_functions[0][0]
    assert inner.name() == "AddBackward0" and inner.next_functions[0][0].variable is x
    assert x.is_leaf and not y.is_leaf and x.grad_fn is None
    y.retain_grad()
    loss.backward()
    assert y.grad.tolist() == [[0.25, 0.25]] * 2


# 8. sparse


def test_sparse_times_dense():
    i = torch.LongTensor([[0, 1, 1], [2, 0, 2]])
    v = torch.FloatTensor([3, 4, 5])
    for a in (torch.sparse.FloatTensor(i, v, torch.Size([2, 3])), torch.sparse_coo_tensor(i, v, (2, 3))):
        dense = torch.randn(3, 2, requires_grad=True)
        y = torch.spmm(a, dense)
        y.sum().backward()
        np.testing.assert_allclose(
            y.detach().numpy(), a.to_dense().numpy() @ dense.detach().numpy(), rtol=1e-6, atol=1e-6
        )
        assert dense.grad.tolist() == [[4, 4], [0, 0], [8, 8]]
    assert torch.eye(2).to_sparse().is_sparse


# 9. views and in-place writes


def test_view_of_a_non_contiguous_tensor_raises():
    with pytest.raises(RuntimeError):
        torch.ones(2, 3).t().view(6)


def test_writes_through_views_and_data():
    x = torch.zeros(2, 3)
    x[:, 0] = 1
    x[1].add_(1)
    x.data.mul_(2)
    assert x.tolist() == [[2, 0, 0], [4, 2, 2]]
    p = nn.Parameter(torch.ones(2))
    p.data.add_(torch.ones(2), alpha=-0.5)
    p.data.sub_(0.25 * torch.ones(2))
    assert p.tolist() == [0.25, 0.25] and p.is_leaf
    p.data.copy_(torch.zeros(2))
    p.data = torch.ones(2)
    assert p.tolist() == [1, 1]


def test_forbidden_writes_raise():
    p = torch.ones(2, requires_grad=True)
    with pytest.raises(RuntimeError):
        p.add_(1)
    y = p.exp()
    y.mul_(2)
    with pytest.raises(RuntimeError):
        y.sum().backward()


# 10. legacy forms


def test_variable():
    x = Variable(torch.ones(2), requires_grad=True)
    (x * 2).sum().backward()
    assert x.grad.data.numpy().tolist() == [2, 2] and isinstance(x, torch.Tensor)


def test_legacy_tensor_types():
    Tensor = torch.cuda.FloatTensor if torch.cuda.is_available() else torch.FloatTensor
    array = np.arange(3.0)
    made = torch.FloatTensor(array)
    assert made.dtype is torch.float32 and made.tolist() == [0, 1, 2]
    assert Tensor(2, 3).shape == (2, 3) and Tensor([1, 2]).tolist() == [1, 2]
    assert torch.ones(2, dtype=torch.int64).type(Tensor).dtype is torch.float32
    assert Variable(torch.ones(2, dtype=torch.uint8).type(Tensor)).dtype is torch.float32
    assert Variable(Tensor(4, 1).fill_(1.0), requires_grad=False).sum() == 4
    assert (
        torch.ones(1).type() == "torch.FloatTensor"
        and torch.ones(1).type(torch.LongTensor).dtype is torch.int64
    )
    assert torch.ones(1).type("torch.DoubleTensor").dtype is torch.float64
    assert isinstance(torch.ones(1), torch.FloatTensor) and not isinstance(torch.ones(1), torch.LongTensor)
    assert Tensor(np.random.normal(0, 1, (2, 5))).shape == (2, 5)
    assert torch.Tensor(2, 3).dtype is torch.float32 and torch.Tensor([[1, 2]]).shape == (1, 2)


def test_size_average_and_reduce():
    a, b = torch.ones(4), torch.zeros(4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert nn.functional.mse_loss(a, b, size_average=False).item() == 4
        assert nn.MSELoss(size_average=True)(a, b).item() == 1
        assert nn.MSELoss(reduce=False)(a, b).shape == (4,)
        assert nn.functional.nll_loss(torch.zeros(2, 3), torch.tensor([0, 1]), size_average=False).item() == 0


def test_old_names():
    weight = torch.empty(3, 4)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nn.init.xavier_uniform(weight)
        nn.init.constant(weight, 2.0)
    assert weight.sum() == 24
    p = nn.Parameter(torch.ones(2))
    p.grad = torch.full((2,), 10.0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        nn.utils.clip_grad_norm([p], 1.0)
    assert p.grad.norm().item() == pytest.approx(1.0, rel=1e-4)

    class Halving(optim.lr_scheduler._LRScheduler):
        def get_lr(self):
            return [base / 2**self.last_epoch for base in self.base_lrs]

    optimizer = optim.SGD([p], lr=1.0)
    schedule = Halving(optimizer)
    optimizer.step()
    schedule.step()
    assert optimizer.param_groups[0]["lr"] == 0.5


# 11. the optimizer as data


def test_param_groups_are_data():
    model = net()
    optimizer = optim.SGD(
        [{"params": model[0].parameters()}, {"params": model[2].parameters(), "lr": 1.0}], lr=0.1
    )
    assert [g["lr"] for g in optimizer.param_groups] == [0.1, 1.0]
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    before = copy.deepcopy(model.state_dict())
    model(torch.ones(1, 3)).sum().backward()
    optimizer.step()
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert "fused" in inspect.signature(optim.AdamW).parameters


def test_an_optimizer_of_the_scripts_own():
    class Mine(optim.Optimizer):
        def __init__(self, params, lr=0.1):
            super().__init__(params, dict(lr=lr))

        def step(self, closure=None):
            loss = None if closure is None else closure()
            for group in self.param_groups:
                for p in group["params"]:
                    if p.grad is None:
                        continue
                    state = self.state[p]
                    if len(state) == 0:
                        state["step"] = 0
                        state["sum"] = torch.zeros_like(p.data)
                    state["step"] += 1
                    state["sum"].mul_(0.9).add_(p.grad.data)
                    p.data.add_(state["sum"], alpha=-group["lr"])
            return loss

    p = nn.Parameter(torch.ones(2))
    optimizer = Mine([p])

    def closure():
        optimizer.zero_grad()
        loss = (p**2).sum()
        loss.backward()
        return loss

    losses = [optimizer.step(closure).item() for _ in range(3)]
    assert losses[0] > losses[1] > losses[2] and optimizer.state[p]["step"] == 3
    assert optimizer.defaults == {"lr": 0.1}
    schedule = optim.lr_scheduler.StepLR(optimizer, 1)
    schedule.step()
    assert optimizer.param_groups[0]["lr"] == pytest.approx(0.01)


def test_lbfgs_with_a_closure():
    p = nn.Parameter(torch.tensor([3.0, -2.0], dtype=torch.float64))
    optimizer = optim.LBFGS([p], lr=0.8)

    def closure():
        optimizer.zero_grad()
        loss = ((p - 1) ** 2).sum()
        loss.backward()
        return loss

    for _ in range(3):
        optimizer.step(closure)
    np.testing.assert_allclose(p.detach().numpy(), [1, 1], atol=1e-4)


# 12. mixed precision on a CPU


def test_grad_scaler_without_a_gpu_passes_through():
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        scaler = torch.cuda.amp.GradScaler(enabled=True)
    assert told and not scaler.is_enabled()
    p = nn.Parameter(torch.ones(2))
    optimizer = optim.SGD([p], lr=0.5)
    with torch.amp.autocast(device_type="cpu", dtype=torch.bfloat16), torch.autocast("cpu", enabled=False):
        loss = (p * 2).sum()
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    nn.utils.clip_grad_norm_([p], 100.0)
    scaler.step(optimizer)
    scaler.update()
    assert p.tolist() == [0, 0]


# 13. loading data


def test_data_loading_forms():
    data = pytest.importorskip("ringgrad.utils.data")
    if not hasattr(data, "DataLoader"):
        pytest.skip("ringgrad.utils.data has no DataLoader yet")
    numbers = data.TensorDataset(torch.arange(10), torch.arange(10) * 2)
    parts = data.random_split(numbers, [0.8, 0.2], generator=torch.Generator().manual_seed(1))
    assert [len(p) for p in parts] == [8, 2]
    endless = data.RandomSampler(numbers, replacement=True, num_samples=int(1e10))
    loader = data.DataLoader(numbers, batch_size=4, sampler=endless, pin_memory=torch.cuda.is_available())
    x, y = next(iter(loader))
    assert x.shape == (4,) and torch.equal(2 * x, y)

    class Stream(data.IterableDataset):
        def __iter__(self):
            return iter(range(5))

    assert [b.tolist() for b in data.DataLoader(Stream(), batch_size=2)] == [[0, 1], [2, 3], [4]]


# 14. seeds


def test_manual_seed_leaves_numpys_numbers_alone():
    np.random.seed(0)
    expected = np.random.rand()
    np.random.seed(0)
    torch.manual_seed(1)
    a = torch.rand(3)
    assert np.random.rand() == expected
    torch.manual_seed(1)
    torch.cuda.manual_seed_all(1)
    assert torch.equal(torch.rand(3), a)


# 15. and 16. libraries that look torch up


def test_names_that_libraries_ask_for_at_import():
    from ringgrad.nn.modules.transformer import _get_activation_fn

    assert _get_activation_fn("relu") is nn.functional.relu
    assert nn.init._calculate_fan_in_and_fan_out(torch.empty(3, 4)) == (4, 3)

    @torch.fx.wrap
    def traced(x):
        return x

    @torch.jit._overload_method
    def method(self, x):
        pass

    assert traced(1) == 1 and not torch.jit.is_scripting()
    assert torch.jit.annotations.List is not None and torch.utils.checkpoint.checkpoint is not None


def test_libraries_find_the_alias():
    import subprocess
    import sys

    code = "import ringgrad.torch; ringgrad.torch.install(); import sys, torch, torch.nn.functional as F\n"
    code += "from torch.distributions import Categorical; from torch.nn.modules.utils import _pair\n"
    code += (
        "import torch.multiprocessing as mp, torch.autograd.profiler, torch.jit.annotations, torch.random\n"
    )
    code += "assert isinstance(torch.ones(1), sys.modules['torch'].Tensor) and _pair(1) == (1, 1)\n"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)
