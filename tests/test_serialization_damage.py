"""Damaged, cut, foreign and hostile files: every one is refused, with a reason, and nothing in it is run."""

import io
import json
import os
import pickle
import pickletools
import struct
import tracemalloc
import zipfile
import zlib
from collections import OrderedDict
from contextlib import suppress

import numpy as np
import pytest

from ringgrad.autograd.engine import wrap
from ringgrad.tensor import Tensor
from ringgrad.tensor.serialization import CheckpointError, load, save


def tensor(*shape, dtype="float32"):
    return wrap(np.arange(np.prod(shape, dtype=int)).astype(dtype).reshape(shape))


TENSORS = {"layers.0.weight": tensor(4, 5), "mask": tensor(3) > 1, "h": tensor(3, dtype="float16")}
NESTED = {
    "model": TENSORS,
    "tied": TENSORS["layers.0.weight"],
    "opt": [{"lr": 0.1, "betas": (0.9, None)}, float("nan")],
}


def saved(suffix, tmp_path):
    path = tmp_path / f"ckpt.{suffix}"
    save(TENSORS if suffix == "safetensors" else NESTED, path)
    return path


@pytest.fixture(params=["rg", "pt", "safetensors"])
def path(request, tmp_path):
    return saved(request.param, tmp_path)


def refused(raw):
    """The message with which a file of these bytes is refused."""
    with pytest.raises(CheckpointError) as raised:
        load(io.BytesIO(raw))
    assert str(raised.value).startswith("[load] <BytesIO> ")
    return str(raised.value)


def test_every_single_flipped_bit_is_found(path):
    raw = bytearray(path.read_bytes())
    for bit in range(8 * len(raw)):
        raw[bit // 8] ^= 1 << bit % 8
        refused(bytes(raw))
        raw[bit // 8] ^= 1 << bit % 8
    load(io.BytesIO(bytes(raw)))


def test_runs_of_flipped_bits_up_to_the_width_of_the_checksum(path):
    raw = path.read_bytes()
    whole = int.from_bytes(raw, "little")
    random = np.random.default_rng(0)
    for _ in range(500):
        burst = int(random.integers(1, 1 << 32)) << int(random.integers(0, 8 * len(raw) - 32))
        refused((whole ^ burst).to_bytes(len(raw), "little"))


def test_every_truncation_and_extension_is_refused(path):
    raw = path.read_bytes()
    for length in range(len(raw)):
        refused(raw[:length])
    for more in (b"\0", b" ", raw[-1:], b"\0" * 64, raw):
        refused(raw + more)
        refused(more + raw)


def test_overwritten_blocks_and_exchanged_halves(path):
    raw = path.read_bytes()
    for start in range(0, len(raw), 64):
        lost = raw[:start] + bytes(64) + raw[start + 64 :]
        if lost[: len(raw)] != raw:
            refused(lost[: len(raw)])
    middle = len(raw) // 2
    refused(raw[middle:] + raw[:middle])


@pytest.mark.parametrize(
    ("suffix", "what"), [("rg", r"tensor 'model\.layers\.0\.weight'"), ("pt", "record data/0")]
)
def test_damage_is_named(tmp_path, suffix, what):
    path = saved(suffix, tmp_path)
    raw = bytearray(path.read_bytes())
    raw[raw.index(TENSORS["layers.0.weight"].array.tobytes()) + 9] ^= 4
    path.write_bytes(raw)
    with pytest.raises(
        CheckpointError, match=rf"\[load\] {path} is damaged: {what}: checksum \w{{8}} expected, \w{{8}} "
    ):
        load(path)


def zipped(**records):
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as archive:
        for name, data in records.items():
            archive.writestr(f"archive/{name.replace('__', '/').replace('_', '.')}", data)
    return out.getvalue()


def archive(stream, compress=zipfile.ZIP_STORED, **records):
    """A torch zip file around a pickle stream, with right checksums."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", compress) as z:
        z.writestr("archive/data.pkl", stream)
        for name, data in records.items():
            z.writestr(f"archive/data/{name[1:]}", data)
    return out.getvalue()


@pytest.mark.parametrize(
    ("raw", "reason"),
    [
        (b"", "is empty"),
        (b"\x89PNG\r\n\x1a\n" + bytes(50), "a PNG image"),
        (b"\x1f\x8b\x08" + bytes(50), "gzip"),
        (b"\x93NUMPY\x01\0" + bytes(50), "numpy.load"),
        (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
        (b"<!DOCTYPE html><html>", "web page"),
        (pickle.dumps({"a": 1}), "pickle that torch.save did not write"),
        (np.random.default_rng(0).bytes(1000), "not a checkpoint"),
        (b"hello world, this is text", "not a checkpoint"),
        (b"\0" * 100, "not a checkpoint"),
        (zipped(word="x"), "zip archive without data.pkl"),
        (b"PK\3\4" + bytes(100), "zip directory"),
        (archive(b"\x80\x02N.", zipfile.ZIP_DEFLATED), "compressed"),
        (archive(b""), "cannot be read"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_foreign_files_are_refused_with_a_reason(raw, reason):
    assert reason in refused(raw)


def container(header, data=b""):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def entry(shape, begin, end, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    "raw",
    [
        container({"a": entry([1], 4, 8)}, bytes(8)),  # a hole before
        container({"a": entry([1], 0, 4)}, bytes(8)),  # bytes behind
        container({"a": entry([1], 0, 4), "b": entry([1], 0, 4)}, bytes(4)),  # overlap
        container({"a": entry([2], 0, 4)}, bytes(4)),
        container({"a": entry([1 << 62, 1 << 62, 0], 0, 0)}),
        container({"a": entry([-1, -1], 0, 4)}, bytes(4)),
        container({"a": entry([1.0], 0, 4)}, bytes(4)),
        container({"a": entry([True], 0, 4)}, bytes(4)),
        container({"a": entry([1] * 100, 0, 4)}, bytes(4)),
        container({"a": entry([1], 0, 4, "F128")}, bytes(4)),
        container({"a": entry([1], 0, 4, [])}, bytes(4)),
        container({"a": entry([1], 0, 1 << 70)}, bytes(4)),
        container({"a": entry([4], 0, 4, "BOOL")}, bytes([0, 1, 2, 0])),
        container({"a": entry("x", 0, 4)}, bytes(4)),
        container({"a": {}}),
        container({"a": None}),
        container({"a": {"data_offsets": [0, 0]}}),
        container({"__metadata__": {"a": 1}}),
        container({"__metadata__": ["a"]}),
        container({"__metadata__": {"ringgrad.format": "1"}}),
        container(b'{"a":1,"a":1}'),
        container(b'{"a":NaN}'),
        container(b"{" + b'"a":[' * 100_000),
        container(b"{" + b"1" * 10_000 + b"}"),
        container(b"{\xff}"),
        struct.pack("<Q", 1 << 63) + b"{" * 100,
        struct.pack("<Q", 99_999_999) + b"{" * 100,
    ],
)
def test_hostile_safetensors_headers(raw):
    refused(raw)


def resealed(tmp_path, change):
    """Our format with its index changed and all checksums made right again: damage that no checksum shows."""
    raw = saved("rg", tmp_path).read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    header = json.loads(raw[8 : 8 + length])
    index = json.loads(header["__metadata__"]["ringgrad.tree"])
    changed = change(index)
    header["__metadata__"]["ringgrad.tree"] = changed if isinstance(changed, str) else json.dumps(changed)
    header["__metadata__"]["ringgrad.crc32"] = "00000000"
    text = json.dumps(header, separators=(",", ":")).encode()
    blank = struct.pack("<Q", len(text)) + text
    sealed = blank.replace(b'crc32":"00000000', b'crc32":"%08x' % zlib.crc32(blank))
    return sealed + raw[8 + length :]


def test_the_index_can_be_resealed_for_these_tests(tmp_path):
    assert load(io.BytesIO(resealed(tmp_path, lambda index: index))).keys() == NESTED.keys()


@pytest.mark.parametrize(
    "tree",
    [
        *(
            {"leaf": 99},
            {"leaf": -1},
            {"leaf": "a"},
            {"leaf": None},
            {"unknown": 1},
            {},
            {"dict": 3},
            {"dict": [[1]]},
        ),
        *(
            {"dict": [[{"dict": []}, 1]]},
            {"set": [[1]]},
            {"int": "zz"},
            {"bytes": "?"},
            {"bytes": 3},
            {"float": "x"},
        ),
        *(
            {"float": [1]},
            {"scalar": ["object", "AAAA"]},
            {"scalar": ["float64", "AAAA"]},
            {"dtype": "os.system"},
        ),
        *(
            {"dtype": ["a"]},
            {"device": "rm"},
            {"device": {}},
            {"complex": [1]},
            {"tuple": None},
            {"Counter": [[1, []], 2]},
        ),
    ],
    ids=str,
)
def test_hostile_trees(tmp_path, tree):
    assert "structure is not one" in refused(resealed(tmp_path, lambda index: index | {"tree": tree}))


@pytest.mark.parametrize(
    "leaf",
    [
        *(
            {},
            {"kind": "tensor"},
            {"kind": "os.system", "tensor": "model.mask"},
            {"kind": "tensor", "tensor": "no"},
        ),
        {"kind": "parameter", "tensor": "model.mask", "requires_grad": True},
        {"kind": "tensor", "tensor": "model.mask", "dtype": "complex64"},
        {"kind": "tensor", "tensor": "model.mask", "dtype": "object"},
        *(
            {"kind": "tensor", "tensor": "model.mask", "view": v}
            for v in ([0, [4], [1]], [3, [1], [1]], [-1, [1], [1]])
        ),
        *(
            {"kind": "tensor", "tensor": "model.mask", "view": v}
            for v in ([0, [2], [3]], [0, [2], [-1]], [0, [2], []])
        ),
        *(
            {"kind": "tensor", "tensor": "model.mask", "view": v}
            for v in ([0, [1 << 80], [0]], [0, 1, 1], [0], "abc")
        ),
        {"kind": "tensor", "tensor": "model.mask", "view": [0, [1] * 65, [0] * 65]},
        {"kind": "tensor", "tensor": "model.mask", "view": [0, [0, 1 << 80], [0, 0]]},
    ],
    ids=str,
)
def test_hostile_leaves(tmp_path, leaf):
    assert "structure is not one" in refused(
        resealed(tmp_path, lambda i: i | {"tree": {"leaf": 0}, "leaves": [leaf]})
    )


def test_hostile_nesting_of_the_index(tmp_path):
    raw = resealed(tmp_path, lambda index: "[" * 100_000)
    assert "structure is not one" in refused(raw)


def test_a_newer_format_is_told_from_damage(tmp_path):
    path = saved("rg", tmp_path)
    raw = path.read_bytes().replace(b'"ringgrad.format":"1"', b'"ringgrad.format":"2"')
    length = struct.unpack("<Q", raw[:8])[0]
    at = raw.index(b'"ringgrad.crc32":"') + 18
    blank = raw[:at] + b"00000000" + raw[at + 8 :]
    sealed = raw[:at] + b"%08x" % zlib.crc32(blank[: 8 + length]) + raw[at + 8 :]
    assert "has format 2, this version of ringgrad reads 1: update ringgrad" in refused(sealed)


# ---- pickles


class Reduce:
    """Pickles to a call of `function` with `arguments`."""

    def __init__(self, function, *arguments):
        self.pair = function, arguments

    def __reduce__(self):
        return self.pair


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize(
    ("function", "arguments"),
    [
        (os.system, ("touch hacked",)),
        (eval, ("open('hacked', 'w')",)),
        (exec, ("open('hacked', 'w')",)),
        (open, ("hacked", "w")),
        (__import__, ("os",)),
        (np.load, ("hacked",)),
        (np.memmap, ("hacked", "uint8", "w+", 0, (1,))),
        (pickle.loads, (b"N.",)),
        (io.FileIO, ("hacked", "w")),
        (type, ("X", (), {})),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_no_function_of_a_pickle_is_run(tmp_path, monkeypatch, protocol, function, arguments):
    monkeypatch.chdir(tmp_path)
    stream = pickle.dumps([1, Reduce(function, *arguments)], protocol)
    message = refused(archive(stream))
    assert f".{function.__name__}," in message and "not on the list" in message
    assert not os.listdir(tmp_path)


REFUSED = {
    "attribute of an allowed module": b"cnumpy\nload\n.",
    "dotted name": b"\x80\x04\x8c\x11collections\x8c\x15OrderedDict.fromkeys\x93.",
    "dtype that is not one": b"ctorch\nload\n.",
    "call of a value": b"I1\n)R.",
    "call of a storage type": b"ctorch\nFloatStorage\n)R.",
    "call with a list": b"ccollections\nOrderedDict\n]R.",
    "build on a dict": b"}}b.",
    "build on a list": b"]}b.",
    "bytes of a size": b"c__builtin__\nbytes\nJ\xff\xff\xff\x7f\x85R.",
    "bytearray of a size": b"c__builtin__\nbytearray\nJ\xff\xff\xff\x7f\x85R.",
    "other codecs": b"c_codecs\nencode\n(X\x01\0\0\0aX\x03\0\0\0hextR.",
    "numpy objects": b"cnumpy\ndtype\nX\x02\0\0\0O8\x85R.",
    "numpy records": b"cnumpy\ndtype\nX\x05\0\0\0i4,i4\x85R.",
    "numpy array too small": b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85"
    b"X\x01\0\0\0b\x87R(K\x01M\xff\xff\x85cnumpy\ndtype\nX\x02\0\0\0f4\x85R\x89X\x01\0\0\0at" + b"b.",
    "stack underflow": b"0.",
    "no stop": b"N",
    "mark missing": b"t.",
    "memo missing": b"h\x05.",
    "unknown opcode": b"\xff.",
    "extension registry": b"\x82\x01.",
    "class instance": b"(ios\nsystem\n.",
    "persistent id of protocol 0": b"Pabc\n.",
    "persistent id of a wrong kind": b"]Q.",
    "dict as key": b"}}K\x01s.",
    "tuple of tuples as key": b"}K\x01\x85\x85\x85K\x01s.",
    "odd items": b"}(K\x01u.",
    "append to a dict": b"}K\x01a.",
    "set items of a list": b"]K\x01K\x02s.",
    "rebuild of nothing": b"ctorch._utils\n_rebuild_tensor_v2\n)R.",
    "parameter of a number": b"ctorch._utils\n_rebuild_parameter\nK\x01\x85R.",
    "nested reduce": b"ctorch._tensor\n_rebuild_from_type_v2\n(cos\nsystem\nNNNtR.",
    "huge integer text": b"I" + b"9" * 100_000 + b"\n.",
}


@pytest.mark.parametrize("stream", REFUSED.values(), ids=REFUSED)
def test_malformed_pickles(stream):
    assert "cannot be read" in refused(archive(stream))


def test_a_refused_global_is_named():
    class Model:
        pass

    Model.__qualname__, Model.__module__ = "TestModel", __name__
    globals()["TestModel"] = Model
    try:
        stream = pickle.dumps(Model(), 2)
    finally:
        del globals()["TestModel"]
    assert f"it needs {__name__}.TestModel" in refused(archive(stream)) or "copyreg" in refused(
        archive(stream)
    )


def peak_of(raw):
    """Bytes of memory taken at most while a file is refused or loaded."""
    tracemalloc.start()
    try:
        with pytest.raises(CheckpointError):
            load(io.BytesIO(raw))
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def test_memo_bombs_take_little_time_and_memory():
    squares = b"(K\x01K\x01tq\x000" + b"".join(b"(h%ch%ctq%c0" % (i, i, i + 1) for i in range(200))
    load(io.BytesIO(archive(squares + b"h\xc8.")))  # shared, so small; but its hash would take 2**200 steps:
    assert "key must be" in refused(archive(b"}" + squares + b"h\xc8Ns."))
    text = b"X" + struct.pack("<I", 1_000_000) + b"a" * 1_000_000 + b"q\x000"
    copies = b"(" + b"c_codecs\nencode\n(h\x00X\x06\0\0\0latin1tR" * 3000 + b"l."
    assert "very large value" in refused(archive(text + copies))
    assert peak_of(archive(text + copies)) < 200 << 20


def test_announced_sizes_take_no_memory():
    storage = (
        b"(X\x07\0\0\0storagectorch\nFloatStorage\nX\x01\0\0\x000X\x03\0\0\0cpu\x8a\x06"
        + b"\xff" * 5
        + b"\x00tQ"
    )
    tensor = b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + b"K\x00K\x04\x85K\x01\x85\x89NtR."
    for raw in (
        archive(tensor, _0=bytes(16)),
        archive(b"\x8e" + b"\xff" * 7 + b"\x0fabc."),
        archive(b"X\xff\xff\xff\xffabc."),
        struct.pack("<Q", 99_000_000) + b"{" * 1000,
        container({"a": entry([1 << 40], 0, 1 << 42)}, bytes(16)),
        container({f"t{i}": entry([1 << 18], 0, 1 << 20) for i in range(1000)}, bytes(1 << 20)),
    ):
        assert peak_of(raw) < (4 << 20) + 3 * len(raw)


def rebuilt(offset, shape, strides, elements=4, name="FloatStorage"):
    """A torch file with one tensor of these numbers over a storage of `elements` floats."""

    def number(n):
        return b"\x8a\x0b" + n.to_bytes(11, "little", signed=True)

    def numbers(values):
        return b"(" + b"".join(map(number, values)) + b"t"

    storage = (
        b"(X\x07\0\0\0storagectorch\n"
        + name.encode()
        + b"\nX\x01\0\0\x000X\x03\0\0\0cpu"
        + number(elements)
        + b"tQ"
    )
    call = (
        b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + number(offset) + numbers(shape) + numbers(strides)
    )
    return archive(call + b"\x89NtR.", _0=np.arange(4, dtype=np.float32).tobytes())


def test_windows_stay_inside_their_storage():
    assert load(io.BytesIO(rebuilt(0, [2, 2], [2, 1]))).array.tolist() == [[0, 1], [2, 3]]
    assert load(io.BytesIO(rebuilt(3, [5], [0]))).array.tolist() == [3] * 5
    assert load(io.BytesIO(rebuilt(4, [0], [1]))).array.size == 0
    for offset, shape, strides in [
        *((1, [2, 2], [2, 1]), (4, [1], [1]), (-1, [1], [1]), (0, [5], [1]), (0, [2], [4]), (0, [2], [-1])),
        *((0, [-2], [1]), (0, [2], []), (0, [1 << 62], [1]), (0, [1 << 62, 4], [0, 0]), (1 << 62, [1], [1])),
        *((0, [2, 2], [1 << 61, 1]), (5, [0], [1]), (0, [1] * 65, [0] * 65)),
    ]:
        refused(rebuilt(offset, shape, strides))
    for elements, name in (
        (3, "FloatStorage"),
        (5, "FloatStorage"),
        (4, "DoubleStorage"),
        (-4, "FloatStorage"),
    ):
        assert "must have" in refused(rebuilt(0, [1], [1], elements, name))


def test_tensors_where_plain_values_belong_are_refused():
    """A broadcast tensor of 2**45 elements fits into a small file; nothing may loop over it, compare or print it."""
    huge = rebuilt(0, [1 << 45], [0])
    with zipfile.ZipFile(io.BytesIO(huge)) as z:
        make = z.read("archive/data.pkl")[:-1] + b"q\x000"
    text = b"X\x06\0\0\0latin1"
    for stream in (
        *(
            b"ctorch\nSize\nh\x00\x85R.",
            b"c__builtin__\nset\nh\x00\x85R.",
            b"ccollections\nCounter\nh\x00\x85R.",
        ),
        *(b"c_codecs\nencode\n" + text + b"h\x00\x86R.", b"c_codecs\nencode\nh\x00" + text + b"\x86R."),
        *(b"c__builtin__\nbytes\nh\x00\x85R.", b"ctorch\ndevice\nh\x00\x85R.", b"cnumpy\ndtype\nh\x00\x85R."),
        *(
            b"h\x00Q.",
            b"(h\x00NNNNtQ.",
            b"h\x00h\x00\x93.",
            b"ccollections\nOrderedDict\n)Rh\x00b.",
            b"h\x00h\x00R.",
        ),
        b"ctorch._utils\n_rebuild_parameter\n(h\x00h\x00h\x00h\x00h\x00tR.",
        b"cnumpy\ndtype\nX\x02\0\0\0f4\x85R(K\x03h\x00tb.",
        b"ctorch._tensor\n_rebuild_from_type_v2\n(h\x00h\x00h\x00h\x00tR.",
        b"ctorch._tensor\n_rebuild_from_type_v2\n(ctorch\nSize\nctorch\nTensor\nh\x00NtR.",
        b"cnumpy.core.multiarray\n_reconstruct\n)Rh\x00b.",
        b"cnumpy.core.multiarray\n_reconstruct\n(cnumpy\nndarray\nNNtRh\x00b.",
    ):
        refused(archive(make + stream, _0=np.arange(4, dtype=np.float32).tobytes()))
    conjugated = make[: make.rindex(b"\x89NtR")] + b"\x89N}X\x04\0\0\0conj\x88stR."
    assert "larger than its storage" in refused(archive(conjugated, _0=bytes(16)))


def test_overlapping_zip_records_are_refused():
    raw = archive(b"\x80\x02N.", _0=bytes(1000))
    at = raw.index(b"PK\1\2")
    one = raw[raw.index(b"PK\1\2", at + 1) : raw.index(b"PK\5\6")]
    end = bytearray(raw[raw.index(b"PK\5\6") :])
    end[8:12] = struct.pack("<2H", 3, 3)
    end[12:16] = struct.pack("<I", struct.unpack("<I", end[12:16])[0] + len(one))
    assert "overlaps" in refused(raw[: raw.index(b"PK\5\6")] + one + end)


def test_random_pickles_do_nothing_but_fail_or_load():
    """Random opcodes and allowed globals: an exception of another type would be a hole."""
    random = np.random.default_rng(0)
    names = [
        b"ccollections\nOrderedDict\n",
        b"ctorch._utils\n_rebuild_tensor_v2\n",
        b"cnumpy\ndtype\n",
        b"ctorch\nSize\n",
    ]
    names += [
        b"c_codecs\nencode\n",
        b"c__builtin__\nset\n",
        b"ctorch\nfloat32\n",
        b"ctorch\ndevice\n",
        b"cnumpy\nndarray\n",
    ]
    names += [
        b"cnumpy.core.multiarray\nscalar\n",
        b"ctorch._tensor\n_rebuild_from_type_v2\n",
        b"ccollections\nCounter\n",
    ]
    codes = [op.code.encode("latin1") for op in pickletools.opcodes if op.arg is None]
    values = [b"K\x01", b"X\x02\0\0\0f4", b"h\x00", b"h\x01", b"q\x00", b"q\x01", b"G" + bytes(8)]
    pieces = codes + values * 3 + names * 2
    for _ in range(3000):
        stream = b"".join(pieces[i] for i in random.integers(0, len(pieces), 12)) + b"."
        with suppress(CheckpointError):
            load(io.BytesIO(archive(stream)))


def test_what_is_allowed_is_data_only():
    """The whole list, so that a longer one is a decision and not an accident."""
    from ringgrad.tensor.serialization import torchnames

    assert {name.partition(".")[0] for name in torchnames.FUNCTIONS} == {
        "collections",
        "torch",
        "_codecs",
        "builtins",
        "numpy",
    }
    assert len(torchnames.FUNCTIONS) == 22
    made = load(io.BytesIO(archive(b"ccollections\nOrderedDict\n)R.")))
    assert type(made) is OrderedDict and isinstance(tensor(1), Tensor)
