"""NNCF post-training quantization: fast bias correction, SmoothQuant for transformers (Xiao et al. 2023,
arXiv 2211.10438). Its ONNX backend, because its OpenVINO one writes FakeQuantize, which no other engine reads."""

from __future__ import annotations

import logging

import onnx

from compress.graph import unsigned_activations
from compress.installed import package_folder
from compress.quantizers import Job


def check() -> None:
    """Raises Unavailable if NNCF is not installed."""
    package_folder("nncf", "the quantizer nncf_ptq", "pip install 'edge-pupil[compress]'")


def quantize(job: Job) -> None:
    """Write `job.out`, an int8 Q/DQ graph with per-channel weights and per-tensor activations."""
    import nncf
    from nncf.quantization.advanced_parameters import AdvancedQuantizationParameters, QuantizationParameters

    logging.getLogger("nncf").setLevel(logging.ERROR)
    logging.getLogger("torch.utils.cpp_extension").setLevel(logging.ERROR)  # says that there is no CUDA compiler
    model = nncf.quantize(
        onnx.load(str(job.source)),
        nncf.Dataset(list(job.feeds)),
        subset_size=len(job.feeds),
        model_type=nncf.ModelType.TRANSFORMER if job.attention else None,
        ignored_scope=nncf.IgnoredScope(names=list(job.keep_float)),
        advanced_parameters=AdvancedQuantizationParameters(
            # NNCF's default gives depthwise convolutions per-channel activations, which ONNX Runtime refuses in places.
            activations_quantization_params=QuantizationParameters(per_channel=False),
        ),
    )
    unsigned_activations(model)
    onnx.save(model, str(job.out))
