"""Image datasets read from files written here, by the formats' descriptions."""

from __future__ import annotations

import gzip
import pickle
import struct
from pathlib import Path

import numpy as np
import pytest

import ringgrad as rg
from ringgrad.data import DataLoader
from ringgrad.data.transforms import ToTensor
from ringgrad.data.vision import CIFAR10, CIFAR100, MNIST, Digits, FashionMNIST, read_idx
from ringgrad.lightning.demos import MNISTDataModule

RNG = np.random.default_rng(3)
IMAGES, LABELS = RNG.integers(0, 256, (5, 28, 28), np.uint8), np.array([3, 1, 4, 1, 5], np.uint8)
PIXELS = RNG.integers(0, 256, (10, 3, 32, 32), np.uint8)


def idx(values: np.ndarray, code: int = 8) -> bytes:
    head = struct.pack(f">HBB{values.ndim}I", 0, code, values.ndim, *values.shape)
    return head + values.astype(values.dtype.newbyteorder(">")).tobytes()


def write_mnist(folder: Path, part: str = "train", packed: bool = False) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for name, values in ((f"{part}-images-idx3-ubyte", IMAGES), (f"{part}-labels-idx1-ubyte", LABELS)):
        content = idx(values)
        path = folder / (name + ".gz" if packed else name)
        path.write_bytes(gzip.compress(content) if packed else content)


def write_cifar(folder: Path, names: list[str], label_bytes: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    share = len(PIXELS) // len(names)
    for i, name in enumerate(names):
        rows = range(i * share, (i + 1) * share)
        (folder / name).write_bytes(
            b"".join(bytes([99] * (label_bytes - 1) + [k]) + PIXELS[k].tobytes() for k in rows)
        )


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("below", [".", "MNIST/raw"])
def test_mnist(tmp_path: Path, packed: bool, below: str) -> None:
    write_mnist(tmp_path / below, packed=packed)
    data = MNIST(tmp_path)
    assert len(data) == 5
    image, target = data[2]
    np.testing.assert_array_equal(image, IMAGES[2])
    assert target == 4 and type(target) is int and data.class_to_idx[data.classes[target]] == 4
    assert data.data[2].tolist() == IMAGES[2].tolist() and data.targets.dtype == rg.int64
    with pytest.raises(FileNotFoundError, match="t10k-images-idx3-ubyte, t10k-labels-idx1-ubyte"):
        MNIST(tmp_path, train=False)


def test_fashion_mnist_has_a_folder_of_its_own(tmp_path: Path) -> None:
    write_mnist(tmp_path / "MNIST" / "raw")
    with pytest.raises(FileNotFoundError, match=r"FashionMNIST.*FashionMNIST/raw.*nothing is downloaded"):
        FashionMNIST(tmp_path)
    write_mnist(tmp_path / "FashionMNIST" / "raw")
    assert FashionMNIST(str(tmp_path)).classes[5] == "Sandal"


def test_the_error_lists_the_files_when_one_is_missing(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").unlink()
    with pytest.raises(FileNotFoundError, match=r"train-labels-idx1-ubyte \(or \*\.gz\)"):
        MNIST(tmp_path)


def test_transforms_and_batches(tmp_path: Path) -> None:
    write_mnist(tmp_path, "t10k")
    data = MNIST(tmp_path, train=False, transform=ToTensor(), target_transform=lambda k: k + 10)
    images, targets = next(iter(DataLoader(data, batch_size=3)))
    assert images.shape == (3, 1, 28, 28) and images.dtype == rg.float32
    np.testing.assert_array_equal(images.array[:, 0], IMAGES[:3] / np.float32(255))
    assert targets.dtype == rg.int64 and targets.tolist() == [13, 11, 14]


def test_all_as_tensors(tmp_path: Path) -> None:
    write_mnist(tmp_path)
    images, targets = MNIST(tmp_path).tensors(mean=0.25, std=0.5)
    np.testing.assert_allclose(images.array[:, 0], (IMAGES / 255 - 0.25) / 0.5, atol=1e-6)
    assert images.dtype == rg.float32 and targets.tolist() == LABELS.tolist()


@pytest.mark.parametrize("below", [".", "cifar-10-batches-bin"])
def test_cifar10(tmp_path: Path, below: str) -> None:
    write_cifar(tmp_path / below, CIFAR10.train_files, 1)
    write_cifar(tmp_path / below, CIFAR10.test_files, 1)
    data = CIFAR10(tmp_path)
    assert len(data) == 10 and data.targets == list(range(10))
    image, target = data[7]
    np.testing.assert_array_equal(image, PIXELS[7].transpose(1, 2, 0))
    np.testing.assert_allclose(ToTensor()(image).array, PIXELS[7] / np.float32(255))
    np.testing.assert_allclose(data.tensors()[0].array, PIXELS / np.float32(255))
    assert target == 7 and len(CIFAR10(tmp_path, train=False)) == 10


def test_cifar100_takes_the_finer_class(tmp_path: Path) -> None:
    folder = tmp_path / "cifar-100-binary"
    write_cifar(folder, CIFAR100.test_files, 2)
    data = CIFAR100(tmp_path, train=False)
    assert data.targets == list(range(10)) and len(set(data.classes)) == 100
    np.testing.assert_array_equal(data.data[9], PIXELS[9].transpose(1, 2, 0))
    with pytest.raises(FileNotFoundError, match=r"\[CIFAR100\] the folder must hold train\.bin"):
        CIFAR100(tmp_path)


def write_pickled(folder: Path, names: list[str], key: bytes) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    share = len(PIXELS) // len(names)
    for i, name in enumerate(names):
        rows = slice(i * share, (i + 1) * share)
        content = {
            b"data": PIXELS[rows].reshape(share, 3072),
            key: list(range(10))[rows],
            b"batch_label": b"x",
        }
        # as the files say it, which NumPy 1 wrote
        pickled = pickle.dumps(content, 2).replace(b"numpy._core.multiarray", b"numpy.core.multiarray")
        (folder / name).write_bytes(pickled)


@pytest.mark.parametrize("below", [".", "cifar-10-batches-py"])
def test_the_python_version_of_cifar(tmp_path: Path, below: str) -> None:
    write_pickled(tmp_path / below, [f"data_batch_{i}" for i in range(1, 6)], b"labels")
    data = CIFAR10(tmp_path, download=True)
    np.testing.assert_array_equal(data.data, PIXELS.transpose(0, 2, 3, 1))
    assert data.targets == list(range(10)) and data.classes[data[9][1]] == "truck"
    write_pickled(tmp_path / "cifar-100-python", ["test"], b"fine_labels")
    assert CIFAR100(tmp_path, train=False)[3][1] == 3


def test_a_pickle_that_asks_for_more_than_arrays_is_refused_before_it_runs(tmp_path: Path) -> None:
    class Planted:
        def __reduce__(self):
            return (tmp_path / "ran").touch, ()

    path = tmp_path / "test_batch"
    for content, came in ((Planted(), "getattr|pathlib"), ({b"data": print}, "builtins.print")):
        path.write_bytes(pickle.dumps(content))
        with pytest.raises(
            pickle.UnpicklingError, match=rf"test_batch must hold arrays alone, came .*({came})"
        ):
            CIFAR10(tmp_path, train=False)
    assert not (tmp_path / "ran").exists()
    for wrong in (
        [1],
        {b"data": 3},
        {b"data": np.ones((2, 3072)), b"labels": [1, 2]},
        {b"data": b"", b"labels": [1]},
    ):
        path.write_bytes(pickle.dumps(wrong))
        with pytest.raises(ValueError, match="test_batch must hold a"):
            CIFAR10(tmp_path, train=False)


def test_damaged_files_are_named(tmp_path: Path) -> None:
    write_cifar(tmp_path, CIFAR10.test_files, 1)
    path = tmp_path / "test_batch.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=r"records of 3073 bytes, came 30729 bytes"):
        CIFAR10(tmp_path, train=False)
    write_mnist(tmp_path)
    (tmp_path / "train-labels-idx1-ubyte").write_bytes(idx(LABELS[:4]))
    with pytest.raises(ValueError, match="came 5 images and 4 classes"):
        MNIST(tmp_path)


@pytest.mark.parametrize(
    "code, dtype", [(8, "u1"), (9, "i1"), (11, "i2"), (12, "i4"), (13, "f4"), (14, "f8")]
)
def test_idx_numbers_of_all_types(tmp_path: Path, code: int, dtype: str) -> None:
    values = np.array([[1, -2, 3], [4, 5, 100]]).astype(dtype)
    (tmp_path / "x").write_bytes(idx(values, code))
    found = read_idx(tmp_path / "x")
    np.testing.assert_array_equal(found, values)
    assert found.dtype == values.dtype and found.flags.writeable


@pytest.mark.parametrize(
    "content", [b"", b"\0\0", b"\0\0\x07\x01\0\0\0\x01a", b"PK\x03\x04", idx(LABELS)[:-1], idx(LABELS)[:6]]
)
def test_what_is_no_idx_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "x").write_bytes(content)
    with pytest.raises(ValueError, match=r"\[read_idx\] .*x must"):
        read_idx(tmp_path / "x")


def test_digits() -> None:
    pytest.importorskip("sklearn")
    train, test, both = Digits(), Digits(train=False), Digits(train=None)
    assert (len(train), len(test), len(both)) == (1438, 359, 1797)
    image, target = both[0]
    assert image.shape == (8, 8) and image.dtype == np.uint8 and target == 0 and both.data.max() == 255
    np.testing.assert_array_equal(test.data, both.data[4::5])


def test_lightnings_mnist_module_splits_and_normalises(tmp_path: Path) -> None:
    for part in ("train", "t10k"):
        write_mnist(tmp_path / "MNIST/raw", part)
    module = MNISTDataModule(str(tmp_path), val_split=2, normalize=True, batch_size=2)
    module.prepare_data()
    module.setup("fit")
    (images, labels), *rest = module.train_dataloader()
    assert (
        images.shape == (2, 1, 28, 28) and images.dtype == rg.float32 and not rest
    )  # 3 images: one is left out
    kept = sorted(module.dataset_train.indices) + sorted(module.dataset_val.indices)
    assert sorted(kept) == list(range(5)) and len(module.dataset_val) == 2
    assert set(labels.tolist()) <= set(LABELS.tolist())
    assert any(
        np.allclose(images[0, 0].numpy(), (IMAGES[i] / 255 - 0.1307) / 0.3081, atol=1e-5)
        for i in module.dataset_train.indices
    )
    assert len(module.test_dataloader()) == 2
