"""`torch.hub`: weights and models from local files. Nothing is downloaded."""

from __future__ import annotations

import os
from typing import Any
from urllib.parse import unquote, urlparse

_dir: str | None = None


def get_dir() -> str:
    """Where PyTorch keeps downloads: $TORCH_HOME/hub, or torch/hub in the user's cache."""
    return os.path.join(_get_torch_home(), "hub") if _dir is None else _dir


def _get_torch_home() -> str:
    """$TORCH_HOME, or torch in the user's cache; torchvision's models import this name."""
    cache = os.environ.get("XDG_CACHE_HOME", "~/.cache")
    return os.path.expanduser(os.environ.get("TORCH_HOME", os.path.join(cache, "torch")))


def set_dir(d: Any) -> None:
    """Chooses another folder than get_dir's."""
    global _dir
    _dir = os.path.expanduser(os.fspath(d))


def download_url_to_file(url: str, dst: str, hash_prefix: str | None = None, progress: bool = True) -> None:
    """Nothing is downloaded: the error says what to do."""
    raise RuntimeError(f"[hub] files are not downloaded: download {url} and save it as {dst}")


def load_state_dict_from_url(
    url: str,
    model_dir: str | None = None,
    map_location: Any = None,
    progress: bool = True,
    check_hash: bool = False,
    file_name: str | None = None,
    weights_only: bool = True,
) -> Any:
    """Loads the file of a `file:` URL, or the copy of a download in `model_dir` (get_dir()/checkpoints).

    check_hash: the name must end in -XXXXXXXX, the start of the content's SHA-256, as PyTorch's files do.
    """
    from .tensor.serialization import load

    parts = urlparse(url)
    if parts.scheme == "file":
        path = unquote(parts.path)
    else:
        folder = os.path.join(get_dir(), "checkpoints") if model_dir is None else model_dir
        path = os.path.join(folder, file_name or os.path.basename(parts.path))
    if not os.path.exists(path):
        download_url_to_file(url, path)
    if check_hash:
        _check_hash(path, file_name or os.path.basename(parts.path))
    return load(path, map_location=map_location, weights_only=weights_only)


def _check_hash(path: str, name: str) -> None:
    import hashlib
    import re

    found = re.search(r"-([a-f0-9]+)\.", name)
    if found is None:
        raise ValueError(
            f"[hub] with check_hash the name must hold a hash, -XXXXXXXX before its end, came {name!r}"
        )
    with open(path, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if not digest.startswith(found[1]):
        raise RuntimeError(
            f"[hub] the file's SHA-256 must start with {found[1]}, came {digest[:16]}...: {path}"
        )


def load(repo_or_dir: Any, model: str, *args: Any, source: str = "github", **kwargs: Any) -> Any:
    """Calls the entry point `model` of the hubconf.py in a local folder; runs that file's code."""
    if source != "local":
        raise RuntimeError(
            f"[hub.load] repositories are not downloaded: fetch {repo_or_dir!r} yourself and pass source='local'"
        )
    import runpy
    import sys

    folder = os.path.abspath(os.fspath(repo_or_dir))
    sys.path.insert(0, folder)
    try:
        entries = runpy.run_path(os.path.join(folder, "hubconf.py"))
    finally:
        sys.path.remove(folder)
    if not callable(entries.get(model)):
        raise RuntimeError(f"[hub.load] {folder} must define a callable {model!r}")
    return entries[model](*args, **kwargs)


__all__ = ["download_url_to_file", "get_dir", "load", "load_state_dict_from_url", "set_dir"]
