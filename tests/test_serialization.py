"""Saving and loading in ringgrad's own format and plain safetensors: round trips, atomicity, errors."""

import errno
import io
import os
import stat
from collections import Counter, OrderedDict

import ml_dtypes
import numpy as np
import pytest
import safetensors
import safetensors.numpy

from ringgrad.autograd.engine import wrap
from ringgrad.tensor import Parameter, Size, Tensor, dtypes
from ringgrad.tensor.device import device
from ringgrad.tensor.serialization import (
    CheckpointError,
    load,
    load_safetensors,
    save,
    save_safetensors,
    save_torch,
)

SUFFIXES = ("rg", "pt")
DTYPES = [
    *("bool", "uint8", "int8", "int16", "uint16", "int32", "uint32", "int64", "uint64", "float16", "float32"),
    *(
        "float64",
        "complex64",
        "complex128",
        ml_dtypes.bfloat16,
        ml_dtypes.float8_e4m3fn,
        ml_dtypes.float8_e5m2,
    ),
]


def same(a, b):
    """Equal in type and value; NaN equals NaN; tensors bit by bit."""
    assert type(a) is type(b)
    if isinstance(a, Tensor):
        assert a.requires_grad == b.requires_grad
        return same(a.array, b.array)
    if isinstance(a, np.ndarray | np.generic):
        assert (a.dtype, a.shape, a.tobytes()) == (b.dtype, b.shape, b.tobytes())
    elif isinstance(a, dict):
        assert len(a) == len(b)
        for (k, v), (l, w) in zip(a.items(), b.items()):
            same(k, l), same(v, w)
    elif isinstance(a, list | tuple):
        assert len(a) == len(b)
        for v, w in zip(a, b):
            same(v, w)
    else:
        assert repr(a) == repr(b)


def tensor(*shape, dtype="float32", seed=0):
    return wrap(np.random.default_rng(seed).integers(0, 2, shape).astype(dtype))


@pytest.fixture(params=SUFFIXES)
def path(request, tmp_path):
    return tmp_path / f"ckpt.{request.param}"


@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (1,), (2, 3, 4)])
@pytest.mark.parametrize("dtype", DTYPES, ids=lambda d: np.dtype(d).name)
def test_every_dtype_and_shape_comes_back(path, dtype, shape):
    x = tensor(*shape, dtype=dtype)
    save({"x": x}, path)
    found = load(path)
    same(found["x"], x)
    assert found["x"].array.flags.writeable


def structure():
    state = OrderedDict(w=tensor(2, 3), b=tensor(3))
    state._metadata = OrderedDict({"": {"version": 1}})
    return {
        "model": state,
        "parameter": Parameter(tensor(2, 2)),
        "frozen": Parameter(tensor(2), requires_grad=False),
        "leaf": tensor(2).requires_grad_(),
        "optimizer": {
            "state": {0: {"step": tensor(), "m": tensor(3)}},
            "param_groups": [{"betas": (0.9, 0.999)}],
        },
        "numbers": [
            0,
            -1,
            255,
            256,
            1 << 40,
            -(1 << 63),
            1 << 63,
            -(1 << 300),
            0.1,
            -0.0,
            float("nan"),
            float("-inf"),
        ],
        "text": ["", "ü\n\x00", "\ud800", "x" * 300],
        "raw": (b"", b"a\xff\x00", bytearray(b"xy")),
        "complex": complex(1.5, float("inf")),
        "sets": ({1}, frozenset({"a"}), set()),
        "keys": {1: 1, "1": 2, None: 3, (1, "a"): 4, 2.5: 5, True + 5: 6, b"k": 7},
        "empty": [[], {}, (), OrderedDict()],
        "others": [None, True, False, Size((2, 3)), device("cuda", 1), dtypes.bfloat16, dtypes.bool_],
        "counter": Counter([10, 10, 20]),
        "numpy": [
            np.float32(1.5),
            np.int64(-3),
            np.bool_(True),
            np.dtype("int16"),
            np.arange(6).reshape(2, 3),
        ],
        "random": ("MT19937", np.arange(5, dtype=np.uint32), 624, 0, 0.0),
    }


def test_a_nested_structure_comes_back_with_its_types(path):
    save(structure(), path)
    found = load(path)
    same(found, structure())
    assert found["model"]._metadata == OrderedDict({"": {"version": 1}})
    assert found["leaf"].is_leaf and type(found["others"][5]) is dtypes.dtype


def test_open_files_are_written_and_read_from_their_position():
    buffer = io.BytesIO()
    save(structure(), buffer)
    with pytest.raises(CheckpointError, match=r"stands at its end.*seek\(0\)"):
        load(buffer)
    buffer.seek(0)
    same(load(buffer), structure())
    later = io.BytesIO(b"prefix" + buffer.getvalue())
    later.seek(6)
    same(load(later), structure())


def test_unbuffered_and_unseekable_files(tmp_path):
    class Pipe(io.RawIOBase):
        """Takes at most seven bytes a call, as a socket may."""

        def __init__(self):
            self.data = bytearray()

        def writable(self):
            return True

        def write(self, data):
            self.data += bytes(data[:7])
            return min(len(data), 7)

    pipe = Pipe()
    save({"x": tensor(5)}, pipe)
    same(load(io.BytesIO(bytes(pipe.data))), {"x": tensor(5)})


def test_tied_tensors_are_stored_once_and_come_back_tied(path):
    w = tensor(64, 64)
    save({"embedding": w, "head": wrap(w.array), "transposed": wrap(w.array.T), "again": w}, path)
    assert path.stat().st_size < 2 * w.nbytes
    found = load(path)
    assert found["again"] is found["embedding"] and found["head"] is not found["embedding"]
    found["embedding"].array[3, 5] = 7
    assert found["head"].array[3, 5] == found["transposed"].array[5, 3] == 7


def test_overlapping_views_come_back_overlapping(path):
    base = tensor(10).array
    save([wrap(base[:6]), wrap(base[4:]), wrap(base[4:6])], path)
    a, b, c = load(path)
    same([a, b, c], [wrap(base[:6]), wrap(base[4:]), wrap(base[4:6])])
    a.array[4] = 9
    assert b.array[0] == c.array[0] == 9


def test_a_slice_costs_only_itself_and_parts_of_one_buffer_stay_apart(path):
    flat = tensor(100_000).array
    save({"a": wrap(flat[:10]), "b": wrap(flat[10:30].reshape(4, 5))}, path)
    assert path.stat().st_size < 4000
    found = load(path)
    same(found, {"a": wrap(flat[:10].copy()), "b": wrap(flat[10:30].reshape(4, 5).copy())})


@pytest.mark.parametrize(
    "view",
    [
        lambda a: a.T,
        lambda a: a[::2, 1::3],
        lambda a: a[::-1],
        lambda a: np.broadcast_to(a[:1], a.shape),
        lambda a: np.broadcast_to(np.float32(3), (1000, 1000, 1000)),
        lambda a: a.astype(">f4"),
        lambda a: a[:, None, :1],
    ],
    ids=["transposed", "stepped", "reversed", "broadcast", "huge-broadcast", "big-endian", "unit-axes"],
)
def test_any_memory_layout(path, view):
    a = np.arange(48, dtype=np.float32).reshape(6, 8)
    save(wrap(view(a)), path)
    found = load(path).array
    assert path.stat().st_size < 5000
    assert (
        found.shape == view(a).shape and (found[0] == view(a)[0]).all() and (found[-1] == view(a)[-1]).all()
    )


def test_mixed_and_reversed_views_do_not_untie_the_others(path):
    w = np.arange(8, dtype=np.float32)
    save([wrap(w), wrap(w), wrap(w.view(np.int32)), wrap(w[::-1])], path)
    a, b, c, d = load(path)
    a.array[0] = 5
    assert (
        b.array[0] == 5
        and c.array[1] == np.float32(1).view(np.int32)
        and d.array.tolist() == w[::-1].tolist()
    )


def test_the_safetensors_package_reads_our_format(tmp_path):
    save(
        {"model": {"w": tensor(2, 3), "b": tensor(3, dtype=ml_dtypes.bfloat16)}, "step": 3}, tmp_path / "a.rg"
    )
    found = safetensors.numpy.load_file(tmp_path / "a.rg")
    assert (
        found["model.w"].tobytes() == tensor(2, 3).array.tobytes()
        and found["model.b"].dtype == ml_dtypes.bfloat16
    )


def test_names_in_the_container_are_distinct(tmp_path):
    x = {
        "a.b": tensor(1),
        "a": {"b": tensor(2)},
        "__metadata__": tensor(3),
        "": tensor(4),
        "\ud800": tensor(5),
    }
    save(x, tmp_path / "a.rg")
    same(load(tmp_path / "a.rg"), x)
    assert len(safetensors.numpy.load_file(tmp_path / "a.rg")) == 5


PLAIN = {
    "w": tensor(2, 3),
    "none": tensor(0, 3),
    "bf": tensor(3, dtype=ml_dtypes.bfloat16),
    "c": tensor(2, dtype="c8"),
}


def test_plain_safetensors_both_ways(tmp_path):
    ours, theirs = tmp_path / "a.safetensors", tmp_path / "b.safetensors"
    save(PLAIN, ours)
    found = safetensors.numpy.load_file(ours)
    assert {k: (v.dtype, v.tobytes()) for k, v in found.items()} == {
        k: (v.array.dtype, v.array.tobytes()) for k, v in PLAIN.items()
    }
    safetensors.numpy.save_file({k: v.array for k, v in PLAIN.items()}, theirs, metadata={"who": "them"})
    for path in (ours, theirs):
        for found in (load(path), load_safetensors(path)):
            assert found.keys() == PLAIN.keys()
            for name, value in PLAIN.items():
                same(found[name], value)


def test_save_safetensors_stores_transposed_and_tied_tensors_in_full(tmp_path):
    w = np.arange(6, dtype=np.float32).reshape(2, 3)
    save_safetensors({"a": wrap(w), "tied": wrap(w), "t": wrap(w.T)}, tmp_path / "a", metadata={"who": "we"})
    with safetensors.safe_open(tmp_path / "a", "np") as f:
        assert f.metadata()["who"] == "we"
        assert (f.get_tensor("t") == w.T).all() and (f.get_tensor("tied") == w).all()


def test_a_nested_structure_in_safetensors_keeps_its_structure(tmp_path):
    save({"model": PLAIN, "step": 3}, tmp_path / "a.safetensors")
    same(load(tmp_path / "a.safetensors"), {"model": PLAIN, "step": 3})


@pytest.mark.parametrize(
    "tensors", [{1: tensor(1)}, {"a": 1}, {"a": [tensor(1)]}, {"__metadata__": tensor(1)}]
)
def test_save_safetensors_takes_names_and_tensors_only(tmp_path, tensors):
    with pytest.raises(TypeError, match=r"\[save_safetensors\]"):
        save_safetensors(tensors, tmp_path / "a")
    with pytest.raises(TypeError, match="metadata must map"):
        save_safetensors({}, tmp_path / "a", metadata={"ringgrad.tree": "x"})
    assert not os.listdir(tmp_path)


class Thing:
    pass


@pytest.mark.parametrize(
    "value",
    [
        Thing(),
        len,
        Thing,
        lambda: 0,
        range(3),
        np.array(["a"]),
        np.array([None]),
        np.longdouble(1),
        np.str_("a"),
    ],
)
def test_what_cannot_be_saved_is_named(path, value):
    whole = path.suffix == ".pt" and getattr(value, "__name__", "") != "<lambda>"
    if whole:  # PyTorch's format takes objects
        return save({"opt": [0, {"fn": value}]}, path)
    with pytest.raises(TypeError, match=r"\[save\] state\['opt'\]\[1\]\['fn'\] is a .*cannot be saved"):
        save({"opt": [0, {"fn": value}]}, path)
    assert not path.exists()


def test_subclasses_are_refused_not_flattened(path):
    class Number(int):
        pass

    class Mapping(dict):
        pass

    for value in (Number(3), Mapping(), type("Pair", (tuple,), {})()):
        with pytest.raises(TypeError, match=type(value).__name__):
            save([value], path)


def test_endless_and_too_deep_structures(path):
    endless = []
    endless.append(endless)
    deep = []
    for _ in range(99):
        deep = [deep]
    save(deep, path)
    same(load(path), deep)
    for value in (endless, [[deep]]):
        with pytest.raises(ValueError, match=r"at most 100 levels deep.*contains itself"):
            save(value, path)


def test_integers_beyond_pytorchs_format_are_refused(tmp_path):
    save(1 << 5000, tmp_path / "a.rg")
    assert load(tmp_path / "a.rg") == 1 << 5000
    with pytest.raises(ValueError, match="2039 bits"):
        save(1 << 5000, tmp_path / "a.pt")


def test_targets_that_are_no_files(tmp_path):
    with pytest.raises(RuntimeError, match=r"\[save\] the folder of .*create it first"):
        save(1, tmp_path / "none" / "a.rg")
    for place in (tmp_path, "/dev/null"):
        with pytest.raises(ValueError, match="must be a regular file"):
            save(1, place)
    with pytest.raises(FileNotFoundError):
        load(tmp_path / "none.rg")
    with pytest.raises(TypeError):
        save(1, 3.5)


def test_permissions_and_symlinks_stay(path):
    save(1, path)
    path.chmod(0o640)
    link = path.with_name("link" + path.suffix)
    link.symlink_to(path)
    save(2, link)
    assert link.is_symlink() and load(path) == 2 and stat.S_IMODE(path.stat().st_mode) == 0o640


def count_calls(monkeypatch, fail_at, error):
    """Makes the call number `fail_at` of all calls that reach the disk fail."""
    calls = [0]

    def counted(function):
        def call(*arguments, **keywords):
            calls[0] += 1
            if calls[0] == fail_at:
                raise error
            return function(*arguments, **keywords)

        return call

    for name in ("fsync", "replace", "chmod"):
        monkeypatch.setattr(os, name, counted(getattr(os, name)))
    from ringgrad.tensor.serialization import container, files, zipwriter

    for module in (files, container, zipwriter):
        monkeypatch.setattr(module, "write_all", counted(files.write_all))
    return calls


@pytest.mark.parametrize(
    "error", [OSError(errno.EIO, "broken"), KeyboardInterrupt()], ids=["io", "interrupt"]
)
def test_a_save_that_fails_anywhere_leaves_the_old_file_or_the_new_one(path, error):
    old, new = structure(), {"x": [tensor(1000), tensor(3)]}
    save(old, path)
    with pytest.MonkeyPatch.context() as patch:
        calls = count_calls(patch, 0, error)
        save(new, path)
        total = calls[0]
    assert total > 5
    for k in range(1, total + 1):
        save(old, path)
        with pytest.MonkeyPatch.context() as patch:
            count_calls(patch, k, error)
            with pytest.raises(type(error)):
                save(new, path)
        same(
            load(path), old if k < total else new
        )  # the last call syncs the folder: the file is whole already
        assert os.listdir(path.parent) == [path.name]


def test_a_full_disk_is_told_with_bytes_needed_and_free(path, monkeypatch):
    save(1, path)
    count_calls(monkeypatch, 3, OSError(errno.ENOSPC, "No space left on device"))
    with pytest.raises(
        OSError, match=r"\[save\] no room for .* \d+ bytes needed, \d+ free in .*unchanged"
    ) as raised:
        save({"x": tensor(1000)}, path)
    assert raised.value.errno == errno.ENOSPC and load(path) == 1 and os.listdir(path.parent) == [path.name]


def test_loaded_arrays_do_not_depend_on_the_file(path):
    save({"x": tensor(2000)}, path)
    found = load(path)
    path.write_bytes(b"\xff" * path.stat().st_size)
    same(found, {"x": tensor(2000)})


def test_map_location(path):
    save({"x": tensor(2)}, path)
    for place in (None, "cpu", device("cpu"), {"cuda:0": "cpu"}, lambda storage, place: storage):
        same(load(path, place), {"x": tensor(2)})
    for place in ("cuda:0", device("cuda", 1), {"cpu": "cuda:0"}):
        with pytest.raises(RuntimeError, match=r"map_location must be the CPU, cuda:\d came"):
            load(path, map_location=place)


def test_data_is_read_either_way(path):
    save(1, path)
    assert load(path, weights_only=None, mmap=True) == 1
    assert load(path, weights_only=False) == 1


def test_large_tensors_are_checked_in_parts(path, monkeypatch):
    from ringgrad.tensor.serialization import files

    monkeypatch.setattr(files, "CHUNK", 1000)
    x = {"a": tensor(5000), "b": tensor(251), "c": tensor(7)}
    save(x, path)
    same(load(path), x)
    raw = bytearray(path.read_bytes())
    raw[raw.index(x["a"].array.tobytes()) + 17_001] ^= 1
    path.write_bytes(raw)
    with pytest.raises(
        CheckpointError, match=r"damaged: (tensor 'a'|record data/0): checksum \w+ expected, \w+ found"
    ):
        load(path)


def test_save_torch_writes_pytorchs_format_whatever_the_name(tmp_path):
    save_torch({"x": tensor(3)}, tmp_path / "any.name")
    assert (tmp_path / "any.name").read_bytes()[:4] == b"PK\3\4"
    same(load(tmp_path / "any.name"), {"x": tensor(3)})


def test_bfloat16_numpy_arrays_do_not_fit_into_pytorchs_format(tmp_path):
    with pytest.raises(TypeError, match="bfloat16 arrays: save a tensor"):
        save(tensor(2, dtype=ml_dtypes.bfloat16).array, tmp_path / "a.pt")
