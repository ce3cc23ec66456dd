"""The teacher as a PyTorch program against a student, call by call in turn, in a process of its own.

`python benchmarks/eager.py` is the child: it reads one JSON object from its input and prints another.

What the program is: the graph that `torch.export` made of the module, run by PyTorch operator by operator, not
compiled; an embedding is the module's own, to the bit. Its own process, for the caller may have told torch's threads to
wait passively, which suits training and slows single images down. With a rest before each call, for threads that wait
actively go on spinning after it, on the cores that the other side needs.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

ROOT = Path(__file__).resolve().parents[1]
TARGET = "pt:cpu"
REST = 0.01  # seconds; threads of GNU OpenMP spin for a few milliseconds
WAITING = "OMP_WAIT_POLICY"


@dataclass(frozen=True)
class Side:
    """A model to be opened: see `benchmarks.plan.open_model`."""

    bundle: Path
    on: str
    precision: str | None = None
    programs: Mapping[str, Path] = field(default_factory=dict)


def eager_in_turn(
    teacher: Side, student: Side, images: Sequence[Path], *, seconds: float, runs: int
) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Milliseconds of the image path (a frame in memory to a unit vector) of both, float64 (turns,), in turn.

    `images`: files, another one at each call. Raises Unavailable with what the child said.
    """
    from runtimes import Unavailable

    order = {
        "sides": [
            {
                "bundle": str(side.bundle.absolute()),
                "on": side.on,
                "precision": side.precision,
                "programs": {tower: str(path.absolute()) for tower, path in side.programs.items()},
            }
            for side in (teacher, student)
        ],
        "images": [str(path.absolute()) for path in images],
        "seconds": seconds,
        "runs": runs,
    }
    done = subprocess.run(
        [sys.executable, str(Path(__file__).resolve())],
        input=json.dumps(order),
        env={name: value for name, value in os.environ.items() if name != WAITING},
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        one, two = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        said = " ".join(done.stderr.split())[-300:] or f"it ended with code {done.returncode}"
        raise Unavailable(f"{teacher.on} and {student.on} do not run in turn in a process: {said}") from None
    return np.array(one, np.float64), np.array(two, np.float64)


def main() -> None:
    """The child's side."""
    order = json.loads(sys.stdin.read())
    import sdk
    from benchmarks.cells import image_path
    from benchmarks.plan import open_model
    from benchmarks.timing import in_turn

    frames = [sdk.read_frame(path) for path in order["images"]]
    with ExitStack() as stack:
        calls = {}
        for name, side in zip("ab", order["sides"], strict=True):
            programs = {tower: Path(path) for tower, path in side["programs"].items()}
            model = stack.enter_context(open_model(Path(side["bundle"]), side["on"], side["precision"], programs))
            calls[name] = image_path(model, frames)
        times = in_turn(calls, min_seconds=order["seconds"], min_runs=order["runs"], rest=REST)
    print(json.dumps([times[name].tolist() for name in calls]))


if __name__ == "__main__":
    # From a clone nothing is installed; and this folder's own names are no top-level ones.
    sys.path[:] = [str(ROOT), *(each for each in sys.path if Path(each).resolve() != ROOT / "benchmarks")]
    main()
