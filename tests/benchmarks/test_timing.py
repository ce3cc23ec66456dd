from __future__ import annotations

import time

from benchmarks.timing import in_turn, machine, paired_latency, versions


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


def test_times_are_taken_in_turn() -> None:
    order: list[str] = []
    times = in_turn({n: lambda n=n: order.append(n) for n in "abc"}, min_seconds=0, min_runs=7)  # type: ignore[misc]
    assert "".join(order[15:]) == "abc" * 7  # after five warm-up turns
    assert {name: len(values) for name, values in times.items()} == {"a": 7, "b": 7, "c": 7}


def test_machine_and_versions_say_what_matters() -> None:
    assert {"cpu", "features", "cores", "system", "python"} <= machine().keys()
    assert versions("numpy", "no-such-package").keys() == {"numpy"}
