"""Data sets that come as a stream of samples: unpacked once, then photos in a table like any others."""

import csv
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from compress.data.photos import Photos
from compress.layouts import Listing, read_listing, read_text
from compress.photo_scan import content
from compress.processes import rank, world
from compress.samples import Part, Sample
from compress.unpack import fetch, finished, join
from runtimes import RecipeError


@dataclass(frozen=True)
class Streamed(Photos):
    """`max_corrupt`: how many samples may be left out because they cannot be used. `names`: a text file with a name on
    each line, for labels that are numbers from 0. `cache`: the folder below which samples are unpacked, once for all
    runs on them; of several processes (compress/processes.py) each unpacks its own parts, and all must see it.
    """

    max_corrupt: int = 0
    names: str = ""
    cache: str = "~/.cache/edge-pupil/data"

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.max_corrupt < 0:
            raise RecipeError(f"data.max_corrupt must be 0 or more, got {self.max_corrupt}")

    def parts(self) -> list[Part]:
        """What there is to read, without reading it. Raises RecipeError, or Unavailable, for what is not there."""
        raise NotImplementedError

    def read(self, part: Part) -> Iterator[Sample]:
        """The samples of a part, in order."""
        raise NotImplementedError

    def called(self) -> str:
        """What a model of this data is called."""
        raise NotImplementedError

    def check(self) -> None:
        """Raises RecipeError, or Unavailable, for what can be told without reading samples; of samples that were
        unpacked before, what `Photos.check` raises."""
        _ = self._parts, self._names
        if self._unpacked:
            super().check()

    def fetch(self) -> None:
        """Unpacks what of this process's share was not yet. Raises as `unpack.fetch`."""
        fetch(self._parts, self.read, self._folder, self.max_corrupt, (rank(), world()))

    def verify(self, out: Path) -> None:
        """Unpacks what was not yet, sees that it is as it was written, and looks at the photos as `Photos.verify`."""
        file = self._file
        with file.open(encoding="utf-8", newline="") as rows:
            for row in csv.DictReader(rows):
                if content(file.parent / row["image"]) != row["sha256"]:
                    raise RecipeError(
                        f"{file.parent / row['image']} is damaged: it is not what was unpacked; remove {file.parent} "
                        "and run again"
                    )
        super().verify(out)

    def count(self) -> int:
        """How many photos are not given for the test; 0 before they are unpacked."""
        return super().count() if self._unpacked else 0

    @cached_property
    def _parts(self) -> list[Part]:
        return self.parts()

    @cached_property
    def _names(self) -> tuple[str, ...]:
        if not self.names:
            return ()
        return tuple(read_text(Path(self.names).expanduser(), "data.names").splitlines())

    @cached_property
    def _folder(self) -> Path:
        about = (type(self).__name__, [part.name for part in self._parts], self._names, self.reading())
        digest = hashlib.sha256(repr(about).encode()).hexdigest()
        return Path(self.cache).expanduser().resolve() / f"{self.called()}-{digest[:16]}"

    def reading(self) -> tuple[str, ...]:
        """Fields that make other samples of the same parts."""
        return ()

    @property
    def _unpacked(self) -> bool:
        return all(finished(self._folder, at, part) for at, part in enumerate(self._parts))

    @cached_property
    def _file(self) -> Path:
        if not self._unpacked:
            fetch(self._parts, self.read, self._folder, self.max_corrupt)
        return join(self._parts, self._folder, self.max_corrupt)

    @cached_property
    def _given(self) -> Listing:
        """All photos. Unpacks what was not yet."""
        return replace(read_listing(str(self._file)), name=self.called())
