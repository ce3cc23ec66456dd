"""Accuracy of a deployed bundle: image files in, through the SDK, on one target."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import sdk
from benchmarks.evalset import EvalSet
from benchmarks.metrics import Retrieval, coarse_right
from benchmarks.programs import Model
from benchmarks.search import ProductSearch, product_search
from benchmarks.unknown import NoneOfThese, none_of_these
from sdk.golden import unit_rows
from sdk.label_set import LabelSet
from sdk.resize import least_side
from sdk.tasks.classify import scores

Tick = Callable[[str], None]


@dataclass(frozen=True)
class Cell:
    """Where a bundle runs: a target, and the precision asked of the SDK (None: the bundle's and engine's default)."""

    on: str
    precision: str | None

    def __str__(self) -> str:
        return f"{self.on}/{self.precision or 'default'}"


@dataclass(frozen=True)
class Result:
    """What one bundle answered in one cell.

    `images` (N, D) and `queries` (K, D): float32, unit norm; the queries are the deployed text tower's vectors of the
    set's prompts. `top1`: the best label of the bank for each image, int64 (N,); `correct`: whether it is right, bool
    over the images with a known label; `correct_by_text`: the same with `queries` for the bank, as for labels typed in
    at run time. `retrieval` ranks images by `queries`. `norm_error`: largest |norm - 1| over every embedding made.
    `ran_on`: tower -> (variant, compute). `answered`: whether the answer to each question of the set is right, bool, in
    the set's order; None when the bundle does not answer questions, or the set asks none. `coarse`: whether the coarse
    class with the highest sum of scores is right, bool like `correct`; None for sets without groups. `search`: None for
    sets without product texts. `unknown`: None for sets without groups if the bundle has no threshold either.
    """

    cell: Cell
    images: NDArray[np.float32]
    queries: NDArray[np.float32]
    top1: NDArray[np.int64]
    correct: NDArray[np.bool_]
    correct_by_text: NDArray[np.bool_]
    retrieval: Retrieval
    norm_error: float
    ran_on: dict[str, tuple[str, str]]
    answered: NDArray[np.bool_] | None = None
    coarse: NDArray[np.bool_] | None = None
    search: ProductSearch | None = None
    unknown: NoneOfThese | None = None


def evaluate(bundle: Path, evalset: EvalSet, cell: Cell, tick: Tick) -> Result:
    """Run a bundle over an evaluation set. `tick` is called once per image. Raises PupilErrors of the SDK.

    Labels missing from the bundle's bank are made from the set's prompts.
    """
    with sdk.load(bundle, on=cell.on, precision=cell.precision) as student:
        return evaluate_model(student, evalset, cell, tick)


def evaluate_model(model: Model, evalset: EvalSet, cell: Cell, tick: Tick) -> Result:
    """`evaluate` for a model that is open already; `cell` is only noted down."""
    images, answered = _look(model, evalset, lambda: tick(str(cell)))
    add_labels(model, evalset)
    current = model.labels.current
    bank = current.vectors[[current.names.index(label) for label in evalset.labels]]
    embed_texts = model.task("embed_texts")
    queries = np.stack([_mean(embed_texts(evalset.prompts[label])) for label in evalset.labels])
    search = product_search(images, evalset, embed_texts)
    ran_on = {tower: (ran.variant, ran.compute) for tower, ran in model.ran_on.items()}
    spec = model.bundle.manifest.score
    # The SDK's own scores, so that rounding and ties fall as they do in `classify`.
    by_label, by_text = (scores(images, vectors, spec) for vectors in (bank, queries))
    top1, known = by_label.argmax(axis=1), evalset.label >= 0
    grouping = LabelSet(evalset.labels, bank, (0,) * len(bank), evalset.groups).by_group
    made = [images, bank, queries, *([search.texts] if search else [])]
    norms = np.linalg.norm(np.concatenate(made).astype(np.float64), axis=1)
    return Result(
        cell=cell,
        images=images,
        queries=queries,
        top1=top1,
        correct=(top1 == evalset.label)[known],
        correct_by_text=(by_text.argmax(axis=1) == evalset.label)[known],
        retrieval=Retrieval(images, queries, evalset.label, evalset.possible),
        norm_error=float(np.abs(norms - 1).max()),
        ran_on=ran_on,
        answered=answered,
        coarse=coarse_right(by_label, grouping, evalset.label) if any(evalset.groups) else None,
        search=search,
        unknown=none_of_these(images, bank, evalset, model.bundle.manifest.unknown_threshold),
    )


def add_labels(model: Model, evalset: EvalSet) -> None:
    """Add the set's labels that the bundle's bank lacks, made from the set's prompts. Raises the SDK's errors."""
    for label in evalset.labels:
        if label not in model.labels:
            model.labels.add(label, evalset.prompts[label])


def _look(
    model: Model, evalset: EvalSet, tick: Callable[[], None]
) -> tuple[NDArray[np.float32], NDArray[np.bool_] | None]:
    """Embeddings (N, D) of the images, and whether each question was answered rightly. A file is decoded once, as the
    SDK does it when it gets the path."""
    embed = model.task("embed_images")
    ask = model.task("ask") if evalset.questions and "ask" in model.bundle.manifest.tasks else None
    about: dict[int, list[int]] = {}
    for place, (image, _, _) in enumerate(evalset.questions):
        about.setdefault(image, []).append(place)
    spec = model.bundle.manifest.image
    least = least_side(spec.size, spec.resize)
    rows, right = [], np.zeros(len(evalset.questions), bool)
    for index, path in enumerate(evalset.images):
        frame = sdk.read_frame(path, least=least)
        rows.append(embed(frame)[0])
        places = about.get(index, [])
        if ask is not None and places:
            answers = ask(frame, [evalset.questions[place][1] for place in places])
            for place, answer in zip(places, answers, strict=True):
                right[place] = answer.label == evalset.questions[place][2]
        tick()
    return np.stack(rows), right if ask is not None else None


def _mean(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.asarray(unit_rows(vectors.mean(axis=0, keepdims=True))[0], np.float32)
