"""Transforms of images: against NumPy, by hand, and with PyTorch's random numbers."""

from __future__ import annotations

import numpy as np
import pytest

import ringgrad as rg
from ringgrad.data import transforms as T

IMAGE = np.arange(24, dtype=np.float32).reshape(2, 3, 4)  # [channels, height, width]


def planes(image) -> np.ndarray:
    """Channels first, whichever kind of image it is."""
    return image.array if isinstance(image, rg.Tensor) else image.transpose(2, 0, 1)


def on_planes(transform) -> np.ndarray:
    """What a transform makes of IMAGE as a tensor, and in the same way of it as an array with channels last."""
    state = rg.get_rng_state()
    found = transform(rg.tensor(IMAGE))
    rg.set_rng_state(state)
    np.testing.assert_array_equal(transform(IMAGE.transpose(1, 2, 0)).transpose(2, 0, 1), found.array)
    return found.array


def test_to_tensor_puts_channels_first_and_scales_bytes() -> None:
    image = np.array([[[0, 51, 255]], [[102, 153, 204]]], np.uint8)  # 2 rows, 1 column, 3 channels
    tensor = T.ToTensor()(image)
    assert isinstance(tensor, rg.Tensor) and tensor.dtype == rg.float32
    np.testing.assert_array_equal(tensor.array, np.float32([[[0.0], [0.4]], [[0.2], [0.6]], [[1.0], [0.8]]]))
    assert T.ToTensor()(image[..., 0]).shape == (1, 2, 1)


def test_to_tensor_keeps_other_numbers_and_copies() -> None:
    image = np.ones((2, 2), np.int16)
    tensor = T.ToTensor()(image)
    image[:] = 7
    assert tensor.dtype == rg.int16 and tensor.array.max() == 1


def test_to_tensor_refuses_what_is_no_image() -> None:
    with pytest.raises(ValueError, match=r"2 or 3 dimensions, came \[5\]"):
        T.ToTensor()(np.zeros(5))


@pytest.mark.parametrize("image", [IMAGE.transpose(1, 2, 0), rg.tensor(IMAGE)])
def test_images_come_back_as_the_kind_that_they_were(image) -> None:
    for transform in (
        T.Pad(1),
        T.Normalize(0.5, 2.0),
        T.CenterCrop(2),
        T.Resize(2),
        T.RandomCrop(2),
        T.RandomHorizontalFlip(1.0),
    ):
        assert type(transform(image)) is type(image), transform
    np.testing.assert_array_equal(planes(image), IMAGE)


def test_normalize() -> None:
    found = T.Normalize([1.0, 2.0], [2.0, 4.0])(rg.tensor(IMAGE)).array
    np.testing.assert_allclose(found[0], (IMAGE[0] - 1) / 2)
    np.testing.assert_allclose(found[1], (IMAGE[1] - 2) / 4)
    assert found.dtype == np.float32


def test_normalize_names_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="std must not hold 0"):
        T.Normalize([0.0], [0.0])
    with pytest.raises(TypeError, match=r"floats, came uint8: put ToTensor\(\) before"):
        T.Normalize([0.0], [1.0])(np.zeros((1, 2, 2), np.uint8))
    with pytest.raises(ValueError, match=r"3 and 3 for an image \[2, 3, 4\]"):
        T.Normalize([0.0] * 3, [1.0] * 3)(rg.tensor(IMAGE))


@pytest.mark.parametrize(
    "padding, widths", [(1, (1, 1, 1, 1)), ((1, 2), (1, 2, 1, 2)), ((1, 0, 2, 3), (1, 0, 2, 3))]
)
def test_pad_takes_left_top_right_bottom(padding, widths) -> None:
    left, top, right, bottom = widths
    for mode, fill in (("constant", 5.0), ("edge", 0), ("symmetric", 0)):
        extra = {"constant_values": fill} if mode == "constant" else {}
        expected = np.pad(IMAGE, [(0, 0), (top, bottom), (left, right)], mode, **extra)
        np.testing.assert_array_equal(on_planes(T.Pad(padding, fill, mode)), expected)


def test_pad_names_what_is_wrong() -> None:
    with pytest.raises(ValueError, match="1, 2 or 4 numbers"):
        T.Pad((1, 2, 3))
    with pytest.raises(ValueError, match="came 'wrap'"):
        T.Pad(1, padding_mode="wrap")


def test_center_crop_pads_what_is_too_small() -> None:
    np.testing.assert_array_equal(on_planes(T.CenterCrop((1, 2))), IMAGE[:, 1:2, 1:3])
    found = on_planes(T.CenterCrop((5, 2)))
    np.testing.assert_array_equal(found[:, 1:4], IMAGE[:, :, 1:3])
    assert not found[:, 0].any() and not found[:, 4].any()


@pytest.mark.parametrize(
    "size, rows, columns",
    [((6, 2), [0, 0, 1, 1, 2, 2], [0, 2]), ((3, 4), [0, 1, 2], [0, 1, 2, 3]), (2, [0, 1], [0, 2])],
)
def test_resize_takes_the_nearest_pixel(size, rows, columns) -> None:
    np.testing.assert_array_equal(on_planes(T.Resize(size)), IMAGE[:, rows][:, :, columns])


def test_resize_by_the_shorter_side_keeps_the_shape() -> None:
    assert on_planes(T.Resize(6)).shape == (2, 6, 8)
    assert T.Resize(6)(IMAGE[0].T).shape == (8, 6)


def test_compose_and_lambda() -> None:
    both = T.Compose([T.Lambda(lambda x: x + 1), T.Lambda(lambda x: x * 2)])
    assert both(3) == 8
    with pytest.raises(TypeError, match="must be a function, came int"):
        T.Lambda(3)  # type: ignore[arg-type]


def test_random_crops_are_parts_and_reach_every_place() -> None:
    rg.manual_seed(0)
    image = rg.arange(12).reshape(1, 3, 4)
    corners = {int(T.RandomCrop((2, 2))(image)[0, 0, 0]) for _ in range(200)}
    assert corners == {0, 1, 2, 4, 5, 6}
    crop = T.RandomCrop((2, 2))(image).array[0]
    assert (crop - crop[0, 0]).tolist() == [[0, 1], [4, 5]]


def test_random_crop_of_a_small_image() -> None:
    with pytest.raises(ValueError, match=r"\(4, 4\) is larger than input image size \(3, 4\)"):
        T.RandomCrop(4)(rg.tensor(IMAGE))
    assert on_planes(T.RandomCrop(4, pad_if_needed=True)).shape == (2, 4, 4)
    assert on_planes(T.RandomCrop(4, padding=1)).shape == (2, 4, 4)


def test_flips() -> None:
    np.testing.assert_array_equal(on_planes(T.RandomHorizontalFlip(1.0)), IMAGE[..., ::-1])
    np.testing.assert_array_equal(on_planes(T.RandomVerticalFlip(1.0)), IMAGE[:, ::-1])
    assert T.RandomHorizontalFlip(0.0)(IMAGE) is IMAGE
    with pytest.raises(ValueError, match=r"\[0, 1\], came 2"):
        T.RandomVerticalFlip(2)
    rg.manual_seed(0)
    flipped = sum(T.RandomHorizontalFlip(0.3)(IMAGE) is not IMAGE for _ in range(1000))
    assert 230 < flipped < 370  # five standard deviations


@pytest.mark.parametrize(
    "source, target, values, expected",
    [
        (np.uint8, rg.float32, [0, 51, 255], [0.0, 0.2, 1.0]),
        (np.float32, rg.uint8, [0.0, 0.5, 1.0], [0, 127, 255]),
        (np.uint8, rg.int16, [0, 1, 255], [0, 128, 32640]),
        (np.int16, rg.uint8, [0, 128, 32767], [0, 1, 255]),
        (np.float64, rg.float32, [0.25, 1.0], [0.25, 1.0]),
    ],
)
def test_conversion_keeps_the_range(source, target, values, expected) -> None:
    found = T.ConvertImageDtype(target)(rg.tensor(np.array([values], source)))
    assert found.dtype == target
    np.testing.assert_allclose(found.array[0], np.array(expected, found.array.dtype), rtol=1e-7)
    np.testing.assert_array_equal(T.ToDtype(target, scale=True)(np.array([values], source)), found.array)


def test_another_dtype_without_scaling() -> None:
    assert T.ToDtype(rg.float32)(rg.tensor([[3, 200]], dtype=rg.uint8)).tolist() == [[3.0, 200.0]]
    assert T.ToDtype(rg.int64)(np.ones((2, 2), np.float32)).dtype == np.int64


def test_augmenting_photographs_before_they_become_tensors() -> None:
    image = np.arange(5 * 6 * 3, dtype=np.uint8).reshape(5, 6, 3)
    steps = [
        T.RandomCrop(5, padding=1),
        T.RandomHorizontalFlip(1.0),
        T.ToTensor(),
        T.Normalize([0.5] * 3, [0.5] * 3),
    ]
    found = T.Compose(steps)(image)
    assert found.shape == (3, 5, 5) and found.array.flags.c_contiguous
    pixels = np.round((found.array * 0.5 + 0.5) * 255).astype(int)
    inside = pixels[:, 1:-1, 1:-1]
    assert (inside[1] - inside[0] == 1).all() and (inside[2] - inside[1] == 1).all()
    assert (inside[:, :, :-1] - inside[:, :, 1:] == 3).all()


def test_conversion_refuses_what_floats_cannot_hold() -> None:
    with pytest.raises(RuntimeError, match="cannot be cast safely"):
        T.ConvertImageDtype(rg.int32)(rg.tensor(IMAGE))


@pytest.mark.parity
def test_random_transforms_draw_torchvisions_numbers() -> None:
    torch = pytest.importorskip("torch")
    rg.manual_seed(5)
    torch.manual_seed(5)
    image = np.arange(63).reshape(7, 9)
    for _ in range(20):
        top, left = int(torch.randint(0, 5, (1,))), int(torch.randint(0, 6, (1,)))
        np.testing.assert_array_equal(T.RandomCrop((3, 4))(image), image[top : top + 3, left : left + 4])
        flipped = T.RandomHorizontalFlip(0.4)(image)
        np.testing.assert_array_equal(flipped, image[:, ::-1] if torch.rand(1) < 0.4 else image)
