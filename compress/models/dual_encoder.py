"""An image tower and a text tower that meet in one joint space, a fusion of both that answers questions, and their
files.

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

from compress.draft import FusionSpec, ImageSpec, ModelFiles, TextSpec, TowerSpec
from compress.models import fusion_tower, image_tower, text_tower
from compress.models.pruned import fit_widths, leave_out


class Side(nn.Module):
    """One tower, its linear projection into the joint space and, for questions, that of its tokens to the fusion.

    `projected`: False where the tower's own features are the joint space already, as those of SigLIP's image tower.
    """

    def __init__(self, tower: nn.Module, dim: int, width: int = 0, projected: bool = True) -> None:
        super().__init__()
        self.tower = tower
        # With a bias: a covered camera may leave all features at zero, and a zero vector has no direction.
        fresh = nn.Linear(int(tower.width), dim) if projected else nn.Identity()  # type: ignore[arg-type]
        self.projection: Any = fresh
        self.tokens = nn.Linear(int(tower.token_width), width) if width else None  # type: ignore[arg-type]

    def forward(self, *feeds: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """The tower's feeds to `embedding` (N, dim), not normalised, and with questions `tokens` (N, T, width).

        float32. Tokens of padding are zero.
        """
        tokens, pooled = self.tower(*feeds)
        embedding: Tensor = self.projection(pooled)
        return embedding if self.tokens is None else (embedding, self.project_tokens(tokens, *feeds[1:]))

    def both(self, *feeds: Tensor) -> tuple[Tensor, Tensor]:
        """`forward` of a side that has tokens. Raises TypeError for one that has none."""
        tokens, pooled = self.tower(*feeds)
        return self.projection(pooled), self.project_tokens(tokens, *feeds[1:])

    def project_tokens(self, tokens: Tensor, *mask: Tensor) -> Tensor:
        """The tower's tokens (N, T, token_width), and for texts mask int64 (N, T), to float32 (N, T, width)."""
        if self.tokens is None:
            raise TypeError("this side was built without tokens: the model answers no questions")
        projected: Tensor = self.tokens(tokens)
        return projected * mask[0].to(projected.dtype)[:, :, None] if mask else projected

    def count(self) -> int:
        """How many parameters tower and projections have."""
        return count(self)


class DualEncoder(nn.Module):
    """`logit_scale` is the logarithm of the factor on cosines, as in CLIP (Radford et al. 2021, arXiv 2103.00020).

    `fusion` is None for a model that answers no questions.
    """

    def __init__(self, image: Side, text: Side, fusion: nn.Module | None, logit_scale: float = 1 / 0.07) -> None:
        super().__init__()
        self.image, self.text, self.fusion = image, text, fusion
        self.logit_scale = nn.Parameter(torch.tensor(float(np.log(logit_scale))))
        self.most = max(100.0, logit_scale)  # SigLIP's own is beyond CLIP's limit

    def encode_image(self, images: Tensor) -> Tensor:
        """float32 (N, 3, S, S), normalised (see `to_input`), to float32 (N, dim), not unit length."""
        joint: Tensor = self.image.projection(self.image.tower(images)[1])
        return joint

    def encode_text(self, ids: Tensor, mask: Tensor) -> Tensor:
        """int64 ids and mask (N, L) to float32 (N, dim), not unit length."""
        joint: Tensor = self.text.projection(self.text.tower(ids, mask)[1])
        return joint

    def answer(self, image: Tensor, text: Tensor, mask: Tensor) -> Tensor:
        """Tokens float32 (N, T, width) and (N, L, width), mask int64 (N, L), to logits (N, answers).

        Raises TypeError for a model without a fusion.
        """
        if self.fusion is None:
            raise TypeError("this model has no fusion: it answers no questions")
        logits: Tensor = self.fusion(image, text, mask)
        return logits

    def scale(self) -> Tensor:
        """The factor on cosines, at most 100 as in CLIP, or what it started with."""
        return self.logit_scale.exp().clamp(max=self.most)


@dataclasses.dataclass(frozen=True)
class Shape:
    """What to build: towers and fusion by name with options, `size` in pixels, `dim` of the joint space, L tokens.

    `width`: of the fusion. `answers`: none for a model that answers no questions, which has no fusion then.
    """

    image: str
    image_options: Mapping[str, Any]
    text: str
    text_options: Mapping[str, Any]
    size: int
    dim: int
    max_length: int
    fusion: str = "attention"
    fusion_options: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    width: int = 128
    answers: tuple[str, ...] = ()


def build(shape: Shape) -> DualEncoder:
    """A new model on torch's default device, with pretrained towers where there are any; what is fresh is drawn from
    torch's generator of the CPU, so that training begins alike on every device.

    Raises RecipeError for an unknown tower or option, Unavailable if a tower's package is missing.
    """
    width, top = shape.width if shape.answers else 0, None
    with torch.device("cpu"):
        image = image_tower(shape.image).build(shape.image_options, pretrained=True)
        text = text_tower(shape.text).build(shape.text_options, pretrained=True)
        if shape.answers:
            top = fusion_tower(shape.fusion).build(shape.fusion_options, width, len(shape.answers))
        model = DualEncoder(Side(image, shape.dim, width), Side(text, shape.dim, width), top)
    return model.to(torch.get_default_device())


def save_model(model: DualEncoder, shape: Shape, folder: Path) -> ModelFiles:
    """Write the parts' weights (safetensors) and tokenizer.json into `folder`."""
    images, texts = image_tower(shape.image), text_tower(shape.text)
    files = ModelFiles(
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
        fusion=_fusion_spec(model, shape, folder),
        dim=shape.dim,
        logit_scale=float(model.scale().detach()),
        licences={**images.LICENCE, **texts.LICENCE},
    )
    write_weights(model, files)
    texts.tokenizer(shape.text_options, shape.max_length).save(str(files.text.tokenizer))
    return files


def write_weights(model: DualEncoder, files: ModelFiles) -> None:
    """Write the weights of every part to where `files` says."""
    parts: list[tuple[nn.Module, TowerSpec]] = [(model.image, files.image), (model.text, files.text)]
    parts += [(model.fusion, files.fusion)] if model.fusion is not None and files.fusion is not None else []
    for module, spec in parts:
        spec.weights.parent.mkdir(parents=True, exist_ok=True)
        # Contiguous: safetensors refuses the channels_last strides that training uses.
        state = {key: tensor.detach().cpu().contiguous() for key, tensor in module.state_dict().items()}
        # Written here and not by safetensors, whose own error on a full disk is no OSError.
        spec.weights.write_bytes(save(state))


def load_model(files: ModelFiles) -> DualEncoder:
    """The model of these files, in eval mode, float32, on torch's default device."""
    with torch.device("cpu"):
        model = _loaded(files)
    return model.eval().to(torch.get_default_device())


def _loaded(files: ModelFiles) -> DualEncoder:
    image = image_tower(files.image.name).build(files.image.options, pretrained=False)
    text = text_tower(files.text.name).build(files.text.options, pretrained=False)
    top, width = None, files.fusion.width if files.fusion else 0
    if files.fusion is not None:
        spec = files.fusion
        top = fusion_tower(spec.name).build(spec.options, spec.width, len(spec.answers))
        top.load_state_dict(load_file(spec.weights), strict=True)
    sides: list[Side] = []
    parts: list[tuple[nn.Module, TowerSpec]] = [(image, files.image), (text, files.text)]
    for tower, part in parts:
        state = load_file(part.weights)
        side = Side(tower, files.dim, width, projected="projection.weight" in state)
        leave_out(side.tower, part.without)
        fit_widths(side, state)
        side.load_state_dict(state, strict=True)
        sides.append(side)
    return DualEncoder(sides[0], sides[1], top, files.logit_scale)


def count(module: nn.Module) -> int:
    """How many parameters a module has."""
    return sum(parameter.numel() for parameter in module.parameters())


@torch.no_grad()
def token_count(tower: nn.Module, size: int) -> int:
    """How many tokens T an image tower makes of a frame of `size` pixels; leaves it in eval mode."""
    tokens: Tensor = tower.eval()(torch.zeros(1, 3, size, size))[0]
    return tokens.shape[1]


def to_input(frames: NDArray[np.uint8], mean: tuple[float, ...], std: tuple[float, ...]) -> Tensor:
    """uint8 (N, S, S, 3) RGB to normalised float32 (N, 3, S, S) on torch's default device.

    The result has channels_last strides, as the frames do: convolutions train 2.3 times faster on CPUs that way.
    """
    # A copy: frames are often a read-only memory map, which torch cannot share.
    pixels = torch.as_tensor(np.array(frames)).to(torch.float32) / 255
    return ((pixels - torch.tensor(mean)) / torch.tensor(std)).permute(0, 3, 1, 2)


def _fusion_spec(model: DualEncoder, shape: Shape, folder: Path) -> FusionSpec | None:
    if model.fusion is None:
        return None
    return FusionSpec(
        name=shape.fusion,
        options=dict(shape.fusion_options),
        weights=folder / "fusion.safetensors",
        params=count(model.fusion),
        width=shape.width,
        image_tokens=token_count(model.image.tower, shape.size),
        answers=shape.answers,
    )
