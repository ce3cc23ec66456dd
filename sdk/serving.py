"""The session that serves a tower's frames, and how another one takes its place."""

from __future__ import annotations

import threading

from runtimes import Session
from sdk.choose import Opened
from sdk.ran_on import RanOn, Tried


class Serving:
    """What serves now, why, and what was tried. Threads may share it.

    `session` is read once per frame, and only sessions that answered golden inputs get here: so what takes over does so
    between two frames. It is None after `close`. A thread that still held the old session when that was closed gets
    Unavailable from it, sees that another one serves, and asks that one.
    """

    def __init__(self, opened: Opened, why: str, tried: dict[str, Tried]) -> None:
        """`tried`: by candidate as printed; threads that open candidates may add to it."""
        self.session: Session | None = opened.session
        self.opened = opened
        self.why = why
        self.failed = False  # whether some session failed while it served
        self._compute = opened.session.compute
        self._tried = tried
        self._lock = threading.RLock()  # a garbage collection inside may close a student, and so come back here

    @property
    def ran_on(self) -> RanOn:
        """All of it at one moment."""
        with self._lock:
            candidate = self.opened.candidate
            others = tuple(tried for name, tried in self._tried.copy().items() if name != str(candidate))
            why = f"{self.why}; {self.opened.golden}"
            return RanOn(str(candidate.target), candidate.variant, self._compute, why, others)

    @property
    def tried(self) -> tuple[Tried, ...]:
        """What was tried, what serves now among it if it once lost."""
        with self._lock:
            return tuple(self._tried.copy().values())

    def lost(self, tried: Tried) -> None:
        """Tell of a candidate that was not taken."""
        with self._lock:
            self._tried[f"{tried.target} {tried.variant}"] = tried

    def swap(self, opened: Opened, why: str) -> bool:
        """Let another one serve and close the old one. Closes the new one and says False when all is closed."""
        with self._lock:
            if self.session is None:
                opened.session.close()
                return False
            old, self.opened, self.why = self.opened, opened, why
            self._compute = opened.session.compute
            self.session = opened.session  # from here on, frames go there
        old.session.close()
        return True

    def close(self) -> None:
        """Close what serves, for good."""
        with self._lock:
            session, self.session = self.session, None
        if session is not None:
            session.close()
