"""ONNX Runtime's static quantizer as TensorRT wants it: signed and symmetric, zero points 0, biases in float, and Q/DQ
at the inputs of convolutions and products only, from where its compiler moves and fuses them.

NNCF 3.4 refuses signed symmetric activations for attention ("incompatible with HW capabilities").
"""

from __future__ import annotations

from compress.installed import package_folder
from compress.quantizers import Job
from compress.quantizers.ort_static import run

KINDS = ["Conv", "Gemm", "MatMul"]


def check() -> None:
    """Raises Unavailable if ONNX Runtime is not installed."""
    package_folder("onnxruntime", "the quantizer ort_symmetric", "pip install 'edge-pupil[onnx]'")


def quantize(job: Job) -> None:
    """Write `job.out`, an int8 Q/DQ graph whose zero points are all 0: per-channel weights, per-tensor activations."""
    from onnxruntime.quantization import QuantType

    options = {
        "ActivationSymmetric": True,
        "WeightSymmetric": True,
        "QuantizeBias": False,
        "OpTypesToExcludeOutputQuantization": KINDS,
    }
    run(job, KINDS, activation_type=QuantType.QInt8, extra_options=options)
