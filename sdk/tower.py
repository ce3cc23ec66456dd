"""One tower of a student: opened on the first candidate that works, measured beside its frames, moved when it fails."""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from runtimes import Array, FeedError, Progress, Session, Unavailable, VerifyError
from sdk.attempts import Attempts
from sdk.bundle import Bundle
from sdk.choose import Candidate, Group, Opened, Wish, all_failed, groups, nothing, open_candidate
from sdk.machine import resident
from sdk.ran_on import RanOn, Tried
from sdk.serving import Serving

if TYPE_CHECKING:
    from sdk.remember import Choice

_log = logging.getLogger(__name__)
_MB = 1e6
_JOIN_S = 5.0  # how long `close` waits for the thread that measures; it ends with the run that it is in


class Tower:
    """A tower that serves from construction on. Raises Unavailable when nothing could be opened, VerifyError when
    something opened but answered wrongly, BundleError for files that changed."""

    def __init__(self, bundle: Bundle, name: str, wish: Wish, turn: threading.Lock) -> None:
        """`turn` is held while candidates are timed: towers of one student measure one after the other."""
        self.degraded = ""  # what the frames run on instead, and why; "" while they run where they were meant to
        self._bundle, self._name, self._wish, self._turn = bundle, name, wish, turn
        self._failing = threading.Lock()
        self._broken: set[str] = set()
        self._memory: dict[str, float] = {}
        self._most_mb = float("inf")
        self._stop, self._settled = threading.Event(), threading.Event()
        remembered = _recalled(bundle, name, wish)
        opened, self._attempts = self._open_first(remembered)
        known = remembered is not None and (remembered.target, remembered.variant) == _names(opened)
        self._serving = Serving(opened, self._why(opened, remembered if known else None), self._attempts.tried)
        if remembered is not None and known:
            for tried in remembered.tried:
                self._serving.lost(tried)
            self._attempts.skip(f"{tried.target} {tried.variant}" for tried in remembered.tried)
        if wish.budget_mb is not None:
            self._most_mb = resident()[0] / _MB + wish.budget_mb
        self._thread = threading.Thread(target=self._measure, name=f"pupil-measure {name}", daemon=True)
        asked = wish.on is not None and not self.degraded
        if asked or wish.budget_s <= 0 or (remembered is not None and known and remembered.complete):
            self._attempts.stop()
            self._settled.set()
        else:
            self._thread.start()

    @property
    def session(self) -> Session:
        """The session that serves now. Raises Unavailable after `close`."""
        session = self._serving.session
        if session is None:
            raise Unavailable("this student is closed; load the bundle again")
        return session

    @property
    def ran_on(self) -> RanOn:
        """What it runs on now, and what was tried."""
        return self._serving.ran_on

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]:
        """Run N rows of feeds, one by one. Raises FeedError, and Unavailable after `close` or when the engine fails; if
        the policy is to degrade, only when no other is left."""
        while True:
            session = self.session  # read once: what takes over does so between two frames
            try:
                return _run_rows(session, self._name, feeds)
            except Unavailable as error:
                self._move_on(session, error)

    def settle(self, timeout: float | None = None) -> bool:
        """Wait until nothing is opened or measured any more; False when `timeout` seconds were not enough."""
        return self._settled.wait(timeout)

    def stop(self) -> None:
        """Let the measuring end soon. Does not wait."""
        self._stop.set()
        self._attempts.stop()

    def close(self) -> None:
        """Release the session, and wait for the thread that measures; threads that are still opening something close it
        themselves when they are done."""
        self.stop()
        self._serving.close()
        if self._thread.is_alive() and self._thread is not threading.current_thread():
            self._thread.join(_JOIN_S)

    def _open_first(self, remembered: Choice | None) -> tuple[Opened, Attempts]:
        found = groups(self._bundle, self._name, self._wish)
        if remembered is not None:
            found.insert(0, Group((remembered.variant,), remembered.target))
        attempts = Attempts(found, self._open)
        try:
            opened = attempts.take()
        except BaseException:
            attempts.stop()
            raise
        if opened is not None:
            return opened, attempts
        if not attempts.tried:
            raise Unavailable(nothing(self._bundle, self._name, self._wish))
        kind = VerifyError if attempts.wrong else Unavailable
        raise kind(all_failed(self._bundle, self._name, list(attempts.tried.values())))

    def _why(self, opened: Opened, remembered: Choice | None) -> str:
        target, on = str(opened.candidate.target), self._wish.on
        if remembered is not None:
            return f"remembered: {remembered.why}"
        if on is None:
            return "first that opened"
        if target == on:
            return "asked for"
        self.degraded = f"{self._name} on {target}, as {on} did not open"
        return f"first that opened, as {on} did not"

    def _open(self, candidate: Candidate, progress: Progress) -> Opened:
        before = resident()[0] / _MB
        weight = self._bundle.weight(self._bundle.graph(self._name, candidate.variant)) / _MB
        budget = f"the budget of {self._wish.budget_mb} MB for measuring"
        if before + weight > self._most_mb:  # the weights alone
            raise Unavailable(f"takes {weight:.0f} MB at least, more than is left of {budget}")
        opened = open_candidate(self._bundle, self._name, candidate, self._wish, progress)
        now = resident()[0] / _MB
        if now > self._most_mb:
            opened.session.close()
            raise Unavailable(f"takes {now - before:.0f} MB, more than is left of {budget}")
        self._memory[str(candidate)] = now - before
        return opened

    def _measure(self) -> None:
        """In a thread of its own."""
        from sdk.contest import Contest  # not while sdk is imported: who asks for a target never needs it

        contest = Contest(self._bundle, self._name, self._wish, self._serving, self._attempts, self._memory, self._stop)
        try:
            if self._wish.on is None:
                contest.hold(self._turn)
            elif contest.wait_for(self._wish.on):
                self.degraded = ""
        except Exception:
            if threading.main_thread().is_alive():  # a program that ends lets no thread be started any more
                _log.exception("measuring the %s tower of %s ended early", self._name, self._bundle.path)
        finally:
            self._attempts.stop()
            self._settled.set()

    def _move_on(self, session: Session, error: Unavailable) -> None:
        """After `session` failed: return when another serves that the frame can be given to, else raise."""
        with self._failing:  # one thread finds the next, the others wait for it
            if self._serving.session is not session:  # swapped or closed meanwhile
                return
            if self._wish.policy == "strict":
                raise error
            broken = self._serving.opened.candidate
            self._broken.add(str(broken))
            self._serving.failed = True
            self._serving.lost(Tried(str(broken.target), broken.variant, f"failed while running: {error}"))
            _log.warning("the %s tower failed on %s and moves on: %s", self._name, broken, error)
            attempts = Attempts(self._others(broken), self._open)
            attempts.skip(self._broken)
            opened = attempts.take()
            attempts.stop()
            if opened is None:
                others = (
                    "; ".join(f"{name}: {tried.reason}" for name, tried in attempts.tried.items()) or "there is none"
                )
                raise Unavailable(f"{error}; and no other target can go on with the {self._name} tower: {others}")
            self.degraded = (
                f"{self._name} on {opened.candidate.target}, as {broken.target} failed while running: {error}"
            )
            self._serving.swap(opened, f"next, as {broken} failed while running")

    def _others(self, broken: Candidate) -> list[Group]:
        """What may go on: the fastest of those that were measured first, what runs on the same engine last."""
        timed = sorted(
            (tried for tried in self._serving.tried if tried.ms is not None), key=lambda tried: tried.ms or 0
        )
        found = [Group((tried.variant,), tried.target) for tried in timed]
        found += groups(self._bundle, self._name, self._wish)
        return sorted(found, key=lambda group: group.where.split(":")[0] == broken.target.runtime)


def _recalled(bundle: Bundle, tower: str, wish: Wish) -> Choice | None:
    if wish.on is not None or wish.cache_dir is None:
        return None
    from sdk.remember import recall

    return recall(bundle, tower, wish)


def _names(opened: Opened) -> tuple[str, str]:
    return str(opened.candidate.target), opened.candidate.variant


def _run_rows(session: Session, tower: str, feeds: Mapping[str, Array]) -> dict[str, Array]:
    """N rows, one by one: sessions hold a batch of one."""
    if len(feeds) == 1:  # an image: the session itself refuses what is not one row
        (array,) = feeds.values()
        if array.shape[:1] == (1,):
            return session.run(feeds)
    count = max((len(array) for array in feeds.values() if array.ndim), default=0)
    if count == 0 or any(array.shape[:1] != (count,) for array in feeds.values()):
        came = {name: array.shape for name, array in feeds.items()}
        raise FeedError(f"the {tower} tower takes feeds of the same number of rows, at least one, but {came} came")
    if count == 1:
        return session.run(feeds)
    rows = [session.run({name: array[i : i + 1] for name, array in feeds.items()}) for i in range(count)]
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}
