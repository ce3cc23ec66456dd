"""Finding NVIDIA GPUs, and saying why there are none: mostly on machines without."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import runtimes
from runtimes import Unavailable, _gpus
from runtimes._cuda_probe import answer
from runtimes._gpus import gpus

HERE = "gpus" in answer()
without_gpu = pytest.mark.skipif(HERE, reason="a GPU is here")


@pytest.fixture(autouse=True)
def ask_anew() -> Iterator[None]:
    _gpus._asked.cache_clear()
    yield
    _gpus._asked.cache_clear()


def probe_of(folder: Path, code: str) -> Path:
    """A probe that does something else: what broken drivers do to the process that asks."""
    path = folder / "probe.py"
    path.write_text(code)
    return path


@without_gpu
def test_no_driver_is_a_reason() -> None:
    with pytest.raises(Unavailable, match=r"no NVIDIA GPU can be used: .*; install its driver, then run: nvidia-smi"):
        gpus()


@without_gpu
def test_a_target_of_tensorrt_gives_a_reason() -> None:
    with pytest.raises(Unavailable, match=r"TensorRT does not import|no NVIDIA GPU can be used"):
        runtimes.open_session("trt:cuda.0", Path(runtimes.__file__).with_name("probe.onnx"))


def test_a_driver_that_ends_the_process_is_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_gpus, "_PROBE", probe_of(tmp_path, "import os; os.abort()"))
    with pytest.raises(Unavailable, match=r"asking the NVIDIA driver ended the process that asked \(exit code -?\d+\)"):
        gpus()


def test_a_driver_that_hangs_is_a_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_gpus, "_PROBE", probe_of(tmp_path, "import time; time.sleep(60)"))
    monkeypatch.setattr(_gpus, "_PATIENCE", 0.5)
    with pytest.raises(Unavailable, match=r"asking the NVIDIA driver in a child process failed: .*timed out"):
        gpus()


@pytest.mark.parametrize(
    ("said", "text"),
    [
        ({"error": "cuInit of the NVIDIA driver says 803: system has unsupported display driver"}, "says 803: system"),
        ({"driver": "550.54.15", "cuda": 12040, "gpus": []}, "the NVIDIA driver finds no GPU; run: nvidia-smi"),
    ],
)
def test_what_the_driver_says_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: object, text: str) -> None:
    monkeypatch.setattr(_gpus, "_PROBE", probe_of(tmp_path, f"print({json.dumps(json.dumps(said))})"))
    with pytest.raises(Unavailable, match=re.escape(text)):
        gpus()


def test_gpus_are_read_and_asked_for_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    said = {"driver": "550.54.15", "cuda": 12040, "gpus": [{"name": "NVIDIA RTX A2000", "capability": [8, 6]}] * 2}
    counted = tmp_path / "asked"
    code = f"open({str(counted)!r}, 'a').write('x'); print({json.dumps(json.dumps(said))})"
    monkeypatch.setattr(_gpus, "_PROBE", probe_of(tmp_path, code))
    found = gpus()
    assert gpus() == found
    assert counted.read_text() == "x"
    assert [(gpu.index, gpu.name, gpu.capability) for gpu in found] == [
        (0, "NVIDIA RTX A2000", (8, 6)),
        (1, "NVIDIA RTX A2000", (8, 6)),
    ]
    assert (found[1].driver, found[1].cuda) == ("550.54.15", 12040)


def test_an_app_in_one_executable_is_not_started_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "frozen", True, raising=False)
    monkeypatch.setattr(_gpus, "_PROBE", probe_of(tmp_path, "raise SystemExit('a second app')"))
    if HERE:
        assert gpus()
    else:
        with pytest.raises(Unavailable, match="no NVIDIA GPU can be used"):
            gpus()


def test_the_probe_prints_one_line_of_json() -> None:
    script = Path(_gpus.__file__).with_name("_cuda_probe.py")
    done = subprocess.run([sys.executable, "-I", str(script)], capture_output=True, text=True, timeout=60, check=True)
    assert json.loads(done.stdout) == answer()


def test_only_tensorrt_builds_for_long() -> None:
    assert [name for name in runtimes.names() if runtimes.builds(name)] == ["trt"]
