"""`torch._six`, which PyTorch had until 2.0: names for code that also ran on Python 2."""

import collections.abc as container_abcs
from math import inf, nan

string_classes = (str, bytes)
int_classes = int
PY3 = True
__all__ = ["PY3", "container_abcs", "inf", "int_classes", "nan", "string_classes"]
