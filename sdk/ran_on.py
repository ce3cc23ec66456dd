"""What a graph runs on and what else was tried, for an app to read and for a person to print."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class Tried:
    """A candidate that was not taken, and why. `error`: how far it left the golden outputs; `ms`: milliseconds per
    frame, the median of its turns. Both are None where it did not come so far."""

    target: str
    variant: str
    reason: str
    error: float | None = None
    ms: float | None = None

    def __str__(self) -> str:
        error = "" if self.error is None else f"; golden error {self.error:.1e}"
        return f"not {self.target}, {self.variant}: {self.reason}{error}"


@dataclass(frozen=True)
class RanOn:
    """What one tower runs on. `compute` is the arithmetic the engine reports, such as `int8+bf16`. Printed, it has a
    line for this and one for each that was tried."""

    target: str
    variant: str
    compute: str
    why: str
    tried: tuple[Tried, ...] = ()

    def __str__(self) -> str:
        first = f"{self.target}, {self.variant}, computed in {self.compute} ({self.why})"
        return "\n".join([first, *map(str, self.tried)])
