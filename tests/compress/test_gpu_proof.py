"""What `make gpu` does, as far as a machine without a GPU can show it: its parts, run on CPU targets."""

from __future__ import annotations

from pathlib import Path

import pytest

from compress import gpu_proof
from runtimes._cuda_probe import answer
from tests.bundles import build_colour_bundle


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build_colour_bundle(tmp_path_factory.mktemp("proof") / "student").path


@pytest.mark.skipif("gpus" in answer(), reason="a GPU is here")
def test_without_a_gpu_nothing_is_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "gpu.json"
    assert gpu_proof.main(["--run", str(tmp_path), "--json", str(out)]) == 2
    assert capsys.readouterr().err.startswith("no NVIDIA GPU can be used: ")
    assert not out.exists()


def test_golden_outputs_are_replayed_per_variant(bundle: Path) -> None:
    found = gpu_proof.golden(bundle, ["ort:cpu"])
    assert found["passed"]
    assert {each["target"] for each in found["verdicts"]} == {"ort:cpu"}
    assert {each["subject"] for each in found["verdicts"]} >= {"image fp32", "image int8", "text int8"}


def test_a_target_that_opens_nothing_has_not_passed(bundle: Path) -> None:
    assert gpu_proof.golden(bundle, ["trt:cuda.0"]) == {"passed": False, "verdicts": []}


@pytest.mark.slow
def test_conformance_counts_what_ran(tmp_path: Path) -> None:
    found = gpu_proof.conformance(["ort:cpu"])
    assert found["failed"] == []
    assert found["passed"]
    assert found["tests"] > 30
    nothing = gpu_proof.conformance(["nope:cpu"])
    assert not nothing["passed"]
    assert nothing["tests"] == 0


def test_a_benchmark_that_fails_says_why(tmp_path: Path) -> None:
    found = gpu_proof.benchmark(tmp_path, ["ort:cpu"])
    assert not found["passed"]
    assert found["error"]
