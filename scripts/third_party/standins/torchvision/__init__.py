"""The part of torchvision's interface that training scripts touch, over made-up pictures.

What is not here (models/*.py, ops/misc.py ...) is taken from a torchvision that lies further along sys.path.
"""

from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)
__version__ = "0.0"

from . import datasets, models, transforms, utils  # noqa: F401
