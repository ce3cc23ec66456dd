"""Opening candidates so that one which takes minutes holds up nobody: each in a thread, the next one after a while.

The way of "happy eyeballs" (RFC 8305): who is asked first has a head start, and the first who works is taken.
"""

from __future__ import annotations

import functools
import math
import queue
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterable

from runtimes import Progress, Unavailable, VerifyError
from sdk.choose import Candidate, Group, Opened
from sdk.machine import resident
from sdk.ran_on import Tried

# Seconds that a candidate has for itself before the next is opened beside it, and while others are slow already: so
# that even the fourth in order serves within two seconds.
HEAD_START, NEXT = 1.0, 0.25

_Outcome = Opened | Exception | None
_OPENING: weakref.WeakSet[threading.Thread] = weakref.WeakSet()


class Attempts:
    """Groups of candidates, opened with `open_one`. One thread at a time may `take`; `stop` comes from any.

    `tried`: what failed, in the order in which it did, and what is being built; `wrong`: whether one of them opened and
    answered wrongly; `engines`: MB by which this process grew when a runtime was asked for its devices, which loads the
    engine.
    """

    def __init__(self, groups: Iterable[Group], open_one: Callable[[Candidate, Progress], Opened]) -> None:
        self.tried: dict[str, Tried] = {}
        self.wrong = False
        self.engines: dict[str, float] = {}
        self._groups = deque(groups)
        self._open = open_one
        self._seen: set[str] = set()
        self._arrived: queue.SimpleQueue[_Outcome] = queue.SimpleQueue()
        self._running = 0
        self._lock = threading.Lock()
        self._stopped = self._given_up = False

    def take(self, late: bool = True, until: float = math.inf) -> Opened | None:
        """The next candidate that opened and proved itself; None when there is no more, or `stop` was called.

        Without `late` it does not wait for those that take longer than their head start. After `until`
        (`time.monotonic()`) no more are started. Raises what is no fault of an engine, such as BundleError.
        """
        while not self._stopped:
            over = time.monotonic() >= until
            started = not over and self._start_next()
            if not started and (not self._running or (over and not late)):
                return None
            try:
                patience = HEAD_START if self._running < 2 else NEXT
                outcome = self._arrived.get(timeout=None if late and not self._groups else patience)
            except queue.Empty:
                if not self._groups and not late:
                    return None
                continue
            self._running -= 1
            if isinstance(outcome, Exception):
                raise outcome
            if outcome is not None:
                return outcome
        return None

    def skip(self, candidates: Iterable[str]) -> None:
        """Do not try these."""
        self._seen.update(candidates)

    def give_up(self) -> list[Group]:
        """Start no more; gives back what was not started. What is being opened goes on, see `take`."""
        self._given_up = True
        left = list(self._groups)
        self._groups.clear()
        return left

    def stop(self) -> None:
        """Start no more, and close whatever still arrives. Does not wait for it."""
        with self._lock:
            self._stopped = True
            while not self._arrived.empty():
                _close(self._arrived.get())
            self._arrived.put(None)  # wakes `take`

    def _start_next(self) -> bool:
        if not self._groups:
            return False
        group = self._groups.popleft()
        self._running += 1
        thread = threading.Thread(target=self._attempt, args=(group,), name=f"pupil-open {group.where}", daemon=True)
        _OPENING.add(thread)
        thread.start()
        return True

    def _attempt(self, group: Group) -> None:
        try:
            outcome: _Outcome = self._first_of(group)
        except Exception as error:  # raised again where it is waited for
            outcome = error
        with self._lock:
            if self._stopped:
                _close(outcome)
            else:
                self._arrived.put(outcome)

    def _first_of(self, group: Group) -> Opened | None:
        before = resident()[0]
        candidates = list(group.candidates())
        self.engines.setdefault(group.where, (resident()[0] - before) / 1e6)
        for index, candidate in enumerate(candidates):
            if self._stopped or not self._is_new(candidate):
                continue
            try:
                opened = self._open(candidate, functools.partial(self._building, candidate))
            except (Unavailable, VerifyError) as error:
                self.wrong |= isinstance(error, VerifyError)
                self._tell(candidate, str(error))
                continue
            self.tried.pop(str(candidate), None)
            if index + 1 < len(candidates) and not self._given_up:
                self._groups.appendleft(group)  # for its other devices
            return opened
        return None

    def _building(self, candidate: Candidate, share: float) -> bool:
        """See `runtimes.Progress`: a build ends with the student that it was begun for."""
        self._tell(candidate, f"being built, {share:.0%} done")
        return not self._stopped

    def _tell(self, candidate: Candidate, reason: str) -> None:
        self.tried[str(candidate)] = Tried(str(candidate.target), candidate.variant, reason)

    def _is_new(self, candidate: Candidate) -> bool:
        with self._lock:
            new = str(candidate) not in self._seen
            self._seen.add(str(candidate))
            return new


def _close(outcome: _Outcome) -> None:
    if isinstance(outcome, Opened):
        outcome.session.close()


def wait_for_openings(seconds: float) -> None:
    """Wait for threads of this process that still open something, so long at most."""
    until = time.monotonic() + seconds
    for thread in list(_OPENING):
        thread.join(max(0.0, until - time.monotonic()))
