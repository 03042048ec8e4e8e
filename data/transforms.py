"""Transforms of images and other arrays before they become batches.

An image is a tensor [..., channels, height, width], or an array [height, width] or [height, width, channels] as image
files and the datasets of `vision` have them; `ToTensor` leads from one to the other. Names and arguments are
torchvision's; random transforms draw from the global generator.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

from ..autograd.engine import Variable, wrap
from ..tensor import generator as _g
from ..tensor.dtypes import default_float, to_numpy

Transform = Callable[[Any], Any]


class Compose:
    """Transforms one after another."""

    def __init__(self, transforms: Iterable[Transform]) -> None:
        self.transforms = list(transforms)

    def __call__(self, image: Any) -> Any:
        for transform in self.transforms:
            image = transform(image)
        return image


class Lambda:
    """A function as a transform."""

    def __init__(self, lambd: Transform) -> None:
        if not callable(lambd):
            raise TypeError(f"[Lambda] lambd must be a function, came {type(lambd).__name__}")
        self.lambd = lambd

    def __call__(self, image: Any) -> Any:
        return self.lambd(image)


class ToTensor:
    """An image [height, width] or [height, width, channels] as a tensor [channels, height, width].

    uint8 becomes float in [0, 1]; other numbers keep their values and types. Takes arrays, tensors and whatever NumPy
    reads as an array, such as an image of Pillow.
    """

    def __call__(self, image: Any) -> Any:
        array = np.asarray(image.array if isinstance(image, Variable) else image)
        if array.ndim not in (2, 3):
            raise ValueError(f"[ToTensor] an image must have 2 or 3 dimensions, came {list(array.shape)}")
        planes = array[None] if array.ndim == 2 else array.transpose(2, 0, 1)
        if array.dtype == np.uint8:
            return wrap(np.true_divide(planes, 255, dtype=default_float(), order="C"))
        return wrap(np.array(planes, order="C"))


class ConvertImageDtype:
    """Numbers of another type over the same range: [0, 1] for floats, [0, most] for integers."""

    def __init__(self, dtype: Any) -> None:
        self.dtype = to_numpy(dtype)

    def __call__(self, image: Any) -> Any:
        array, back = _opened(image)
        source, target = array.dtype, self.dtype
        if source == target:
            return image
        whole, to_whole = source.kind in "iu", target.kind in "iu"
        if whole and to_whole:
            have, want = _bits(source), _bits(target)
            wide = array.astype(np.int64)
            return back((wide << want - have if want > have else wide >> have - want).astype(target))
        if whole:
            return back(np.true_divide(array, np.iinfo(source).max, dtype=target))
        if not to_whole:
            return back(array.astype(target))
        if _bits(target) > np.finfo(source).nmant + 1:
            raise RuntimeError(
                f"[ConvertImageDtype] every number of the type must have its {source}, came {target}: "
                "it cannot be cast safely"
            )
        # Just under the next whole number, so that 1.0 is the last one and all get equal shares of [0, 1].
        return back((array * (np.iinfo(target).max + 1.0 - 1e-3)).astype(target))


class ToDtype(ConvertImageDtype):
    """Numbers of another type: as they are, or with scale=True over the same range as `ConvertImageDtype`."""

    def __init__(self, dtype: Any, scale: bool = False) -> None:
        super().__init__(dtype)
        self.scale = scale

    def __call__(self, image: Any) -> Any:
        if self.scale:
            return super().__call__(image)
        array, back = _opened(image)
        return back(array.astype(self.dtype, copy=False))


class Normalize:
    """(image - mean) / std for each channel; images of floats."""

    def __init__(self, mean: Sequence[float] | float, std: Sequence[float] | float) -> None:
        self.mean, self.std = mean, std
        if not np.all(np.asarray(std)):
            raise ValueError(f"[Normalize] std must not hold 0, came {std}")

    def __call__(self, image: Any) -> Any:
        array, back = _opened(image)
        if array.dtype.kind in "biu":
            raise TypeError(
                f"[Normalize] the image must be of floats, came {array.dtype}: put ToTensor() before it"
            )
        mean, std = (np.asarray(v, array.dtype).reshape(-1, 1, 1) for v in (self.mean, self.std))
        if array.ndim < 3 or not {len(mean), len(std)} <= {1, array.shape[-3]}:
            raise ValueError(
                "[Normalize] mean and std must have a number for each channel, came "
                f"{len(mean)} and {len(std)} for an image {list(array.shape)}"
            )
        return back((array - mean) / std)


class Pad:
    """Rows and columns around an image.

    padding: one number for all sides, (left and right, top and bottom), or (left, top, right, bottom).
    padding_mode: "constant" with `fill`, "edge", "reflect" (without the border) or "symmetric" (with it).
    """

    def __init__(self, padding: int | Sequence[int], fill: float = 0, padding_mode: str = "constant") -> None:
        sides = [padding] if isinstance(padding, int) else list(padding)
        if len(sides) not in (1, 2, 4) or any(not isinstance(n, int) or n < 0 for n in sides):
            raise ValueError(f"[Pad] padding must be 1, 2 or 4 numbers of at least 0, came {padding}")
        if padding_mode not in ("constant", "edge", "reflect", "symmetric"):
            raise ValueError(
                f"[Pad] padding_mode must be constant, edge, reflect or symmetric, came {padding_mode!r}"
            )
        self.left, self.top, self.right, self.bottom = (sides * 4)[:4]
        self.fill, self.padding_mode = fill, padding_mode

    def __call__(self, image: Any) -> Any:
        array, back = _opened(image)
        return back(self.padded(array))

    def padded(self, array: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
        """The same for an array whose last dimensions are height and width."""
        widths = [(0, 0)] * (array.ndim - 2) + [(self.top, self.bottom), (self.left, self.right)]
        if self.padding_mode != "constant":
            return np.pad(array, widths, self.padding_mode)  # type: ignore[call-overload]
        return np.pad(array, widths, constant_values=self.fill)


class CenterCrop:
    """The middle of an image, (height, width) large; zeros where the image is smaller."""

    def __init__(self, size: int | Sequence[int]) -> None:
        self.size = _pair("CenterCrop", size)

    def __call__(self, image: Any) -> Any:
        height, width = self.size
        array, back = _opened(image)
        array = _padded_to(array, height, width)
        rows, columns = array.shape[-2:]
        return back(_crop(array, round((rows - height) / 2), round((columns - width) / 2), height, width))


class RandomCrop:
    """A part of an image, (height, width) large, from anywhere in it after `padding` as `Pad` takes it.

    pad_if_needed: an image that is smaller is padded first; otherwise it is a ValueError.
    """

    def __init__(
        self,
        size: int | Sequence[int],
        padding: int | Sequence[int] | None = None,
        pad_if_needed: bool = False,
        fill: float = 0,
        padding_mode: str = "constant",
    ) -> None:
        self.size, self.pad_if_needed = _pair("RandomCrop", size), pad_if_needed
        self.padding = None if padding is None else Pad(padding, fill, padding_mode)
        self.fill, self.padding_mode = fill, padding_mode

    def __call__(self, image: Any) -> Any:
        height, width = self.size
        array, back = _opened(image)
        if self.padding is not None:
            array = self.padding.padded(array)
        if self.pad_if_needed:
            missing = max(width - array.shape[-1], 0), max(height - array.shape[-2], 0)
            array = Pad(missing, self.fill, self.padding_mode).padded(array)
        rows, columns = array.shape[-2:]
        if rows < height or columns < width:
            raise ValueError(
                f"[RandomCrop] Required crop size {self.size} is larger than input image size {(rows, columns)}: "
                "pass padding or pad_if_needed=True"
            )
        top = left = 0
        if (rows, columns) != (height, width):
            top, left = (
                int(_g.default_generator.randint(0, n, (1,))[0])
                for n in (rows - height + 1, columns - width + 1)
            )
        return back(_crop(array, top, left, height, width))


class _RandomFlip:
    axis: int

    def __init__(self, p: float = 0.5) -> None:
        if not 0 <= p <= 1:
            raise ValueError(f"[{type(self).__name__}] p must lie in [0, 1], came {p}")
        self.p = p

    def __call__(self, image: Any) -> Any:
        if _g.default_generator.uniform((1,))[0] >= self.p:
            return image
        array, back = _opened(image)
        return back(np.ascontiguousarray(np.flip(array, self.axis)))


class RandomHorizontalFlip(_RandomFlip):
    """The image with left and right exchanged, with probability p."""

    axis = -1


class RandomVerticalFlip(_RandomFlip):
    """The image with top and bottom exchanged, with probability p."""

    axis = -2


class Resize:
    """An image of (height, width) from the nearest pixels; one number is the size of the shorter side.

    As torchvision's with `InterpolationMode.NEAREST`, which is the only way here.
    """

    def __init__(self, size: int | Sequence[int]) -> None:
        self.size = size if isinstance(size, int) else _pair("Resize", size)
        if isinstance(size, int) and size < 1:
            raise ValueError(f"[Resize] size must be positive, came {size}")

    def __call__(self, image: Any) -> Any:
        array, back = _opened(image)
        rows, columns = array.shape[-2:]
        height, width = self._target(rows, columns)
        down = np.arange(height) * rows // height
        across = np.arange(width) * columns // width
        return back(array[..., down[:, None], across])

    def _target(self, rows: int, columns: int) -> tuple[int, int]:
        if not isinstance(self.size, int):
            return self.size
        short, long = min(rows, columns), max(rows, columns)
        other = int(self.size * long / short)
        return (self.size, other) if rows <= columns else (other, self.size)


def _opened(image: Any) -> tuple[np.ndarray[Any, Any], Callable[[Any], Any]]:
    """The image with height and width last, and what makes of such an array the kind of thing that the image was."""
    if isinstance(image, Variable):
        return image.array, wrap
    array = np.asarray(image)
    if array.ndim not in (2, 3):
        raise ValueError(
            "[transforms] an array must be an image [height, width] or [height, width, channels], came "
            f"{list(array.shape)}"
        )
    if array.ndim == 2:
        return array, lambda changed: changed
    return array.transpose(2, 0, 1), lambda changed: changed.transpose(1, 2, 0)


def _pair(who: str, size: int | Sequence[int]) -> tuple[int, int]:
    sizes = (size, size) if isinstance(size, int) else tuple(size) * (2 // max(len(size), 1))
    if len(sizes) != 2 or min(sizes) < 1:
        raise ValueError(f"[{who}] size must be one or two positive numbers, came {size}")
    return sizes[0], sizes[1]


def _padded_to(array: np.ndarray[Any, Any], height: int, width: int) -> np.ndarray[Any, Any]:
    rows, columns = array.shape[-2:]
    down, across = max(height - rows, 0), max(width - columns, 0)
    return Pad((across // 2, down // 2, -(-across // 2), -(-down // 2))).padded(array)


def _crop(array: np.ndarray[Any, Any], top: int, left: int, height: int, width: int) -> np.ndarray[Any, Any]:
    return array[..., top : top + height, left : left + width]


def _bits(dtype: np.dtype[Any]) -> int:
    return int(np.iinfo(dtype).max).bit_length()
