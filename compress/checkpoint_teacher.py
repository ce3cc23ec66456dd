"""A teacher that was trained elsewhere, as the step teach takes it: checked before the run, proven in it."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from compress.adopt import adopt
from compress.checkpoints import load
from compress.data import Corpus
from compress.draft import Draft
from compress.hub import content, locate
from compress.licence import licence_of
from compress.models.dual_encoder import load_model
from compress.parity import Towers, prove, spread
from compress.prepared import prepared
from compress.teacher_outline import outline_of
from compress.validate import validate
from runtimes import RecipeError

if TYPE_CHECKING:
    from compress.steps.teach import Teach


def check_source(asked: Teach) -> None:
    """Loads the checkpoint, so that nothing about it can fail later but what only its outputs show.

    Raises RecipeError for whatever cannot be used.
    """
    with _source():
        folder, _ = locate(asked.source)
    licence_of(folder, asked.licence, asked.accept_licence)
    with _source():
        outline_of(asked)


def source_content(asked: Teach) -> str:
    """sha256 (hex) of the checkpoint's files. Raises RecipeError if they are not there."""
    with _source():
        return content(asked.source)


def take(asked: Teach, draft: Draft, corpus: Corpus) -> Draft:
    """The draft with the checkpoint as its teacher, proven to be what it was on images of train and val."""
    folder, family = locate(asked.source)
    licence, research = licence_of(folder, asked.licence, asked.accept_licence)
    name = folder.resolve().name if folder == Path(asked.source).expanduser() else asked.source
    texts = [prompt for label in corpus.labels for prompt in label.prompts]
    with _source(), torch.device("cpu"):  # the checkpoint's own preprocessing is there
        checkpoint = load(folder, family)
        files = adopt(checkpoint, draft.folder / "teacher", {name: licence}, licence if research else "")
        images = spread([*corpus.train.images, *corpus.val.images])
        found = prove(Towers(files), checkpoint, files.score, images, texts)
    proof = {f"parity.{name}": value for name, value in found.items()}
    spec = files.image
    val = prepared(corpus.val.images, spec.size, draft.out, "teach: read val", spec.resize, spec.crop)
    draft = dataclasses.replace(draft, teacher=files)
    return draft.with_metrics("teach", **proof, **validate(load_model(files), files, corpus, val))


@contextmanager
def _source() -> Iterator[None]:
    """What is wrong with a checkpoint is said of the field that names it."""
    try:
        yield
    except RecipeError as error:
        raise RecipeError(f"teach.source: {error}") from error
