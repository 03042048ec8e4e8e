"""Image datasets from files that the user has: MNIST and its kin, CIFAR, and scikit-learn's digits.

Nothing is downloaded, whatever `download` says: an error lists the files that are expected. Samples are (image, class
number); an image is a uint8 array until `transform` makes something else of it. `tensors()` gives all of it as two
tensors at once. Formats: yann.lecun.com/exdb/mnist (idx) and cs.toronto.edu/~kriz/cifar.html.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ..autograd.engine import wrap
from ..tensor.dtypes import default_float
from .dataset import Dataset

IDX_DTYPES = {8: "u1", 9: "i1", 11: ">i2", 12: ">i4", 13: ">f4", 14: ">f8"}

_FINE_CLASSES = re.findall(
    r"\w+",
    """
    apple aquarium_fish baby bear beaver bed bee beetle bicycle bottle bowl boy bridge bus butterfly camel can
    castle caterpillar cattle chair chimpanzee clock cloud cockroach couch crab crocodile cup dinosaur dolphin
    elephant flatfish forest fox girl hamster house kangaroo keyboard lamp lawn_mower leopard lion lizard lobster
    man maple_tree motorcycle mountain mouse mushroom oak_tree orange orchid otter palm_tree pear pickup_truck
    pine_tree plain plate poppy porcupine possum rabbit raccoon ray road rocket rose sea seal shark shrew skunk
    skyscraper snail snake spider squirrel streetcar sunflower sweet_pepper table tank telephone television tiger
    tractor train trout tulip turtle wardrobe whale willow_tree wolf woman worm
    """,
)


class ImageDataset(Dataset[Any]):
    """Images in memory: `images` is uint8 [n, height, width] or [n, height, width, channels], `labels` int64 [n].

    `data` and `targets` are the same in the form that torchvision gives them for each dataset.
    """

    classes: Sequence[str] = ()

    def __init__(
        self,
        data: np.ndarray[Any, Any],
        targets: np.ndarray[Any, Any],
        transform: Callable[[Any], Any] | None = None,
        target_transform: Callable[[int], Any] | None = None,
    ) -> None:
        if len(data) != len(targets):
            raise ValueError(
                f"[{type(self).__name__}] every image must have its class, came {len(data)} images and "
                f"{len(targets)} classes"
            )
        self.data: Any = data
        self.targets: Any = targets.astype(np.int64)
        self.images, self.labels = self.data, self.targets
        self.transform, self.target_transform = transform, target_transform

    def __getitem__(self, index: int) -> tuple[Any, Any]:
        image, target = self.images[index], int(self.labels[index])
        if self.transform is not None:
            image = self.transform(image)
        return image, target if self.target_transform is None else self.target_transform(target)

    def __len__(self) -> int:
        return len(self.images)

    @property
    def class_to_idx(self) -> dict[str, int]:
        """The number of each class."""
        return {name: i for i, name in enumerate(self.classes)}

    def tensors(self, mean: Any = None, std: Any = None) -> tuple[Any, Any]:
        """All images as float [n, channels, height, width] in [0, 1], and their classes int64 [n].

        mean, std: a number, or one a channel, that the images are normalised by.
        """
        planes = self.images[:, None] if self.images.ndim == 3 else self.images.transpose(0, 3, 1, 2)
        images = np.true_divide(planes, 255, dtype=default_float(), order="C")
        if mean is not None:
            images -= np.asarray(mean, images.dtype).reshape(-1, 1, 1)
        if std is not None:
            images /= np.asarray(std, images.dtype).reshape(-1, 1, 1)
        return wrap(images), wrap(self.labels.copy())


class MNIST(ImageDataset):
    """Handwritten digits: 60000 to train on and 10000 to test, uint8 [28, 28].

    root: the folder with the four idx files, as they are or gzipped, or one above torchvision's `MNIST/raw`.
    """

    classes = [str(i) for i in range(10)]

    def __init__(
        self,
        root: Any,
        train: bool = True,
        transform: Callable[[Any], Any] | None = None,
        target_transform: Callable[[int], Any] | None = None,
        download: bool = False,
    ) -> None:
        name, part = type(self).__name__, "train" if train else "t10k"
        names = [f"{part}-images-idx3-ubyte", f"{part}-labels-idx1-ubyte"]
        images, labels = find_files(name, root, names, (".", name, f"{name}/raw"), ("", ".gz"))
        super().__init__(read_idx(images), read_idx(labels), transform, target_transform)
        self.train, self.data, self.targets = train, wrap(self.images), wrap(self.labels)


class FashionMNIST(MNIST):
    """Pictures of clothes in MNIST's form."""

    classes = [
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ]


class CIFAR10(ImageDataset):
    """Colour photographs of ten kinds of things: 50000 to train on and 10000 to test, uint8 [32, 32, 3].

    root: the folder with the files of the binary version or of the Python version, or the one above it. The latter's
    pickles are read by an unpickler that makes arrays and runs nothing else.
    """

    folder, pickled_folder = "cifar-10-batches-bin", "cifar-10-batches-py"
    train_files = [f"data_batch_{i}.bin" for i in range(1, 6)]
    test_files = ["test_batch.bin"]
    label_bytes = 1  # the last of them is the class
    pickled_labels = b"labels"
    classes = ["airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck"]

    def __init__(
        self,
        root: Any,
        train: bool = True,
        transform: Callable[[Any], Any] | None = None,
        target_transform: Callable[[int], Any] | None = None,
        download: bool = False,
    ) -> None:
        name, names = type(self).__name__, self.train_files if train else self.test_files
        pickled = [Path(file).stem for file in names]
        if any((Path(root, folder) / pickled[0]).is_file() for folder in (".", self.pickled_folder)):
            paths = find_files(name, root, pickled, (".", self.pickled_folder))
            parts = [self._unpickled(path) for path in paths]
        else:
            paths = find_files(name, root, names, (".", self.folder))
            parts = [self._records(path) for path in paths]
        pixels = np.concatenate([part[0] for part in parts]).reshape(-1, 3, 32, 32)
        images = np.ascontiguousarray(pixels.transpose(0, 2, 3, 1))
        super().__init__(images, np.concatenate([part[1] for part in parts]), transform, target_transform)
        self.train, self.targets = train, self.labels.tolist()

    def _records(self, path: Path) -> tuple[Any, Any]:
        content, size = np.fromfile(path, np.uint8), self.label_bytes + 3 * 32 * 32
        if not content.size or content.size % size:
            raise ValueError(
                f"[{type(self).__name__}] {path} must hold records of {size} bytes, came {content.size} bytes: "
                "is it whole?"
            )
        records = content.reshape(-1, size)
        return records[:, self.label_bytes :], records[:, self.label_bytes - 1]

    def _unpickled(self, path: Path) -> tuple[Any, Any]:
        name, content = type(self).__name__, unpickle_arrays(path)
        if not isinstance(content, dict) or not {b"data", self.pickled_labels} <= content.keys():
            raise ValueError(f"[{name}] {path} must hold a dict with {b'data'!r} and {self.pickled_labels!r}")
        data, labels = np.asarray(content[b"data"]), np.asarray(content[self.pickled_labels])
        if data.dtype != np.uint8 or data.shape != (len(labels), 3072) or labels.dtype.kind not in "iu":
            raise ValueError(
                f"[{name}] {path} must hold a uint8 row of 3072 for each class number, came "
                f"{data.dtype}{list(data.shape)} for {labels.dtype}{list(labels.shape)}"
            )
        return data, labels


class CIFAR100(CIFAR10):
    """As CIFAR10 with a hundred kinds of things; the coarser classes are not read."""

    folder, pickled_folder = "cifar-100-binary", "cifar-100-python"
    train_files = ["train.bin"]
    test_files = ["test.bin"]
    label_bytes = 2
    pickled_labels = b"fine_labels"
    classes = _FINE_CLASSES


class Digits(ImageDataset):
    """scikit-learn's 1797 handwritten digits, uint8 [8, 8] in 0 ... 255; every fifth is to test. Needs no files."""

    classes = [str(i) for i in range(10)]

    def __init__(
        self,
        train: bool | None = True,
        transform: Callable[[Any], Any] | None = None,
        target_transform: Callable[[int], Any] | None = None,
    ) -> None:
        try:
            from sklearn.datasets import load_digits  # type: ignore[import-not-found, import-untyped, unused-ignore]
        except ImportError:
            raise ImportError(
                "[Digits] needs scikit-learn, which is not installed: pip install scikit-learn"
            ) from None
        found = load_digits()
        test = np.arange(len(found.target)) % 5 == 4
        chosen = slice(None) if train is None else test ^ train
        images = (found.images[chosen] * (255 / 16)).round().astype(np.uint8)
        super().__init__(images, found.target[chosen], transform, target_transform)
        self.train = train


def read_idx(path: Any) -> np.ndarray[Any, Any]:
    """The array in an idx file, as it is or gzipped: two zeros, a byte for the type, dimensions, sizes, numbers."""
    content = Path(path).read_bytes()
    if content[:2] == b"\x1f\x8b":
        import gzip

        content = gzip.decompress(content)
    if len(content) < 4 or content[:2] != b"\0\0" or content[2] not in IDX_DTYPES:
        raise ValueError(f"[read_idx] {path} must be an idx file, came one that begins with {content[:4]!r}")
    dtype, start = np.dtype(IDX_DTYPES[content[2]]), 4 + 4 * content[3]
    shape = [int(n) for n in np.frombuffer(content[4:start], ">u4")] if len(content) >= start else []
    if len(shape) != content[3] or len(content) - start != dtype.itemsize * int(np.prod(shape)):
        raise ValueError(
            f"[read_idx] {path} must hold {content[3]} sizes and as many numbers as they say, came sizes {shape} "
            f"with {max(len(content) - start, 0)} bytes of {dtype}: is it whole?"
        )
    return np.frombuffer(content, dtype, offset=start).reshape(shape).astype(dtype.newbyteorder("="))


def unpickle_arrays(path: Any) -> Any:
    """What a pickle holds that consists of containers, numbers, strings (as bytes) and NumPy arrays.

    pickle.UnpicklingError names anything else that it asks for, before any of it is run.
    """
    import io
    import pickle

    allowed = {("numpy", "ndarray"), ("numpy", "dtype"), ("_codecs", "encode")} | {
        (f"numpy.{core}.multiarray", "_reconstruct") for core in ("core", "_core")
    }

    class Arrays(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            if (module, name) not in allowed:
                raise pickle.UnpicklingError(
                    f"[unpickle_arrays] {path} must hold arrays alone, came {module}.{name}: do not use this file"
                )
            return super().find_class(module.replace("numpy.core", "numpy._core"), name)

    return Arrays(io.BytesIO(Path(path).read_bytes()), encoding="bytes").load()


def find_files(
    who: str, root: Any, names: Sequence[str], folders: Sequence[str], endings: Sequence[str] = ("",)
) -> list[Path]:
    """The paths of all these files in the first of the folders under root that has them.

    FileNotFoundError lists the files and where they were looked for.
    """
    for folder in folders:
        found = [p for name in names if (p := _existing(Path(root, folder, name), endings))]
        if len(found) == len(names):
            return found
    either = " or ".join(f"*{ending}" for ending in endings if ending)
    raise FileNotFoundError(
        f"[{who}] the folder must hold {', '.join(names)}{f' (or {either})' if either else ''}, which were looked for "
        f"in {', '.join(str(Path(root, folder)) for folder in folders)}: put the files there, nothing is downloaded"
    )


def _existing(path: Path, endings: Sequence[str]) -> Path | None:
    for ending in endings:
        if (candidate := path.with_name(path.name + ending)).is_file():
            return candidate
    return None
