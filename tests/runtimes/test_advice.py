"""Advice on how engines are installed: every trouble has its own command."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from runtimes import _advice
from runtimes._advice import Machine, advice
from runtimes._gpus import Gpu

GPU = Gpu(0, "NVIDIA RTX A2000", (8, 6), "550.54.15", 12040)
OLD = Gpu(0, "NVIDIA GTX 1060", (6, 1), "470.199", 11040)


def test_a_healthy_machine_gets_no_advice() -> None:
    packages = {"onnxruntime-gpu": "1.31.1", "onnxruntime-ep-openvino": "1.8.1", "tensorrt-cu12": "10.16.1"}
    packages |= {"tensorrt-cu12-bindings": "10.16.1.11", "tensorrt-cu12-libs": "10.16.1.11"}
    assert list(advice(Machine(packages, (GPU,), 12, cudnn=True))) == []
    assert list(advice(Machine({"openvino": "2026.4.1"}))) == []


@pytest.mark.parametrize(
    ("machine", "told"),
    [
        (
            Machine({"onnxruntime": "1.31.1", "onnxruntime-gpu": "1.31.1"}, cudnn=True),
            "onnxruntime and onnxruntime-gpu are both installed and overwrite each other's files; run: pip uninstall "
            "-y onnxruntime onnxruntime-gpu && pip install --force-reinstall onnxruntime-gpu",
        ),
        (
            Machine({"tensorrt-cu12": "10.16.1", "tensorrt-cu13": "11.4.0"}),
            "tensorrt-cu12 and tensorrt-cu13 are both installed, and only one can be imported; run: pip uninstall -y "
            "tensorrt-cu12 tensorrt-cu13 && pip install --force-reinstall tensorrt-cu12",
        ),
        (
            Machine({"tensorrt-cu12-bindings": "10.16.1.11", "tensorrt-cu12-libs": "10.13.0.35"}),
            "TensorRT's bindings are 10.16.1.11 and its libraries 10.13.0.35; run: pip install --force-reinstall "
            "tensorrt-cu12==10.16.1.11",
        ),
        (
            Machine({"onnxruntime-ep-openvino": "1.8.1", "onnxruntime": "1.20.0"}),
            "onnxruntime-ep-openvino 1.8.1 plugs into onnxruntime 1.23 or newer, and this is 1.20.0; run: pip install "
            "'onnxruntime>=1.23'",
        ),
        (
            Machine({"onnxruntime-ep-openvino": "1.8.1"}),
            "onnxruntime-ep-openvino 1.8.1 plugs into onnxruntime 1.23 or newer, and there is none; run: pip install "
            "'onnxruntime>=1.23'",
        ),
        (
            Machine({"onnxruntime-gpu": "1.31.1"}, (GPU,), 12),
            "onnxruntime-gpu needs cuDNN 9, and none is found; run: pip install 'nvidia-cudnn-cu12>=9,<10'",
        ),
        (
            Machine({"onnxruntime-gpu": "1.31.1"}, (GPU,), 13, cudnn=True),
            "onnxruntime-gpu is made for CUDA 13, and the NVIDIA driver 550.54.15 speaks CUDA 12.4; install a driver "
            "of 580.65 (Linux) or 580.88 (Windows) or newer, then run: nvidia-smi",
        ),
        (
            Machine({"tensorrt-cu12": "10.16.1"}, (OLD,)),
            "tensorrt-cu12 is made for CUDA 12, and the NVIDIA driver 470.199 speaks CUDA 11.4; install a driver of "
            "525.60 (Linux) or 528.33 (Windows) or newer, then run: nvidia-smi",
        ),
    ],
)
def test_each_trouble_has_its_command(machine: Machine, told: str) -> None:
    assert list(advice(machine)) == [told]


def test_without_a_gpu_nothing_is_said_of_drivers() -> None:
    """The targets themselves say that there is none."""
    assert list(advice(Machine({"onnxruntime-gpu": "1.31.1", "tensorrt-cu13": "11.4.0"}, (), 13))) == []


@pytest.fixture
def packages_in(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of installed packages that is looked at first."""
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path


def installed(folder: Path, name: str, version: str, **files: str) -> None:
    info = folder / f"{name.replace('-', '_')}-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    for path, text in files.items():
        (folder / f"{path}.py").write_text(text)
    (info / "RECORD").write_text("".join(f"{path}.py,,\n" for path in files))


def test_looks_at_what_is_installed(packages_in: Path) -> None:
    (packages_in / "broken-1.0.dist-info").mkdir()  # as an interrupted pip leaves behind
    told = "package_name = 'onnxruntime-gpu'\ncuda_version = '12.8'\n"
    installed(packages_in, "onnxruntime-gpu", "9.9.9", build_and_package_info=told)
    installed(packages_in, "nvidia_cudnn_cu12", "9.10")
    machine = _advice.look()
    assert machine.packages["onnxruntime-gpu"] == "9.9.9"
    assert (machine.ort_cuda, machine.cudnn) == (12, True)


@pytest.mark.parametrize("files", [{}, {"build_and_package_info": "package_name = 'onnxruntime-gpu'\n"}])
def test_a_build_that_does_not_say_its_cuda(packages_in: Path, files: dict[str, str]) -> None:
    installed(packages_in, "onnxruntime-gpu", "9.9.9", **files)
    assert _advice.look().ort_cuda is None


def test_a_record_of_files_that_are_gone(packages_in: Path) -> None:
    installed(packages_in, "onnxruntime-gpu", "9.9.9", build_and_package_info="x")
    (packages_in / "build_and_package_info.py").unlink()
    assert _advice.look().ort_cuda is None
