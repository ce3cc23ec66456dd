"""Any image model of timm, from scratch or with the weights of a checkpoint (compress/checkpoints): the option `model`
names it. No weights are downloaded."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import timm
from torch import Tensor, nn

from compress.named import did_you_mean, fill
from runtimes import RecipeError

MEAN = (0.5, 0.5, 0.5)
STD = (0.5, 0.5, 0.5)
LICENCE: dict[str, str] = {}


@dataclass(frozen=True)
class Options:
    """`model`: a name of timm's. `pool`: how it pools, in timm's words; "" as that model does."""

    model: str = "mobilenetv4_conv_small_050"
    pool: str = ""

    def __post_init__(self) -> None:
        if not timm.is_model(self.model):
            raise RecipeError(f"timm has no model {self.model!r}{did_you_mean(self.model, timm.list_models())}")


class TimmImage(nn.Module):
    """A timm network without its classifier."""

    def __init__(self, model: str, pool: str = "") -> None:
        super().__init__()
        own: dict[str, Any] = {"global_pool": pool} if pool else {}
        self.body: Any = timm.create_model(model, pretrained=False, num_classes=0, **own)
        # Some networks (mobilenetv4) have a head convolution after pooling, wider than `num_features`.
        width: Any = getattr(self.body, "head_hidden_size", None) or self.body.num_features
        self.width = int(width)
        tokens: Any = self.body.num_features
        self.token_width = int(tokens)

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """float32 (N, 3, S, S), normalised, to tokens (N, T, token_width) and pooled features (N, width), float32."""
        features: Tensor = self.body.forward_features(images)
        pooled: Tensor = self.body.forward_head(features, pre_logits=True)
        # Convolutional networks give (N, C, H, W), transformers (N, T, C) already.
        # Not flatten: its exported shape arithmetic takes the batch and the channels in one slice.
        if features.ndim == 4 and str(getattr(self.body, "output_fmt", "")).endswith("NHWC"):
            features = features.permute(0, 3, 1, 2)
        return features.reshape(*features.shape[:2], -1).transpose(1, 2) if features.ndim == 4 else features, pooled


def build(options: Mapping[str, Any], pretrained: bool) -> nn.Module:
    """The tower; `pretrained` changes nothing, there are no weights to inherit.

    Raises RecipeError for options that are not those of `Options`, or a model that timm does not have.
    """
    asked: Options = fill(Options, options, "timm_image")
    return TimmImage(asked.model, asked.pool)
