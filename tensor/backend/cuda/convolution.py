"""Convolutions in 1 to 3 dimensions as bodies of ops, by cuDNN.

Arrays stay (N, C, ...) in index order. In 16 bits they are laid out channel by channel in memory (channels last), which
the tensor cores want: the first convolution of a network copies its input so, later ones find it so.
"""

from __future__ import annotations

from typing import Any

from ....autograd.op import Variant, array_ops, registry
from . import cudnn
from .kernel import suffix


def attach(cp: Any) -> None:
    """Attaches them where cuDNN can be loaded."""
    if cudnn.module() is None:
        return
    Variant(registry["conv"], cp, _fits, _conv, _conv_backward)
    Variant(registry["conv_input"], cp, _input_fits, _conv_input)
    Variant(registry["conv_weight"], cp, _weight_fits, _conv_weight)


def _floats(*arrays: Any) -> bool:
    return suffix(*arrays) is not None and arrays[0].ndim in (3, 4, 5) and all(a.size for a in arrays)


def _fits(x: Any, weight: Any, bias: Any = None, **kw: Any) -> bool:
    return _floats(x, weight) and _forward_plan(x, weight, kw) is not None


def _input_fits(gy: Any, weight: Any, bias: Any = None, *, size: Any, **kw: Any) -> bool:
    shape = (gy.shape[0], weight.shape[1] * kw["groups"], *size)
    return _floats(gy, weight) and _input_plan(gy, weight, shape, kw) is not None


def _weight_fits(gy: Any, x: Any, *, kernel: Any, **kw: Any) -> bool:
    shape = (gy.shape[1], x.shape[1] // kw["groups"], *kernel)
    return _floats(gy, x) and _weight_plan(gy, x, shape, kw) is not None


# ---- layouts


def _channels_last(itemsize: int) -> bool:
    return itemsize == 2


def _strides(shape: tuple[int, ...], last: bool) -> list[int]:
    """Strides in elements of a dense array (N, C, ...) in one of the two layouts."""
    order = [0, *range(2, len(shape)), 1] if last else list(range(len(shape)))
    strides, step = [0] * len(shape), 1
    for axis in reversed(order):
        strides[axis] = step
        step *= shape[axis]
    return strides


def _empty(xp: Any, shape: tuple[int, ...], dtype: Any, last: bool) -> Any:
    if not last:
        return xp.empty(shape, dtype)
    made = xp.empty((shape[0], *shape[2:], shape[1]), dtype)
    return xp.moveaxis(made, -1, 1)


def laid_out(xp: Any, x: Any) -> Any:
    """The array in the layout of its dtype; itself where it is so."""
    last = _channels_last(x.itemsize)
    if cudnn.elements(x) == _strides(x.shape, last):
        return x
    out = _empty(xp, x.shape, x.dtype, last)
    out[...] = x
    return out


# ---- plans


def _options(kw: dict[str, Any]) -> dict[str, Any]:
    before, after = zip(*kw["padding"])
    return {
        "pre_padding": list(before),
        "post_padding": list(after),
        "stride": list(kw["stride"]),
        "dilation": list(kw["dilation"]),
    }


def _key(name: str, dtype: str, kw: dict[str, Any], *shapes: tuple[int, ...]) -> Any:
    rest = tuple((k, kw[k]) for k in ("stride", "padding", "dilation", "groups"))
    return (name, dtype, cudnn.deterministic(), rest, *shapes)


def _tensor(made: Any, shape: tuple[int, ...], last: bool) -> Any:
    return made.tensor(dim=list(shape), stride=_strides(shape, last))


def _result(t: Any, shape: tuple[int, ...], last: bool) -> Any:
    return t.set_output(True).set_dim(list(shape)).set_stride(_strides(shape, last))


def _out_shape(x: Any, weight: Any, kw: dict[str, Any]) -> tuple[int, ...]:
    from ...ops.conv import out_size

    sizes = zip(x.shape[2:], weight.shape[2:], kw["stride"], kw["padding"], kw["dilation"])
    return (x.shape[0], weight.shape[0], *(out_size(*size) for size in sizes))


def _forward_plan(x: Any, weight: Any, kw: dict[str, Any]) -> Any:
    shape, last = _out_shape(x, weight, kw), _channels_last(x.itemsize)
    if 0 in shape:
        return None

    def describe(made: Any) -> Any:
        image, filters = _tensor(made, x.shape, last), _tensor(made, weight.shape, last)
        y = made.conv_fprop(image=image, weight=filters, **_options(kw))
        return image, filters, _result(y, shape, last)

    return cudnn.build(_key("conv", x.dtype.name, kw, x.shape, weight.shape), x.dtype.name, describe)


def _input_plan(gy: Any, weight: Any, shape: tuple[int, ...], kw: dict[str, Any]) -> Any:
    last = _channels_last(gy.itemsize)

    def describe(made: Any) -> Any:
        loss, filters = _tensor(made, gy.shape, last), _tensor(made, weight.shape, last)
        dx = made.conv_dgrad(loss=loss, filter=filters, **_options(kw))
        return loss, filters, _result(dx, shape, last)

    return cudnn.build(
        _key("input", gy.dtype.name, kw, gy.shape, weight.shape, shape), gy.dtype.name, describe
    )


def _weight_plan(gy: Any, x: Any, shape: tuple[int, ...], kw: dict[str, Any]) -> Any:
    last = _channels_last(gy.itemsize)

    def describe(made: Any) -> Any:
        loss, image = _tensor(made, gy.shape, last), _tensor(made, x.shape, last)
        dw = made.conv_wgrad(image=image, loss=loss, **_options(kw))
        return loss, image, _result(dw, shape, last)

    return cudnn.build(_key("weight", gy.dtype.name, kw, gy.shape, x.shape, shape), gy.dtype.name, describe)


# ---- bodies


def _conv(xp: Any, x: Any, weight: Any, bias: Any = None, **kw: Any) -> Any:
    y = _empty(xp, _out_shape(x, weight, kw), x.dtype, _channels_last(x.itemsize))
    cudnn.run(_forward_plan(x, weight, kw), laid_out(xp, x), laid_out(xp, weight), y)
    if bias is not None:
        y += bias.reshape(-1, *[1] * (x.ndim - 2))
    return y


def _conv_input(xp: Any, gy: Any, weight: Any, bias: Any = None, *, size: Any, **kw: Any) -> Any:
    shape = (gy.shape[0], weight.shape[1] * kw["groups"], *size)
    y = _empty(xp, shape, gy.dtype, _channels_last(gy.itemsize))
    cudnn.run(_input_plan(gy, weight, shape, kw), laid_out(xp, gy), laid_out(xp, weight), y)
    if bias is not None:
        y += bias.reshape(-1, *[1] * len(size))
    return y


def _conv_weight(xp: Any, gy: Any, x: Any, *, kernel: Any, **kw: Any) -> Any:
    shape = (gy.shape[1], x.shape[1] // kw["groups"], *kernel)
    dw = _empty(xp, shape, gy.dtype, _channels_last(gy.itemsize))
    cudnn.run(_weight_plan(gy, x, shape, kw), laid_out(xp, gy), laid_out(xp, x), dw)
    return xp.ascontiguousarray(dw)


def _conv_backward(
    xp: Any,
    g: Any,
    needs: Any,
    x: Any,
    weight: Any,
    x_shape: Any,
    weight_shape: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: Any,
) -> list[Any]:
    kw = {"stride": stride, "padding": padding, "dilation": dilation, "groups": groups}
    g = laid_out(xp, g)
    gx = array_ops.conv_input(g, weight, size=tuple(x_shape[2:]), **kw) if needs[0] else None
    gw = array_ops.conv_weight(g, x, kernel=tuple(weight_shape[2:]), **kw) if needs[1] else None
    gb = g.sum(axis=(0, *range(2, g.ndim))) if len(needs) > 2 and needs[2] else None
    return [gx, gw, gb][: len(needs)]
