"""Providers of ONNX Runtime besides the CPU's: which are here, how they are asked for, and what they need loaded."""

from __future__ import annotations

import contextlib
import functools
import io
from typing import Any

from runtimes._target import Target

# Device of a target -> provider, and the pip extra that brings it.
PROVIDERS = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
    "openvino": "OpenVINOExecutionProvider",
}
EXTRAS = {"cpu": "onnx", "cuda": "cuda", "tensorrt": "cuda", "openvino": "onnx-openvino"}
GPU = ("cuda", "tensorrt")  # devices on an NVIDIA GPU: they have an index, and keep inputs and outputs there
_PLUGIN = "edge_pupil_openvino"  # what the plug-in is called in this process
# On CPUs that have it OpenVINO's own default is bf16, and `compute` says f32.
_F32 = {"precision": "FP32"}


def carried(engine: Any) -> tuple[str, ...]:
    """Devices whose provider this ONNX Runtime has, built in or plugged in."""
    built_in = engine.get_available_providers()
    return tuple(d for d, p in PROVIDERS.items() if p in built_in or (d == "openvino" and plugged(engine)))


@functools.cache
def plugged(engine: Any) -> tuple[Any, ...]:
    """OpenVINO's CPU, as the package onnxruntime-ep-openvino offers it; empty without the package, and on CPUs that are
    not Intel's, where it offers nothing."""
    try:
        import onnxruntime_ep_openvino as plugin

        engine.register_execution_provider_library(_PLUGIN, plugin.get_library_path())
    except (ImportError, AttributeError, FileNotFoundError):  # AttributeError: an ONNX Runtime that nothing plugs into
        return ()
    except Exception:  # ORT's own: a plug-in of another version does not load, and the doctor says so
        return ()
    devices = [each for each in engine.get_ep_devices() if each.ep_name == PROVIDERS["openvino"]]
    return tuple(each for each in devices if each.ep_metadata.get("ov_device") == "CPU")


def ask_for(engine: Any, options: Any, target: Target, quantized: bool) -> list[Any] | None:
    """What to pass as `providers` for a target; None when it was put into the session's `options`. `quantized`: whether
    the graph has Q/DQ nodes."""
    if target.device == "tensorrt":
        # Engines are compiled anew each time: its cache is not checked as ours of `trt` is. Without Q/DQ nodes int8
        # would want a calibration table.
        wish = {"device_id": str(target.index or 0), "trt_int8_enable": str(int(quantized))}
        return [(PROVIDERS["tensorrt"], wish)]
    if target.device == "cuda":
        # TF32 off: it has 10 bits of mantissa, and `compute` says f32.
        return [(PROVIDERS["cuda"], {"device_id": str(target.index or 0), "use_tf32": "0"})]
    if target.device == "openvino" and PROVIDERS["openvino"] in engine.get_available_providers():
        return [(PROVIDERS["openvino"], {"device_type": "CPU", **_F32})]
    if target.device == "openvino":
        options.add_provider_for_devices(list(plugged(engine)), _F32)
        return None
    return [PROVIDERS["cpu"]]


def load_libraries(engine: Any, device: str) -> None:
    """Load CUDA and cuDNN where pip puts them, which the provider does not look at.

    What is missing, opening tells; here it would be printed.
    """
    if device in GPU and hasattr(engine, "preload_dlls"):
        with contextlib.redirect_stdout(io.StringIO()):
            engine.preload_dlls()
