"""`python -m runtimes`: what it prints, and that it believes no engine."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

import runtimes
from runtimes import __main__ as doctor
from runtimes._advice import advice, look
from tests.graphs import probe_graph

ROOT = Path(__file__).parents[2]
HERE = sorted(map(str, runtimes.targets()))
NO_ENGINE = "raise ImportError('libengine.so.3: cannot open shared object file')\n"


def call(on_path: Path | None = None) -> subprocess.CompletedProcess[str]:
    """Run the doctor in a fresh process, with one folder in front of the installed packages."""
    paths = [str(ROOT)] if on_path is None else [str(on_path), str(ROOT)]
    return subprocess.run(
        [sys.executable, "-m", "runtimes"],
        env={**os.environ, "PYTHONPATH": os.pathsep.join(paths)},
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )


def hide(folder: Path, *packages: str) -> Path:
    for package in packages:
        (folder / f"{package}.py").write_text(NO_ENGINE)
    return folder


def line_of(text: str, start: str) -> str:
    lines = [line for line in text.splitlines() if line.startswith(start)]
    assert len(lines) == 1, text
    return lines[0]


def test_the_probe_in_the_package_is_the_one_built_here() -> None:
    assert doctor.PROBE.read_bytes() == probe_graph().SerializeToString(deterministic=True)


def test_passes_for_every_target_here() -> None:
    done = call()
    assert done.returncode == 0, done.stderr
    for target in HERE:
        assert re.search(r"computes in \S+, largest error \d\.\de", line_of(done.stdout, f"PASS  {target}"))
    assert len(done.stdout.splitlines()) >= len(runtimes.names())


@pytest.mark.parametrize(
    ("package", "line", "extra"),
    [
        ("openvino", "----  ov ", "openvino"),
        ("onnxruntime", "----  ort ", "onnx"),
        ("torch", "----  pt ", "compress"),
    ],
)
def test_a_missing_engine_names_its_extra(tmp_path: Path, package: str, line: str, extra: str) -> None:
    done = call(hide(tmp_path, package, "torch"))
    said = line_of(done.stdout, line)
    assert said.endswith(f"(libengine.so.3: cannot open shared object file); run: pip install 'edge-pupil[{extra}]'")
    assert done.returncode == (0 if "PASS" in done.stdout else 1)
    assert ("PASS" in done.stdout) == any(not target.startswith(line.split()[1] + ":") for target in HERE)


def test_no_engine_at_all_is_a_failure_that_says_what_to_install(tmp_path: Path) -> None:
    done = call(hide(tmp_path, "openvino", "onnxruntime"))
    assert done.returncode == 1
    assert done.stderr == "no engine works here; run: pip install 'edge-pupil[openvino]'\n"


def test_two_packages_that_overwrite_each_other_are_named_with_the_command(tmp_path: Path) -> None:
    for name in ("onnxruntime", "onnxruntime-gpu"):
        folder = tmp_path / f"{name.replace('-', '_')}-9.9.dist-info"
        folder.mkdir()
        (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 9.9\n")
    hide(tmp_path, "torch")  # seconds, and not what this is about
    (tmp_path / "broken-1.0.dist-info").mkdir()  # as an interrupted pip leaves behind
    said = line_of(call(tmp_path).stdout, "WARN")
    assert "onnxruntime and onnxruntime-gpu are both installed and overwrite each other's files" in said
    assert "pip uninstall -y onnxruntime onnxruntime-gpu && pip install --force-reinstall onnxruntime-gpu" in said


def test_one_onnxruntime_is_no_clash() -> None:
    assert list(advice(look())) == []


@pytest.mark.parametrize("wrong", [0.5, np.nan, np.inf])
def test_a_target_that_answers_wrongly_fails(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], wrong: float
) -> None:
    """The engine runs; what it should have answered is shifted, in the second output only."""
    right = doctor.probe_answer

    def shifted(feeds: dict[str, runtimes.Array]) -> dict[str, runtimes.Array]:
        answer = right(feeds)
        return answer | {"text_embedding": answer["text_embedding"] + np.float32(wrong)}

    monkeypatch.setattr(doctor, "probe_answer", shifted)
    for target in HERE:
        passed, text = doctor.examine(target)
        assert not passed
        assert re.fullmatch(r"opens, but answers wrong by (0\.5|nan|inf) \(at most 0\.02\); do not use it", text)
    assert doctor.main([]) == 1
    said = capsys.readouterr()
    assert all(f"FAIL  {target}" in said.out for target in HERE)
    assert "no engine works here" in said.err


def test_help_looks_at_no_engine(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runtimes, "names", lambda: pytest.fail("it looked"))
    with pytest.raises(SystemExit) as caught:
        doctor.main(["--help"])
    assert caught.value.code == 0
    assert "the doctor: every runtime and device" in " ".join(capsys.readouterr().out.split())


def test_a_target_that_does_not_open_fails_with_the_reason() -> None:
    passed, text = doctor.examine("ov:tpu" if HERE[0].startswith("ov") else "ort:tpu")
    assert not passed
    assert "no device 'tpu'" in text
