"""Killed inside every step in turn, a run that is resumed ends with the figures of one that was left alone."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import torch

from compress.recipe import load_recipe, step_name
from compress.report import PUBLISHED
from sdk.bundle import sha256_of
from tests.conftest import ROOT, SHORT

pytestmark = [
    pytest.mark.long,
    pytest.mark.skipif(sys.platform == "win32", reason="kills by POSIX signals"),
]
STEPS = tuple(step_name(step) for step in load_recipe("easy_vqa").steps)
TRAINED = ("teach", "distill")  # these are killed when a checkpoint is there
GOES_ON = re.compile(r"goes on after (\d+) of \d+$", re.MULTILINE)
WAIT = 600  # seconds for a step to come up; a clock's limit, no bar


class Killed:
    """One run in `cwd`, started and ended many times. `said`: what the last start wrote on its error output."""

    def __init__(self, cwd: Path) -> None:
        self._cwd = cwd
        self.out = cwd / "out" / "easy_vqa"
        self.said = ""

    def start(self) -> subprocess.Popen[bytes]:
        """`--resume` does no harm on the first start."""
        sets = [word for setting in SHORT for word in ("--set", setting)]
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "COLUMNS": "100", "PUPIL_CHECKPOINT_SECONDS": "1"}
        command = [sys.executable, "-m", "compress.distill", "--resume", *sets]
        with (self._cwd / "stderr.txt").open("wb") as errors:
            # A session of its own, so that what it started is killed with it.
            return subprocess.Popen(
                command, cwd=self._cwd, env=environment, stdout=errors, stderr=errors, start_new_session=True
            )

    def end_in(self, step: str, number: signal.Signals, checkpoint: bool) -> int:
        """Start it, wait until it is inside of `step` (with `checkpoint`: until one is written), end it by a signal."""
        building = self.building(step)
        before = {file: file.stat().st_mtime_ns for file in building.glob("checkpoint-*.pt")}
        process = self.start()
        try:
            stop = time.monotonic() + WAIT
            while not self._inside(building, before, checkpoint):
                assert process.poll() is None, f"it ended before {step}: {self._read()}"
                assert time.monotonic() < stop, f"it never came to {step}: {self._read()}"
                time.sleep(0.02)
            if not checkpoint:
                time.sleep(0.5)
        finally:
            os.killpg(process.pid, number)
            code = process.wait()
            if number != signal.SIGKILL:  # nothing that it started outlives the test
                self._kill(process.pid)
            self.said = self._read()
        assert building.is_dir(), f"{step} was over: {self.said}"
        return code

    def finish(self) -> int:
        """Start it and let it end."""
        code = self.start().wait()
        self.said = self._read()
        return code

    def building(self, step: str) -> Path:
        """DIR/.work/NN-step.tmp."""
        return self.out / ".work" / f"{STEPS.index(step) + 1:02d}-{step}.tmp"

    def checkpoint(self, step: str) -> int:
        """How many steps of training the newest checkpoint has seen."""
        newest = max(self.building(step).glob("checkpoint-*.pt"), key=lambda file: file.stat().st_mtime_ns)
        return int(torch.load(newest, weights_only=True)["step"])

    def _inside(self, building: Path, before: dict[Path, int], checkpoint: bool) -> bool:
        if not checkpoint:
            return (building / "attempt.json").exists() and not (building / "step.json").exists()
        return any(file.stat().st_mtime_ns != before.get(file) for file in building.glob("checkpoint-*.pt"))

    def _read(self) -> str:
        return (self._cwd / "stderr.txt").read_text(encoding="utf-8", errors="replace")[-4000:]

    @staticmethod
    def _kill(group: int) -> None:
        try:
            os.killpg(group, signal.SIGKILL)
        except ProcessLookupError:
            return


def hashes(out: Path, pattern: str) -> dict[str, str]:
    return {path.relative_to(out).as_posix(): sha256_of(path) for path in sorted(out.glob(pattern))}


def report(out: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((out / "report.json").read_text(encoding="utf-8"))
    return found


def untimed(found: dict[str, Any], *precisions: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """What the steps measured but times, and the accuracy of models in these precisions."""
    steps = {
        name: value
        for name, value in found["steps"].items()
        if not re.search(r"\.(slowness|ms\..*|chosen|seconds)$", name)
        and ("int8" in precisions or not name.startswith("gate."))
    }
    return steps, [row for row in found["accuracy"] if row["precision"] in precisions]


@pytest.fixture(scope="module")
def killed(tmp_path_factory: pytest.TempPathFactory) -> Killed:
    """A run that was killed inside every step, and then let end; what it said is checked on the way."""
    # A background job of a shell ignores Ctrl-C, and so does all that it starts, unless someone listens.
    signal.signal(signal.SIGINT, signal.default_int_handler)
    run = Killed(tmp_path_factory.mktemp("killed"))
    assert run.end_in("teach", signal.SIGINT, checkpoint=True) == 130
    assert "interrupted; the same command with --resume goes on from the last checkpoint" in run.said
    reached = run.checkpoint("teach")
    for step in STEPS:
        assert run.end_in(step, signal.SIGKILL, checkpoint=step in TRAINED) == -signal.SIGKILL
        # A training that was ended by the signal before goes on from inside, not from its beginning.
        assert not reached or str(reached) in GOES_ON.findall(run.said)
        reached = run.checkpoint(step) if step in TRAINED else 0
    assert run.finish() == 0, run.said
    return run


def test_it_ends_with_the_figures_of_an_uninterrupted_run(killed: Killed, short_run: Path) -> None:
    whole = short_run / "out" / "easy_vqa"
    for pattern in (".work/*/**/*.safetensors", ".work/*/**/*.npy", ".work/*/**/*.fp32.onnx", "eval/*.json*"):
        assert hashes(killed.out, pattern) == hashes(whole, pattern) != {}
    one, two = report(killed.out), report(whole)
    assert untimed(one, "fp32") == untimed(two, "fp32")
    assert one["baselines"] == two["baselines"]
    # SHORT tries one quantizer: of two, the clock has a say in which one wins.
    assert hashes(killed.out, "student/*.int8.onnx") == hashes(whole, "student/*.int8.onnx") != {}
    assert untimed(one, "int8") == untimed(two, "int8")


def test_nothing_half_made_is_left(killed: Killed) -> None:
    assert sorted(path.name for path in (killed.out / ".work").iterdir()) == sorted(
        ["images", "store", *(f"{number:02d}-{step}" for number, step in enumerate(STEPS, 1))]
    )
    left = {path.name for path in killed.out.iterdir()} - {".work", ".pupil.json"}
    assert left == {*PUBLISHED}
    assert not list(killed.out.rglob("checkpoint-*"))
