"""Measuring, beside the frames that are served already: the others are opened and timed, and the best takes over."""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle

from runtimes import Array, BundleError
from sdk.attempts import Attempts
from sdk.bundle import Bundle
from sdk.choose import Opened, Wish
from sdk.golden import golden_feeds
from sdk.machine import cores
from sdk.race import Times, fastest, median, race, turns_won
from sdk.ran_on import Tried
from sdk.remember import Choice, keep
from sdk.serving import Serving

_log = logging.getLogger(__name__)
# With `prefer="memory"`: so much less, in MB of 1e6 bytes and as a share, moves the frames. Below it is noise.
_LESS_MB, _LESS = 1.0, 0.95


@dataclass(frozen=True)
class Contest:
    """Rivals for what serves a tower. `memory`: MB that a candidate took when it was opened, by its name as printed."""

    bundle: Bundle
    tower: str
    wish: Wish
    serving: Serving
    attempts: Attempts
    memory: Mapping[str, float]
    stop: threading.Event

    def hold(self, turn: threading.Lock) -> None:
        """Open the others for `budget_s`, measure them, move to the best and keep the choice; `turn` is held while
        measuring. What takes longer to open, as a build of minutes, is measured when it comes."""
        until = time.monotonic() + self.wish.budget_s
        rivals: list[Opened] = []
        while (rival := self._next(late=False, until=until)) is not None:
            rivals.append(rival)
        left = self.attempts.give_up()
        for group in left:
            for variant in group.variants:
                over = f"not opened: the {self.wish.budget_s:g} s for measuring were over; load with a larger budget_s"
                self.serving.lost(Tried(group.where, variant, over))
        self._measure(rivals, until, turn)
        while (rival := self._next(late=True)) is not None:
            self._measure([rival], until, turn)
        if not self.stop.is_set() and not self.serving.failed:
            self._keep(complete=not left)

    def wait_for(self, target: str) -> bool:
        """Move to the target that was asked for when it opens at last. Says whether it did."""
        self.attempts.give_up()
        while (opened := self._next(late=True)) is not None:
            if str(opened.candidate.target) == target:
                return self.serving.swap(opened, "asked for; it took its time to open")
            opened.session.close()
        return False

    def _next(self, late: bool, until: float = math.inf) -> Opened | None:
        try:
            return self.attempts.take(late, until)
        except BundleError as error:  # a file that changed meanwhile; what serves goes on
            _log.warning("measuring the %s tower ended early: %s", self.tower, error)
            return None

    def _measure(self, rivals: Sequence[Opened], until: float, turn: threading.Lock) -> None:
        if not rivals:
            return
        before = self.serving.opened
        known = {str(opened.candidate): opened for opened in (before, *rivals)}
        try:
            with turn:
                verdict = self._by_memory(known, before) if self.wish.prefer == "memory" else None
                winner, why, lost = verdict or self._by_time(known, before, until)
            if self.stop.is_set() or self.serving.opened is not before:  # closed, or failed and moved on meanwhile
                return
            for tried in lost:
                self.serving.lost(tried)
            if winner is before:
                self.serving.why = why
            else:
                self.serving.swap(winner, why)
        finally:
            for rival in rivals:
                if rival is not self.serving.opened:
                    rival.session.close()

    def _by_time(self, known: Mapping[str, Opened], before: Opened, until: float) -> tuple[Opened, str, list[Tried]]:
        with self._calls(known) as (calls, frames):
            raw, failed = race(calls, until, self.stop)
        times: Times = {name: [ms / frames for ms in spent] for name, spent in raw.items() if spent}
        lost = [_tried(known[name], f"failed while it was measured: {error}") for name, error in failed.items()]
        if not times:
            return before, self.serving.why, lost
        best = fastest(times, str(before.candidate))
        for name in (name for name in times if name != best):
            more, of = turns_won(times[best], times[name])
            spent = median(times[name])
            lost.append(_tried(known[name], f"{spent:.3g} ms, slower in {more} of {of} turns", spent))
        how = "" if frames == 1 else f" a frame from {cores()} threads"
        spent = median(times[best])
        won = "fastest" if spent <= min(map(median, times.values())) else "no other is clearly faster, out"
        timed = {f"{each.target} {each.variant}" for each in self.serving.tried if each.ms is not None}
        why = f"{won} of {len(timed | times.keys())}: {spent:.3g} ms{how}, median of {len(times[best])} turns"
        return known[best], why, lost

    @contextmanager
    def _calls(self, known: Mapping[str, Opened]) -> Iterator[tuple[dict[str, Callable[[], object]], int]]:
        """What is timed, by candidate, and how many frames a call is: one, or two for each core in as many threads."""
        if self.wish.prefer != "throughput":
            yield {name: _walk(opened, self._feeds(opened)) for name, opened in known.items()}, 1
            return
        from concurrent.futures import ThreadPoolExecutor

        with ThreadPoolExecutor(cores()) as pool:
            frames = 2 * cores()

            def together(opened: Opened) -> Callable[[], object]:
                one = _walk(opened, self._feeds(opened))
                return lambda: [done.result() for done in [pool.submit(one) for _ in range(frames)]]

            yield {name: together(opened) for name, opened in known.items()}, frames

    def _feeds(self, opened: Opened) -> list[dict[str, Array]]:
        return golden_feeds(self.bundle, self.tower, opened.candidate.variant)

    def _by_memory(self, known: Mapping[str, Opened], before: Opened) -> tuple[Opened, str, list[Tried]]:
        took = {n: self.memory[n] + self.attempts.engines.get(o.candidate.target.runtime, 0) for n, o in known.items()}
        serving = str(before.candidate)
        best = min(took, key=lambda name: took[name])
        if took[best] > min(_LESS * took[serving], took[serving] - _LESS_MB):
            best = serving
        lost = [
            _tried(known[name], f"{mb:.0f} MB, against {took[best]:.0f}") for name, mb in took.items() if name != best
        ]
        return known[best], f"least memory of {len(took)}: {took[best]:.0f} MB when it was opened", lost

    def _keep(self, complete: bool) -> None:
        ran_on = self.serving.ran_on
        tried = tuple(each for each in ran_on.tried if ":" in each.target)  # the others were never opened
        choice = Choice(ran_on.target, ran_on.variant, self.serving.why.removeprefix("remembered: "), tried, complete)
        keep(choice, self.bundle, self.tower, self.wish)


def _walk(opened: Opened, feeds: Sequence[Mapping[str, Array]]) -> Callable[[], object]:
    turn = cycle(feeds)
    return lambda: opened.session.run(next(turn))


def _tried(opened: Opened, reason: str, ms: float | None = None) -> Tried:
    candidate = opened.candidate
    return Tried(str(candidate.target), candidate.variant, reason, opened.error, ms)
