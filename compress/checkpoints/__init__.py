"""Dual encoders that others trained, one file per family of checkpoints, found by name; no torch is imported here.

A family's file has WHAT (what it reads, in words), WEIGHTS (patterns of files that hold the weights, the best first),
`reads(folder) -> bool` and `load(folder) -> Checkpoint`, which raises RecipeError for what it cannot use. Nothing in a
checkpoint is run: weights are safetensors, or pickles that load with weights_only, and no code that comes with them is
ever trusted.
"""

import importlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from compress.named import names_in
from runtimes import PupilError, RecipeError
from sdk.manifest import ImageSpec, ScoreSpec
from sdk.resize import Frame

if TYPE_CHECKING:
    from torch import Tensor

Vectors = NDArray[np.float32]

# How near ours must come to a checkpoint's own: the cosine of two vectors, the difference of two probabilities.
LEAST, MOST = 0.9995, 1e-3


class Encoder(Protocol):
    """Tokenizer, preprocessing and model in one: a checkpoint's own, or ours, which are compared."""

    def ids(self, texts: Sequence[str]) -> NDArray[np.int64]:
        """Token ids, int64 (N, L), of N texts."""
        ...

    def images(self, frames: Sequence[Frame]) -> Vectors:
        """Unit vectors, float32 (N, D), of N frames, uint8 (H, W, 3)."""
        ...

    def texts(self, texts: Sequence[str]) -> Vectors:
        """Unit vectors, float32 (M, D), of M texts."""
        ...

    def logits(self, images: Vectors, texts: Vectors) -> Vectors:
        """What it says of each text for each image, (N, M), of their vectors."""
        ...


@dataclass(frozen=True)
class Part:
    """One side: `tower`, a file of compress/models, its options, and the weights of `Side` with that tower."""

    tower: str
    options: Mapping[str, Any]
    state: Mapping[str, "Tensor"]


@dataclass(frozen=True)
class Checkpoint:
    """What a family reads. `dim`: width of the joint space. `pixels`, `score`: as a bundle says them. `tokenizer`: the
    text of a tokenizer.json that pads and cuts to `length` tokens. `own`: as its own library runs it, frames resized by
    Pillow. `default`: the same as that library does it unasked, where that is by something else than Pillow."""

    image: Part
    text: Part
    dim: int
    pixels: ImageSpec
    score: ScoreSpec
    tokenizer: str
    length: int
    own: Encoder
    default: Encoder | None = None


def family_of(folder: Path) -> Any:
    """The module of the family that reads what is in `folder`. Raises RecipeError, naming all, if none does."""
    families = [importlib.import_module(f"compress.checkpoints.{name}") for name in names_in("compress.checkpoints")]
    for family in families:
        if family.reads(folder):
            return family
    kind = read_config(folder, "config.json").get("model_type")
    found = f"a checkpoint of the kind {kind!r}" if kind else "no config.json that names a kind of model"
    known = "; ".join(family.WHAT for family in families)
    raise RecipeError(f"wanted a dual encoder of images and texts, {folder} holds {found}; known: {known}")


def load(folder: Path, family: Any) -> Checkpoint:
    """The checkpoint in `folder`, which is of that family. Raises RecipeError for whatever is wrong with its files."""
    try:
        checkpoint: Checkpoint = family.load(folder)
    except PupilError:
        raise
    except Exception as error:  # they are data from outside: a number may be null, a table a list, a weight left out
        why = f"{type(error).__name__}: {' '.join(str(error).split())[:200]}"
        raise RecipeError(
            f"{folder} is no {family.WHAT} that can be read ({why}); compare its configuration and weights with those "
            "of the checkpoint that it was made from"
        ) from error
    return checkpoint


def read_config(folder: Path, name: str) -> dict[str, Any]:
    """The JSON object in a file of the checkpoint, empty if there is no such file. Raises RecipeError if it is none."""
    path = folder / name
    if not path.is_file():
        return {}
    try:
        table = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise RecipeError(f"{path} cannot be read ({error}); copy the checkpoint again") from error
    if not isinstance(table, dict):
        raise RecipeError(f"{path} holds no JSON object; copy the checkpoint again")
    return table


def need_file(folder: Path, what: str, *names: str) -> None:
    """Raises RecipeError, saying `what` is missing, if the checkpoint has none of these files."""
    if not any((folder / name).is_file() for name in names):
        raise RecipeError(
            f"{folder} has no {what} ({' or '.join(names)}); save it beside the weights "
            "(processor.save_pretrained), or copy it from the checkpoint that this one was made from"
        )
