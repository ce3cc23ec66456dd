"""Variants that only TensorRT opens, made of a tower's float graph. Its networks are strongly typed: what is not half
or int8 in the file is not computed so."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx

import runtimes
from compress.engines import cpu_targets
from compress.export import save_graph
from compress.half import to_half
from compress.quantizers import Job, quantizer
from compress.steps.quantize import SYMMETRIC
from runtimes import Array
from runtimes._trt_graph import read_graph
from sdk.golden import output_error


def make_variant(variant: str, job: Job) -> None:
    """Write `job.out`, `variant` of the float graph `job.source`; what is not int8 in it is half.

    Raises Unavailable when TensorRT would refuse what was made.
    """
    source = job.source
    if variant == "int8-trt":
        source = job.out.with_suffix(".rounded.onnx")
        quantizer(SYMMETRIC).quantize(dataclasses.replace(job, out=source))
    save_graph(to_half(onnx.load(str(source))), job.out)
    if source != job.source:
        source.unlink()
    read_graph(job.out)


def distance(source: Path, made: Path, feeds: Sequence[dict[str, Array]]) -> float:
    """Mean distance (as in `sdk.golden.output_error`, the worst output) of a variant's answers from the float graph's.

    Both on the first CPU engine here, in f32: what the file's own rounding does, and no engine's.
    """
    target = cpu_targets()[0]
    with (
        runtimes.open_session(target, source, precision="f32") as exact,
        runtimes.open_session(target, made, precision="f32") as rounded,
    ):
        pairs = [(rounded.run(feed), exact.run(feed)) for feed in feeds]
    return float(np.mean([[output_error(p, got[p], want[p]) for p in want] for got, want in pairs], axis=0).max())
