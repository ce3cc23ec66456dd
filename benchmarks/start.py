"""What a program pays to start, to hold and to keep idle: each figure from fresh processes.

`python -m benchmarks.start` is the child: it reads one JSON object from its input and prints another.
"""

from __future__ import annotations

import json
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from benchmarks.stats import median_interval
from sdk.manifest import Figure

ROOT = Path(__file__).resolve().parents[1]
_CLOCK = "import time; t = time.perf_counter(); import {}; print(time.perf_counter() - t)"
_FRAMES = 20  # calls after which memory is read: a stream's, not a first frame's


@dataclass(frozen=True)
class Started:
    """One start with a warm cache. `answer_s`: from `sdk.load` to the first answer, the engine imported before, which
    took `engine_s`; `resident_mb`: MB of 1e6 bytes after a stream of frames; `idle_s`: processor seconds used in
    `idle_of` seconds without a frame; `on`: target and variant."""

    answer_s: float
    engine_s: float
    resident_mb: float
    idle_s: float
    idle_of: float
    on: str


def import_ratio(runs: int) -> Figure:
    """Time of `import sdk` over that of `import numpy, cv2`, fresh processes in turn: the median of the pairs."""
    pairs = [[float(_said(["-c", _CLOCK.format(what)])) for what in ("sdk", "numpy, cv2")] for _ in range(runs + 1)]
    return median_interval(np.array([ours / theirs for ours, theirs in pairs[1:]]))  # the first warms the disk's cache


def started(bundle: Path, cache: Path, on: str | None = None, idle: float = 0.0) -> Started:
    """Start once in a fresh process. `cache` is what `sdk.load` gets as cache_dir: call it once to warm that. Raises
    Unavailable with what the child said."""
    order = {"bundle": str(bundle.absolute()), "cache": str(cache.absolute()), "on": on, "idle": idle}
    return Started(**json.loads(_said(["-m", "benchmarks.start"], json.dumps(order))))


def _said(arguments: list[str], order: str = "") -> str:
    from runtimes import Unavailable

    done = subprocess.run(
        [sys.executable, *arguments], cwd=ROOT, input=order, capture_output=True, text=True, check=False
    )
    if done.returncode or not done.stdout.strip():
        said = " ".join(done.stderr.split())[-300:] or f"it ended with code {done.returncode}"
        raise Unavailable(f"a fresh process of {' '.join(arguments)[:40]} failed: {said}")
    return done.stdout.splitlines()[-1]


def main() -> None:
    """The child's side."""
    order = json.loads(sys.stdin.read())
    import runtimes
    import sdk
    from sdk.machine import resident

    bundle = sdk.open_bundle(order["bundle"])
    families = {family for graph in bundle.variants("image").values() for family in graph.families}
    size = bundle.manifest.image.size
    frame = np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)
    before = time.perf_counter()
    # With a target only its engine: the others' libraries would count as memory of this one.
    runtimes.targets(*([order["on"].split(":")[0]] if order["on"] else families))
    begun = time.perf_counter()
    with sdk.load(order["bundle"], on=order["on"], cache_dir=order["cache"]) as student:
        student.embed_images(frame)
        answered = time.perf_counter()
        student.settle()
        for _ in range(_FRAMES):
            student.embed_images(frame)
        held = resident()[0]
        time.sleep(0.5)  # engines' threads spin for a moment after a call
        used = time.process_time()
        time.sleep(order["idle"])
        used = time.process_time() - used
        ran = student.ran_on["image"]
    found = Started(answered - begun, begun - before, held / 1e6, used, order["idle"], f"{ran.target} {ran.variant}")
    print(json.dumps(vars(found)))


if __name__ == "__main__":
    main()
