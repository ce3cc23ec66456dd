"""Which of several sessions is fastest here: they run in turn, so that the machine's mood is the same for all."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Mapping, Sequence

from runtimes import PupilError

TURNS = 31  # enough for a median; then more would only take time from the app's own frames
LEAST = 7  # turns that a decision needs, even when the time is up
# After so many turns, one whose fastest run is so much slower than the leader's median is out.
_HOPELESS_AFTER, _HOPELESS = 3, 1.1
_CLEARLY = 0.75  # share of turns in which a rival must be faster, before the app's frames move to it

Times = dict[str, list[float]]


def race(
    calls: Mapping[str, Callable[[], object]], until: float, stop: threading.Event
) -> tuple[Times, dict[str, str]]:
    """Run calls in turn (A B C A B C): name -> milliseconds, one a turn, and name -> error of those that failed.

    Goes on for 31 turns, until only one is left, `until` (`time.monotonic()`) has passed and 7 turns are done, or
    `stop` is set.
    """
    times: Times = {name: [] for name in calls}
    failed: dict[str, str] = {}
    running = dict(calls)
    for turn in range(TURNS):
        if (turn >= LEAST and time.monotonic() >= until) or (turn and len(running) < 2):
            break
        for name, call in list(running.items()):
            if stop.is_set():
                return times, failed
            try:
                call()  # not timed: it pays for what the one before left, caches and threads that still spin
                started = time.perf_counter_ns()
                call()
                times[name].append((time.perf_counter_ns() - started) / 1e6)
            except PupilError as error:
                failed[name] = str(error)
                del running[name], times[name]
        if turn + 1 >= _HOPELESS_AFTER and running:
            limit = _HOPELESS * min(median(times[name]) for name in running)
            running = {name: call for name, call in running.items() if min(times[name]) <= limit}
    return times, failed


def median(values: Iterable[float]) -> float:
    """The middle one, or the mean of the two there. Of at least one value. (`statistics` takes long to import.)"""
    ordered = sorted(values)
    half = len(ordered) // 2
    return ordered[half] if len(ordered) % 2 else (ordered[half - 1] + ordered[half]) / 2


def fastest(times: Mapping[str, Sequence[float]], serving: str) -> str:
    """The one with the least median; `serving` unless it is faster in three of four turns: noise moves no frames.

    `times` is not empty; `serving` may have failed and not be among them.
    """
    best = min(times, key=lambda name: median(times[name]))
    if serving not in times or best == serving:
        return best
    won, of = turns_won(times[best], times[serving])
    return best if won >= _CLEARLY * of else serving


def turns_won(one: Sequence[float], other: Sequence[float]) -> tuple[int, int]:
    """In how many turns `one` was faster, of those that both ran in."""
    pairs = list(zip(one, other, strict=False))
    return sum(a < b for a, b in pairs), len(pairs)
