"""A data set of the library `datasets`: a folder that its save_to_disk wrote, or an id of the Hugging Face hub.

Rows are read one by one from Arrow files, which stay on the disk; nothing of them is unpickled, and code that comes
with a data set is never run (datasets 4 and later cannot).
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from compress.installed import package_folder
from compress.named import did_you_mean
from compress.samples import SPLIT_NAMES, Part, Sample, named
from compress.streamed import Streamed
from compress.tar_shards import INSTALL
from runtimes import RecipeError
from sdk.frames import MAX_BYTES

ROWS = 1000  # in a part
ID = r"[A-Za-z0-9][\w.-]*(/[A-Za-z0-9][\w.-]*)?"


@dataclass(frozen=True)
class Hub(Streamed):
    """`root`: the folder or the id; `revision`: of an id, a commit or a branch. `image`, `label`, `text`, `group`:
    names of columns; an image column may go unnamed if there is one, text and group if there is none.
    """

    revision: str = ""
    image: str = ""
    label: str = "label"
    text: str = ""
    group: str = ""

    def parts(self) -> list[Part]:
        """Stretches of rows, of each split. An id is downloaded. Raises RecipeError for what is no data set of photos
        with labels; Unavailable without the library."""
        found = []
        for split, rows in self._splits.items():
            self._columns(rows)
            for start in range(0, len(rows), ROWS):
                stop = min(start + ROWS, len(rows))
                found.append(Part(f"{split}[{start}:{stop}]", rows._fingerprint))
        return found

    def read(self, part: Part) -> Iterator[Sample]:
        """The samples of a stretch."""
        from datasets import ClassLabel, Image

        split, start, stop = re.fullmatch(r"(.*)\[(\d+):(\d+)\]", part.name).groups()  # type: ignore[union-attr]
        rows = self._splits[split]
        columns = self._columns(rows)
        rows = rows.select_columns(list(columns.values())).cast_column(columns["image"], Image(decode=False))
        feature = rows.features[columns["label"]]
        names = tuple(feature.names) if isinstance(feature, ClassLabel) else self._names
        for at in range(int(start), int(stop)):
            cells = {name: rows[at][column] for name, column in columns.items()}
            yield _sample(f"{split}[{at}]", cells, names, SPLIT_NAMES.get(split, ""))

    def called(self) -> str:
        """The last part of the folder or id."""
        return re.sub(r"\W+", "-", Path(self.root).expanduser().name).strip("-_") or "hub"

    def reading(self) -> tuple[str, ...]:
        """The columns, and where they come from."""
        folder = Path(self.root).expanduser()
        root = str(folder.resolve()) if folder.exists() else self.root
        return (root, self.revision, self.image, self.label, self.text, self.group)

    @cached_property
    def _splits(self) -> dict[str, Any]:
        """By name; "all" where there are none."""
        package_folder("datasets", "the data set hub", INSTALL)
        import datasets

        folder = Path(self.root).expanduser()
        if not self.root or (not folder.exists() and not re.fullmatch(ID, self.root)):
            raise RecipeError(
                "data.root: wanted a folder that save_to_disk wrote, or an id of the Hugging Face hub (owner/name), "
                f"got {self.root!r}"
            )
        try:
            if folder.exists():
                found: Any = datasets.load_from_disk(str(folder))
            else:
                found = datasets.load_dataset(self.root, revision=self.revision or None)
        except Exception as error:  # the library's own, Arrow's, the network's
            why = " ".join(str(error).split())[:200]
            raise RecipeError(
                f"data.root: cannot read the data set {self.root} ({type(error).__name__}: {why}); give a folder that "
                "save_to_disk wrote, or an id that this machine can download"
            ) from error
        splits = dict(found) if isinstance(found, datasets.DatasetDict) else {"all": found}
        if other := [name for name in splits if name not in (*SPLIT_NAMES, "all")]:
            raise RecipeError(
                f"{self.root} has the split {other[0]!r}; splits are called {', '.join(SPLIT_NAMES)}: rename it"
            )
        return splits

    def _columns(self, rows: Any) -> dict[str, str]:
        """The column of image, label and, if asked for, text and group."""
        from datasets import Image

        images = [name for name, feature in rows.features.items() if isinstance(feature, Image)]
        if not images:
            raise RecipeError(
                f"{self.root} has no image column, but {', '.join(rows.features)}; cast one to datasets.Image and save "
                "it"
            )
        if not self.image and len(images) > 1:
            raise RecipeError(f"{self.root} has the image columns {', '.join(images)}; choose by --set data.image=NAME")
        asked = {"image": self.image or images[0], "label": self.label, "text": self.text, "group": self.group}
        for name, column in asked.items():
            known = images if name == "image" else list(rows.features)
            if (column or name == "label") and column not in known:
                raise RecipeError(
                    f"{self.root} has no {name} column {column!r}{did_you_mean(column, known)}, but {', '.join(known)}"
                    f"; choose by --set data.{name}=NAME"
                )
        return {name: column for name, column in asked.items() if column}


def _sample(key: str, cells: dict[str, Any], names: tuple[str, ...], split: str) -> Sample:
    """`cells`: of one row, the image not decoded."""
    image, label = cells["image"] or {}, cells["label"]
    try:
        data = image.get("bytes") or _bytes_of(image.get("path"))
        # -1 is what the library calls no label.
        name = "" if label is None or label == -1 else named(str(label), names)
    except (LookupError, OSError) as error:
        return Sample(key, wrong=str(error.args[0]) if isinstance(error, LookupError) else f"no image: {error}")
    if len(data) > MAX_BYTES:
        return Sample(key, wrong=f"its image is longer than {MAX_BYTES} bytes")
    text, group = (str(cells.get(each) or "") for each in ("text", "group"))
    return Sample(key, data, name, text, group, split)


def _bytes_of(path: str | None) -> bytes:
    """Of a file that a row names instead of holding it; addresses are no files."""
    if not path or not Path(path).is_file():
        raise LookupError(f"it holds no image, and {path!r} is no file here")
    with Path(path).open("rb") as file:
        return file.read(MAX_BYTES + 1)
