"""Whole objects in PyTorch's files: refused unless the caller trusts the file or names the classes."""

import argparse
import datetime
import io
import pickle
import warnings

import numpy as np
import pytest

import ringgrad as rg
from ringgrad import nn
from ringgrad.serialization import add_safe_globals, clear_safe_globals, get_safe_globals, safe_globals

CALLED = []


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.ReLU())
        self.tied = nn.Linear(3, 2)
        self.tied.weight = nn.Parameter(self.body[0].weight.detach())
        self.act, self.mask, self.made = nn.functional.relu, None, datetime.date(2026, 1, 2)

    def forward(self, x):
        return self.act(self.body(x) @ self.tied.weight)


CLASSES = [Net, nn.Sequential, nn.Linear, nn.BatchNorm1d, nn.ReLU, nn.functional.relu, datetime.date]


def spring(word):
    CALLED.append(word)


class Trap:
    def __reduce__(self):
        return spring, ("called",)


class Made:
    """Makes a new tensor whenever it is pickled."""

    def __getstate__(self):
        return {"x": rg.arange(3)}


def saved(obj):
    file = io.BytesIO()
    rg.save(obj, file)
    file.seek(0)
    return file


def trusted(file):
    with pytest.warns(UserWarning, match="can run any code"):
        return rg.load(file, weights_only=False)


def same_net(a, b):
    x = rg.randn(4, 2)
    assert rg.equal(a.eval()(x), b.eval()(x)) and b.made == datetime.date(2026, 1, 2)
    b.body[0].weight.data.fill_(7)
    assert b.tied.weight.tolist() == [[7, 7]] * 3  # still one memory
    assert isinstance(b.body[0].weight, nn.Parameter) and b.body[0].weight.requires_grad


def test_a_module_comes_back_whole():
    net = Net()
    same_net(net, trusted(saved({"net": net}))["net"])


def test_nothing_is_run_unless_the_file_is_trusted(monkeypatch):
    file = saved({"x": rg.ones(2), "trap": Trap()})
    for more in ({}, {"weights_only": True}, {"weights_only": None}):
        file.seek(0)
        with pytest.raises(
            pickle.UnpicklingError, match="add_safe_globals, or, for a file that you trust"
        ) as e:
            rg.load(file, **more)
        assert isinstance(e.value, RuntimeError) and not CALLED
    file.seek(0)
    trusted(file)
    assert CALLED.pop() == "called"
    file.seek(0)
    monkeypatch.setenv("TORCH_FORCE_NO_WEIGHTS_ONLY_LOAD", "1")
    with pytest.warns(UserWarning, match="can run any code"):
        rg.load(file)
    file.seek(0)
    with pytest.raises(pickle.UnpicklingError):
        rg.load(file, weights_only=True)
    assert CALLED.pop() == "called" and not CALLED


def test_data_alone_is_never_unpickled():
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert rg.load(saved({"x": rg.ones(2), "n": 1}), weights_only=False)["n"] == 1


def test_allowed_classes_are_built():
    net = Net()
    file = saved(net)
    with safe_globals(CLASSES):
        same_net(net, rg.load(file))
        file = saved([Net(), Trap()])
        with pytest.raises(pickle.UnpicklingError, match="spring"):
            rg.load(file)
    assert get_safe_globals() == []
    add_safe_globals(CLASSES[1:])
    file.seek(0)
    with pytest.raises(pickle.UnpicklingError, match="Net"):
        rg.load(file)
    clear_safe_globals()
    assert not CALLED


def test_tensors_made_while_pickling():
    made = trusted(
        saved([Made(), rg.zeros(2, dtype=rg.bfloat16), rg.float16, rg.Size([2]), rg.device("cpu"), len])
    )
    assert made[0].x.tolist() == [0, 1, 2] and made[1].dtype is rg.bfloat16
    assert made[2:] == [rg.float16, rg.Size([2]), rg.device("cpu"), len]


def test_checkpoints_with_a_namespace_are_read_by_pytorch():
    torch = pytest.importorskip("torch")
    state = {
        "args": argparse.Namespace(lr=0.1, dtype=rg.float16),
        "w": nn.Parameter(rg.ones(2)),
        "b": rg.zeros(1),
    }
    theirs = torch.load(saved(state), weights_only=False)
    assert theirs["args"] == argparse.Namespace(lr=0.1, dtype=torch.float16)
    assert isinstance(theirs["w"], torch.nn.Parameter) and theirs["w"].tolist() == [1, 1]


@pytest.mark.parametrize("zipped", [True, False])
def test_pytorchs_whole_models_are_read(zipped):
    torch = pytest.importorskip("torch")
    theirs = torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.LSTM(3, 4), torch.nn.Identity())
    theirs[0].note = argparse.Namespace(n=np.float32(2))
    file = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(theirs, file, _use_new_zipfile_serialization=zipped)
    file.seek(0)
    ours = trusted(file)
    x = torch.randn(5, 2)
    assert ours[0].note.n == 2 and type(ours[1]) is nn.LSTM
    np.testing.assert_allclose(ours(rg.tensor(x.numpy()))[0].detach(), theirs(x)[0].detach(), atol=1e-6)


def test_pytorchs_models_by_allowed_classes():
    torch = pytest.importorskip("torch")
    file = io.BytesIO()
    torch.save(torch.nn.Sequential(torch.nn.Linear(2, 3), torch.nn.ReLU()), file)
    file.seek(0)
    with safe_globals([nn.Sequential, nn.Linear]), pytest.raises(pickle.UnpicklingError, match="ReLU"):
        rg.load(file)
    file.seek(0)
    with safe_globals([nn.Sequential, nn.Linear, nn.ReLU]):
        assert type(rg.load(file)[1]) is nn.ReLU


def test_any_other_suffix_takes_whole_objects(tmp_path):
    net = Net()
    rg.save(net, tmp_path / "net.pkl")
    with pytest.warns(UserWarning, match="can run any code"):
        same_net(net, rg.load(tmp_path / "net.pkl", weights_only=False))
    with pytest.raises(TypeError, match="cannot be saved"):
        rg.save(net, tmp_path / "net.rg")
