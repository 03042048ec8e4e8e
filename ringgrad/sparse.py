"""`ringgrad.sparse`: sparse matrices, minimally, under PyTorch's names."""

from .tensor.sparse import DoubleTensor, FloatTensor, LongTensor, mm, sum

__all__ = [
    "DoubleTensor",
    "FloatTensor",
    "LongTensor",
    "mm",
    "sum",
]
