"""A PyTorch program and a bundle in turn, in a process of their own."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from benchmarks import eager
from benchmarks.eager import Side, eager_in_turn
from benchmarks.timing import in_turn
from runtimes import Unavailable
from tests.evalsets import colour_evalset
from tests.towers import SIZE

torch = pytest.importorskip("torch")
WORK = 400  # edge of what a slow program multiplies, 20 times: tens of milliseconds


def slow_program(path: Path) -> Path:
    """The colour teacher's image program, with work whose result is thrown away."""
    from tests.programs import ImageTower

    class Slow(ImageTower):
        def forward(self, image: torch.Tensor) -> dict[str, torch.Tensor]:
            waste = image.to(torch.float32).mean() * torch.ones(WORK, WORK)
            for _ in range(20):
                waste = torch.cos(waste @ waste)
            return {name: value + 0 * waste.mean() for name, value in super().forward(image).items()}

    pixels = torch.zeros((2, SIZE, SIZE, 3), dtype=torch.uint8)
    program = torch.export.export(Slow("image"), (pixels,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    torch.export.save(program, path)
    return path


def test_the_program_comes_first_and_each_has_its_times(
    colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(eager.WAITING, "PASSIVE")
    teacher = Side(colours, "pt:cpu", None, {"image": slow_program(tmp_path / "slow.pt2")})
    images = colour_evalset(tmp_path).images[:3]
    one, two = eager_in_turn(teacher, Side(colours, "ort:cpu", "int8"), images, seconds=0.0, runs=8)
    assert len(one) == len(two) == 8
    assert np.median(one) > 3 * np.median(two) > 0


def test_the_child_waits_as_torch_does_by_itself(
    colours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen = {}

    def run(command: list[str], **how: dict[str, str]) -> object:
        seen.update(how["env"])
        return type("Done", (), {"stdout": "[[1.0], [2.0]]", "stderr": "", "returncode": 0})

    monkeypatch.setenv(eager.WAITING, "PASSIVE")
    monkeypatch.setattr(eager.subprocess, "run", run)
    eager_in_turn(Side(colours, "pt:cpu"), Side(colours, "ort:cpu"), [tmp_path / "x.png"], seconds=0.0, runs=1)
    assert seen and eager.WAITING not in seen


def test_what_a_child_cannot_open_is_said(colours: Path, tmp_path: Path) -> None:
    teacher = Side(colours, "pt:cpu", None, {"image": tmp_path / "none.pt2"})
    images = colour_evalset(tmp_path).images[:1]
    with pytest.raises(Unavailable, match=r"^pt:cpu and ort:cpu do not run in turn in a process: .*none\.pt2"):
        eager_in_turn(teacher, Side(colours, "ort:cpu"), images, seconds=0.0, runs=1)


def test_a_rest_is_in_no_time() -> None:
    times = in_turn({"a": lambda: None}, min_seconds=0.0, min_runs=5, rest=0.02)
    assert np.median(times["a"]) < 10
