"""PyTorch's files: we read what torch.save writes, torch.load reads what we save, with equal bits."""

import io
import zipfile
from collections import OrderedDict
from contextlib import suppress

import numpy as np
import pytest

from ringgrad.autograd.engine import wrap
from ringgrad.tensor import Parameter, Size, Tensor, dtypes
from ringgrad.tensor.device import device
from ringgrad.tensor.serialization import CheckpointError, load, save, zipwriter

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.parity

FORMATS = pytest.mark.parametrize("new", [True, False], ids=["zip", "legacy"])
WRITTEN_BY_TORCH = [
    *(
        "bool",
        "uint8",
        "int8",
        "int16",
        "uint16",
        "int32",
        "uint32",
        "int64",
        "uint64",
        "float16",
        "bfloat16",
    ),
    *("float32", "float64", "complex64", "complex128", "float8_e4m3fn", "float8_e5m2"),
]


def bits(x):
    return x.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def agree(ours, theirs):
    """The same structure, types and bits, ringgrad's on the left and PyTorch's on the right."""
    if isinstance(theirs, torch.Tensor):
        assert type(ours) is (Parameter if isinstance(theirs, torch.nn.Parameter) else Tensor)
        assert ours.requires_grad == theirs.requires_grad and ours.dtype.name == str(
            theirs.dtype
        ).removeprefix("torch.")
        assert ours.array.shape == theirs.shape and ours.array.tobytes() == bits(theirs)
    elif isinstance(theirs, torch.Size):
        assert type(ours) is Size and tuple(ours) == tuple(theirs)
    elif isinstance(theirs, torch.dtype):
        assert type(ours) is dtypes.dtype and f"torch.{ours.name}" == str(theirs)
    elif isinstance(theirs, torch.device):
        assert type(ours) is device and str(ours) == str(theirs)
    elif isinstance(theirs, dict):
        assert type(ours) is type(theirs) and len(ours) == len(theirs)
        for (k, v), (l, w) in zip(ours.items(), theirs.items()):
            agree(k, l), agree(v, w)
    elif isinstance(theirs, list | tuple):
        assert type(ours) is type(theirs) and len(ours) == len(theirs)
        for v, w in zip(ours, theirs):
            agree(v, w)
    elif isinstance(theirs, np.ndarray):
        assert type(ours) is np.ndarray and ours.dtype == theirs.dtype and (ours == theirs).all()
    else:
        assert type(ours) is type(theirs) and repr(ours) == repr(theirs)


def torch_bytes(obj, **options):
    buffer = io.BytesIO()
    torch.save(obj, buffer, **options)
    return buffer.getvalue()


def model():
    torch.manual_seed(0)
    return torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.BatchNorm1d(8), torch.nn.Linear(8, 2))


def training_state():
    net = model()
    optimizer = torch.optim.AdamW(net.parameters(), amsgrad=True)
    schedule = torch.optim.lr_scheduler.MultiStepLR(optimizer, [1, 3])
    net(torch.randn(5, 4)).sum().backward()
    optimizer.step(), schedule.step()
    return {
        "model": net.state_dict(),
        "optimizer": optimizer.state_dict(),
        "schedule": schedule.state_dict(),
        "rng": torch.get_rng_state(),
        "epoch": 3,
        "best": float("inf"),
    }


def everything():
    w = torch.arange(12.0).reshape(3, 4)
    return {
        "views": [w, w.T, w[1:], w[:, 1::2], w[0, 0], w.expand(2, 3, 4), torch.empty(0, 3), torch.tensor(5)],
        "half": torch.ones(3, dtype=torch.bfloat16),
        "parameter": torch.nn.Parameter(w),
        "frozen": torch.nn.Parameter(torch.ones(2), requires_grad=False),
        "leaf": torch.ones(2, requires_grad=True),
        "plain": [
            None,
            True,
            1,
            -1,
            300,
            -(1 << 40),
            1 << 70,
            0.5,
            "text \u00fc",
            (),
            (1,),
            (1, 2, 3),
            (1, 2, 3, 4),
        ],
        "raw": [b"a\xff", bytearray(b"b\x80"), 1 + 2j, {1}],
        "torch": [
            torch.Size([2, 3]),
            torch.float16,
            torch.bool,
            torch.device("cpu"),
            torch.device("cuda", 1),
        ],
        "keys": {1: "a", (2, "b"): OrderedDict(c=[])},
    }


@FORMATS
@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("make", [training_state, everything])
def test_we_read_what_torch_saves(make, protocol, new):
    raw = torch_bytes(make(), pickle_protocol=protocol, _use_new_zipfile_serialization=new)
    agree(load(io.BytesIO(raw)), torch.load(io.BytesIO(raw), weights_only=False))


@pytest.mark.parametrize("make", [training_state, everything])
@pytest.mark.parametrize("mmap", [False, True])
def test_torch_reads_what_we_save(tmp_path, make, mmap):
    state = load(io.BytesIO(torch_bytes(make())))
    save(state, tmp_path / "a.pt")
    agree(state, torch.load(tmp_path / "a.pt", weights_only=True, mmap=mmap))
    save(state, tmp_path / "a.rg")
    agree(load(tmp_path / "a.rg"), make())


@FORMATS
@pytest.mark.parametrize("name", WRITTEN_BY_TORCH)
def test_every_dtype_both_ways(name, new):
    x = torch.arange(6).reshape(2, 3).to(getattr(torch, name))
    ours = load(io.BytesIO(torch_bytes([x, x.T], _use_new_zipfile_serialization=new)))
    agree(ours, [x, x.T])
    buffer = io.BytesIO()
    save(ours, buffer)
    buffer.seek(0)
    theirs = torch.load(buffer, weights_only=True)
    agree(ours, theirs)
    assert theirs[0].data_ptr() == theirs[1].data_ptr()


@FORMATS
def test_tied_weights_stay_tied_both_ways(tmp_path, new):
    w = torch.arange(6.0).reshape(2, 3)
    ours = load(
        io.BytesIO(torch_bytes({"a": w, "b": w.view(6), "same": w}, _use_new_zipfile_serialization=new))
    )
    assert ours["a"] is ours["same"]
    ours["a"].array[1, 2] = 9
    assert ours["b"].array[5] == 9
    save(ours, tmp_path / "a.pt")
    theirs = torch.load(tmp_path / "a.pt")
    assert theirs["a"] is theirs["same"]
    theirs["a"][0, 0] = 7
    assert theirs["b"][0] == 7


@FORMATS
def test_lazily_conjugated_and_negated_tensors(new):
    x = torch.tensor([1 + 2j, 3 - 4j])
    for lazy in (x.conj(), x.conj().imag):
        assert lazy.is_conj() or lazy.is_neg()
        ours = load(io.BytesIO(torch_bytes(lazy, _use_new_zipfile_serialization=new)))
        assert ours.array.tolist() == lazy.tolist()


def test_tensors_with_attributes_and_buffers():
    x = torch.nn.Parameter(torch.ones(2))
    x.name_of_mine = "x"
    buffer = torch.nn.Buffer(torch.zeros(2))
    ours = load(io.BytesIO(torch_bytes([x, buffer])))
    assert type(ours[0]) is Parameter and type(ours[1]) is Tensor and ours[0].array.tolist() == [1, 1]


def test_numpy_values_both_ways(tmp_path):
    state = {
        "array": np.arange(6, dtype=">i2").astype("i2").reshape(2, 3).T,
        "n": np.float64(0.5),
        "t": np.dtype("u1"),
    }
    state |= {
        "random": np.random.RandomState(0).get_state(),
        "b": np.array([True, False]),
        "c": np.ones(1, "c16"),
    }
    agree(load(io.BytesIO(torch_bytes(state))), state)
    save(state, tmp_path / "a.pt")
    agree(torch.load(tmp_path / "a.pt", weights_only=False), state)


def test_big_endian_files():
    """As torch.save on such a machine: all records swapped, and a record that says so."""
    state = [
        torch.arange(3.0),
        torch.tensor([1 + 2j]),
        torch.tensor([1, -2], dtype=torch.int16),
        torch.tensor([True]),
    ]
    raw, out = torch_bytes(state), io.BytesIO()
    widths = {"0": 4, "1": 4, "2": 2, "3": 1}
    with zipfile.ZipFile(io.BytesIO(raw)) as old, zipfile.ZipFile(out, "w") as new:
        for name in old.namelist():
            data, width = old.read(name), widths.get(name.rpartition("/")[2], 1)
            swapped = b"".join(data[i : i + width][::-1] for i in range(0, len(data), width))
            new.writestr(name, b"big" if name.endswith("byteorder") else swapped)
    agree(load(io.BytesIO(out.getvalue())), state)


def test_whole_modules_and_other_objects_are_refused_by_name():
    with pytest.raises(CheckpointError, match=r"needs torch\.nn\.modules\.container\.Sequential.*state_dict"):
        load(io.BytesIO(torch_bytes(model())))
    with pytest.raises(CheckpointError, match=r"needs torch\._utils\._rebuild_sparse_tensor"):
        load(io.BytesIO(torch_bytes(torch.eye(2).to_sparse())))


def test_a_flipped_bit_in_a_file_of_torch_changes_nothing_unnoticed():
    """PyTorch's zip has checksums of its records only: flips elsewhere are found, or mean nothing."""
    state = {"w": torch.arange(4.0), "b": torch.ones(2, dtype=torch.bfloat16)}
    raw = bytearray(torch_bytes(state))
    found = 0
    for bit in range(8 * len(raw)):
        raw[bit // 8] ^= 1 << bit % 8
        try:
            agree(load(io.BytesIO(bytes(raw))), state)
        except CheckpointError:
            found += 1
        raw[bit // 8] ^= 1 << bit % 8
    assert found > 8 * sum(info.file_size for info in zipfile.ZipFile(io.BytesIO(bytes(raw))).infolist())


def test_changed_pickles_under_right_checksums_raise_nothing_unexpected():
    """What a hostile author can do: the pickle of a real file with bytes changed, sealed again."""
    with zipfile.ZipFile(io.BytesIO(torch_bytes(everything()))) as archive:
        records = {name: archive.read(name) for name in archive.namelist()}
    stream, random = records["archive/data.pkl"], np.random.default_rng(0)
    for _ in range(1000):
        changed = bytearray(stream)
        for _ in range(random.integers(1, 4)):
            changed[random.integers(len(changed))] = random.integers(256)
        out = io.BytesIO()
        with zipfile.ZipFile(out, "w") as archive:
            for name, data in (records | {"archive/data.pkl": bytes(changed)}).items():
                archive.writestr(name, data)
        with suppress(CheckpointError):
            load(io.BytesIO(out.getvalue()))


@FORMATS
def test_truncated_files_of_torch_are_refused(new):
    raw = torch_bytes([torch.arange(4.0), "text"], _use_new_zipfile_serialization=new)
    for length in range(len(raw)):
        with pytest.raises(CheckpointError):
            load(io.BytesIO(raw[:length]))
    with pytest.raises(CheckpointError):
        load(io.BytesIO(raw + b"\0"))


def test_flipped_bits_in_a_legacy_file_raise_nothing_unexpected():
    """That format has no checksums: what is damaged may load, but never crash or run."""
    raw = bytearray(torch_bytes([torch.arange(4.0)], _use_new_zipfile_serialization=False))
    for bit in range(8 * len(raw)):
        raw[bit // 8] ^= 1 << bit % 8
        with suppress(CheckpointError):
            load(io.BytesIO(bytes(raw)))
        raw[bit // 8] ^= 1 << bit % 8


def test_sizes_beyond_four_gigabytes(monkeypatch, tmp_path):
    """The 64-bit form of the zip directory, from 100 bytes on instead."""
    monkeypatch.setattr(zipwriter, "LIMIT", 100)
    save({"a": wrap(np.arange(100.0)), "b": wrap(np.arange(3))}, tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt") as archive:
        assert archive.testzip() is None and archive.getinfo("archive/data/0").extract_version == 45
    agree(load(tmp_path / "a.pt"), torch.load(tmp_path / "a.pt"))


@pytest.mark.slow
def test_more_records_than_a_short_directory_counts(tmp_path):
    values = np.arange(66_000)
    save([wrap(x) for x in values.reshape(-1, 1)], tmp_path / "a.pt")
    with zipfile.ZipFile(tmp_path / "a.pt") as archive:
        assert len(archive.namelist()) == 66_003
    assert np.concatenate([x.array for x in load(tmp_path / "a.pt")]).tolist() == values.tolist()


def test_records_are_aligned_for_memory_mapping(tmp_path):
    save([wrap(np.arange(float(n))) for n in range(5)], tmp_path / "a.pt")
    raw = (tmp_path / "a.pt").read_bytes()
    with zipfile.ZipFile(tmp_path / "a.pt") as archive:
        for info in archive.infolist():
            name, extra = (int.from_bytes(raw[info.header_offset + i :][:2], "little") for i in (26, 28))
            assert (info.header_offset + 30 + name + extra) % 64 == 0
        assert archive.testzip() is None
