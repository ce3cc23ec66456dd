"""Where a graph runs, written `runtime:device[.index]` and parsed in this one place."""

from __future__ import annotations

import re
from dataclasses import dataclass

from runtimes._errors import Unavailable

_FORM = re.compile(r"(?P<runtime>[a-z][a-z0-9]*):(?P<device>[a-z][a-z0-9]*)(?:\.(?P<index>\d{1,3}))?")


@dataclass(frozen=True)
class Target:
    """One engine on one device: `ov:cpu`, `ov:gpu.1`, `ort:cuda.0`."""

    runtime: str
    device: str
    index: int | None = None

    @property
    def place(self) -> str:
        """The part after the colon: `cpu`, `gpu.1`."""
        return self.device if self.index is None else f"{self.device}.{self.index}"

    def __str__(self) -> str:
        return f"{self.runtime}:{self.place}"


def parse_target(text: str) -> Target:
    """Parse `runtime:device[.index]`. Raises Unavailable, saying the form, for anything else."""
    match = _FORM.fullmatch(text.strip().lower())
    if match is None:
        raise Unavailable(f"{text!r} is not a target; write runtime:device[.index], such as ov:cpu or ort:cuda.0")
    index = match["index"]
    return Target(match["runtime"], match["device"], None if index is None else int(index))
