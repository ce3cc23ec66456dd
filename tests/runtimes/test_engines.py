"""What an engine does to the machine around it: what it writes, whom it calls, and what a fork leaves of it."""

from __future__ import annotations

import importlib
import os
import subprocess
import sys
import tempfile
import textwrap
from pathlib import Path
from typing import Any

import pytest

import runtimes
from runtimes.__main__ import PROBE
from tests.bundles import SIZE, build
from tests.graphs import probe_graph

ROOT = Path(__file__).parents[2]
HERE = {target.runtime for target in runtimes.targets()}


def in_a_fresh_process(code: str, **environment: str) -> str:
    """What a new Python process prints; a process that hangs fails."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", textwrap.dedent(code)],
        cwd=ROOT,
        # Without what this process said for its own engines.
        env={name: value for name, value in os.environ.items() if name != "ORT_DISABLE_TELEMETRY"} | environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


@pytest.mark.parametrize("runtime", sorted(HERE))
def test_an_engine_writes_nothing_at_home_and_calls_nobody(runtime: str, tmp_path: Path) -> None:
    code = f"""
        import socket
        import runtimes
        def refuse(*arguments):
            raise SystemExit("it called home")
        socket.getaddrinfo = socket.socket.connect = refuse
        with runtimes.open_session("{runtime}:cpu", {str(PROBE)!r}) as session:
            print(session.compute)
    """
    assert in_a_fresh_process(code, HOME=str(tmp_path), USERPROFILE=str(tmp_path))
    assert not list(tmp_path.iterdir())


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.skipif("ov" not in HERE, reason="OpenVINO is not installed")
def test_openvino_says_no_in_a_forked_child_where_it_would_hang() -> None:
    said = in_a_fresh_process(
        f"""
        import os
        import runtimes
        runtimes.open_session("ov:cpu", {str(PROBE)!r}).close()
        child = os.fork()
        if child == 0:
            try:
                runtimes.open_session("ov:cpu", {str(PROBE)!r})
            except runtimes.Unavailable as error:
                print(error, flush=True)
            os._exit(0)
        os.waitpid(child, 0)
        runtimes.open_session("ov:cpu", {str(PROBE)!r}).close()
        """
    )
    assert said == "OpenVINO was started before this process was forked; start the child with multiprocessing's 'spawn'"


@pytest.mark.skipif("ort" not in HERE, reason="ONNX Runtime is not installed")
def test_onnx_runtime_reads_a_graph_as_onnx_whatever_its_name(tmp_path: Path) -> None:
    """By its ending alone it would take x.ort for its own format, which nobody has checked."""
    path = tmp_path / "x.ort"
    path.write_bytes(probe_graph().SerializeToString())
    with importlib.import_module("runtimes.ort").open_session(path, "cpu") as session:
        assert session.compute == "f32"
    with pytest.raises(runtimes.Unavailable, match=r"ort:cpu opens files that end in \.onnx, and .*x\.ort does not"):
        runtimes.open_session("ort:cpu", path)


def test_looking_for_targets_loads_no_torch() -> None:
    code = "import sys, runtimes; print([str(t) for t in runtimes.targets()], 'torch' in sys.modules)"
    said = in_a_fresh_process(code)
    assert said.endswith("] False")
    assert "'pt:" not in said


@pytest.mark.skipif("ort" not in HERE, reason="ONNX Runtime is not installed")
def test_onnx_runtime_opens_where_nothing_can_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def nowhere(**_: Any) -> None:
        raise FileNotFoundError("No usable temporary directory found")

    monkeypatch.setattr(tempfile, "TemporaryDirectory", nowhere)
    path = tmp_path / "int8.onnx"
    path.write_bytes(build("image", "int8").SerializeToString())
    with runtimes.open_session("ort:cpu", path) as session:
        assert session.compute == "unknown"  # only what it writes down would tell
        assert session.inputs["image"].shape == (1, SIZE, SIZE, 3)
    with runtimes.open_session("ort:cpu", PROBE) as session:
        assert session.compute == "f32"
