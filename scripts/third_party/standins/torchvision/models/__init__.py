"""Models are imported one file at a time."""

from pkgutil import extend_path

__path__ = extend_path(__path__, __name__)
