"""Run as a script, in a process of its own: what CUDA's driver says of this machine, one line of JSON.

A driver that is broken or does not fit its kernel module can end the process that asks it. So it is this one.
It prints {"error": text} or {"driver": "550.54.15", "cuda": 12040, "gpus": [{"name": ..., "capability": [8, 9]}]}.
"""

from __future__ import annotations

import ctypes
import json
import sys

_CUDA = "nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1"
_NVML = "nvml.dll" if sys.platform == "win32" else "libnvidia-ml.so.1"
_MAJOR, _MINOR = 75, 76  # CU_DEVICE_ATTRIBUTE_COMPUTE_CAPABILITY_MAJOR, _MINOR


def ask() -> dict[str, object]:
    """The facts above. Raises RuntimeError with the reason where there is no GPU to speak of."""
    try:
        cuda = ctypes.CDLL(_CUDA)
    except OSError as error:
        raise RuntimeError(f"there is no NVIDIA driver ({error})") from error

    def call(name: str, *arguments: object) -> None:
        code = getattr(cuda, name)(*arguments)
        if code:
            text = ctypes.c_char_p()
            cuda.cuGetErrorString(code, ctypes.byref(text))
            raise RuntimeError(f"{name} of the NVIDIA driver says {code}: {(text.value or b'?').decode()}")

    call("cuInit", 0)
    version, count = ctypes.c_int(), ctypes.c_int()
    call("cuDriverGetVersion", ctypes.byref(version))
    call("cuDeviceGetCount", ctypes.byref(count))
    gpus = []
    for index in range(count.value):
        device, name = ctypes.c_int(), ctypes.create_string_buffer(256)
        call("cuDeviceGet", ctypes.byref(device), index)
        call("cuDeviceGetName", name, len(name), device)
        numbers = []
        for attribute in (_MAJOR, _MINOR):
            number = ctypes.c_int()
            call("cuDeviceGetAttribute", ctypes.byref(number), attribute, device)
            numbers.append(number.value)
        gpus.append({"name": name.value.decode(errors="replace"), "capability": numbers})
    return {"driver": _driver_version(), "cuda": version.value, "gpus": gpus}


def _driver_version() -> str:
    """Such as "550.54.15"; empty where NVML is not there, as on some Jetsons."""
    try:
        nvml = ctypes.CDLL(_NVML)
    except OSError:
        return ""
    text = ctypes.create_string_buffer(96)
    if nvml.nvmlInit_v2() or nvml.nvmlSystemGetDriverVersion(text, len(text)):
        return ""
    return text.value.decode(errors="replace")


def answer() -> dict[str, object]:
    """What this script prints."""
    try:
        return ask()
    except RuntimeError as error:
        return {"error": str(error)}


if __name__ == "__main__":
    json.dump(answer(), sys.stdout)
