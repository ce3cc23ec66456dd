"""One clock: `perf_counter_ns` around calls that end in host arrays. Two subjects are timed in turn, A B A B."""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import numpy as np

from benchmarks.stats import median_interval
from sdk.manifest import Figure


@dataclass(frozen=True)
class Paired:
    """Milliseconds of A and of B (medians with 95 % intervals), and the median of the ratios of neighbours, A / B."""

    a_ms: Figure
    b_ms: Figure
    ratio: Figure


def latency(call: Callable[[], object], *, min_seconds: float = 0.2, min_runs: int = 30) -> Figure:
    """Milliseconds of one call (single-stream): median with its 95 % interval, after five warm-up calls."""
    return paired_latency(call, lambda: None, min_seconds=min_seconds, min_runs=min_runs).a_ms


def paired_latency(
    a: Callable[[], object], b: Callable[[], object], *, min_seconds: float = 2.0, min_runs: int = 50
) -> Paired:
    """Time two calls in turn until both min_seconds and min_runs are reached (MLPerf's single-stream scenario).

    Neighbours share the machine's mood, so their ratio is steadier than either time: single pairs still range widely,
    which is why a median with an interval is reported.
    """
    for _ in range(5):
        a()
        b()
    times: list[tuple[int, int]] = []
    started = time.perf_counter()
    while time.perf_counter() - started < min_seconds or len(times) < min_runs:
        first = time.perf_counter_ns()
        a()
        middle = time.perf_counter_ns()
        b()
        times.append((middle - first, time.perf_counter_ns() - middle))
    pairs = np.array(times, np.float64)
    ratio = median_interval(pairs[:, 0] / pairs[:, 1])
    return Paired(median_interval(pairs[:, 0] / 1e6), median_interval(pairs[:, 1] / 1e6), ratio)


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
