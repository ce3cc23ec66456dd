"""Frames from many threads, against OpenVINO's own benchmark_app with its throughput hint on the same graph."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

import sdk
from benchmarks.stats import median_interval
from runtimes import Unavailable
from sdk.bundle import Bundle, open_bundle
from sdk.manifest import Figure

ON = "ov:cpu"
# OpenVINO calls home when it is imported, unless this package of its is not there; see runtimes/ov.py.
_APP = (
    "import sys; sys.modules['openvino_telemetry'] = None; from openvino.tools.benchmark.main import main; "
    "sys.exit(main())"
)


def throughput(bundle: Path, seconds: float, rounds: int) -> tuple[Figure, Figure, Figure]:
    """Frames per second of ours and of benchmark_app, `seconds` each in turn, and the median of the rounds' ratios.

    Ours: `run` of the image tower on prepared frames, `prefer="throughput"`, from two threads for each core. Raises
    Unavailable when OpenVINO or its benchmark_app does not work here.
    """
    opened = open_bundle(bundle)
    size = opened.manifest.image.size
    feed = {"image": np.random.default_rng(0).integers(0, 256, (1, size, size, 3), dtype=np.uint8)}
    pairs = []
    for _ in range(rounds):
        with sdk.load(bundle, on=ON, prefer="throughput") as student:  # closed while the other one runs
            variant = student.ran_on["image"].variant
            ours = per_second(lambda: student.run("image", feed), 2 * (os.cpu_count() or 1), seconds)
        pairs.append((ours, app_per_second(opened, variant, seconds)))
    ours_all, theirs_all = np.array(pairs).T
    return median_interval(ours_all), median_interval(theirs_all), median_interval(ours_all / theirs_all)


def per_second(call: Callable[[], object], threads: int, seconds: float) -> float:
    """Calls per second from so many threads, a tenth of the time before that not counted."""
    counts = [0] * threads
    stop = threading.Event()

    def work(index: int) -> None:
        while not stop.is_set():
            call()
            counts[index] += 1

    running = [threading.Thread(target=work, args=(index,)) for index in range(threads)]
    for thread in running:
        thread.start()
    time.sleep(seconds / 10)
    before, begun = sum(counts), time.perf_counter()
    time.sleep(seconds)
    done, spent = sum(counts) - before, time.perf_counter() - begun
    stop.set()
    for thread in running:
        thread.join()
    return done / spent


def app_per_second(bundle: Bundle, variant: str, seconds: float) -> float:
    """Frames per second that benchmark_app reports for the image graph with a batch of one. Raises Unavailable."""
    graph, size = bundle.graph("image", variant), bundle.manifest.image.size
    asked = ["-m", str(bundle.file(graph.file)), "-d", "CPU", "-hint", "throughput", "-t", str(max(1, round(seconds)))]
    command = [sys.executable, "-c", _APP, *asked, "-shape", f"[1,{size},{size},3]"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    found = re.search(r"Throughput:\s+([\d.]+) FPS", done.stdout)
    if found is None:
        said = " ".join((done.stdout + done.stderr).split())[-300:]
        raise Unavailable(f"OpenVINO's benchmark_app did not run on {graph.file}: {said}")
    return float(found[1])
