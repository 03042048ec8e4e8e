"""Named by the descriptions of weights, which nobody downloads here."""

from enum import Enum


class InterpolationMode(Enum):
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"


class ImageClassification:
    pass
