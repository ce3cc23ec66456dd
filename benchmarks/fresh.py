"""What a process pays that never opened the model before: memory, load, first call. Each cell gets a child of its own.

`python benchmarks/fresh.py` is the child: it reads one JSON object from its input and prints another.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from benchmarks.plan import Subject

ROOT = Path(__file__).resolve().parents[1]
FRAMES = 20  # calls after which memory is read: a stream's, not a first frame's
_MEGABYTE = 1e6


def in_a_child(subject: Subject, image: Path) -> dict[str, float]:
    """Open a subject in a fresh process and run frames through it.

    Returns `load_ms` (engine and bundle, from nothing), `first_call_ms`, and in MB of 1e6 bytes of resident memory
    `before_mb` (Python, NumPy, OpenCV and the SDK imported), `after_mb` and `peak_mb`. Raises Unavailable with what the
    child said.
    """
    from runtimes import Unavailable

    order = {
        "bundle": str(subject.bundle.absolute()),
        "on": subject.on,
        "precision": subject.precision,
        "programs": {tower: str(path.absolute()) for tower, path in subject.programs.items()},
        "image": str(image.absolute()),
    }
    done = subprocess.run(
        [sys.executable, str(Path(__file__).resolve())],
        input=json.dumps(order),
        capture_output=True,
        text=True,
        check=False,
    )
    try:
        found: dict[str, float] = json.loads(done.stdout.splitlines()[-1])
    except (IndexError, ValueError):
        said = " ".join(done.stderr.split())[-300:] or f"it ended with code {done.returncode}"
        raise Unavailable(f"{subject} does not run in a process of its own: {said}") from None
    return found


def main() -> None:
    """The child's side."""
    order = json.loads(sys.stdin.read())
    import sdk
    from benchmarks.plan import open_model
    from sdk.machine import resident

    frame = sdk.read_frame(order["image"])
    programs = {tower: Path(path) for tower, path in order["programs"].items()}
    before = resident()[0]
    started = time.perf_counter_ns()
    model = open_model(Path(order["bundle"]), order["on"], order["precision"], programs)
    loaded = time.perf_counter_ns()
    embed = model.task("embed_images")
    embed(frame)
    answered = time.perf_counter_ns()
    for _ in range(FRAMES):
        embed(frame)
    after, peak = resident()
    print(
        json.dumps(
            {
                "load_ms": (loaded - started) / 1e6,
                "first_call_ms": (answered - loaded) / 1e6,
                "before_mb": before / _MEGABYTE,
                "after_mb": after / _MEGABYTE,
                "peak_mb": peak / _MEGABYTE,
            }
        )
    )


if __name__ == "__main__":
    # From a clone nothing is installed; and this folder's own names are no top-level ones.
    sys.path[:] = [str(ROOT), *(each for each in sys.path if Path(each).resolve() != ROOT / "benchmarks")]
    main()
