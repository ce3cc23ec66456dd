"""`ort:openvino`, a second provider of ONNX Runtime that really runs: real packages, each in an environment of its own.

The build with the provider inside runs on every x86 CPU. The plug-in that lives beside onnxruntime offers itself on
Intel's only: on others it must say nothing and break nothing.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from runtimes.__main__ import PROBE
from tests.environments import ROOT, install, run_with

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(sys.platform != "linux", reason="its wheels are looked for on Linux"),
]

PLUGIN = """
import json, sys
import runtimes
said = {"devices": runtimes.devices("ort")}
try:
    with runtimes.open_session("ort:openvino", sys.argv[1]) as session:
        said["ran"] = str(session.target)
except runtimes.Unavailable as error:
    said["error"] = str(error)
with runtimes.open_session("ort:cpu", sys.argv[1]) as session:
    said["cpu"] = session.compute
print(json.dumps(said))
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("environments")


def conform(site: Path) -> subprocess.CompletedProcess[str]:
    # It computes Q/DQ inside of OpenVINO and does not say in what.
    chosen = "ort:openvino and not reports_integer"
    command = [sys.executable, "-m", "pytest", "-n", "0", "-q", "tests/runtimes/test_conformance.py", "-k", chosen]
    environment = {**os.environ, "PYTHONPATH": f"{site}{os.pathsep}{ROOT}", "CI": ""}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=900, check=False)


def test_the_build_with_the_provider_conforms(folder: Path) -> None:
    done = conform(install(folder / "built-in", "onnxruntime-openvino==1.24.1"))
    assert done.returncode == 0, done.stdout[-3000:]
    assert "passed" in done.stdout


def test_the_plug_in_runs_where_it_offers_itself(folder: Path) -> None:
    site = install(folder / "plug-in", "onnxruntime-ep-openvino==1.8.*")
    done = run_with(PLUGIN, str(PROBE), paths=(site,))
    assert done.returncode == 0, done.stderr
    said = json.loads(done.stdout.splitlines()[-1])
    assert said["cpu"] == "f32"
    if "openvino" in said["devices"]:
        assert said["ran"] == "ort:openvino"
        again = conform(site)
        assert again.returncode == 0, again.stdout[-3000:]
    else:
        assert "no device 'openvino'; it has: ort:cpu; run: pip install 'edge-pupil[onnx-openvino]'" in said["error"]
