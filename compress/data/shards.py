"""WebDataset shards: .tar files on disk or behind https, see compress/tar_shards.py."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath

from compress.samples import Part, Sample
from compress.streamed import Streamed
from compress.tar_shards import find_shards, read_shard


@dataclass(frozen=True)
class Shards(Streamed):
    """`root`: "shop-{000..009}.tar", "shards/*.tar" or "https://..."; the other fields: see Photos and Streamed.

    A sample is an image and a label: the .cls, "label" of the .json, or else the .txt; the .json may have text, group
    and split too. A shard with train, val or test in its name is that split.
    """

    def parts(self) -> list[Part]:
        """The shards. Raises as `find_shards`."""
        return find_shards(self.root)

    def read(self, part: Part) -> Iterator[Sample]:
        """Raises as `read_shard`."""
        return read_shard(part, self._names)

    def called(self) -> str:
        """What stands before the numbers of the shards."""
        first = PurePosixPath(self._parts[0].name.replace("\\", "/")).name
        return re.sub(r"\W+", "-", re.split(r"\d|\.tar", first)[0]).strip("-_") or "shards"
