"""What a teacher said about a data set, on disk: students train from this and never run the teacher.

header.json         who made it (see Header), and per array its dtype, shape and sha256
train.npy           `dtype` (V, N, D): unit vectors of N train images in V seeded views; view 0 is the plain image
val.npy             float32 (M, D): unit vectors of the validation images, plain
texts.npy           float32 (T, D): unit vectors of the phrases in `texts`
answers.npy         `dtype` (V, M, A): logits of the M train questions, if the teacher answers any
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from compress.augment import Augment
from compress.draft import ModelFiles
from compress.file_hash import sha256_once
from compress.links import link
from runtimes import RecipeError

FORMAT = 4


@dataclasses.dataclass(frozen=True)
class Header:
    """`teacher`: sha256 over its weights. `data`: the corpus' fingerprint. `texts`: the phrases, in the order of
    texts.npy; the last `held_out` of them are for validation only. `size`: edge of the frames, in pixels. `answers`:
    what the columns of answers.npy stand for; none without questions. `dtype`: of what there is of every view.
    """

    teacher: str
    data: str
    seed: int
    size: int
    augment: Augment
    logit_scale: float
    texts: tuple[str, ...]
    held_out: int
    answers: tuple[str, ...] = ()
    dtype: str = "float32"

    @property
    def arrays(self) -> tuple[str, ...]:
        """Names of the arrays that the store holds."""
        return ("train", "val", "texts", "answers") if self.answers else ("train", "val", "texts")


@dataclasses.dataclass(frozen=True)
class Store:
    """An open store; the arrays are memory-mapped and read-only."""

    header: Header
    train: NDArray[np.floating[Any]]
    val: NDArray[np.float32]
    texts: NDArray[np.float32]
    answers: NDArray[np.floating[Any]] | None = None

    def vectors(self, view: int, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The unit vectors of the train images at `rows` in that view, float32 (len(rows), D), in memory."""
        return np.asarray(self.train[view][rows], np.float32)

    def logits(self, view: int, rows: NDArray[np.int64]) -> NDArray[np.float32]:
        """The answers to the train questions at `rows` in that view, float32 (len(rows), A), in memory.

        Raises TypeError if the teacher answered none.
        """
        if self.answers is None:
            raise TypeError("the store holds no answers")
        return np.asarray(self.answers[view][rows], np.float32)


def link_store(folder: Path, header: Header, arrays: Mapping[str, Path]) -> None:
    """Make the store in `folder` of these .npy files, one for each array of the header, as links where the disk can."""
    folder.mkdir(parents=True)
    described = {}
    for name in header.arrays:
        link(arrays[name], folder / f"{name}.npy")
        described[name] = _describe(folder / f"{name}.npy")
    table = {"format": FORMAT, **dataclasses.asdict(header), "arrays": described}
    (folder / "header.json").write_text(json.dumps(table, indent=1), encoding="utf-8")


def open_store(folder: Path, teacher: str, data: str) -> Store:
    """The store in `folder`, checked against the teacher's and the data's hashes and byte for byte.

    Raises RecipeError for a store that is damaged, of another teacher, or of other data.
    """
    table = _header(folder)
    for name, wanted in (("teacher", teacher), ("data", data)):
        if table[name] != wanted:
            raise RecipeError(
                f"the store {folder} was made from another {name} ({table[name][:12]}, not {wanted[:12]});"
                " choose another --out, or remove the folder"
            )
    fields = {field.name: table[field.name] for field in dataclasses.fields(Header)}
    fields |= {"augment": Augment(**table["augment"]), **{name: tuple(table[name]) for name in ("texts", "answers")}}
    header = Header(**fields)
    for name in header.arrays:
        if _describe(folder / f"{name}.npy") != table["arrays"].get(name):
            raise _damaged(folder, f"{name}.npy is not what the header says")
    return Store(header, **{name: np.load(folder / f"{name}.npy", mmap_mode="r") for name in header.arrays})


def identity(model: ModelFiles) -> str:
    """sha256 (hex) over a model's weights: what `Header.teacher` says."""
    return _hash_files(*(part.weights for part in (model.image, model.text, model.fusion) if part is not None))


def _hash_files(*files: Path) -> str:
    """sha256 (hex) over the contents of files, in order."""
    digest = hashlib.sha256()
    for file in files:
        with file.open("rb") as source:
            while part := source.read(2**20):
                digest.update(part)
    return digest.hexdigest()


def _header(folder: Path) -> dict[str, Any]:
    try:
        table: dict[str, Any] = json.loads((folder / "header.json").read_text(encoding="utf-8"))
        wanted = {"format", "arrays", *(field.name for field in dataclasses.fields(Header))}
        missing = wanted - set(table)
    except (OSError, ValueError, TypeError) as error:
        raise _damaged(folder, f"header.json cannot be read: {error}") from error
    if missing or table["format"] != FORMAT:
        raise _damaged(folder, f"header.json is not a store header of format {FORMAT}")
    return table


def _describe(file: Path) -> dict[str, Any]:
    try:
        array = np.load(file, mmap_mode="r")
        return {"dtype": str(array.dtype), "shape": list(array.shape), "sha256": sha256_once(file)}
    except (OSError, ValueError) as error:
        raise _damaged(file.parent, f"{file.name} cannot be read: {error}") from error


def _damaged(folder: Path, why: str) -> RecipeError:
    return RecipeError(f"the store {folder} is damaged: {why}; remove the folder and run again")
