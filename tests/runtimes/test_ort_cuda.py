"""onnxruntime-gpu, the real package in an environment of its own, on a machine without CUDA: nothing falls back."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

import onnxruntime
import pytest

from runtimes.__main__ import PROBE
from runtimes._cuda_probe import answer
from tests.environments import install, run_with

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(sys.platform != "linux", reason="its wheels are looked for on Linux"),
    pytest.mark.skipif("gpus" in answer(), reason="a GPU is here, and passes the conformance tests"),
]
ASK = """
import contextlib, io, json, sys
import runtimes
from runtimes import __main__ as doctor
said = {"devices": runtimes.devices("ort"), "refused": {}}
for target in ("ort:cuda.0", "ort:cuda.7", "ort:tensorrt.0"):
    try:
        with runtimes.open_session(target, sys.argv[1]) as session:
            said["refused"][target] = str(session.target)
    except runtimes.Unavailable as error:
        said["refused"][target] = [str(error)]
with runtimes.open_session("ort:cpu", sys.argv[1]) as session:
    said["cpu"] = session.compute
out = io.StringIO()
with contextlib.redirect_stdout(out):
    said["doctor"] = doctor.main([])
said["report"] = out.getvalue()
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def said(tmp_path_factory: pytest.TempPathFactory) -> dict[str, object]:
    folder = tmp_path_factory.mktemp("environments") / "gpu"
    site = install(folder, f"onnxruntime-gpu=={onnxruntime.__version__}")
    done = run_with(ASK, str(PROBE), paths=(site,))
    assert done.returncode == 0, done.stderr
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])
    return found


def test_gpus_are_listed_and_refused_with_the_reason(said: dict[str, object]) -> None:
    assert said["devices"] == ["cpu", "cuda.0", "tensorrt.0"]
    assert said["cpu"] == "f32"
    for target, why in dict(said["refused"]).items():  # type: ignore[call-overload]
        assert isinstance(why, list), f"{target} opened as {why}"
        assert re.search(r"went to CPUExecutionProvider|cannot open probe\.onnx on '(cuda|tensorrt)\.\d'", why[0]), why


def test_the_doctor_says_so(said: dict[str, object]) -> None:
    lines = str(said["report"]).splitlines()
    for target in ("ort:cuda.0", "ort:tensorrt.0"):
        assert any(line.startswith(f"FAIL  {target}") for line in lines)
    assert any(line.startswith("PASS  ort:cpu") for line in lines)
    (warning,) = [line for line in lines if "onnxruntime and onnxruntime-gpu are both installed" in line]
    assert warning.startswith("WARN  ")
    assert said["doctor"] == 0
    assert Path(PROBE).is_file()
