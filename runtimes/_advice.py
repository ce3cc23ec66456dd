"""What is wrong with how engines are installed here, each with the command that mends it. Told by the doctor.

Nothing is imported to find out: packages that overwrite each other may not import any more.
"""

from __future__ import annotations

import ctypes.util
import importlib.metadata
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from runtimes._errors import Unavailable
from runtimes._gpus import Gpu, gpus

_ONNXRUNTIMES = ("onnxruntime", "onnxruntime-directml", "onnxruntime-gpu", "onnxruntime-openvino")
# The oldest driver that speaks a CUDA, by its major version: Linux, Windows.
_DRIVERS = {12: ("525.60", "528.33"), 13: ("580.65", "580.88")}
_BUILT_FOR = re.compile(r"^cuda_version\s*=\s*['\"](\d+)", re.MULTILINE)
_PLUGIN_NEEDS = (1, 23)  # the first onnxruntime that execution providers plug into


@dataclass(frozen=True)
class Machine:
    """What advice follows from. `packages`: name in lower case -> version. `ort_cuda`: the major CUDA version that
    onnxruntime-gpu was built for, None where that is not told. `cudnn`: whether one is found."""

    packages: Mapping[str, str]
    gpus: tuple[Gpu, ...] = ()
    ort_cuda: int | None = None
    cudnn: bool = False


def look() -> Machine:
    """This machine. Asks the NVIDIA driver only where something is installed that needs it."""
    packages = {
        dist.metadata["Name"].lower().replace("_", "-"): dist.version
        for dist in importlib.metadata.distributions()
        if dist.metadata["Name"]  # an interrupted pip leaves folders without
    }
    found: tuple[Gpu, ...] = ()
    if any(name in packages for name in ("onnxruntime-gpu", "tensorrt-cu12", "tensorrt-cu13")):
        try:
            found = gpus()
        except Unavailable:  # the doctor says so of the targets themselves
            found = ()
    cudnn = ctypes.util.find_library("cudnn") is not None or any(n.startswith("nvidia-cudnn") for n in packages)
    return Machine(packages, found, _cuda_of_onnxruntime(), cudnn)


def advice(machine: Machine) -> Iterator[str]:
    """Each trouble in one line that ends with the command that mends it."""
    yield from clashes(machine.packages)
    yield from _misfits(machine.packages)
    if "onnxruntime-gpu" in machine.packages and machine.gpus:
        yield from _old_driver("onnxruntime-gpu", machine.ort_cuda, machine.gpus[0])
        if not machine.cudnn:
            package = f"nvidia-cudnn-cu{machine.ort_cuda or 12}"
            yield f"onnxruntime-gpu needs cuDNN 9, and none is found; run: pip install '{package}>=9,<10'"
    for major in _DRIVERS:
        if f"tensorrt-cu{major}" in machine.packages and machine.gpus:
            yield from _old_driver(f"tensorrt-cu{major}", major, machine.gpus[0])


def clashes(packages: Mapping[str, str]) -> Iterator[str]:
    """Packages that overwrite each other's files."""
    both = [name for name in _ONNXRUNTIMES if name in packages]
    if len(both) > 1:
        yield (
            f"{' and '.join(both)} are both installed and overwrite each other's files; run: "
            f"pip uninstall -y {' '.join(both)} && pip install --force-reinstall {both[-1]}"
        )
    both = [name for name in ("tensorrt-cu12", "tensorrt-cu13") if name in packages]
    if len(both) > 1:
        yield (
            f"{' and '.join(both)} are both installed, and only one can be imported; run: "
            f"pip uninstall -y {' '.join(both)} && pip install --force-reinstall {both[0]}"
        )


def _misfits(packages: Mapping[str, str]) -> Iterator[str]:
    """Versions that do not fit each other."""
    for major in _DRIVERS:
        parts = {name: packages.get(f"tensorrt-cu{major}-{name}") for name in ("bindings", "libs")}
        if None not in parts.values() and parts["bindings"] != parts["libs"]:
            yield (
                f"TensorRT's bindings are {parts['bindings']} and its libraries {parts['libs']}; run: pip install "
                f"--force-reinstall tensorrt-cu{major}=={parts['bindings']}"
            )
    plugin = packages.get("onnxruntime-ep-openvino")
    runtime = next((packages[name] for name in _ONNXRUNTIMES if name in packages), None)
    if plugin is not None and (runtime is None or _numbers(runtime) < _PLUGIN_NEEDS):
        has = "there is none" if runtime is None else f"this is {runtime}"
        needs = ".".join(map(str, _PLUGIN_NEEDS))
        yield (
            f"onnxruntime-ep-openvino {plugin} plugs into onnxruntime {needs} or newer, and {has}; run: "
            f"pip install 'onnxruntime>={needs}'"
        )


def _old_driver(package: str, major: int | None, gpu: Gpu) -> Iterator[str]:
    if major in _DRIVERS and gpu.cuda < 1000 * major:
        linux, windows = _DRIVERS[major]
        speaks = f"{gpu.cuda // 1000}.{gpu.cuda % 1000 // 10}"
        yield (
            f"{package} is made for CUDA {major}, and the NVIDIA driver {gpu.driver} speaks CUDA {speaks}; install a "
            f"driver of {linux} (Linux) or {windows} (Windows) or newer, then run: nvidia-smi"
        )


def _cuda_of_onnxruntime() -> int | None:
    """What onnxruntime-gpu says in a file of its own that it was built for."""
    try:
        files = importlib.metadata.files("onnxruntime-gpu") or []
        told = next((file for file in files if file.name == "build_and_package_info.py"), None)
        match = _BUILT_FOR.search(told.read_text()) if told is not None else None
    except (importlib.metadata.PackageNotFoundError, OSError):
        return None
    return int(match[1]) if match else None


def _numbers(version: str) -> tuple[int, ...]:
    return tuple(int(part) for part in re.findall(r"\d+", version)[:2])
