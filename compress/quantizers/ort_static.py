"""ONNX Runtime's static quantizer: min-max ranges, and Q/DQ around residual additions and pooling too, so that whole
blocks stay in integers."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from typing import Any

import onnx

from compress.installed import package_folder
from compress.quantizers import Job
from runtimes import Array


def check() -> None:
    """Raises Unavailable if ONNX Runtime is not installed."""
    package_folder("onnxruntime", "the quantizer ort_static", "pip install 'edge-pupil[onnx]'")


def quantize(job: Job) -> None:
    """Write `job.out`, an int8 Q/DQ graph with per-channel weights."""
    from onnxruntime.quantization import QuantType

    # Additions in a transformer carry the outliers of the residual stream; they stay in float.
    run(job, ["MatMul", "Gemm"] if job.attention else None, activation_type=QuantType.QUInt8)


def run(job: Job, kinds: list[str] | None, **settings: Any) -> None:
    """Write `job.out`: operators of these `kinds` (None: all that can be) between Q/DQ, with these `settings`."""
    from onnxruntime.quantization import CalibrationDataReader, QuantFormat, QuantType, quantize_static

    class Reader(CalibrationDataReader):  # type: ignore[misc]
        def __init__(self) -> None:
            self._feeds: Iterator[dict[str, Array]] = iter(job.feeds)

        def get_next(self) -> dict[str, Array] | None:
            return next(self._feeds, None)

    quiet = logging.getLogger()
    level = quiet.level
    quiet.setLevel(logging.ERROR)  # it recommends a pre-processing that crashes on our graphs
    try:
        quantize_static(
            str(job.source),
            str(job.out),
            Reader(),
            quant_format=QuantFormat.QDQ,
            per_channel=True,
            weight_type=QuantType.QInt8,
            op_types_to_quantize=kinds,
            nodes_to_exclude=list(job.keep_float),
            **settings,
        )
    finally:
        quiet.setLevel(level)
    model = onnx.load(str(job.out))
    model.ir_version = onnx.load(str(job.source)).ir_version
    onnx.save(model, str(job.out))
