"""The version, in one place."""

__version__ = "0.1.0"
cuda: str | None = None  # the CUDA and ROCm releases that the package was built with: none
hip: str | None = None
debug = False
git_version = "unknown"
