"""Data sets, one file each, found by name: `data/easy_vqa.py` holds the class `EasyVqa`.

A data set is a frozen dataclass (its fields are the [data] table of a recipe) with `check()`, which raises
Unavailable if its files are not here, and `load() -> Corpus`. It may have `fetch()`, which every process of a run calls
first, to bring its share of the files here; `verify(out)`, which looks at every file before the first step of a run and
raises RecipeError, `out` being the run's folder; and `count()`, how many images are not for the test, where a recipe
cannot know how much disk they take.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from compress.named import fill, find_class
from runtimes import RecipeError


@dataclass(frozen=True)
class Label:
    """A class: its name, and the phrases whose mean embedding stands for it. `text`: the whole product text; `group`:
    the name of the coarse class that it belongs to; "" where there is none.
    """

    name: str
    prompts: tuple[str, ...]
    text: str = ""
    group: str = ""


@dataclass(frozen=True)
class Question:
    """`image`: position in the split's `images`."""

    image: int
    text: str
    answer: str


@dataclass(frozen=True)
class Split:
    """N images and what the data says about them; K classes, C captions.

    `label`: int64 (N,), the class, or -1 where the data does not determine it.
    `possible`: bool (N, K), the classes that the data does not rule out.
    `matches`: int8 (N, C), whether a caption is true of an image: 1 yes, 0 no, -1 not known.
    """

    images: tuple[Path, ...]
    label: NDArray[np.int64]
    possible: NDArray[np.bool_]
    matches: NDArray[np.int8]
    questions: tuple[Question, ...]


@dataclass(frozen=True)
class Corpus:
    """A loaded data set.

    `captions`: C captions, each in several wordings (`captions[c][0]` is the plain one). `templates`: prompts for a
    label that is not in the data, `{}` being the label. `fingerprint`: sha256 of
    everything that was read and of the fields. `words`: those that a cut text tower must still know. `answers`: the
    closed set of answers to its questions; without any, nothing is taught to answer.
    Steps fit on `train` and choose on `val`; `test` is touched once, by the report.
    """

    name: str
    labels: tuple[Label, ...]
    captions: tuple[tuple[str, ...], ...]
    templates: tuple[str, ...]
    train: Split
    val: Split
    test: Split
    licence: str
    fingerprint: str
    words: tuple[str, ...]
    answers: tuple[str, ...] = ()

    def texts(self) -> tuple[str, ...]:
        """Every wording of every caption, every label and its prompts, each once."""
        found = [wording for wordings in self.captions for wording in wordings]
        found += [text for label in self.labels for text in (label.name, *label.prompts)]
        return tuple(dict.fromkeys(found))

    def rounds(self, batch: int, step: str) -> int:
        """How many whole batches the train images make. Raises RecipeError, naming `step`, when they make none."""
        if batch > len(self.train.images):
            raise RecipeError(
                f"{step}.batch is {batch}, and {self.name} has {len(self.train.images)} train images: not one step; "
                f"lower {step}.batch"
            )
        return len(self.train.images) // batch


class Dataset(Protocol):
    """What a class in compress/data offers."""

    def check(self) -> None:
        """Raises Unavailable, with what to install, if the data is not here."""
        ...

    def fingerprint(self) -> str:
        """sha256 (hex) over the files that `load` reads and over the fields."""
        ...

    def load(self) -> Corpus:
        """The corpus. Raises Unavailable as `check` does."""
        ...


def open_dataset(name: str, fields: Mapping[str, Any]) -> Dataset:
    """The data set of that name with these fields; nothing is read yet.

    Raises RecipeError for an unknown name or field, or a value of the wrong type.
    """
    dataset: Dataset = fill(find_class("compress.data", name, "data set"), fields, "data")
    return dataset
