"""A dual encoder and a fusion with random weights, small enough to build, save and export within a test."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from compress.channels import recalibrate
from compress.draft import ModelFiles
from compress.models.dual_encoder import DualEncoder, Shape, build, count, save_model, write_weights
from compress.models.pruned import leave_out

ANSWERS = ("yes", "no", "blue", "circle")
SHAPE = Shape(
    image="timm_image",
    image_options={"model": "test_efficientnet"},
    text="minilm",
    text_options={"vocab": 3000},
    size=32,
    dim=16,
    max_length=12,
    fusion_options={"layers": 1, "heads": 2},
    width=16,
    answers=ANSWERS,
)
# One layer of the text tower is enough, and exports three times as fast.
LEFT_OUT = tuple(f"body.encoder.layer.{at}" for at in range(1, 6))


def small_model(shape: Shape = SHAPE, seed: int = 0) -> DualEncoder:
    """In eval mode, with one layer of text; its normalisations have seen colours, so that it tells those apart."""
    torch.manual_seed(seed)
    model = build(shape)
    leave_out(model.text.tower, LEFT_OUT)
    colours, size = torch.rand(32, 3, 1, 1) * 2 - 1, shape.size
    recalibrate(model.image, [colours + 0.1 * torch.randn(32, 3, size, size)])
    return model.eval()


def save_small(model: DualEncoder, folder: Path, shape: Shape = SHAPE) -> ModelFiles:
    """The files of a `small_model`, in `folder`."""
    folder.mkdir(parents=True)
    files = save_model(model, shape, folder)
    text = dataclasses.replace(files.text, without=LEFT_OUT, params=count(model.text))
    files = dataclasses.replace(files, text=text)
    write_weights(model, files)
    return files
