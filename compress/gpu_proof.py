"""`python -m compress.gpu_proof --run DIR --json FILE`: what cannot be proven without a GPU, proven on a machine that
has one. Conformance, golden outputs, the gate's judgement and the benchmark, on every target of its NVIDIA GPUs.

Until the file that it writes is in the repository, README calls TensorRT and CUDA "not run on hardware yet".
Exit code 0 when all passed, 1 when something failed (the file says what), 2 without a GPU or a run; then nothing is
written.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import runtimes
from benchmarks.evalset import read_evalset
from benchmarks.evaluate import Cell, evaluate
from benchmarks.timing import machine, versions
from compress.judge import Limits, judge
from compress.steps.gate import Gate
from runtimes import PupilError
from runtimes._gpus import gpus
from runtimes._ort_providers import GPU
from sdk.bundle import open_bundle
from sdk.golden import verify

ROOT = Path(__file__).resolve().parents[1]
PACKAGES = ("onnxruntime-gpu", "tensorrt-cu12", "tensorrt-cu13", "cuda-bindings", "torch")


def main(arguments: Sequence[str] | None = None) -> int:
    """See above."""
    parser = argparse.ArgumentParser(prog="python -m compress.gpu_proof", description=__doc__)
    parser.add_argument("--run", type=Path, required=True, help="a finished run: teacher, student, eval")
    parser.add_argument("--json", type=Path, required=True, help="the file to write")
    asked = parser.parse_args(arguments)
    try:
        here = [dataclasses.asdict(gpu) for gpu in gpus()]
        targets = [str(target) for target in runtimes.targets() if target.device in GPU]
        if not targets:
            raise runtimes.Unavailable("no engine here uses the GPU; run: pip install 'edge-pupil[tensorrt]'")
        facts = {"machine": machine(), "gpus": here, "versions": versions(*PACKAGES), "targets": targets}
        proof = facts | prove(asked.run, targets)
    except PupilError as error:
        print(error, file=sys.stderr)
        return 2
    asked.json.write_text(json.dumps(proof, indent=1) + "\n", encoding="utf-8")
    print(f"{asked.json}: {'all passed' if proof['passed'] else 'FAILED'} on {', '.join(targets)}")
    return 0 if proof["passed"] else 1


def prove(run: Path, targets: Sequence[str]) -> dict[str, Any]:
    """All four parts on these targets, and whether all `passed`. Raises PupilError for a run that cannot be read."""
    parts = {
        "conformance": conformance(targets),
        "golden": golden(run / "student", targets),
        "gate": gate(run, targets),
        "benchmark": benchmark(run, targets),
    }
    return {"passed": all(part["passed"] for part in parts.values()), **parts}


def conformance(targets: Sequence[str]) -> dict[str, Any]:
    """The tests that every runtime passes, for these targets."""
    with tempfile.TemporaryDirectory(prefix="pupil-proof-") as folder:
        xml = Path(folder) / "tests.xml"
        command = [sys.executable, "-m", "pytest", "-n", "0", "-q", "tests/runtimes/test_conformance.py"]
        chosen = ["-k", " or ".join(targets), f"--junitxml={xml}"]
        done = subprocess.run([*command, *chosen], cwd=ROOT, capture_output=True, text=True, check=False)
        cases = ElementTree.parse(xml).findall(".//testcase") if xml.is_file() else []
    failed = [
        str(case.get("name")) for case in cases if case.find("failure") is not None or case.find("error") is not None
    ]
    told = [] if cases else done.stdout.splitlines()[-20:]
    return {"passed": bool(cases) and not failed and done.returncode == 0, "tests": len(cases), "failed": failed + told}


def golden(bundle: Path, targets: Sequence[str]) -> dict[str, Any]:
    """Every variant that a target may open, against its golden outputs."""
    verdicts = [dataclasses.asdict(each) for each in verify(open_bundle(bundle)) if each.target in targets]
    return {"passed": bool(verdicts) and all(each["passed"] for each in verdicts), "verdicts": verdicts}


def gate(run: Path, targets: Sequence[str]) -> dict[str, Any]:
    """The student against the teacher on the run's test images, by the gate's own limits."""
    evalset = read_evalset(run / "eval")
    limits = Limits(Gate.max_drop, Gate.max_map_drop, Gate.max_answer_drop, Gate.alpha)
    judged: dict[str, Any] = {}
    for target in targets:
        try:
            teacher = evaluate(run / "teacher", evalset, Cell(target, "fp32"), _quiet)
            student = evaluate(run / "student", evalset, Cell(target, None), _quiet)
        except PupilError as error:
            judged[target] = {"failures": [str(error)]}
            continue
        found = judge(teacher, student, evalset, limits)
        judged[target] = {"n": found.n, **found.metrics(), "ran_on": student.ran_on, "failures": found.failures}
    return {"passed": not any(each["failures"] for each in judged.values()), "targets": judged}


def benchmark(run: Path, targets: Sequence[str]) -> dict[str, Any]:
    """benchmarks/run.py on these targets, its whole report."""
    with tempfile.TemporaryDirectory(prefix="pupil-proof-") as folder:
        out = Path(folder) / "benchmark"
        models = ["--teacher", str(run / "teacher"), "--student", str(run / "student"), "--eval", str(run / "eval")]
        command = [sys.executable, str(ROOT / "benchmarks" / "run.py"), *models, "--on", *targets, "--out", str(out)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        if done.returncode:
            return {"passed": False, "error": done.stderr.splitlines()[-20:]}
        return {"passed": True, "report": json.loads((out / "report.json").read_text(encoding="utf-8"))}


def _quiet(_: str) -> None:
    """No progress: the file is what is read."""


if __name__ == "__main__":
    sys.exit(main())
