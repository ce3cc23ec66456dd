"""The teacher of tests/towers.py as torch programs, fp32, with the same weights: what `pt:` runs beside a bundle."""

from __future__ import annotations

from pathlib import Path

import torch
from onnx import numpy_helper
from torch import nn
from torch.nn import functional

from tests.towers import IMAGE_TOKENS, LENGTH, SIZE, WIDTH, build

Tensors = dict[str, torch.Tensor]


def write_programs(image: Path) -> None:
    """`image` (X.pt2), X.text.pt2 and X.fusion.pt2."""
    pixels = torch.zeros((2, SIZE, SIZE, 3), dtype=torch.uint8)
    # Two tensors: one for both would be exported as one input, the other ignored.
    ids, mask = (torch.ones((2, LENGTH), dtype=torch.int64) for _ in range(2))
    tokens = (torch.zeros((2, IMAGE_TOKENS, WIDTH)), torch.zeros((2, LENGTH, WIDTH)))
    for module, path, example in (
        (ImageTower("image"), image, (pixels,)),
        (TextTower("text"), image.with_suffix(".text.pt2"), (ids, mask)),
        (FusionTower("fusion"), image.with_suffix(".fusion.pt2"), (*tokens, mask)),
    ):
        batch = torch.export.Dim("batch")
        program = torch.export.export(module, example, dynamic_shapes=tuple({0: batch} for _ in example))
        torch.export.save(program, path)


class Tower(nn.Module):
    """Holds the weights of a tower's fp32 graph under their names, dots as underscores."""

    def __init__(self, tower: str) -> None:
        super().__init__()
        for weight in build(tower, "fp32").graph.initializer:
            self.register_buffer(weight.name.replace(".", "_"), torch.tensor(numpy_helper.to_array(weight)))


class ImageTower(Tower):
    def forward(self, image: torch.Tensor) -> Tensors:
        x = (image.to(torch.float32) / self.full).permute(0, 3, 1, 2)
        hidden = functional.conv2d(x, self.kernel, self.bias).relu()
        rows = functional.avg_pool2d(x, SIZE // 2).flatten(2).transpose(1, 2)
        return {"embedding": hidden.mean((2, 3)) - self.centre, "tokens": rows @ self.tokens_widen - self.tokens_middle}


class TextTower(Tower):
    def forward(self, ids: torch.Tensor, mask: torch.Tensor) -> Tensors:
        there = mask.to(torch.float32).unsqueeze(2)
        words, tokens = (functional.embedding(ids, table) * there for table in (self.table, self.tokens_table))
        return {"embedding": words.sum(1), "tokens": tokens}


class FusionTower(Tower):
    def forward(self, image: torch.Tensor, text: torch.Tensor, mask: torch.Tensor) -> Tensors:
        seen, said = ((side @ self.near + self.offset).softmax(2)[..., :-1] for side in (image, text))
        p, a = seen.mean(1), (said * mask.to(torch.float32).unsqueeze(2)).amax(1)
        facts = torch.cat([(a * p).sum(1, keepdim=True), a.amax(1, keepdim=True), p], 1)
        return {"logits": facts @ self.head + self.base}
