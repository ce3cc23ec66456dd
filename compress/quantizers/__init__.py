"""Ways to put Q/DQ nodes into a float ONNX graph, one file each, found by name. The quantize step tries all it is told
to and keeps the one that measures best: where Q/DQ nodes stand decides which integer kernels an engine can use.

A quantizer module has `quantize(job: Job) -> None`, which writes `job.out`, and `check()`, which raises Unavailable
if the package that it drives is not installed.
"""

from __future__ import annotations

import importlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from compress.named import check_name
from runtimes import Array


@dataclass(frozen=True)
class Job:
    """One graph to quantize.

    `feeds`: calibration feeds, batch of one each. `keep_float`: names of nodes that stay in float. `attention`: the
    graph is a transformer, whose activations have outlier channels.
    """

    source: Path
    out: Path
    feeds: Sequence[dict[str, Array]]
    keep_float: tuple[str, ...]
    attention: bool


def quantizer(name: str) -> ModuleType:
    """The quantizer `name`. Raises RecipeError naming those that exist."""
    return importlib.import_module(f"compress.quantizers.{check_name('compress.quantizers', name, 'quantizer')}")
