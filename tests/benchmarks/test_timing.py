from __future__ import annotations

import time

from benchmarks.timing import latency, machine, paired_latency, versions


def test_ratio_of_a_call_that_takes_three_times_as_long() -> None:
    pair = paired_latency(lambda: time.sleep(0.006), lambda: time.sleep(0.002), min_seconds=0.0, min_runs=40)
    assert 2 < pair.ratio.value < 3.5
    assert pair.ratio.low <= pair.ratio.value <= pair.ratio.high
    assert pair.ratio.n == 40


def test_stops_only_after_both_limits() -> None:
    started = time.perf_counter()
    pair = paired_latency(lambda: None, lambda: None, min_seconds=0.2, min_runs=10)
    assert time.perf_counter() - started >= 0.2
    assert pair.ratio.n >= 10


def test_latency_is_in_milliseconds() -> None:
    assert 1.9 < latency(lambda: time.sleep(0.002), min_seconds=0, min_runs=20).value < 4


def test_machine_and_versions_say_what_matters() -> None:
    assert {"cpu", "features", "cores", "system", "python"} <= machine().keys()
    assert versions("numpy", "no-such-package").keys() == {"numpy"}
