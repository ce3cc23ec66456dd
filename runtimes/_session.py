"""What every runtime gives back: the seam, one verb wide."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Protocol, Self

import numpy as np
from numpy.typing import NDArray

from runtimes._errors import FeedError
from runtimes._target import Target

Array = NDArray[Any]
# Told the share (0..1) of a build that is done, by the thread that opens; where it returns False, opening ends with
# Unavailable.
Progress = Callable[[float], bool]


@dataclass(frozen=True)
class Port:
    """One input or output of a graph: numpy dtype name and shape, None where a dimension is free."""

    dtype: str
    shape: tuple[int | None, ...]

    def __str__(self) -> str:
        return f"{self.dtype}({', '.join('?' if d is None else str(d) for d in self.shape)})"


class Session(Protocol):
    """A graph opened on a device.

    `run` may be called from several threads at once. It returns host arrays that belong to the caller, so a clock
    around it measures the whole call. It raises FeedError for feeds that do not fit `inputs`, Unavailable when the
    engine fails while running.
    """

    target: Target
    compute: str
    inputs: Mapping[str, Port]
    outputs: Mapping[str, Port]

    def run(self, feeds: Mapping[str, Array]) -> dict[str, Array]: ...

    def close(self) -> None: ...

    def __enter__(self) -> Self: ...

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...


def check_feeds(inputs: Mapping[str, Port], feeds: Mapping[str, Array]) -> None:
    """Refuse feeds that do not fit: engines answer such feeds with a crash, a cast, or a page of C++.

    Raises FeedError naming the input, what it takes and what came.
    """
    if feeds.keys() != inputs.keys():
        raise FeedError(f"the graph takes the inputs {sorted(inputs)}, but {sorted(feeds)} came")
    for name, port in inputs.items():
        array = feeds[name]
        if not isinstance(array, np.ndarray):
            raise FeedError(f"input {name!r} takes a numpy array {port}, but a {type(array).__name__} came")
        # `!=` on the dtype also refuses another byte order, and costs a twentieth of asking for its name.
        if array.dtype != port.dtype or not _fits(array.shape, port.shape):
            came = Port(array.dtype.name if array.dtype.isnative else array.dtype.str, array.shape)
            raise FeedError(f"input {name!r} takes {port} with no empty dimension, but {came} came")


def _fits(shape: tuple[int, ...], wanted: tuple[int | None, ...]) -> bool:
    if shape == wanted:  # nothing is free, as in a student: a frame is counted in microseconds
        return 0 not in shape
    pairs = zip(shape, wanted, strict=False)
    return len(shape) == len(wanted) and 0 not in shape and all(want in {None, got} for got, want in pairs)
