"""Convolutions and transposed convolutions over one, two or three dimensions."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

from ...tensor import creation
from .. import functional as F
from .. import init
from ..lazy import LazyModuleMixin
from ..module import Module
from ..parameter import Parameter, UninitializedParameter, is_lazy
from .sizes import Size, per_dimension

_MODES = ("zeros", "reflect", "replicate", "circular")


def _require(who: str, holds: bool, rule: str, came: Any) -> None:
    if not holds:
        raise ValueError(f"[{who}] {rule}, came {came}")


class _ConvNd(Module):
    """Settings and parameters of every convolution; `spatial` is the number of dimensions it slides over."""

    spatial = 0
    transposed = False
    weight: Parameter
    bias: Parameter | None

    def _setup(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Any,
        stride: Any,
        padding: Any,
        dilation: Any,
        output_padding: Any,
        groups: int,
        bias: bool,
        padding_mode: str,
        device: Any,
        dtype: Any,
    ) -> None:
        who, n = type(self).__name__, self.spatial
        _require(who, groups > 0, "groups must be positive", groups)
        _require(
            who, in_channels % groups == 0, "groups must divide in_channels", f"{groups} and {in_channels}"
        )
        _require(
            who, out_channels % groups == 0, "groups must divide out_channels", f"{groups} and {out_channels}"
        )
        _require(who, padding_mode in _MODES, f"padding_mode must be one of {_MODES}", repr(padding_mode))
        self.in_channels, self.out_channels, self.groups = in_channels, out_channels, groups
        self.kernel_size, self.stride = per_dimension(kernel_size, n), per_dimension(stride, n)
        self.dilation, self.output_padding = per_dimension(dilation, n), per_dimension(output_padding, n)
        self.padding_mode = padding_mode
        self.padding: Any = padding if isinstance(padding, str) else per_dimension(padding, n)
        if isinstance(padding, str):
            _require(
                who, padding in ("same", "valid"), "padding must be numbers, 'same' or 'valid'", repr(padding)
            )
            strided = padding == "same" and any(s != 1 for s in self.stride)
            _require(who, not strided, "padding='same' needs stride 1", f"stride {self.stride}")
        first, second = (in_channels, out_channels) if self.transposed else (out_channels, in_channels)
        shape = (first, second // groups, *self.kernel_size)
        self.weight = Parameter(creation.empty(shape, device=device, dtype=dtype))
        if bias:
            self.bias = Parameter(creation.empty(out_channels, device=device, dtype=dtype))
        else:
            self.register_parameter("bias", None)
        self.reset_parameters()

    @property
    def _reversed_padding_repeated_twice(self) -> list[int]:
        """The padding as F.pad takes it: last dimension first, both sides."""
        if self.padding == "valid":
            return [0] * (2 * self.spatial)
        if self.padding == "same":
            sides: list[int] = []
            for d, k in zip(reversed(self.dilation), reversed(self.kernel_size)):
                total = d * (k - 1)
                sides += [total // 2, total - total // 2]
            return sides
        return [p for p in reversed(self.padding) for _ in range(2)]

    def reset_parameters(self) -> None:
        """Uniform in +-1 / sqrt(fan_in), both."""
        init.kaiming_uniform_(self.weight, a=math.sqrt(5))
        if self.bias is not None:
            fan_in, _ = init._calculate_fan_in_and_fan_out(self.weight)
            if fan_in != 0:
                bound = 1 / math.sqrt(fan_in)
                init.uniform_(self.bias, -bound, bound)

    def extra_repr(self) -> str:
        n = self.spatial
        text = (
            f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        )
        text += f", padding={self.padding}" if self.padding != (0,) * n else ""
        text += f", dilation={self.dilation}" if self.dilation != (1,) * n else ""
        text += f", output_padding={self.output_padding}" if self.output_padding != (0,) * n else ""
        text += f", groups={self.groups}" if self.groups != 1 else ""
        text += ", bias=False" if self.bias is None else ""
        return text + (f", padding_mode={self.padding_mode}" if self.padding_mode != "zeros" else "")


class _Conv(_ConvNd):
    """Cross-correlation: (N, C_in, *) to (N, C_out, *); weight is (C_out, C_in / groups, *kernel_size)."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: str | Size = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        self._setup(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            0,
            groups,
            bias,
            padding_mode,
            device,
            dtype,
        )

    def _conv_forward(self, input: Any, weight: Any, bias: Any) -> Any:
        conv = getattr(F, f"conv{self.spatial}d")
        padding = self.padding
        if self.padding_mode != "zeros":
            input = F.pad(input, self._reversed_padding_repeated_twice, mode=self.padding_mode)
            padding = 0
        return conv(input, weight, bias, self.stride, padding, self.dilation, self.groups)

    def forward(self, input: Any) -> Any:
        return self._conv_forward(input, self.weight, self.bias)


class Conv1d(_Conv):
    __doc__ = _Conv.__doc__
    spatial = 1


class Conv2d(_Conv):
    __doc__ = _Conv.__doc__
    spatial = 2


class Conv3d(_Conv):
    __doc__ = _Conv.__doc__
    spatial = 3


class _ConvTranspose(_ConvNd):
    """The gradient of a convolution as a layer: (N, C_in, *) to (N, C_out, *), larger by the stride.

    weight is (C_in, C_out / groups, *kernel_size); output_padding is added to one side of the output's size.
    """

    transposed = True

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size = 0,
        output_padding: Size = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Size = 1,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__()
        who = type(self).__name__
        _require(who, padding_mode == "zeros", "padding_mode must be 'zeros'", repr(padding_mode))
        self._setup(
            in_channels,
            out_channels,
            kernel_size,
            stride,
            padding,
            dilation,
            output_padding,
            groups,
            bias,
            padding_mode,
            device,
            dtype,
        )

    def _output_padding(self, input: Any, output_size: Sequence[int] | None) -> tuple[int, ...]:
        """What brings the output to `output_size`; several sizes lead to the same input size."""
        if output_size is None:
            return self.output_padding
        n = self.spatial
        wanted = list(output_size)[-n:] if len(output_size) in (n + 1, n + 2) else list(output_size)
        settings = zip(input.shape[-n:], self.stride, self.padding, self.dilation, self.kernel_size)
        least = [(size - 1) * s - 2 * p + d * (k - 1) + 1 for size, s, p, d, k in settings]
        fits = len(wanted) == n and all(low <= w < low + s for w, low, s in zip(wanted, least, self.stride))
        most = [low + s - 1 for low, s in zip(least, self.stride)]
        _require(
            type(self).__name__, fits, f"output_size must be between {least} and {most}", list(output_size)
        )
        return tuple(w - low for w, low in zip(wanted, least))

    def forward(self, input: Any, output_size: Sequence[int] | None = None) -> Any:
        conv = getattr(F, f"conv_transpose{self.spatial}d")
        extra = self._output_padding(input, output_size)
        return conv(
            input, self.weight, self.bias, self.stride, self.padding, extra, self.groups, self.dilation
        )


class ConvTranspose1d(_ConvTranspose):
    __doc__ = _ConvTranspose.__doc__
    spatial = 1


class ConvTranspose2d(_ConvTranspose):
    __doc__ = _ConvTranspose.__doc__
    spatial = 2


class ConvTranspose3d(_ConvTranspose):
    __doc__ = _ConvTranspose.__doc__
    spatial = 3


class _LazyConvNd(LazyModuleMixin, _ConvNd):
    """What both lazy families share."""

    def _wait_for_input(self, out_channels: int, bias: bool, device: Any, dtype: Any) -> None:
        self.out_channels = out_channels
        self.weight = UninitializedParameter(device=device, dtype=dtype)
        if bias:
            self.bias = UninitializedParameter(device=device, dtype=dtype)

    def reset_parameters(self) -> None:
        if not self.has_uninitialized_params() and self.in_channels:
            super().reset_parameters()

    def initialize_parameters(self, input: Any, *_: Any) -> None:
        n, who = self.spatial, type(self).__name__
        _require(
            who,
            input.ndim in (n + 1, n + 2),
            f"the input must have {n + 1} or {n + 2} dimensions",
            input.ndim,
        )
        waiting = self.has_uninitialized_params()
        self.in_channels = input.shape[-n - 1]
        if not waiting:
            return
        fits = self.in_channels % self.groups == 0
        _require(who, fits, "groups must divide in_channels", f"{self.groups} and {self.in_channels}")
        pair = (self.in_channels, self.out_channels)
        first, second = pair if self.transposed else pair[::-1]
        self.weight.materialize((first, second // self.groups, *self.kernel_size))
        if is_lazy(self.bias):
            self.bias.materialize((self.out_channels,))  # type: ignore[union-attr]
        self.reset_parameters()


class _LazyConv(_LazyConvNd, _Conv):
    """A convolution whose in_channels are those of its first input."""

    def __init__(
        self,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: str | Size = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        super().__init__(
            0, 0, kernel_size, stride, padding, dilation, groups, False, padding_mode, device, dtype
        )
        self._wait_for_input(out_channels, bias, device, dtype)


class _LazyConvTranspose(_LazyConvNd, _ConvTranspose):
    """A transposed convolution whose in_channels are those of its first input."""

    def __init__(
        self,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size = 0,
        output_padding: Size = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Size = 1,
        padding_mode: str = "zeros",
        device: Any = None,
        dtype: Any = None,
    ) -> None:
        settings = (stride, padding, output_padding, groups, False, dilation, padding_mode, device, dtype)
        super().__init__(0, 0, kernel_size, *settings)
        self._wait_for_input(out_channels, bias, device, dtype)


class LazyConv1d(_LazyConv):
    __doc__ = _LazyConv.__doc__
    spatial, cls_to_become = 1, Conv1d


class LazyConv2d(_LazyConv):
    __doc__ = _LazyConv.__doc__
    spatial, cls_to_become = 2, Conv2d


class LazyConv3d(_LazyConv):
    __doc__ = _LazyConv.__doc__
    spatial, cls_to_become = 3, Conv3d


class LazyConvTranspose1d(_LazyConvTranspose):
    __doc__ = _LazyConvTranspose.__doc__
    spatial, cls_to_become = 1, ConvTranspose1d


class LazyConvTranspose2d(_LazyConvTranspose):
    __doc__ = _LazyConvTranspose.__doc__
    spatial, cls_to_become = 2, ConvTranspose2d


class LazyConvTranspose3d(_LazyConvTranspose):
    __doc__ = _LazyConvTranspose.__doc__
    spatial, cls_to_become = 3, ConvTranspose3d
