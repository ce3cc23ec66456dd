"""Single-stream percentiles and offline throughput, by MLPerf's names for the scenarios (Reddi et al. 2020)."""

from __future__ import annotations

import math
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack

import numpy as np
from numpy.typing import NDArray

import runtimes
from benchmarks.plan import Subject
from benchmarks.programs import Model
from runtimes import PupilError, Session
from sdk.bundle import open_bundle
from sdk.choose import PRECISIONS
from sdk.manifest import Figure
from sdk.resize import Frame

Samples = NDArray[np.float64]
BATCH = 16  # rows of the batched query


def percentile(values: Samples, share: float) -> Figure:
    """A quantile (`share` in 0..1) with a distribution-free 95 % interval: order statistics at exact binomial ranks.

    Where there are too few samples for a rank on one side (a p99 needs 368; see `stats.reaches`), that end is the
    extreme sample, and the interval less than 95 %.
    Raises ValueError for none.
    """
    ordered = np.sort(values)
    n = len(ordered)
    if n == 0:
        raise ValueError("a percentile needs at least one sample")
    k = np.arange(n)
    log_factorial = np.array([math.lgamma(i + 1) for i in range(n + 1)])
    log_mass = log_factorial[n] - log_factorial[k] - log_factorial[n - k]
    below = np.cumsum(np.exp(log_mass + k * math.log(share) + (n - k) * math.log1p(-share)))  # P(Binomial <= k)
    low = max(0, int((below <= 0.025).sum()) - 1)
    high = min(n - 1, int((below < 0.975).sum()))
    return Figure(float(np.quantile(ordered, share)), float(ordered[low]), float(ordered[high]), n)


def offline(subject: Subject, model: Model, frames: Sequence[Frame], *, seconds: float) -> dict[str, Samples]:
    """Images per second when all frames wait already, prepared: way of running -> one sample per round.

    Ways: the SDK called from as many threads as there are cores, and batches of 16 in the engine where it takes them.
    """
    embed = model.task("embed_images")
    cores = os.cpu_count() or 1
    found = {}
    with ThreadPoolExecutor(cores) as pool:
        found[f"{cores} threads"] = _rounds(lambda: list(pool.map(embed, frames)), len(frames), seconds)
    batch = np.stack([frames[i % len(frames)] for i in range(BATCH)])
    with ExitStack() as stack:
        try:
            session = stack.enter_context(_batched(subject))
            session.run({"image": batch})
        except PupilError:
            return found  # this engine takes single frames only
        found[f"batches of {BATCH}"] = _rounds(lambda: session.run({"image": batch}), BATCH, seconds)
    return found


def _batched(subject: Subject) -> Session:
    if subject.programs:
        return runtimes.open_session(subject.on, subject.programs["image"], batch=BATCH)
    bundle = open_bundle(subject.bundle)
    graph = next(iter(bundle.variants("image").values()))
    asked = PRECISIONS[subject.precision].get(graph.stored) if subject.precision else None
    return runtimes.open_session(subject.on, bundle.file(graph.file), batch=BATCH, precision=asked)


def _rounds(work: Callable[[], object], images: int, seconds: float, least: int = 6) -> Samples:
    work()
    rates: list[float] = []
    started = time.perf_counter()
    while time.perf_counter() - started < seconds or len(rates) < least:
        before = time.perf_counter_ns()
        work()
        rates.append(images / ((time.perf_counter_ns() - before) / 1e9))
    return np.array(rates)
