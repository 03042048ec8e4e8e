"""`torch.backends`: switches that scripts set. They are kept, and change nothing on a CPU."""

from . import cuda, cudnn, mkl, mkldnn, mps, openmp

__all__ = ["cuda", "cudnn", "mkl", "mkldnn", "mps", "openmp"]
