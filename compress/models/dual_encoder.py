"""An image tower and a text tower that meet in one joint space, and their files.

Both sides end in the RAW projection: making the vectors unit length is the business of the losses and of the SDK
(inside an int8 graph it gave norms of 0.71 to 1.20).
"""

import dataclasses
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from safetensors.torch import load_file, save
from torch import Tensor, nn

from compress.draft import ImageSpec, ModelFiles, TextSpec
from compress.models import image_tower, text_tower


class Side(nn.Module):
    """One tower and its linear projection into the joint space."""

    def __init__(self, tower: nn.Module, dim: int) -> None:
        super().__init__()
        self.tower = tower
        self.projection = nn.Linear(int(tower.width), dim, bias=False)  # type: ignore[arg-type]

    def forward(self, *feeds: Tensor) -> Tensor:
        """The tower's feeds to float32 (N, dim), not normalised."""
        joint: Tensor = self.projection(self.tower(*feeds))
        return joint

    def count(self) -> int:
        """How many parameters tower and projection have."""
        return sum(parameter.numel() for parameter in self.parameters())


class DualEncoder(nn.Module):
    """`logit_scale` is the logarithm of the factor on cosines, as in CLIP (Radford et al. 2021, arXiv 2103.00020)."""

    def __init__(self, image: nn.Module, text: nn.Module, dim: int, logit_scale: float = 1 / 0.07) -> None:
        super().__init__()
        self.image = Side(image, dim)
        self.text = Side(text, dim)
        self.logit_scale = nn.Parameter(torch.tensor(float(np.log(logit_scale))))

    def encode_image(self, images: Tensor) -> Tensor:
        """float32 (N, 3, S, S), normalised (see `to_input`), to float32 (N, dim), not unit length."""
        joint: Tensor = self.image(images)
        return joint

    def encode_text(self, ids: Tensor, mask: Tensor) -> Tensor:
        """int64 ids and mask (N, L) to float32 (N, dim), not unit length."""
        joint: Tensor = self.text(ids, mask)
        return joint

    def scale(self) -> Tensor:
        """The factor on cosines, at most 100 as in CLIP."""
        return self.logit_scale.exp().clamp(max=100.0)


@dataclasses.dataclass(frozen=True)
class Shape:
    """What to build: towers by name with their options, `size` in pixels, `dim` of the joint space, L tokens."""

    image: str
    image_options: Mapping[str, Any]
    text: str
    text_options: Mapping[str, Any]
    size: int
    dim: int
    max_length: int


def build(shape: Shape) -> DualEncoder:
    """A new model with pretrained towers where there are any; projections are drawn from torch's generator.

    Raises RecipeError for an unknown tower or option, Unavailable if a tower's package is missing.
    """
    image = image_tower(shape.image).build(shape.image_options, pretrained=True)
    text = text_tower(shape.text).build(shape.text_options, pretrained=True)
    return DualEncoder(image, text, shape.dim)


def save_model(model: DualEncoder, shape: Shape, folder: Path) -> ModelFiles:
    """Write image.safetensors, text.safetensors and tokenizer.json into `folder`."""
    images, texts = image_tower(shape.image), text_tower(shape.text)
    folder.mkdir(parents=True, exist_ok=True)
    for name, side in (("image", model.image), ("text", model.text)):
        # Contiguous: safetensors refuses the channels_last strides that training uses.
        state = {key: tensor.detach().contiguous() for key, tensor in side.state_dict().items()}
        # Written here and not by safetensors, whose own error on a full disk is no OSError.
        (folder / f"{name}.safetensors").write_bytes(save(state))
    texts.tokenizer(shape.text_options, shape.max_length).save(str(folder / "tokenizer.json"))
    return ModelFiles(
        image=ImageSpec(
            name=shape.image,
            options=dict(shape.image_options),
            weights=folder / "image.safetensors",
            params=model.image.count(),
            size=shape.size,
            mean=images.MEAN,
            std=images.STD,
        ),
        text=TextSpec(
            name=shape.text,
            options=dict(shape.text_options),
            weights=folder / "text.safetensors",
            params=model.text.count(),
            max_length=shape.max_length,
            tokenizer=folder / "tokenizer.json",
        ),
        dim=shape.dim,
        logit_scale=float(model.scale().detach()),
        licences={**images.LICENCE, **texts.LICENCE},
    )


def load_model(files: ModelFiles) -> DualEncoder:
    """The model of these files, in eval mode, float32, on the CPU."""
    image = image_tower(files.image.name).build(files.image.options, pretrained=False)
    text = text_tower(files.text.name).build(files.text.options, pretrained=False)
    model = DualEncoder(image, text, files.dim, files.logit_scale)
    model.image.load_state_dict(load_file(files.image.weights), strict=True)
    model.text.load_state_dict(load_file(files.text.weights), strict=True)
    return model.eval()


def inherit(module: nn.Module, weights: Path, prefix: str = "") -> int:
    """Copy into `module` every tensor of the file whose name (after `prefix`) and shape are the module's own.

    Returns how many were copied: a student of the same family takes over what it kept of its teacher.
    """
    own = module.state_dict()
    file = load_file(weights)
    named = {name.removeprefix(prefix): file[name] for name in file if name.startswith(prefix)}
    fitting = {name: tensor for name, tensor in named.items() if name in own and own[name].shape == tensor.shape}
    module.load_state_dict(fitting, strict=False)
    return len(fitting)


def to_input(frames: NDArray[np.uint8], mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """uint8 (N, S, S, 3) RGB to normalised float32 (N, 3, S, S).

    The result has channels_last strides, as the frames do: convolutions train 2.3 times faster on CPUs that way.
    """
    # A copy: frames are often a read-only memory map, which torch cannot share.
    pixels = torch.from_numpy(np.array(frames)).to(torch.float32) / 255
    return ((pixels - torch.tensor(mean)) / torch.tensor(std)).permute(0, 3, 1, 2)
