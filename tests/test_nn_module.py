"""Module: registration, traversal, state, hooks, conversion. Each test also runs with PyTorch where it is installed,
which shows that what is asked for here is what PyTorch does."""

from __future__ import annotations

import copy
import pickle
from collections import OrderedDict

import numpy as np
import pytest

import ringgrad


@pytest.fixture(params=["ringgrad", pytest.param("torch", marks=pytest.mark.parity)])
def lib(request):
    return ringgrad if request.param == "ringgrad" else pytest.importorskip("torch")


def net(lib):
    nn = lib.nn

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first = nn.Linear(2, 3)
            self.scale = nn.Parameter(lib.ones(3))
            self.register_buffer("mean", lib.zeros(3))
            self.register_buffer("cache", lib.zeros(1), persistent=False)
            self.rest = nn.Sequential(nn.ReLU(), nn.Linear(3, 1))

        def forward(self, x):
            return self.rest(self.first(x) * self.scale - self.mean)

    return Net()


# ---- registration


def test_names_come_in_the_order_of_registration_own_parameters_first(lib):
    model = net(lib)
    names = ["scale", "first.weight", "first.bias", "rest.1.weight", "rest.1.bias"]
    assert [n for n, _ in model.named_parameters()] == names
    assert next(n for n, _ in model.named_parameters(prefix="m")) == "m.scale"
    assert [n for n, _ in model.named_parameters(recurse=False)] == ["scale"]
    assert [n for n, _ in model.named_buffers()] == ["mean", "cache"]
    assert [n for n, _ in model.named_modules()] == ["", "first", "rest", "rest.0", "rest.1"]
    assert [n for n, _ in model.named_children()] == ["first", "rest"]
    assert len(list(model.modules())) == 5 and len(list(model.children())) == 2


def test_shared_parameters_and_modules_count_once(lib):
    nn = lib.nn
    a, b = nn.Linear(2, 2), nn.Linear(2, 2)
    b.weight = a.weight
    model = nn.Sequential(a, b, a)
    assert [n for n, _ in model.named_parameters()] == ["0.weight", "0.bias", "1.bias"]
    assert len(list(model.named_parameters(remove_duplicate=False))) == 6
    assert [n for n, _ in model.named_modules()] == ["", "0", "1"]
    assert [n for n, _ in model.named_modules(remove_duplicate=False)] == ["", "0", "1", "2"]
    assert len(model.state_dict()) == 6


def test_assignment_decides_where_a_name_stands(lib):
    nn = lib.nn
    m = nn.Module()
    m.x = 1
    assert "x" in m.__dict__
    m.x = nn.Parameter(lib.zeros(1))
    assert "x" in m._parameters and "x" not in m.__dict__
    with pytest.raises(TypeError):
        m.x = nn.Linear(1, 1)
    m.y = 1
    m.y = nn.Linear(1, 1)
    assert "y" in m._modules and "y" not in m.__dict__
    m.y = nn.Parameter(lib.zeros(1))
    assert "y" in m._parameters and "y" not in m._modules
    m.z = nn.ReLU()
    m.z = None
    assert m.z is None and "z" in m._modules
    m.register_buffer("b", lib.zeros(1))
    m.b = lib.ones(1)
    assert float(m._buffers["b"]) == 1
    m.b = None
    assert m.b is None
    m.p = nn.Parameter(lib.zeros(1))
    m.p = None
    assert m.p is None and "p" in m._parameters
    m.plain = lib.zeros(1)
    assert "plain" in m.__dict__ and "plain" not in m.state_dict()


def test_buffer_class_registers_on_assignment(lib):
    m = lib.nn.Module()
    m.kept = lib.nn.Buffer(lib.ones(2))
    m.left_out = lib.nn.Buffer(lib.ones(2), persistent=False)
    assert list(m.state_dict()) == ["kept"]
    assert [n for n, _ in m.named_buffers()] == ["kept", "left_out"]
    assert isinstance(m.kept, lib.nn.Buffer) and not isinstance(lib.ones(1), lib.nn.Buffer)


def test_wrong_assignments_are_errors(lib):
    nn = lib.nn
    m = nn.Module()
    m.p, m.child = nn.Parameter(lib.zeros(1)), nn.Linear(1, 1)
    m.register_buffer("b", lib.zeros(1))
    for name in ("p", "child", "b"):
        with pytest.raises(TypeError, match="cannot assign"):
            setattr(m, name, 3.0)
    with pytest.raises(TypeError, match="cannot assign"):
        m.p = lib.zeros(1)
    with pytest.raises(KeyError, match="exists"):
        m.register_buffer("p", lib.zeros(1))
    with pytest.raises(KeyError, match="exists"):
        m.register_parameter("train", nn.Parameter(lib.zeros(1)))
    with pytest.raises(KeyError):
        m.register_parameter("a.b", None)
    with pytest.raises(KeyError):
        m.register_parameter("", None)
    with pytest.raises(TypeError):
        m.register_parameter(3, None)
    with pytest.raises(TypeError):
        m.register_parameter("q", lib.zeros(1))
    with pytest.raises(ValueError):
        m.register_parameter("q", _computed(lib))
    with pytest.raises(TypeError):
        m.register_buffer("q", 3)
    with pytest.raises(TypeError):
        m.add_module("q", 3)
    with pytest.raises(AttributeError):
        _ = m.nothing
    with pytest.raises(AttributeError):
        del m.nothing


def _computed(lib):
    """A Parameter that is not a leaf: written in place from a tensor that requires grad."""
    made = lib.nn.Parameter(lib.zeros(1), requires_grad=False)
    return made.add_(lib.ones(1, requires_grad=True))


def test_assigning_before_init_is_an_error(lib):
    nn = lib.nn

    class Early(nn.Module):
        def __init__(self, what):
            self.part = what

    for what in (nn.Linear(1, 1), nn.Parameter(lib.zeros(1))):
        with pytest.raises(AttributeError, match=r"before Module.__init__\(\) call"):
            Early(what)


def test_forward_must_be_defined_and_init_takes_nothing(lib):
    with pytest.raises(NotImplementedError, match="forward"):
        lib.nn.Module()(1)
    with pytest.raises(TypeError):
        lib.nn.Module(3)


def test_deleting(lib):
    model = net(lib)
    del model.scale, model.first, model.mean
    assert list(model.state_dict()) == ["rest.1.weight", "rest.1.bias"]


def test_dir_lists_what_is_registered(lib):
    assert {"first", "scale", "mean", "forward", "training"} <= set(dir(net(lib)))
    assert "0" not in dir(lib.nn.Sequential(lib.nn.ReLU()))


# ---- looking inside


def test_paths(lib):
    model = net(lib)
    assert model.get_submodule("rest.1") is model.rest[1]
    assert model.get_submodule("") is model
    assert model.get_parameter("rest.1.bias") is model.rest[1].bias
    assert model.get_buffer("mean") is model.mean
    for path in ("rest.7", "scale", "no"):
        with pytest.raises(AttributeError):
            model.get_submodule(path)
    with pytest.raises(AttributeError):
        model.get_parameter("mean")
    with pytest.raises(AttributeError):
        model.get_buffer("scale")
    model.set_submodule("rest.0", lib.nn.Tanh())
    assert isinstance(model.rest[0], lib.nn.Tanh)
    with pytest.raises(AttributeError):
        model.set_submodule("rest.zzz", lib.nn.Tanh(), strict=True)
    with pytest.raises(ValueError):
        model.set_submodule("", lib.nn.Tanh())


def test_apply_visits_children_first(lib):
    seen = []
    model = net(lib)
    assert model.apply(lambda m: seen.append(type(m).__name__)) is model
    assert seen == ["Linear", "ReLU", "Linear", "Sequential", "Net"]


def test_train_and_eval_reach_all_modules(lib):
    model = net(lib)
    assert model.eval() is model and not any(m.training for m in model.modules())
    assert all(m.training for m in model.train().modules())
    with pytest.raises(ValueError):
        model.train("yes")


def test_requires_grad_and_zero_grad(lib):
    model = net(lib)
    assert not any(p.requires_grad for p in model.requires_grad_(False).parameters())
    model.requires_grad_()
    model(lib.ones(4, 2)).sum().backward()
    model.zero_grad(set_to_none=False)
    assert all(p.grad is not None and float(p.grad.abs().sum()) == 0 for p in model.parameters())
    model.zero_grad()
    assert all(p.grad is None for p in model.parameters())


def test_conversion_keeps_parameters_and_skips_integers(lib):
    model = net(lib)
    model.register_buffer("count", lib.tensor(3))
    held = model.scale
    model(lib.ones(1, 2)).sum().backward()
    assert model.double() is model
    assert model.scale is held and held.dtype == lib.float64 and held.grad.dtype == lib.float64
    assert model.mean.dtype == lib.float64 and model.count.dtype == lib.int64
    assert model.to(lib.float32).scale.dtype == lib.float32
    assert model.half().scale.dtype == lib.float16
    assert model.bfloat16().scale.dtype == lib.bfloat16
    assert model.float().cpu().to("cpu").scale.dtype == lib.float32
    assert model.to("cpu", lib.float64).scale.dtype == lib.float64
    assert model.to(lib.zeros(1)).scale.dtype == lib.float32
    assert model.type(lib.float64).count.dtype == lib.float64
    with pytest.raises(TypeError):
        model.to(lib.int64)


def test_no_gpu_is_an_error():
    with pytest.raises(RuntimeError, match="cuda"):
        ringgrad.nn.Linear(2, 2).cuda()


# ---- state


def test_state_dict_shares_memory_and_has_versions(lib):
    model = net(lib)
    state = model.state_dict()
    names = ["scale", "mean", "first.weight", "first.bias", "rest.1.weight", "rest.1.bias"]
    assert list(state) == names and isinstance(state, OrderedDict)
    assert state._metadata["rest.1"] == {"version": 1} and state._metadata[""] == {"version": 1}
    assert not state["scale"].requires_grad
    state["scale"].fill_(7)
    assert model.scale[0].item() == 7
    assert model.state_dict(keep_vars=True)["scale"] is model.scale
    into = {}
    assert model.state_dict(destination=into, prefix="m.") is into and next(iter(into)) == "m.scale"


def test_load_state_dict(lib):
    a, b = net(lib), net(lib)
    held = b.scale
    result = b.load_state_dict(a.state_dict())
    assert repr(result) == "<All keys matched successfully>"
    assert result.missing_keys == [] and result.unexpected_keys == []
    assert b.scale is held
    for x, y in zip(a.state_dict().values(), b.state_dict().values()):
        np.testing.assert_array_equal(x.numpy(), y.numpy())
    assert b.first.weight.requires_grad


def test_load_state_dict_lists_everything_that_is_wrong(lib):
    model = net(lib)
    state = model.state_dict()
    del state["scale"], state["rest.1.bias"]
    state["more"], state["first.more"], state["first.weight"] = lib.zeros(1), lib.zeros(1), lib.zeros(5, 2)
    before = model.mean.clone()
    with pytest.raises(RuntimeError) as caught:
        model.load_state_dict(state)
    text = str(caught.value)
    assert "Error(s) in loading state_dict for Net" in text
    assert 'Missing key(s) in state_dict: "scale", "rest.1.bias"' in text
    assert 'Unexpected key(s) in state_dict: "more", "first.more"' in text
    assert "size mismatch for first.weight" in text and "[5, 2]" in text and "[3, 2]" in text
    np.testing.assert_array_equal(model.mean.numpy(), before.numpy())
    del state["first.weight"]
    result = model.load_state_dict(state, strict=False)
    assert result.missing_keys == ["scale", "first.weight", "rest.1.bias"]
    assert result.unexpected_keys == ["more", "first.more"]
    with pytest.raises(RuntimeError, match="size mismatch"):
        model.load_state_dict({"scale": lib.zeros(9)}, strict=False)
    with pytest.raises(TypeError):
        model.load_state_dict([1])
    with pytest.raises(RuntimeError, match="scale"):
        model.load_state_dict({"scale": 3}, strict=False)


def test_load_state_dict_converts_dtype_and_old_scalars(lib):
    m = lib.nn.Module()
    m.p = lib.nn.Parameter(lib.tensor(1.0))
    m.load_state_dict({"p": lib.tensor([2.0], dtype=lib.float64)})
    assert m.p.item() == 2 and m.p.dtype == lib.float32 and m.p.ndim == 0


def test_load_state_dict_assign_takes_the_tensors_themselves(lib):
    model = lib.nn.Linear(2, 2)
    given = {"weight": lib.ones(2, 2, dtype=lib.float64), "bias": lib.zeros(2)}
    model.load_state_dict(given, assign=True)
    assert model.weight.dtype == lib.float64 and isinstance(model.weight, lib.nn.Parameter)
    assert model.weight.requires_grad
    given["weight"].fill_(5)
    assert float(model.weight.detach()[0, 0]) == 5


def test_extra_state(lib):
    class Counter(lib.nn.Module):
        def __init__(self):
            super().__init__()
            self.n = 1

        def get_extra_state(self):
            return {"n": self.n}

        def set_extra_state(self, state):
            self.n = state["n"]

    a, b = lib.nn.Sequential(Counter()), lib.nn.Sequential(Counter())
    a[0].n = 5
    state = a.state_dict()
    assert list(state) == ["0._extra_state"]
    b.load_state_dict(state)
    assert b[0].n == 5
    with pytest.raises(RuntimeError, match="_extra_state"):
        b.load_state_dict({})
    with pytest.raises(RuntimeError, match="_extra_state"):
        lib.nn.ReLU().load_state_dict({"_extra_state": 1})


def test_state_hooks(lib):
    model, seen = net(lib), []
    model.register_state_dict_pre_hook(lambda m, prefix, keep: seen.append(("before", prefix)))

    def drop(m, state, prefix, metadata):
        del state["mean"]

    def restore(m, state, prefix, *rest):
        state["mean"] = lib.ones(3)

    model.register_state_dict_post_hook(drop)
    model.register_load_state_dict_pre_hook(restore)
    model.register_load_state_dict_post_hook(lambda m, keys: seen.append(("after", list(keys.missing_keys))))
    state = model.state_dict()
    assert "mean" not in state and seen == [("before", "")]
    model.load_state_dict(state)
    assert seen[-1] == ("after", []) and float(model.mean[0]) == 1
    model._register_state_dict_hook(lambda m, state, prefix, meta: {"only": 1})
    assert model.state_dict() == {"only": 1}


def test_a_post_hook_may_forgive_missing_keys(lib):
    model = net(lib)
    model.register_load_state_dict_post_hook(lambda m, keys: keys.missing_keys.clear())
    model.load_state_dict({})


def test_copies_are_independent(lib):
    model = net(lib)
    other = copy.deepcopy(model)
    with lib.no_grad():
        other.scale.fill_(9)
    assert model.scale[0].item() == 1
    assert [n for n, _ in other.named_parameters()] == [n for n, _ in model.named_parameters()]
    tied = lib.nn.Sequential(lib.nn.Linear(2, 2), lib.nn.Linear(2, 2))
    tied[1].weight = tied[0].weight
    twin = copy.deepcopy(tied)
    assert twin[0].weight is twin[1].weight and twin[0].weight is not tied[0].weight


def test_pickling(lib):
    model = lib.nn.Sequential(lib.nn.Linear(2, 3), lib.nn.BatchNorm1d(3))
    twin = pickle.loads(pickle.dumps(model))
    np.testing.assert_array_equal(twin[0].weight.detach().numpy(), model[0].weight.detach().numpy())
    assert twin[0].weight.requires_grad and repr(twin) == repr(model)


# ---- hooks


def test_forward_hooks(lib):
    m, seen = lib.nn.Identity(), []
    m.register_forward_pre_hook(lambda mod, args: (args[0] + 1,))
    m.register_forward_pre_hook(lambda mod, args: args[0] * 2)
    m.register_forward_hook(lambda mod, args, out: seen.append((float(args[0]), float(out))))
    last = m.register_forward_hook(lambda mod, args, out: out * 10)
    assert float(m(lib.tensor(1.0))) == 40 and seen == [(4, 4)]
    last.remove()
    assert float(m(lib.tensor(1.0))) == 4
    with m.register_forward_hook(lambda mod, args, out: out * 100):
        assert float(m(lib.tensor(1.0))) == 400
    m.register_forward_pre_hook(lambda mod, args: args[0] + 10, prepend=True)
    assert float(m(lib.tensor(1.0))) == 24


def test_forward_hooks_with_kwargs(lib):
    class Add(lib.nn.Module):
        def forward(self, x, y=0):
            return x + y

    m, seen = Add(), []
    m.register_forward_pre_hook(lambda mod, args, kw: (args, {"y": kw["y"] * 2}), with_kwargs=True)
    m.register_forward_hook(lambda mod, args, kw, out: seen.append(kw), with_kwargs=True)
    assert m(1, y=3) == 7 and seen == [{"y": 6}]
    m.register_forward_pre_hook(lambda mod, args, kw: 3, with_kwargs=True)
    with pytest.raises(RuntimeError):
        m(1, y=3)


def test_always_called_hooks_see_failures(lib):
    class Fails(lib.nn.Module):
        def forward(self, x):
            raise KeyError("no")

    m, seen = Fails(), []
    m.register_forward_hook(lambda mod, args, out: seen.append("usual"))
    m.register_forward_hook(lambda mod, args, out: seen.append(out), always_call=True)
    with pytest.raises(KeyError):
        m(1)
    assert seen == [None]


def test_backward_hooks(lib):
    m, seen = lib.nn.Linear(2, 1, bias=False), []
    with lib.no_grad():
        m.weight.fill_(3)
    m.register_full_backward_pre_hook(lambda mod, grad: (grad[0] * 2,))
    m.register_full_backward_hook(lambda mod, gin, gout: seen.append((gin[0].tolist(), gout[0].tolist())))
    x = lib.ones(1, 2, requires_grad=True)
    m(x).sum().backward()
    assert seen == [([[6, 6]], [[2]])] and x.grad.tolist() == [[6, 6]] and m.weight.grad.tolist() == [[2, 2]]
    m.register_full_backward_hook(lambda mod, gin, gout: (gin[0] * 0,))
    x.grad = None
    m(x).sum().backward()
    assert x.grad.tolist() == [[0, 0]]


def test_backward_hooks_with_several_inputs_and_outputs(lib):
    class Two(lib.nn.Module):
        def forward(self, a, b, c):
            return a * b, a + b

    m, seen = Two(), []
    m.register_full_backward_hook(lambda mod, gin, gout: seen.append((gin, gout)))
    a, b = lib.ones(1, requires_grad=True), lib.ones(1) * 3
    first, second = m(a, b, "text")
    (first * 5 + second).backward()
    (gin, gout) = seen[0]
    assert gin[1].item() == 0 and gin[2] is None and gin[0].item() == 16
    assert [g.item() for g in gout] == [5, 1]
    m(a, b, "text")[1].backward()
    assert seen[1][1][0] is None and seen[1][1][1].item() == 1


@pytest.mark.filterwarnings("ignore:Full backward hook")
def test_backward_hook_fires_without_gradients_of_inputs(lib):
    m, seen = lib.nn.Linear(2, 1), []
    m.register_full_backward_hook(lambda mod, gin, gout: seen.append((gin, gout[0].tolist())))
    m(lib.ones(1, 2)).sum().backward()
    assert seen == [((None,), [[1]])]
    with lib.no_grad():
        m(lib.ones(1, 2))
    assert len(seen) == 1


def test_backward_hooks_must_return_as_many(lib):
    m = lib.nn.Identity()
    m.register_full_backward_hook(lambda mod, gin, gout: (gin[0], gin[0]))
    with pytest.raises(RuntimeError):
        m(lib.ones(1, requires_grad=True)).backward()


def test_hooks_pass_views_that_cannot_be_written(lib):
    class Writes(lib.nn.Module):
        def forward(self, x):
            return x.add_(1)

    m = Writes()
    m.register_full_backward_hook(lambda mod, gin, gout: None)
    with pytest.raises(RuntimeError):
        m(lib.ones(2, requires_grad=True) * 1).sum().backward()


@pytest.mark.filterwarnings("ignore:Full backward hook")
def test_hooks_on_all_modules(lib):
    from importlib import import_module

    where = "ringgrad.nn.hooks" if lib is ringgrad else "torch.nn.modules.module"
    hooks, seen = import_module(where), []
    model = net(lib)
    handles = [
        hooks.register_module_forward_pre_hook(lambda m, args: seen.append("pre " + type(m).__name__)),
        hooks.register_module_forward_hook(lambda m, args, out: seen.append("post " + type(m).__name__)),
        hooks.register_module_full_backward_hook(
            lambda m, gin, gout: seen.append("back " + type(m).__name__)
        ),
        hooks.register_module_full_backward_pre_hook(
            lambda m, gout: seen.append("early " + type(m).__name__)
        ),
        hooks.register_module_parameter_registration_hook(lambda m, name, p: seen.append("par " + name)),
        hooks.register_module_buffer_registration_hook(lambda m, name, b: seen.append("buf " + name)),
        hooks.register_module_module_registration_hook(lambda m, name, b: seen.append("mod " + name)),
    ]
    try:
        model(lib.ones(1, 2)).sum().backward()
        forward = [s for s in seen if s.startswith(("pre", "post"))]
        assert forward[:3] == ["pre Net", "pre Linear", "post Linear"] and forward[-1] == "post Net"
        assert next(s for s in seen if s.startswith("early")) == "early Net"
        assert "back Sequential" in seen
        m = lib.nn.Module()
        m.register_buffer("b", lib.zeros(1))
        m.p, m.c = lib.nn.Parameter(lib.zeros(1)), lib.nn.ReLU()
        assert seen[-3:] == ["buf b", "par p", "mod c"]
    finally:
        for handle in handles:
            handle.remove()
    count = len(seen)
    model(lib.ones(1, 2)).sum().backward()
    assert len(seen) == count


# ---- containers


def test_sequential(lib):
    nn = lib.nn
    a, b, c = nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1)
    s = nn.Sequential(a, b)
    assert s.append(c) is s and len(s) == 3 and s[-1] is c and list(s) == [a, b, c]
    assert isinstance(s[:2], nn.Sequential) and s[:2][0] is a
    s[1] = nn.Tanh()
    del s[0]
    assert list(s._modules) == ["0", "1"] and s[1] is c
    s.insert(0, a)
    assert s[0] is a and s.pop(1).__class__ is nn.Tanh
    assert list(s + nn.Sequential(b)) == [a, c, b]
    assert len(nn.Sequential(b) * 3) == 3 and len(2 * nn.Sequential(b, b)) == 4
    s += nn.Sequential(b)
    assert len(s) == 3
    named = nn.Sequential(OrderedDict(first=a, second=b))
    assert named.first is a and named[1] is b and next(iter(named.state_dict())) == "first.weight"
    with pytest.raises(IndexError):
        s[3]
    with pytest.raises(ValueError):
        s + [1]
    with pytest.raises(TypeError):
        nn.Sequential(3)
    assert list(nn.Sequential(a).extend([b])) == [a, b]


def test_module_list(lib):
    nn = lib.nn
    a, b, c = nn.Linear(2, 2), nn.ReLU(), nn.Linear(2, 1)
    items = nn.ModuleList([a])
    items.append(b)
    items.extend([c])
    items.insert(1, nn.Tanh())
    assert len(items) == 4 and items[-1] is c and items[1:3][1] is b
    del items[1]
    assert list(items) == [a, b, c] and list(items._modules) == ["0", "1", "2"]
    items[0] = c
    assert items[0] is c and items.pop(0) is c and len(items) == 2
    assert len(items + [a]) == 3
    items += [a]
    assert len(items) == 3
    with pytest.raises(IndexError):
        items[5]
    with pytest.raises(TypeError):
        items.extend(3)
    with pytest.raises(NotImplementedError):
        items(1)


def test_module_dict(lib):
    nn = lib.nn
    d = nn.ModuleDict({"b": nn.ReLU(), "a": nn.Linear(2, 2)})
    assert list(d) == ["b", "a"] and "a" in d and len(d) == 2 and list(d.keys()) == ["b", "a"]
    d.update([("c", nn.Tanh())])
    d["d"] = nn.Tanh()
    assert isinstance(d.pop("c"), nn.Tanh) and [k for k, _ in d.items()] == ["b", "a", "d"]
    del d["d"]
    assert len(list(d.values())) == 2
    d.clear()
    assert len(d) == 0
    with pytest.raises(KeyError):
        d["zzz"]
    with pytest.raises(TypeError):
        d.update(3)
    with pytest.raises(ValueError):
        d.update([("a", nn.ReLU(), 3)])


def test_parameter_list(lib):
    nn = lib.nn
    items = nn.ParameterList([nn.Parameter(lib.ones(2)), lib.zeros(3)])
    items.append(nn.Parameter(lib.ones(1)))
    items.extend([lib.zeros(1)])
    items += [lib.zeros(1)]
    assert len(items) == 5 and all(isinstance(p, nn.Parameter) for p in items)
    assert [n for n, _ in items.named_parameters()] == ["0", "1", "2", "3", "4"]
    items[0] = lib.zeros(7)
    assert items[-5].shape == (7,) and isinstance(items[1:3], nn.ParameterList) and len(items[1:3]) == 2
    with pytest.raises(IndexError):
        items[9]
    with pytest.raises(RuntimeError):
        items(1)
    with pytest.raises(TypeError):
        items.extend(lib.zeros(3))


def test_parameter_dict(lib):
    nn = lib.nn
    assert list(nn.ParameterDict({"b": lib.ones(2), "a": lib.ones(1)})) == ["a", "b"]
    d = nn.ParameterDict([("b", lib.ones(2)), ("a", nn.Parameter(lib.zeros(1)))])
    assert list(d) == ["b", "a"] and isinstance(d["b"], nn.Parameter) and list(d.keys()) == ["b", "a"]
    d["c"] = lib.zeros(1)
    d.update({"d": lib.zeros(1)})
    assert [n for n, _ in d.named_parameters()] == ["b", "a", "c", "d"]
    assert d.pop("c").shape == (1,) and "c" not in d and d.get("c", 5) == 5 and d.get("a") is d["a"]
    assert d.popitem()[0] == "d" and d.setdefault("b") is d["b"] and len(d) == 2
    assert sorted((d | nn.ParameterDict({"z": lib.zeros(1)})).keys()) == ["a", "b", "z"]
    assert sorted(d.copy()) == ["a", "b"] and list(reversed(d)) == ["a", "b"]
    assert [k for k, _ in d.items()] == ["b", "a"] and len(list(d.values())) == 2
    assert list(d.fromkeys(["x", "y"], 1)) == ["x", "y"]
    d.clear()
    assert len(d) == 0 and not list(d.parameters())
    with pytest.raises((KeyError, AttributeError)):
        d["a"]
    with pytest.raises(KeyError):
        d.popitem()


# ---- text


def test_representation(lib):
    model = net(lib)
    assert repr(model) == (
        "Net(\n  (first): Linear(in_features=2, out_features=3, bias=True)\n  (rest): Sequential(\n    (0): ReLU()\n"
        "    (1): Linear(in_features=3, out_features=1, bias=True)\n  )\n)"
    )
    assert repr(lib.nn.ModuleList()) == "ModuleList()" and repr(lib.nn.Module()) == "Module()"

    class Both(lib.nn.Module):
        def extra_repr(self):
            return "x=1\ny=2"

    m = Both()
    assert repr(m) == "Both(\n  x=1\n  y=2\n)"
    m.inner = lib.nn.ReLU(inplace=True)
    assert repr(m) == "Both(\n  x=1\n  y=2\n  (inner): ReLU(inplace=True)\n)"


# ---- lazy modules


def test_lazy_modules_become_what_they_stand_for(lib):
    import warnings

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        m = lib.nn.LazyLinear(4)
    assert isinstance(m.weight, lib.nn.UninitializedParameter) and m.has_uninitialized_params()
    with pytest.raises(RuntimeError):
        _ = m.weight.shape
    assert m(lib.ones(2, 3)).shape == (2, 4)
    assert type(m) is lib.nn.Linear and m.in_features == 3 and m.weight.shape == (4, 3)
    assert isinstance(m.weight, lib.nn.Parameter) and not isinstance(m.weight, lib.nn.UninitializedParameter)


def test_lazy_modules_load_states():
    m = ringgrad.nn.LazyLinear(4)
    state = ringgrad.nn.Linear(3, 4).state_dict()
    m.load_state_dict(state)
    y = m(ringgrad.ones(2, 3))
    assert type(m) is ringgrad.nn.Linear and m.in_features == 3
    want = ringgrad.nn.functional.linear(ringgrad.ones(2, 3), state["weight"], state["bias"])
    np.testing.assert_array_equal(y.detach().numpy(), want.numpy())


def test_importing_ringgrad_does_not_load_nn():
    import subprocess
    import sys

    code = "import ringgrad, sys; assert not any(m.startswith('ringgrad.nn') for m in sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True, timeout=100)
