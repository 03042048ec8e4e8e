"""Sixteen float32 side by side as one value of compiled loops: what the processor's vector instructions work on.

LLVM makes such code of plain loops by itself only where it can prove that no two arrays overlap, which it cannot for
the 36 places of a Winograd tile.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.extending import intrinsic, models, overload, register_model

WIDTH = 16


class LanesType(types.Type):
    def __init__(self) -> None:
        super().__init__(name="float32x16")


emitted: Any = intrinsic
lanes = LanesType()
VECTOR = ir.VectorType(ir.FloatType(), WIDTH)
FUSED = ("contract",)  # a product and a sum may be one instruction


@register_model(LanesType)
class LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, VECTOR)


def _pointer(context: Any, builder: Any, kind: Any, array: Any, offset: Any) -> Any:
    data = context.make_array(kind)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [offset]), VECTOR.as_pointer())


@emitted
def load(typing: Any, array: Any, offset: Any) -> Any:
    """array[offset : offset + 16] of a flat contiguous array."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.load(_pointer(context, builder, signature.args[0], *args), align=4)

    return lanes(array, types.int64), build


@emitted
def store(typing: Any, array: Any, offset: Any, value: Any) -> Any:
    """array[offset : offset + 16] = value"""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        builder.store(args[2], _pointer(context, builder, signature.args[0], *args[:2]), align=4)
        return context.get_dummy_value()

    return types.void(array, types.int64, lanes), build


@emitted
def times(typing: Any, value: Any, factor: Any) -> Any:
    """Each of the sixteen times a number."""

    def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        single = builder.insert_element(ir.Constant(VECTOR, ir.Undefined), args[1], ir.IntType(32)(0))
        same = ir.Constant(ir.VectorType(ir.IntType(32), WIDTH), [0] * WIDTH)
        return builder.fmul(args[0], builder.shuffle_vector(single, single, same), flags=FUSED)

    return lanes(lanes, types.float32), build


def _binary(function: Callable[..., Any], name: str) -> None:
    @emitted
    def combine(typing: Any, a: Any, b: Any) -> Any:
        def build(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return getattr(builder, name)(*args, flags=FUSED)

        return lanes(lanes, lanes), build

    @overload(function, strict=False)
    def both(a: Any, b: Any) -> Any:
        if isinstance(a, LanesType) and isinstance(b, LanesType):
            return lambda a, b: combine(a, b)
        return None


_binary(operator.add, "fadd")
_binary(operator.sub, "fsub")
