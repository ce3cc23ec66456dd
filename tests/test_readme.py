"""What README.md promises, done."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import venv
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.slow
def test_the_sdk_example_runs(short_run: Path) -> None:
    (code,) = re.findall(r"<!-- example -->\n```python\n(.*?)```", README, flags=re.DOTALL)
    assert len([line for line in code.splitlines() if line.strip()]) <= 12
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=short_run,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.count("Answer(label=") == 6
    assert "golden error" in done.stdout


@pytest.mark.slow
def test_the_device_extra_alone_runs_the_bundle(short_run: Path, tmp_path: Path) -> None:
    """A new environment with the SDK and OpenVINO only: no torch, no onnx, no compress dependency."""
    venv.create(tmp_path / "venv", with_pip=True)
    python = next(p for p in (tmp_path / "venv/bin/python", tmp_path / "venv/Scripts/python.exe") if p.exists())
    install = [python, "-m", "pip", "install", "-q", "-c", ROOT / "constraints.txt", f"{ROOT}[openvino]"]
    done = subprocess.run(install, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    code = f"""
import importlib.util, sdk
assert not any(importlib.util.find_spec(name) for name in ("torch", "onnx", "timm", "nncf", "rich", "PIL"))
with sdk.load({str(short_run / "out/easy_vqa/student")!r}) as student:
    frame = {str(short_run / "out/easy_vqa/eval/images/0.png")!r}
    print(student.classify(frame)[0].label, student.embed_texts(["a box"]).shape, student.ran_on["image"].target)
"""
    done = subprocess.run([python, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    label, *_, target = done.stdout.split()
    assert label in {"black", "blue", "brown", "gray", "green", "red", "teal", "yellow"}
    assert target == "ov:cpu"


@pytest.mark.parametrize(("name", "does"), [("demo", "-m compress.distill --resume"), ("test", "-m pytest")])
def test_the_two_commands_share_one_environment_and_use_pip(name: str, does: str) -> None:
    (command,) = re.findall(rf"<!-- command: {name} -->\n```sh\n(.*?)\n```", README, flags=re.DOTALL)
    install = '.venv/bin/python -m pip install -q -c constraints.txt -e ".[compress,openvino,onnx,bench,dev]"'
    assert command == f"python3 -m venv .venv && {install} && .venv/bin/python {does}"
    if shutil.which("bash") and sys.platform != "win32":  # .ci/run takes the command from the README with this
        script = [ROOT / ".ci/readme-command", name]
        assert subprocess.run(["bash", *script], capture_output=True, text=True, check=True).stdout.strip() == command


def test_files_that_readme_and_architecture_name_exist() -> None:
    pages = [README, *((ROOT / name).read_text(encoding="utf-8") for name in ("CONTRIBUTING.md", "ARCHITECTURE.md"))]
    text = "\n".join(pages)
    later = text[text.index("## Left for later") :].split("\n\n")[1]
    for path in re.findall(r"`((?:compress|sdk|benchmarks|runtimes|tests)/[\w/.-]+\.(?:py|md|toml))`", text):
        assert (ROOT / path).exists() or path in later, path
    for link in re.findall(r"\]\(([^)#]+)\)", text):
        assert (ROOT / link).exists(), link
    for extra in ("openvino", "onnx", "cuda", "tensorrt", "compress", "data", "bench", "dev"):
        assert f"`{extra}`" in README


def test_cuda_is_labelled_until_it_ran() -> None:
    assert "not run on hardware yet" in README
