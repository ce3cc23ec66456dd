"""EfficientNet-Lite0, 3.4 M parameters, made for 224 px; see compress/models/efficientnet_lite.py."""

from collections.abc import Mapping
from typing import Any

from torch import nn

from compress.models import efficientnet_lite
from compress.models.efficientnet_lite import MEAN, STD

__all__ = ["LICENCE", "MEAN", "STD", "build", "check"]
LICENCE = efficientnet_lite.licence(0)


def build(options: Mapping[str, Any], pretrained: bool) -> nn.Module:
    """The tower. Raises RecipeError for any option, there are none, Unavailable if the weights' package is missing."""
    return efficientnet_lite.build(0, options, pretrained)


def check() -> None:
    """Raises Unavailable if the weights' package is not installed."""
    _ = efficientnet_lite.weights(0)
