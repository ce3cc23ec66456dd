"""The teacher's towers as programs of `torch.export` (.pt2): what the full GPU teacher runs on, beside its bundle.

A .pt2 file is pickle inside, so it is never part of a bundle; see runtimes/pt.py. Its argument names and the keys of
the dict that it answers are the names of the ports, hence a module per tower.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from compress.draft import ModelFiles
from compress.export import Tower, towers


class Program(nn.Module):
    """A tower whose outputs have names."""

    def __init__(self, tower: Tower) -> None:
        super().__init__()
        self.tower, self.names = tower.module, tower.outputs

    def named(self, *feeds: Tensor) -> dict[str, Tensor]:
        """The tower's feeds, in order, to port -> output."""
        outputs: Any = self.tower(*feeds)
        return dict(zip(self.names, outputs if isinstance(outputs, tuple) else (outputs,), strict=True))


class ImageProgram(Program):
    """The image tower."""

    def forward(self, image: Tensor) -> dict[str, Tensor]:
        """See sdk/FORMAT.md."""
        return self.named(image)


class TextProgram(Program):
    """The text tower."""

    def forward(self, ids: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """See sdk/FORMAT.md."""
        return self.named(ids, mask)


class FusionProgram(Program):
    """The fusion tower."""

    def forward(self, image: Tensor, text: Tensor, mask: Tensor) -> dict[str, Tensor]:
        """See sdk/FORMAT.md."""
        return self.named(image, text, mask)


PROGRAMS = {"image": ImageProgram, "text": TextProgram, "fusion": FusionProgram}


def program_path(image: Path, tower: str) -> Path:
    """Where the program of a tower lies: X.pt2 for the image, X.text.pt2, X.fusion.pt2."""
    return image if tower == "image" else image.with_name(f"{image.stem}.{tower}{image.suffix}")


def write_programs(model: ModelFiles, image: Path) -> tuple[Path, ...]:
    """Write the program of every tower, the image's to `image`, each whole or not at all, and return where they lie.

    The batch is free.
    """
    written = []
    for name, tower in towers(model).items():
        batch = torch.export.Dim("batch")
        # A tensor each: one for two inputs would be exported as one, the other ignored.
        example = tuple(tensor.clone() for tensor in tower.example.values())
        shapes = {port: {0: batch} for port in tower.example}
        program = torch.export.export(PROGRAMS[name](tower), example, dynamic_shapes=shapes)
        path = program_path(image, name)
        building = path.with_suffix(f".tmp{path.suffix}")  # torch wants the ending
        torch.export.save(program, building)
        building.replace(path)
        written.append(path)
    return tuple(written)
