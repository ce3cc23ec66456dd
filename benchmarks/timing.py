"""One clock: `perf_counter_ns` around calls that end in host arrays. Two subjects are timed in turn, A B A B."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.stats import median_interval
from sdk.manifest import Figure


@dataclass(frozen=True)
class Paired:
    """Milliseconds of A and of B (medians with 95 % intervals), and the median of the ratios of neighbours, A / B."""

    a_ms: Figure
    b_ms: Figure
    ratio: Figure


def in_turn(
    calls: Mapping[str, Callable[[], object]], *, min_seconds: float = 2.0, min_runs: int = 50, rest: float = 0.0
) -> dict[str, NDArray[np.float64]]:
    """Time calls in turn (A B C A B C, MLPerf's single-stream scenario): name -> milliseconds, one sample per turn.

    Stops when both min_seconds and min_runs are reached. Samples of the same turn share the machine's mood, so their
    ratio is steadier than any of the times. `rest`: seconds of sleep before each call, which no time holds.
    """
    for _ in range(5):
        for call in calls.values():
            call()
    turns: list[list[int]] = []
    started = time.perf_counter()
    while time.perf_counter() - started < min_seconds or len(turns) < min_runs:
        spent = []
        for call in calls.values():
            if rest:
                time.sleep(rest)
            before = time.perf_counter_ns()
            call()
            spent.append(time.perf_counter_ns() - before)
        turns.append(spent)
    milliseconds = np.array(turns, np.float64) / 1e6
    return {name: milliseconds[:, index] for index, name in enumerate(calls)}


def paired_latency(
    a: Callable[[], object], b: Callable[[], object], *, min_seconds: float = 2.0, min_runs: int = 50
) -> Paired:
    """Time two calls in turn; the speed-up is the median of the ratios of each turn, for single pairs range widely."""
    times = in_turn({"a": a, "b": b}, min_seconds=min_seconds, min_runs=min_runs)
    ratio = median_interval(times["a"] / times["b"])
    return Paired(median_interval(times["a"]), median_interval(times["b"]), ratio)


def machine() -> dict[str, object]:
    """What the figures were measured on: processor, its arithmetic extensions, cores, system, Python."""
    return {
        "cpu": _cpu_line("model name") or platform.processor(),
        "features": sorted(set(_cpu_line("flags").split()) & _FEATURES),
        "cores": os.cpu_count() or 0,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
    }


def versions(*packages: str) -> dict[str, str]:
    """Installed versions of the packages that are here."""
    found = {}
    for package in packages:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found


# What decides how fast int8 and bf16 can be on a CPU.
_FEATURES = {"avx2", "avx512f", "avx512_vnni", "avx_vnni", "avx512_bf16", "amx_int8", "amx_bf16", "asimddp", "i8mm"}


def _cpu_line(key: str) -> str:
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return ""
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines():
        name, _, value = line.partition(":")
        if name.strip() in {key, "Features" if key == "flags" else key}:
            return value.strip()
    return ""
