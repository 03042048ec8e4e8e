"""Models of other packages."""

from __future__ import annotations

from typing import Any


def get_torchvision_model(model_name: str, **kwargs: Any) -> Any:
    """torchvision's model of this name. ModuleNotFoundError where torchvision is not installed."""
    from torchvision import models  # type: ignore[import-not-found, unused-ignore]

    return models.get_model(model_name, **kwargs)
