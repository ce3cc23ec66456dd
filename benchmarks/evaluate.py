"""Accuracy of a deployed bundle: image files in, through the SDK, on one target."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import sdk
from benchmarks.evalset import EvalSet
from benchmarks.metrics import Retrieval

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

    `images`: float32 (N, D) unit norm. `top1`: the nearest label bank vector, int64 (N,). `correct`: whether that is
    the label, bool over the images with a known label. `retrieval` ranks images by the deployed text tower's vectors of
    the prompts. `norm_error`: largest |norm - 1| over every embedding made. `ran_on`: tower -> (variant, compute).
    """

    cell: Cell
    images: NDArray[np.float32]
    top1: NDArray[np.int64]
    correct: NDArray[np.bool_]
    retrieval: Retrieval
    norm_error: float
    ran_on: dict[str, tuple[str, str]]


def evaluate(bundle: Path, evalset: EvalSet, cell: Cell, tick: Tick) -> Result:
    """Run a bundle over an evaluation set. `tick` is called once per image. Raises PupilErrors of the SDK.

    Labels missing from the bundle's bank are made from the set's prompts.
    """
    with sdk.load(bundle, on=cell.on, precision=cell.precision) as student:
        rows = []
        for path in evalset.images:
            rows.append(student.embed_images(path)[0])
            tick(str(cell))
        images = np.stack(rows)
        fresh = {label: evalset.prompts[label] for label in evalset.labels if label not in student.labels}
        for label, prompts in fresh.items():
            student.labels.add(label, prompts)
        bank = student.labels.resolve(evalset.labels).vectors
        queries = np.stack([_mean(student.embed_texts(evalset.prompts[label])) for label in evalset.labels])
        ran_on = {tower: (ran.variant, ran.compute) for tower, ran in student.ran_on.items()}
    # Ties go to the first label, as in the SDK.
    nearest = (images @ bank.T).argmax(axis=1)
    norms = np.linalg.norm(np.concatenate([images, bank, queries]).astype(np.float64), axis=1)
    return Result(
        cell=cell,
        images=images,
        top1=nearest,
        correct=(nearest == evalset.label)[evalset.label >= 0],
        retrieval=Retrieval(images, queries, evalset.label, evalset.possible),
        norm_error=float(np.abs(norms - 1).max()),
        ran_on=ran_on,
    )


def _mean(vectors: NDArray[np.float32]) -> NDArray[np.float32]:
    mean = vectors.mean(axis=0)
    return np.asarray(mean / np.linalg.norm(mean), np.float32)
